"""The recurrence by the compiled kernels: a whole packed sequence a call, one thread a call."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import CDLL
from math import inf

import torch
from torch import Tensor

from pretune.layers import compiled
from pretune.layers.packing import packed


def recur(
    kernels: CDLL,
    products: Tensor,
    index: Tensor | None,
    counts: Sequence[int],
    h: Tensor,
    c: Tensor,
    weight_hh: Tensor,
    weight_proj: Tensor | None,
    clips: tuple[float | None, float | None],
) -> tuple[Tensor, Tensor, Tensor]:
    """`recurrence.recur` without a gradient; `clips` of the cell and of the projection."""
    _check(products, index, counts, h, c, weight_hh, weight_proj)
    products, h, c = products.contiguous(), _copy(h), _copy(c)
    y = h.new_empty(sum(counts), h.shape[1])  # (M, D)
    steps = torch.tensor(counts, dtype=torch.int64)
    index = None if index is None else index.to(torch.int64).contiguous()
    recurrent = packed(weight_hh, "gates", lambda w: _panels(kernels, w, gates=True))
    projection = None if weight_proj is None else packed(weight_proj, "panels", lambda w: _panels(kernels, w))
    sequence = compiled.Sequence(
        products=products.data_ptr(),
        index=None if index is None else index.data_ptr(),
        counts=steps.data_ptr(),
        steps=len(steps),
        units=c.shape[1],
        outputs=h.shape[1],
        h=h.data_ptr(),
        c=c.data_ptr(),
        recurrent=recurrent.data_ptr(),
        projection=None if projection is None else projection.data_ptr(),
        cell_clip=inf if clips[0] is None else clips[0],
        projection_clip=inf if clips[1] is None else clips[1],
        y=y.data_ptr(),
    )
    if kernels.recur(sequence):
        raise MemoryError("no memory for the buffers of the recurrence")
    return y, h, c


def _panels(kernels: CDLL, weight: Tensor, gates: bool = False) -> Tensor:
    """The weight (columns, depth) in the kernels' panels."""
    weight = weight.contiguous()
    columns, depth = weight.shape
    panels = weight.new_empty(kernels.packed_size(columns, depth, gates))
    kernels.pack(weight.data_ptr(), columns, depth, depth, 1, gates, panels.data_ptr())
    return panels


def _copy(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)


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
