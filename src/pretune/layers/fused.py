"""The recurrence by the compiled kernels: a whole packed sequence a call, one thread a call."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import CDLL
from math import inf

import torch
from torch import Tensor

from pretune.layers.compiled import Gradient
from pretune.layers.compiled import Sequence as Packed
from pretune.layers.packing import packed

Clip = float | None


def recur(
    kernels: CDLL,
    products: Tensor,
    index: Tensor | None,
    counts: Sequence[int],
    h: Tensor,
    c: Tensor,
    weight_hh: Tensor,
    weight_proj: Tensor | None,
    clips: tuple[Clip, Clip],
    keep: bool = False,
) -> tuple[Tensor, ...]:
    """`recurrence.recur` without a gradient; `clips` of the cell and of the projection.

    With `keep` also what the gradient needs: gates (M, 4H) after their sigmoids and tanh, cells (M, H) after
    clipping, and the output before its projection (M, H).
    """
    _check(products, index, counts, h, c, weight_hh, weight_proj)
    products, h, c = products.contiguous(), _copy(h), _copy(c)
    total, units = sum(counts), c.shape[1]
    y = h.new_empty(total, h.shape[1])  # (M, D)
    kept = [h.new_empty(total, size) for size in (4 * units, units, units)] if keep else []
    steps = torch.tensor(counts, dtype=torch.int64)
    index = None if index is None else index.to(torch.int64).contiguous()
    recurrent = packed(weight_hh, "gates", lambda w: _panels(kernels, w, gates=True))
    projection = None if weight_proj is None else packed(weight_proj, "panels", lambda w: _panels(kernels, w))
    gates, cells, hidden = kept or (None, None, None)
    call = Packed(
        products=products.data_ptr(),
        index=_address(index),
        counts=steps.data_ptr(),
        steps=len(steps),
        units=units,
        outputs=h.shape[1],
        h=h.data_ptr(),
        c=c.data_ptr(),
        recurrent=recurrent.data_ptr(),
        projection=_address(projection),
        cell_clip=_bound(clips[0]),
        projection_clip=_bound(clips[1]),
        y=y.data_ptr(),
        gates=_address(gates),
        cells=_address(cells),
        hidden=_address(hidden),
    )
    if kernels.recur(call):
        raise MemoryError("no memory for the buffers of the recurrence")
    return y, h, c, *kept


def back(
    kernels: CDLL,
    counts: Sequence[int],
    c: Tensor,
    weight_hh: Tensor,
    weight_proj: Tensor | None,
    clips: tuple[Clip, Clip],
    kept: tuple[Tensor, Tensor, Tensor],
    dy: Tensor,
    dh: Tensor,
    dc: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of the gates' sums (M, 4H), of the projection's (M, D), and of the state before.

    `c` is the state before; `kept` are gates, cells and y; `dh` and `dc` belong to the state after.
    """
    c, dy, dh, dc = c.contiguous(), dy.contiguous(), _copy(dh), _copy(dc)
    gates, cells, y = kept
    steps, dz, dp = torch.tensor(counts, dtype=torch.int64), torch.empty_like(gates), torch.empty_like(y)
    recurrent = packed(weight_hh, "turned", lambda w: _panels(kernels, w, turned=True))
    projection = None
    if weight_proj is not None:
        projection = packed(weight_proj, "turned", lambda w: _panels(kernels, w, turned=True))
    call = Gradient(
        counts=steps.data_ptr(),
        steps=len(steps),
        units=c.shape[1],
        outputs=dy.shape[1],
        c=c.data_ptr(),
        gates=gates.data_ptr(),
        cells=cells.data_ptr(),
        y=y.data_ptr(),
        recurrent=recurrent.data_ptr(),
        projection=_address(projection),
        cell_clip=_bound(clips[0]),
        projection_clip=_bound(clips[1]),
        dy=dy.data_ptr(),
        dh=dh.data_ptr(),
        dc=dc.data_ptr(),
        dz=dz.data_ptr(),
        dp=dp.data_ptr(),
    )
    if kernels.recur_back(call):
        raise MemoryError("no memory for the buffers of the recurrence's gradient")
    return dz, dp, dh, dc


def _panels(kernels: CDLL, weight: Tensor, gates: bool = False, turned: bool = False) -> Tensor:
    """The weight (columns, depth), or its transpose, in the kernels' panels."""
    weight = weight.contiguous()
    (columns, depth), over, along = weight.shape, weight.shape[1], 1
    if turned:
        columns, depth, over, along = depth, columns, along, over
    panels = weight.new_empty(kernels.packed_size(columns, depth, gates))
    kernels.pack(weight.data_ptr(), columns, depth, over, along, gates, panels.data_ptr())
    return panels


def _copy(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _bound(clip: Clip) -> float:
    return inf if clip is None else clip


def _check(
    products: Tensor,
    index: Tensor | None,
    counts: Sequence[int],
    h: Tensor,
    c: Tensor,
    weight_hh: Tensor,
    weight_proj: Tensor | None,
) -> None:
    """What torch would notice by itself, before a kernel reads memory by address."""
    (rows, outputs), units, total = h.shape, c.shape[1], sum(counts)
    projected = (units, units) if weight_proj is None else tuple(weight_proj.shape)
    agree = (
        tuple(weight_hh.shape) == (4 * units, outputs)
        and projected == (outputs, units)
        and products.shape[1] == 4 * units
        and len(c) == rows
        and all(b <= a for a, b in zip((rows, *counts), counts, strict=False))
        and min(counts, default=0) >= 0
        and len(products if index is None else index) == total
        and (index is None or not total or 0 <= int(index.min()) <= int(index.max()) < len(products))
    )
    if not agree:
        raise ValueError("products, index, counts, state and weights of the recurrence do not agree in size")
