"""GPT's encoder: equal to transformers', dropouts, summary, cache, and the limit of its positions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pretune.errors import UsageError, UserError
from pretune.layers.softmax import softmax_loss
from pretune.methods import METHODS
from pretune.methods.gpt.encoder import GPT, GPTConfig
from pretune.tensors.batch import Batch

WORDS, CLASSIFY = 60, 59
LENGTHS = (5, 9, 1, 9, 3)
NONE: dict[str, Any] = {"embedding_dropout": 0.0, "attention_dropout": 0.0, "residual_dropout": 0.0}


def encoder(purpose: Any = "language_model", **changes: Any) -> GPT:
    torch.manual_seed(0)
    made = GPT(GPTConfig(16, 3, 4, **{"context": 12, **changes}), WORDS, CLASSIFY)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    made.purpose(purpose)
    return made.eval()


def batch_of(lengths: tuple[int, ...] = LENGTHS, width: int | None = None, ends: bool = False) -> Batch:
    chance = torch.Generator().manual_seed(1)
    width = width or max(lengths)
    ids = torch.randint(1, CLASSIFY, (len(lengths), 12), generator=chance)[:, :width]
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    if ends:
        ids = ids.scatter(1, torch.tensor(lengths)[:, None] - 1, CLASSIFY)
    return Batch(ids * mask, mask, torch.zeros_like(ids), torch.arange(len(lengths)))


def from_transformers(theirs: Any) -> dict[str, Tensor]:
    """Their Conv1D keeps weights as (in, out)."""
    names = {
        "attn.c_attn": "attention.qkv",
        "attn.c_proj": "attention.output",
        "ln_1": "attention_norm",
        "mlp.c_fc": "up",
        "mlp.c_proj": "down",
        "ln_2": "output_norm",
    }
    weights = theirs.state_dict()
    found = {
        "tokens.weight": weights["tokens_embed.weight"],
        "positions.weight": weights["positions_embed.weight"],
    }
    for layer in range(3):
        for their, ours in names.items():
            for part in ("weight", "bias"):
                x = weights[f"h.{layer}.{their}.{part}"]
                found[f"transformer.blocks.{layer}.{ours}.{part}"] = x.t() if x.dim() == 2 else x
    return found


def test_all_layers_equal_those_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.OpenAIGPTConfig(vocab_size=WORDS, n_embd=16, n_layer=3, n_head=4, n_positions=12)
    theirs, ours, batch = transformers.OpenAIGPTModel(config).eval(), encoder(), batch_of()
    for p in theirs.parameters():
        torch.nn.init.normal_(p, std=0.4)
    ours.load_state_dict(from_transformers(theirs))
    said = theirs(batch.ids, output_hidden_states=True).hidden_states
    for one, other in zip(ours(batch).layers, said, strict=True):
        assert torch.allclose(one, other * batch.mask[..., None], atol=1e-5)


def test_the_base_size_has_the_parameters_of_the_release() -> None:
    with torch.device("meta"):
        base = GPT(GPTConfig(), 40478, 0)
    assert sum(p.numel() for p in base.parameters()) == 116_534_784
    assert base.layer_widths() == (768,) * 13


@pytest.mark.parametrize(
    ("config", "deviation"),
    [
        (GPTConfig(768, 2, 12, inner=64), 0.02),  # the release's
        (GPTConfig(64, 2, 4), 0.02 * 12**0.5),  # sums over the width vary alike
        (GPTConfig(64, 2, 4, deviation=0.02), 0.02),
    ],
)
def test_weights_begin_as_the_release_draws_them(config: GPTConfig, deviation: float) -> None:
    fresh = GPT(config, 2000, 1999)
    block = fresh.transformer.get_submodule("blocks.1")
    for weight in (fresh.tokens.weight, fresh.positions.weight, block.up.weight, block.attention.qkv.weight):  # type: ignore[union-attr]
        assert float(weight.std()) == pytest.approx(deviation, rel=0.05)  # type: ignore[operator]
        assert float(weight.abs().max()) > 2.5 * deviation  # type: ignore[operator]  # not cut
    assert not block.down.bias.any() and block.output_norm.weight.eq(1).all()  # type: ignore[union-attr]


def test_every_parameter_is_in_exactly_one_group_from_the_bottom_to_the_top() -> None:
    made = encoder()
    grouped = [p for group in made.groups() for p in group.parameters()]
    assert len(grouped) == len(set(grouped)) == len(list(made.parameters()))
    assert len(made.groups()) == 4 and made.tokens.weight in set(made.groups()[0].parameters())


def test_padded_and_packed_rows_have_the_same_outputs_and_gradients() -> None:
    made, batch = encoder(), batch_of(width=11)
    weigh = torch.randn(len(LENGTHS), 11, 16) * batch.mask[..., None]
    made.zero_grad()
    (made(batch).layers[-1] * weigh).sum().backward()
    packed = [p.grad.clone() for p in made.parameters() if p.grad is not None]
    made.zero_grad()
    whole = Batch(batch.ids, torch.ones_like(batch.mask), batch.segments, batch.owner)
    (made(whole).layers[-1] * weigh).sum().backward()  # padding is read, to no effect: it stands behind
    padded = [p.grad.clone() for p in made.parameters() if p.grad is not None]
    assert len(packed) == len(list(made.parameters()))
    for one, other in zip(packed, padded, strict=True):
        assert torch.allclose(one, other, atol=1e-4, rtol=1e-5)


def test_a_row_is_the_same_alone_in_any_batch_and_padded_on_the_left() -> None:
    made, batch = encoder(), batch_of(width=12)
    together = made(batch)
    for n, length in enumerate(LENGTHS):
        ids = batch.ids[n : n + 1, :length]
        alone = made(Batch(ids, torch.ones_like(ids).bool(), torch.zeros_like(ids), torch.zeros(1)))
        left = batch.ids[n : n + 1].roll(12 - length, 1)
        mask = torch.arange(12)[None] >= 12 - length
        on_left = made(Batch(left, mask, torch.zeros_like(left), torch.zeros(1)))
        for layer, single, leftwards in zip(together.layers, alone.layers, on_left.layers, strict=True):
            assert torch.allclose(layer[n, :length], single[0], atol=1e-5)
            assert torch.allclose(leftwards[0, 12 - length :], single[0], atol=1e-5)
            assert not layer[n, length:].any() and not leftwards[0, : 12 - length].any()
        assert torch.allclose(together.summary[n], alone.summary[0], atol=1e-5)
        assert torch.allclose(on_left.summary[0], alone.summary[0], atol=1e-5)


def test_reading_on_gives_what_reading_at_once_gives() -> None:
    made, batch = encoder(), batch_of((12, 12, 12))
    said, carry = [], None
    for ids in torch.split(batch.ids, [5, 1, 1, 3, 2], dim=1):
        top, carry = made.read_on(ids, carry)
        said.append(top)
    assert torch.allclose(torch.cat(said, 1), made(batch).layers[-1], atol=1e-5)


def test_as_many_tokens_as_positions_are_read_and_one_more_is_refused() -> None:
    made = encoder(context=9)
    made(batch_of((9,)))
    with pytest.raises(UserError, match="10 tokens, more than the 9 positions"):
        made(batch_of((2, 10)))
    _, carry = made.read_on(batch_of((9,)).ids, None)
    with pytest.raises(UserError, match="10 tokens, more than the 9 positions"):
        made.read_on(torch.ones(1, 1, dtype=torch.long), carry)
    with pytest.raises(UsageError, match="read_on"):
        made(batch_of((2,)), carry)


def test_a_task_is_told_at_the_first_classify_and_a_language_model_at_the_last_token() -> None:
    made, batch = encoder("task"), batch_of(ends=True)
    batch.ids[1, 4] = CLASSIFY  # an earlier one
    ends = torch.tensor(LENGTHS) - 1
    rows = torch.arange(len(LENGTHS))
    told = made(batch)
    assert torch.equal(told.summary, told.layers[-1][rows, ends.index_fill(0, torch.tensor([1]), 4)])
    made.purpose("language_model")
    read = made(batch)
    assert torch.equal(read.summary, read.layers[-1][rows, ends])


def test_a_row_without_classify_is_refused_in_a_task() -> None:
    batch = batch_of(ends=True)
    batch.ids[3, 8] = 1
    with pytest.raises(UserError, match="row 3 of a batch has no token 59"):
        encoder("task")(batch)


@pytest.mark.parametrize("name", NONE)
def test_each_dropout_acts_in_training_alone(name: str) -> None:
    made, batch = encoder(**{**NONE, name: 0.3}).train(), batch_of()
    assert not torch.allclose(made(batch).layers[-1], made(batch).layers[-1])
    made.eval()
    assert torch.equal(made(batch).layers[-1], made(batch).layers[-1])


def test_in_weight_mode_every_occurrence_and_the_softmax_lack_the_same_entries() -> None:
    made = encoder(embedding_dropout_mode="weight", **{**NONE, "embedding_dropout": 0.5}).train()
    with torch.no_grad():
        made.positions.weight.zero_()
    ids = torch.tensor([[7, 8, 7], [7, 9, 9]])
    said = made(Batch(ids, torch.ones_like(ids).bool(), torch.zeros_like(ids), torch.arange(2)))
    dropped = made.embedding_weight
    assert torch.equal(said.layers[0], F.embedding(ids, dropped))
    assert torch.equal(dropped, made.embedding_weight)  # as long as the step lasts
    kept = dropped != 0
    assert 0.4 < float(kept.float().mean()) < 0.6
    assert torch.allclose(dropped[kept], 2 * made.tokens.weight[kept])
    made(Batch(ids, torch.ones_like(ids).bool(), torch.zeros_like(ids), torch.arange(2)))
    assert not torch.equal(made.embedding_weight != 0, kept)  # the next step has its own
    softmax_loss(said.layers[-1][:, 0], made.embedding_weight, made.decoder_bias, ids[:, 1]).backward()
    slope = made.tokens.weight.grad
    assert slope is not None and not slope[30:][made.embedding_weight[30:] == 0].any() and slope[30:].any()
    made.eval()
    assert torch.equal(made.embedding_weight, made.tokens.weight)


def test_frozen_embeddings_are_read_whole_in_either_mode() -> None:
    for mode in ("weight", "activation"):
        made = encoder(embedding_dropout_mode=mode, **{**NONE, "embedding_dropout": 0.5}).train()
        made.tokens.eval()
        assert torch.equal(made(batch_of()).layers[0], made.eval()(batch_of()).layers[0])
        assert torch.equal(made.embedding_weight, made.tokens.weight)


def test_reading_from_vectors_is_reading_and_has_a_gradient() -> None:
    made, batch = encoder("task"), batch_of(ends=True)
    vectors = made.vectors(batch).detach().requires_grad_()
    said = made.read_vectors(vectors, batch)
    assert torch.allclose(said.summary, made(batch).summary, atol=1e-6)
    (slope,) = torch.autograd.grad(said.summary.sum(), vectors)
    assert slope[batch.mask].abs().amax(-1).all() and not slope[~batch.mask].any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"context": 0}, "context is 0"),
        ({"residual_dropout": 1.0}, "residual_dropout is 1"),
        ({"embedding_dropout_mode": "row"}, "activation, weight"),
    ],
)
def test_what_makes_no_gpt_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        GPTConfig(**change)


@pytest.mark.parametrize("method", ["gpt", "bert"])
def test_rows_longer_than_the_positions_are_refused_before_any_is_read(method: str) -> None:
    corpus = ["the good film and the bad plot"] * 3
    record = METHODS[method]
    codec = record.learn_codec(lambda: corpus, record.codec_config(context=32))
    small = {"width": 8, "layers": 1, "heads": 2}
    assert record.build(record.encoder_config(**small, context=32), codec)
    with pytest.raises(UsageError, match=r"codec.context is 32, and the encoder has 16 positions"):
        record.build(record.encoder_config(**small, context=16), codec)
