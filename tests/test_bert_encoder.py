"""BERT's encoder: equal to transformers', its heads, its groups, and the limit of its positions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pretune.errors import UsageError, UserError
from pretune.methods.bert.encoder import BERT, BERTConfig
from pretune.tensors.batch import Batch

WORDS = 60
LENGTHS = (5, 9, 2, 9, 3)


def encoder(**changes: Any) -> BERT:
    torch.manual_seed(0)
    made = BERT(BERTConfig(16, 3, 4, **{"context": 12, **changes}), WORDS, 0)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return made.eval()


def batch_of(lengths: tuple[int, ...] = LENGTHS, width: int | None = None) -> Batch:
    chance = torch.Generator().manual_seed(1)
    width = width or max(lengths)
    ids = torch.randint(1, WORDS, (len(lengths), 13), generator=chance)[:, :width]
    segments = torch.randint(0, 2, (len(lengths), 13), generator=chance)[:, :width]
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    return Batch(ids * mask, mask, segments * mask, torch.arange(len(lengths)))


def from_transformers(theirs: Any) -> dict[str, Tensor]:
    names = {
        "attention.output.dense": "attention.output",
        "attention.output.LayerNorm": "attention_norm",
        "intermediate.dense": "up",
        "output.dense": "down",
        "output.LayerNorm": "output_norm",
    }
    weights = theirs.state_dict()
    found = {
        f"{ours}.weight": weights[f"bert.embeddings.{their}_embeddings.weight"]
        for their, ours in (("word", "words"), ("position", "positions"), ("token_type", "types"))
    }
    tops = {
        "embedding_norm": "bert.embeddings.LayerNorm",
        "pooler": "bert.pooler.dense",
        "mlm_transform": "cls.predictions.transform.dense",
        "mlm_norm": "cls.predictions.transform.LayerNorm",
        "nsp": "cls.seq_relationship",
    }
    for part in ("weight", "bias"):
        found |= {f"{ours}.{part}": weights[f"{their}.{part}"] for ours, their in tops.items()}
        for layer in range(3):
            their, our = f"bert.encoder.layer.{layer}.", f"transformer.blocks.{layer}."
            found |= {f"{our}{ours}.{part}": weights[f"{their}{name}.{part}"] for name, ours in names.items()}
            three = [weights[f"{their}attention.self.{name}.{part}"] for name in ("query", "key", "value")]
            found[f"{our}attention.qkv.{part}"] = torch.cat(three)
    return found | {"mlm_bias": weights["cls.predictions.bias"]}


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
def test_layers_and_all_heads_equal_those_of_transformers(activation: Any) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.BertForPreTraining(
        transformers.BertConfig(
            vocab_size=WORDS,
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=12,
            hidden_act="gelu_pytorch_tanh" if activation == "gelu_tanh" else "gelu",
        )
    ).eval()
    for p in theirs.parameters():
        torch.nn.init.normal_(p, std=0.4)
    ours, batch = encoder(activation=activation), batch_of()
    ours.load_state_dict(from_transformers(theirs))
    said = theirs(batch.ids, batch.mask, batch.segments, output_hidden_states=True)
    found = ours(batch)
    for one, other in zip(found.layers, said.hidden_states, strict=True):
        assert torch.allclose(one, other * batch.mask[..., None], atol=1e-5)
    assert ours.nsp is not None and ours.mlm_bias is not None
    assert torch.allclose(ours.nsp(found.summary), said.seq_relationship_logits, atol=1e-5)
    hidden = ours.mlm_hidden(found.layers[-1][batch.mask])
    logits = torch.nn.functional.linear(hidden, ours.words.weight, ours.mlm_bias)
    assert torch.allclose(logits, said.prediction_logits[batch.mask], atol=1e-5)


def test_a_causal_one_is_the_decoder_of_transformers_and_is_summed_up_at_its_last_token() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=WORDS,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=12,
        is_decoder=True,
    )
    theirs = transformers.BertForPreTraining(config).eval()
    for p in theirs.parameters():
        torch.nn.init.normal_(p, std=0.4)
    ours, batch = encoder(causal=True), batch_of()
    ours.load_state_dict(from_transformers(theirs))
    said = theirs.bert(batch.ids, batch.mask, batch.segments).last_hidden_state
    found = ours(batch)
    assert torch.allclose(found.layers[-1], said * batch.mask[..., None], atol=1e-5)
    assert ours.pooler is not None
    for row, length in enumerate(LENGTHS):
        assert torch.allclose(found.summary[row], ours.pooler(said[row, length - 1]).tanh(), atol=1e-5)
        alone = ours(_row(batch, row, length))
        assert torch.allclose(alone.summary[0], found.summary[row], atol=1e-6)


def _row(batch: Batch, row: int, length: int) -> Batch:
    ids, mask, segments = (x[row : row + 1, :length] for x in (batch.ids, batch.mask, batch.segments))
    return Batch(ids, mask, segments, torch.zeros(1, dtype=torch.long))


def test_the_base_size_has_the_parameters_of_the_release() -> None:
    with torch.device("meta"):
        whole = BERT(BERTConfig(), 30522, 0)
        bare = BERT(BERTConfig(pretraining_heads=False), 30522, 0)
        large = BERT(BERTConfig(1024, 24, 16), 30522, 0)
    assert [sum(p.numel() for p in made.parameters()) for made in (bare, whole, large)] == [
        109_482_240,
        110_106_428,
        336_226_108,
    ]


@pytest.mark.parametrize("deviation", [0.02, 0.05])
def test_weights_begin_as_the_release_draws_them_or_wider(deviation: float) -> None:
    assert BERTConfig().deviation == 0.02
    fresh = BERT(BERTConfig(64, 2, 4, deviation=deviation), 2000, 0)
    assert fresh.mlm_transform is not None and fresh.pooler is not None
    for weight in (fresh.words.weight, fresh.positions.weight, fresh.mlm_transform.weight):
        assert float(weight.detach().std()) == pytest.approx(deviation * 0.88, rel=0.05)
        assert float(weight.detach().abs().max()) <= 2 * deviation
    assert fresh.words.weight[0].any() and not fresh.pooler.bias.any()


def test_every_parameter_is_in_exactly_one_group_from_the_bottom_to_the_top() -> None:
    for made in (encoder(), encoder(pretraining_heads=False), encoder(pretraining_heads=False, pooler=False)):
        grouped = [p for group in made.groups() for p in group.parameters()]
        assert len(grouped) == len(set(grouped)) == len(list(made.parameters()))
        assert len(made.groups()) == 4


def test_for_a_task_what_only_pretraining_needs_is_left_out_and_nothing_else_changes() -> None:
    made, batch = encoder(), batch_of()
    task = made.for_task()
    left = set(made.state_dict()) - set(task.state_dict())
    assert {name.split(".")[0] for name in left} == {"mlm_transform", "mlm_norm", "mlm_bias", "nsp"}
    assert made.nsp is not None and made.config.pretraining_heads and not task.config.pretraining_heads
    assert torch.equal(task(batch).summary, made(batch).summary)
    assert task.words.weight is not made.words.weight
    BERT(task.config, WORDS, 0).load_state_dict(task.state_dict())
    with pytest.raises(UsageError, match="pretraining_heads"):
        task.mlm_hidden(torch.zeros(1, 16))


def test_without_a_pooler_the_summary_is_the_first_tokens_vector() -> None:
    said = encoder(pretraining_heads=False, pooler=False)(batch_of())
    assert torch.equal(said.summary, said.layers[-1][:, 0])


def test_padded_and_packed_rows_have_the_same_gradients() -> None:
    made, batch = encoder(), batch_of(width=11)
    slopes = []
    for width in (9, 11, None):
        made.zero_grad()
        if width is None:  # each row alone
            rows = [(batch.ids[n : n + 1, :k], batch.segments[n : n + 1, :k]) for n, k in enumerate(LENGTHS)]
            said = [made(Batch(i, torch.ones_like(i).bool(), s, torch.zeros(1))).summary for i, s in rows]
            torch.cat(said).pow(3).sum().backward()
        else:
            made(batch_of(width=width)).summary.pow(3).sum().backward()
        slopes.append([p.grad.clone() for p in made.parameters() if p.grad is not None])
    assert len(slopes[0]) == len(list(made.for_task().parameters()))
    for others in slopes[1:]:
        for one, other in zip(slopes[0], others, strict=True):
            assert torch.allclose(one, other, atol=1e-5, rtol=1e-4)


def test_a_row_is_the_same_alone_and_in_any_batch() -> None:
    made, batch = encoder(), batch_of(width=12)
    together = made(batch)
    for n, length in enumerate(LENGTHS):
        ids, segments = batch.ids[n : n + 1, :length], batch.segments[n : n + 1, :length]
        alone = made(Batch(ids, torch.ones_like(ids).bool(), segments, torch.zeros(1)))
        assert torch.allclose(together.summary[n], alone.summary[0], atol=1e-5)
        for layer, single in zip(together.layers, alone.layers, strict=True):
            assert torch.allclose(layer[n, :length], single[0], atol=1e-5)
            assert not layer[n, length:].any()


def test_as_many_tokens_as_positions_are_read_and_one_more_is_refused() -> None:
    made = encoder()
    made(batch_of((12,)))
    with pytest.raises(UserError, match="13 tokens, more than the 12 positions"):
        made(batch_of((2, 13)))


@pytest.mark.parametrize("name", ["dropout", "attention_dropout"])
def test_each_dropout_acts_in_training_alone(name: str) -> None:
    made, batch = encoder(**{"dropout": 0.0, "attention_dropout": 0.0, name: 0.3}).train(), batch_of()
    assert not torch.allclose(made(batch).summary, made(batch).summary)
    made.eval()
    assert torch.equal(made(batch).summary, made(batch).summary)


def test_the_embeddings_are_dropped_after_their_norm() -> None:
    made = encoder(dropout=0.5).train()
    bottom = made(batch_of()).layers[0]
    assert 0.4 < float((bottom[batch_of().mask] == 0).float().mean()) < 0.6
    made.embedding_norm.eval()  # frozen
    assert bool((made(batch_of()).layers[0][batch_of().mask] != 0).all())


def test_reading_from_vectors_is_reading_and_has_a_gradient() -> None:
    made, batch = encoder(), batch_of()
    vectors = made.vectors(batch).detach().requires_grad_()
    said = made.read_vectors(vectors, batch)
    assert torch.allclose(said.summary, made(batch).summary, atol=1e-6)
    (slope,) = torch.autograd.grad(said.summary.sum(), vectors)
    assert slope[batch.mask].abs().amax(-1).all() and not slope[~batch.mask].any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"types": 0}, "types is 0"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"pooler": False}, "pooler"),
        ({"deviation": 0.0}, "deviation is 0"),
    ],
)
def test_what_makes_no_bert_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        BERTConfig(**change)
