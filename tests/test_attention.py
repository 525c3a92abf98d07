"""The Transformer: rows packed without padding, attention, the cache, checkpointing, torch.compile."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretune.errors import UsageError
from pretune.layers.attention import (
    Activation,
    Attention,
    Block,
    Transformer,
    TransformerConfig,
    attend_in_groups,
    attend_padded,
)
from pretune.layers.compiled import SWITCH, library
from pretune.layers.fused_attention import gelu_, linear
from pretune.tensors.unpadded import Unpadded

SMALL = TransformerConfig(12, 3, 2, 20, "gelu_tanh", 1e-5, True, 0.0, 0.0)
LENGTHS = [3, 7, 1, 7, 4]
WAYS = [attend_in_groups, attend_padded]


def mask_of(lengths: list[int], width: int | None = None) -> Tensor:
    return torch.arange(width or max(lengths)) < torch.tensor(lengths)[:, None]


def made(config: TransformerConfig = SMALL) -> Transformer:
    torch.manual_seed(0)
    transformer = Transformer(config)
    with torch.no_grad():
        for p in transformer.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return transformer.eval()


def eager(qkv: Tensor, mask: Tensor, heads: int, causal: bool) -> Tensor:
    """softmax(q kᵀ / √d) v, written out, of padded rows: (N, T, 3D) -> (N, T, D)."""
    N, T, _ = qkv.shape
    q, k, v = (x.view(N, T, heads, -1).transpose(1, 2) for x in qkv.chunk(3, dim=-1))
    visible = mask[:, None, None, :].expand(N, 1, T, T)
    if causal:
        visible = visible & torch.ones(T, T, dtype=torch.bool).tril()
    scores = (q @ k.transpose(-1, -2) / sqrt(q.shape[-1])).masked_fill(~visible, -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def test_packing_puts_rows_of_equal_length_together_and_back_where_they_were() -> None:
    mask = mask_of(LENGTHS, 9)
    rows = Unpadded.of(mask)
    x = torch.randn(5, 9, 4)
    packed = rows.pack(x)
    assert rows.groups == ((2, 7), (1, 4), (1, 3), (1, 1)) and rows.longest == 7
    assert torch.equal(packed[:7], x[1, :7]) and torch.equal(packed[7:14], x[3, :7])
    assert torch.equal(rows.unpack(packed), x * mask[..., None])
    assert rows.place[:9].tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1]


def test_a_batch_without_padding_is_not_moved() -> None:
    rows = Unpadded.of(mask_of([4, 4]))
    x = torch.randn(2, 4, 3)
    assert rows.dense and rows.pack(x).data_ptr() == x.data_ptr()
    assert torch.equal(rows.unpack(rows.pack(x)), x)


def test_padding_may_stand_anywhere_and_a_row_may_be_empty() -> None:
    mask = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0]]).bool()
    rows = Unpadded.of(mask)
    x = torch.randn(3, 4, 2)
    assert rows.groups == ((1, 3), (1, 2)) and rows.place.tolist() == [0, 1, 2, 0, 1]
    assert torch.equal(rows.unpack(rows.pack(x)), x * mask[..., None])


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("attend", WAYS)
def test_packed_attention_is_the_formula_on_padded_rows_and_so_is_its_gradient(
    attend: object, causal: bool
) -> None:
    mask = mask_of(LENGTHS, 8)
    rows = Unpadded.of(mask)
    padded = torch.randn(5, 8, 36, requires_grad=True)
    weigh = torch.randn(5, 8, 12) * mask[..., None]
    expected = eager(padded, mask, 2, causal)
    found = rows.unpack(attend(rows.pack(padded), rows, 2, causal, 0.0))  # type: ignore[operator]
    assert torch.allclose(found, expected * mask[..., None], atol=1e-6)
    slopes = [torch.autograd.grad((said * weigh).sum(), padded)[0] for said in (found, expected)]
    assert torch.allclose(*slopes, atol=1e-6) and slopes[0].abs().max() > 0.1


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("compiled", ["", "0"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("size", [32, 64])
def test_without_a_gradient_attention_is_the_formula_too(
    size: int, causal: bool, compiled: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SWITCH, compiled)
    lengths = [3, 70, 1, 17, 40, 17, 16]
    mask = mask_of(lengths)
    rows = Unpadded.of(mask)
    padded = torch.randn(len(lengths), 70, 3 * 3 * size) * 2
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with torch.no_grad():
            said = rows.unpack(attend_in_groups(rows.pack(padded), rows, 3, causal, 0.0))
    finally:
        torch.set_num_threads(before)
    expected = eager(padded, mask, 3, causal) * mask[..., None]
    assert torch.allclose(said, expected, atol=1e-5)


def test_a_kernel_says_what_large_scores_and_no_numbers_make_of_attention() -> None:
    rows, qkv = Unpadded.of(mask_of([20, 3])), torch.randn(23, 3 * 32)
    qkv[:, :64] *= 100  # scores of thousands
    qkv[21, 40] = torch.nan  # in a key of the second row
    with torch.no_grad():
        said = attend_in_groups(qkv, rows, 1, True, 0.0)
    expected = attend_in_groups(qkv.requires_grad_(), rows, 1, True, 0.0)
    assert torch.allclose(said[:21], expected[:21], atol=1e-4)
    assert said[21:].isnan().all() and expected[21:].isnan().all()


def test_without_a_gradient_bfloat16_is_read_as_such() -> None:
    transformer, rows = made(replace(SMALL, width=64, heads=2)), Unpadded.of(mask_of(LENGTHS))
    x = torch.randn(sum(LENGTHS), 64)
    with torch.autocast("cpu", torch.bfloat16):
        expected = transformer(x, rows)[-1]
        with torch.no_grad():
            said = transformer(x, rows)[-1]
    assert torch.allclose(said, expected, atol=0.1)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
@pytest.mark.parametrize("compiled", ["", "0"])
def test_a_block_says_the_same_with_and_without_a_gradient(
    activation: Activation, compiled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SWITCH, compiled)
    block = Block(replace(SMALL, width=28, inner=45, activation=activation, norm_eps=1e-3))
    with torch.no_grad():
        for p in block.parameters():
            p.add_(torch.randn_like(p))
    x, said = torch.randn(7, 10, 28), torch.randn(7, 10, 28)
    kept = x.clone(), said.clone()
    expected = block.onwards(x, said)
    with torch.no_grad():
        found = block.onwards(x, said)
    assert torch.allclose(found, expected, atol=2e-5) and found.std() > 0.5
    assert torch.equal(x, kept[0]) and torch.equal(said, kept[1])


class Doubled(nn.Linear):
    """As an adapter takes the place of a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize("name", ["attention.qkv", "attention.output", "up", "down"])
@pytest.mark.parametrize("how", ["replaced", "hooked"])
def test_layers_that_somebody_has_replaced_or_hooked_are_not_passed_by(name: str, how: str) -> None:
    transformer = made(replace(SMALL, layers=1))
    x, rows = torch.randn(22, 12), Unpadded.of(mask_of(LENGTHS))
    with torch.no_grad():
        before = transformer(x, rows)[-1]
    block = transformer.blocks[0]
    old = block.get_submodule(name)
    assert isinstance(old, nn.Linear)
    if how == "hooked":
        old.register_forward_hook(lambda module, given, said: 2 * said)
    else:
        new = Doubled(old.in_features, old.out_features)
        new.load_state_dict(old.state_dict())
        whole, _, last = name.rpartition(".")
        setattr(block.get_submodule(whole), last, new)
    with torch.no_grad():
        after = transformer(x, rows)[-1]
    assert not torch.allclose(after, before, atol=1e-3)
    assert torch.allclose(after, transformer(x, rows)[-1], atol=1e-5)  # the path with a gradient


def test_the_kernels_gelu_is_torchs_from_end_to_end() -> None:
    kernels = library()
    if kernels is None:
        pytest.skip("needs a C compiler (or PRETUNE_COMPILED=0 is set)")
    x = torch.cat((torch.linspace(-12, 12, 4001), torch.tensor([0.0, -0.0, 1e-30, 1e4, -1e4, torch.nan])))
    for way in ("none", "tanh"):
        found = gelu_(kernels, x[:, None].repeat(1, 19), torch.full((19,), 0.5), way == "tanh")
        expected = F.gelu(x + 0.5, approximate=way)[:, None].expand(-1, 19)
        assert torch.allclose(found, expected, atol=1e-6, rtol=1e-6, equal_nan=True)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_product_of_few_rows_is_torchs(threads: int) -> None:
    kernels, before = library(), torch.get_num_threads()
    if kernels is None:
        pytest.skip("needs a C compiler (or PRETUNE_COMPILED=0 is set)")
    weight, bias = torch.randn(131, 45), torch.randn(131)
    try:
        torch.set_num_threads(threads)
        for rows in range(1, 15):
            x = torch.randn(rows, 1, 45)
            assert torch.allclose(linear(kernels, x, weight, bias), F.linear(x, weight, bias), atol=1e-5)
            assert torch.allclose(linear(kernels, x, weight, lent=True), F.linear(x, weight), atol=1e-5)
    finally:
        torch.set_num_threads(before)


def test_dropout_acts_in_training_also_without_a_gradient() -> None:
    block, x = Block(replace(SMALL, residual_dropout=0.5)), torch.randn(9, 12)
    with torch.no_grad():
        assert not torch.equal(block.onwards(x, x), block.onwards(x, x))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("attend", WAYS)
def test_dropout_of_attention_drops_weights_and_keeps_their_mean(attend: object, causal: bool) -> None:
    rows = Unpadded.of(mask_of([40, 25]))
    qkv = torch.zeros(65, 36)
    qkv[:, 24:] = 1.0  # values: without dropout each output is 1
    said = attend(qkv, rows, 2, causal, 0.25)  # type: ignore[operator]
    assert said.std() > 0.05 and abs(float(said.mean()) - 1) < 0.1
    qkv = torch.randn(65, 36, requires_grad=True)
    attend(qkv, rows, 2, causal, 0.25).sum().backward()  # type: ignore[operator]
    assert qkv.grad is not None and qkv.grad.isfinite().all()


def test_dropout_of_attention_acts_in_training_alone() -> None:
    attention = Attention(replace(SMALL, attention_dropout=0.5))
    rows, x = Unpadded.of(mask_of([9, 5])), torch.randn(14, 12)
    assert not torch.equal(attention(x, rows), attention(x, rows))
    attention.eval()
    assert torch.equal(attention(x, rows), attention(x, rows))


@pytest.mark.parametrize("causal", [True, False])
def test_a_row_is_the_same_alone_and_in_any_batch(causal: bool) -> None:
    transformer = made(replace(SMALL, causal=causal))
    mask = mask_of(LENGTHS, 10)
    x = torch.randn(5, 10, 12)
    rows = Unpadded.of(mask)
    together = [rows.unpack(h) for h in transformer(rows.pack(x), rows)]
    for n, length in enumerate(LENGTHS):
        alone = Unpadded.of(mask_of([length]))
        for layer, h in zip(together, transformer(x[n, :length], alone), strict=True):
            assert torch.allclose(layer[n, :length], h, atol=1e-5)


def test_one_way_no_token_sees_a_later_one_and_both_ways_each_does() -> None:
    for causal in (True, False):
        transformer = made(replace(SMALL, causal=causal))
        x, rows = torch.randn(6, 12), Unpadded.of(mask_of([6]))
        before = transformer(x, rows)[-1]
        x[4] += 1
        same = (transformer(x, rows)[-1] - before).abs().amax(1) < 1e-6
        assert same.tolist() == ([True] * 4 + [False] * 2 if causal else [False] * 6)


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("cuts", [(11,), (1,) * 11, (4, 1, 1, 3, 2)])
def test_reading_on_from_the_cache_is_reading_at_once(cuts: tuple[int, ...], gradient: bool) -> None:
    transformer = made().requires_grad_(gradient)
    x = torch.randn(11, 3, 12)  # (T, N, D)
    rows = Unpadded.of(mask_of([11] * 3))
    whole = transformer(x.transpose(0, 1).flatten(0, 1), rows)[-1].view(3, 11, 12)
    said, carry = [], None
    with torch.set_grad_enabled(gradient):
        for part in torch.split(x, list(cuts)):
            top, carry = transformer.read_on(part, carry)
            said.append(top)
    assert carry is not None and carry[0].shape == (11, 3, 24)
    assert torch.allclose(torch.cat(said).transpose(0, 1), whole, atol=1e-5)


def test_the_cache_is_a_value_from_which_rows_are_picked() -> None:
    transformer = made()
    x = torch.randn(5, 3, 12)
    _, carry = transformer.read_on(x, None)
    kept = [part.clone() for part in carry]
    picked = tuple(part.index_select(-2, torch.tensor([2, 0])) for part in carry)
    more = torch.randn(1, 3, 12)
    top, _ = transformer.read_on(more, carry)
    assert all(torch.equal(*pair) for pair in zip(carry, kept, strict=True))
    of_picked, _ = transformer.read_on(more[:, [2, 0]], picked)
    assert torch.allclose(of_picked, top[:, [2, 0]], atol=1e-6)


def gradients(transformer: Transformer, x: Tensor, rows: Unpadded) -> list[Tensor]:
    transformer.zero_grad()
    torch.manual_seed(3)  # of dropout
    transformer(x, rows)[-1].pow(3).sum().backward()
    return [p.grad.clone() for p in transformer.parameters() if p.grad is not None]


def test_checkpointing_gives_the_same_gradients_and_keeps_less(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(SMALL, attention_dropout=0.2, residual_dropout=0.2)
    rows, x = Unpadded.of(mask_of(LENGTHS)), torch.randn(sum(LENGTHS), 12)
    found, kept = [], []
    for checkpointing in (False, True):
        transformer = made(replace(config, checkpointing=checkpointing)).train()
        found.append(gradients(transformer, x, rows))
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t
        ):  # type: ignore[misc]
            transformer(x, rows)
        kept.append(sum(sizes))
    assert len(found[0]) == len(list(transformer.parameters()))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
    assert kept[1] < kept[0] / 5


def test_norms_stand_after_what_they_normalise() -> None:
    transformer = Transformer(SMALL)
    top = transformer(torch.randn(9, 12) * 5, Unpadded.of(mask_of([9])))[-1]
    assert torch.allclose(top.mean(1), torch.zeros(9), atol=1e-6)
    assert torch.allclose(top.var(1, correction=0), torch.ones(9), atol=1e-3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"heads": 5}, "width is 12, which 5 heads"),
        ({"layers": 0}, "layers is 0"),
        ({"activation": "relu"}, "gelu, gelu_tanh"),
    ],
)
def test_what_makes_no_transformer_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        replace(SMALL, **change)  # type: ignore[arg-type]


@pytest.mark.slow
def test_compiled_blocks_say_the_same_and_have_the_same_gradients_at_any_length() -> None:
    transformer = made()
    for lengths in (LENGTHS, [5, 2], [11]):
        rows, x = Unpadded.of(mask_of(lengths)), torch.randn(sum(lengths), 12)
        transformer.compile_blocks(False)
        said, slopes = transformer(x, rows)[-1], gradients(transformer, x, rows)
        transformer.compile_blocks(True)
        assert torch.allclose(transformer(x, rows)[-1], said, atol=1e-5)
        for one, other in zip(gradients(transformer, x, rows), slopes, strict=True):
            assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)
