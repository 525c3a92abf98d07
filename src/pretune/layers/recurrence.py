"""The recurrence of ELMo's LSTM: projected and clipped, over rows packed step by step, without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pretune.layers import fused
from pretune.layers.compiled import kernels_for
from pretune.layers.linear import check, multiplier
from pretune.layers.packing import Precision


@dataclass(frozen=True)
class Clips:
    """Bounds of the cell state and of the projected output; None for no bound."""

    cell: float | None = 3.0
    projection: float | None = 3.0


def recur(
    products: Tensor,
    index: Tensor | None,
    counts: Sequence[int],
    state: tuple[Tensor, Tensor],
    weight_hh: Tensor,
    weight_proj: Tensor | None,
    clips: Clips,
    precision: Precision = "float32",
) -> tuple[Tensor, Tensor, Tensor]:
    """y (M, D), and the state (N, D), (N, H) after each row's last token.

    Rows are sorted, longest first, and packed step by step: `counts[t]` rows (never rising) have a token at
    step t, M = sum(counts) tokens in all. `products` (U, 4H) is W x + b of the tokens, gates in the order
    i, f, g, o, with the 1 of the forget gate in it; `index` (M,) says which of them each token has (None:
    U = M, one each). `state` is h (N, D), c (N, H); `weight_hh` (4H, D); `weight_proj` (D, H), or None
    where D = H. Section 1 of the release's LSTMCell:

        c' = clip(sigmoid(f) c + sigmoid(i) tanh(g));  h' = clip(P (sigmoid(o) tanh(c')))

    On a processor all steps are one call of a compiled kernel, where there is a C compiler. `precision` of
    the two weights: float16 rounds them to 16 bits; int8 rounds them and the vectors that they multiply (see
    `linear`). Only float32 has a gradient.
    """
    h, c = state
    tensors = (products, h, c, weight_hh, weight_proj)
    check(precision, *tensors)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors):
        y, h, c = _Recurrence.apply(products, index, tuple(counts), h, c, weight_hh, weight_proj, clips)  # type: ignore[no-untyped-call]
        return y, h, c
    kernels = kernels_for(*tensors)
    if kernels is None:
        return _plain(products, index, counts, h, c, weight_hh, weight_proj, clips, precision)
    bounds = clips.cell, clips.projection
    args = products, index, counts, h, c, weight_hh, weight_proj, bounds
    y, h, c = fused.recur(kernels, *args, precision=precision)
    return y, h, c


def _plain(
    products: Tensor,
    index: Tensor | None,
    counts: Sequence[int],
    h: Tensor,
    c: Tensor,
    weight_hh: Tensor,
    weight_proj: Tensor | None,
    clips: Clips,
    precision: Precision = "float32",
) -> tuple[Tensor, Tensor, Tensor]:
    """`recur` without a gradient, a step at a time in buffers that all steps share."""
    h, c = h.clone(), c.clone()
    y = h.new_empty(sum(counts), h.shape[1])  # (M, D)
    (rows, width), at = c.shape, 0
    squashed, given = c.new_empty(rows, width), c.new_empty(0 if index is None else rows, 4 * width)
    multiply = multiplier(weight_hh, precision)
    project = None if weight_proj is None else multiplier(weight_proj, precision)
    for n in counts:
        here = slice(at, at + n)
        if index is not None:
            torch.index_select(products, 0, index[here], out=given[:n])
        gates = multiply(h[:n]).add_(products[here] if index is None else given[:n])  # (n, 4H)
        i_f, g, o = gates[:, : 2 * width].sigmoid_(), gates[:, 2 * width : 3 * width], gates[:, 3 * width :]
        cell = c[:n].mul_(i_f[:, width:]).addcmul_(i_f[:, :width], g.tanh_())  # (n, H)
        clip_(cell, clips.cell)
        out = torch.tanh(cell, out=squashed[:n]).mul_(o.sigmoid_())  # (n, H)
        h[:n] = y[here] = clip_(out if project is None else project(out), clips.projection)  # (n, D)
        at += n
    return y, h, c


class _Recurrence(torch.autograd.Function):
    """`recur` with its gradient: the weights' gradients are one product each over all steps."""

    @staticmethod
    def forward(
        ctx: Any,
        products: Tensor,
        index: Tensor | None,
        counts: tuple[int, ...],
        h: Tensor,
        c: Tensor,
        weight_hh: Tensor,
        weight_proj: Tensor | None,
        clips: Clips,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.kernels = kernels_for(products, h, c, weight_hh, weight_proj)
        if ctx.kernels is None:
            done = _keep(products, index, counts, h, c, weight_hh, weight_proj, clips)
        else:
            bounds = clips.cell, clips.projection
            args = products, index, counts, h, c, weight_hh, weight_proj, bounds
            done = fused.recur(ctx.kernels, *args, keep=True)
        y, last_h, last_c, gates, cells, hidden = done
        ctx.save_for_backward(index, h, c, weight_hh, weight_proj, gates, cells, hidden, y)
        ctx.counts, ctx.clips, ctx.given = counts, clips, len(products)
        return y, last_h, last_c

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dh: Tensor, dc: Tensor) -> tuple[Tensor | None, ...]:
        index, h, c, weight_hh, weight_proj, gates, cells, hidden, y = ctx.saved_tensors
        args = ctx.counts, c, weight_hh, weight_proj
        if ctx.kernels is None:
            dz, dp, dh, dc = _back(*args, ctx.clips, (gates, cells, y), dy, dh, dc)
        else:
            bounds = ctx.clips.cell, ctx.clips.projection
            dz, dp, dh, dc = fused.back(ctx.kernels, *args, bounds, (gates, cells, y), dy, dh, dc)
        by_products, _, _, by_h, by_c, by_hh, by_proj, _ = ctx.needs_input_grad
        dproducts = None
        if by_products:
            dproducts = dz if index is None else dz.new_zeros(ctx.given, dz.shape[1]).index_add_(0, index, dz)
        return (
            dproducts,
            None,
            None,
            dh if by_h else None,
            dc if by_c else None,
            dz.t() @ _earlier(h, y, ctx.counts) if by_hh else None,
            dp.t() @ hidden if by_proj else None,
            None,
        )


def _keep(
    products: Tensor,
    index: Tensor | None,
    counts: Sequence[int],
    h: Tensor,
    c: Tensor,
    weight_hh: Tensor,
    weight_proj: Tensor | None,
    clips: Clips,
) -> tuple[Tensor, ...]:
    """`recur` without a gradient, and what the gradient needs: gates, cells, outputs before projection."""
    total, width = sum(counts), weight_hh.shape[0] // 4
    gates = h.new_empty(total, 4 * width)  # (M, 4H) after their sigmoids and tanh
    cells = h.new_empty(total, width)  # (M, H) after clipping
    hidden = h.new_empty(total, width)  # (M, H) before the projection
    y = h.new_empty(total, h.shape[1])  # (M, D)
    last_h, last_c, at = h.clone(), c.clone(), 0
    for n in counts:
        here = slice(at, at + n)
        given = products[here] if index is None else products.index_select(0, index[here])
        z = torch.addmm(given, last_h[:n], weight_hh.t(), out=gates[here])  # (n, 4H)
        i, f = z[:, :width].sigmoid_(), z[:, width : 2 * width].sigmoid_()
        g, o = z[:, 2 * width : 3 * width].tanh_(), z[:, 3 * width :].sigmoid_()
        cell = last_c[:n].mul_(f).addcmul_(i, g)  # (n, H)
        cells[here] = clip_(cell, clips.cell)
        torch.mul(o, cell.tanh(), out=hidden[here])
        projected = hidden[here] if weight_proj is None else hidden[here] @ weight_proj.t()  # (n, D)
        last_h[:n] = y[here] = clip_(projected.clone(), clips.projection)
        at += n
    return y, last_h, last_c, gates, cells, hidden


def _back(
    counts: Sequence[int],
    c: Tensor,
    weight_hh: Tensor,
    weight_proj: Tensor | None,
    clips: Clips,
    kept: tuple[Tensor, Tensor, Tensor],
    dy: Tensor,
    dh: Tensor,
    dc: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of the gates' sums (M, 4H), of the projection's (M, D), and of the state before."""
    (gates, cells, y), width = kept, weight_hh.shape[0] // 4
    dz = torch.empty_like(gates)  # (M, 4H)
    dp = dy if clips.projection is None else dy * (y.abs() < clips.projection)  # (M, D)
    dp = dp.clone() if dp is dy else dp
    dh, dc, at = dh.clone(), dc.clone(), len(y)
    for t in reversed(range(len(counts))):
        n = counts[t]
        at -= n
        here = slice(at, at + n)
        before = c[:n] if t == 0 else cells[at - counts[t - 1] :][:n]  # (n, H)
        through = dh[:n]
        if clips.projection is not None:
            through = through * (y[here].abs() < clips.projection)
        dp[here] += through
        dm = dp[here] if weight_proj is None else dp[here] @ weight_proj  # (n, H)
        i, f, g, o = gates[here].chunk(4, 1)
        cell = cells[here]
        squashed = cell.tanh()
        dcell = dc[:n] + dm * o * (1 - squashed.square())
        if clips.cell is not None:
            dcell = dcell * (cell.abs() < clips.cell)
        d = dz[here]
        d[:, :width] = dcell * g * i * (1 - i)
        d[:, width : 2 * width] = dcell * before * f * (1 - f)
        d[:, 2 * width : 3 * width] = dcell * i * (1 - g.square())
        d[:, 3 * width :] = dm * squashed * o * (1 - o)
        dc[:n] = dcell * f
        dh[:n] = d @ weight_hh
    return dz, dp, dh, dc


def _earlier(h: Tensor, y: Tensor, counts: Sequence[int]) -> Tensor:
    """The output of the step before each token: (M, D)."""
    return torch.cat((h, y)).index_select(0, earlier_places(counts, len(h)).to(h.device))


def earlier_places(counts: Sequence[int], rows: int) -> Tensor:
    """Where each token's step before stands among the state's rows and, after them, all outputs: (M,)."""
    places, at = [torch.arange(counts[0])], 0
    for before, n in pairwise(counts):
        places.append(torch.arange(at, at + n) + rows)
        at += before
    return torch.cat(places)


def clip_(x: Tensor, bound: float | None) -> Tensor:
    return x if bound is None else x.clamp_(-bound, bound)
