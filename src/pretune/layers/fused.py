"""The recurrence by the compiled kernels: a whole packed sequence a call, its rows shared among threads."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import CDLL, pointer
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from pretune.layers.compiled import Gradient, Matrix, Maxima
from pretune.layers.compiled import Sequence as Packed
from pretune.layers.packing import Precision, as_halves, packed
from pretune.layers.threads import each

Clip = float | None
KINDS: dict[Precision, int] = {"float32": 0, "float16": 1, "int8": 2}  # product.h's


@dataclass(frozen=True)
class Panels:
    """A matrix as the kernels read it, and the memory that it stands in."""

    matrix: Matrix
    memory: Tensor


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
    precision: Precision = "float32",
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
    recurrent = panels(kernels, weight_hh, precision, gates=True)
    projection = None if weight_proj is None else panels(kernels, weight_proj, precision)
    gates, cells, hidden = kept or (None, None, None)
    bounds = _shares(counts)

    def share(number: int) -> int:
        call = Packed(
            products=products.data_ptr(),
            index=_address(index),
            counts=steps.data_ptr(),
            steps=len(steps),
            units=units,
            outputs=h.shape[1],
            first=bounds[number],
            last=bounds[number + 1],
            h=h.data_ptr(),
            c=c.data_ptr(),
            recurrent=pointer(recurrent.matrix),
            projection=None if projection is None else pointer(projection.matrix),
            cell_clip=_bound(clips[0]),
            projection_clip=_bound(clips[1]),
            y=y.data_ptr(),
            gates=_address(gates),
            cells=_address(cells),
            hidden=_address(hidden),
        )
        return int(kernels.recur(call))

    if any(each(share, len(bounds) - 1)):
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
    recurrent = panels(kernels, weight_hh, turned=True)
    projection = None if weight_proj is None else panels(kernels, weight_proj, turned=True)
    bounds = _shares(counts)

    def share(number: int) -> int:
        call = Gradient(
            counts=steps.data_ptr(),
            steps=len(steps),
            units=c.shape[1],
            outputs=dy.shape[1],
            first=bounds[number],
            last=bounds[number + 1],
            c=c.data_ptr(),
            gates=gates.data_ptr(),
            cells=cells.data_ptr(),
            y=y.data_ptr(),
            recurrent=pointer(recurrent.matrix),
            projection=None if projection is None else pointer(projection.matrix),
            cell_clip=_bound(clips[0]),
            projection_clip=_bound(clips[1]),
            dy=dy.data_ptr(),
            dh=dh.data_ptr(),
            dc=dc.data_ptr(),
            dz=dz.data_ptr(),
            dp=dp.data_ptr(),
        )
        return int(kernels.recur_back(call))

    if any(each(share, len(bounds) - 1)):
        raise MemoryError("no memory for the buffers of the recurrence's gradient")
    return dz, dp, dh, dc


def _shares(counts: Sequence[int]) -> list[int]:
    """Bounds that part the rows among torch's threads, of about as many tokens each and 8 rows at least."""
    rows = counts[0] if counts else 0
    parts = max(1, min(torch.get_num_threads(), rows // 8))
    if parts == 1:
        return [0, rows]
    done, bounds = 0, [0]
    for row in range(rows):
        done += sum(count > row for count in counts)
        if done * parts >= sum(counts) * len(bounds):
            bounds.append(row + 1)
    return bounds


def linear(
    kernels: CDLL,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    precision: Precision = "float32",
    out: Tensor | None = None,
) -> Tensor:
    """`linear.linear` without a gradient."""
    y = x.new_empty(len(x), len(weight)) if out is None else out  # (M, N)
    agree = x.shape == (len(y), weight.shape[1]) and y.shape == (len(x), len(weight)) and y.is_contiguous()
    if not agree or (bias is not None and bias.shape != weight.shape[:1]):
        raise ValueError("input, weight, bias and output of the linear layer do not agree in size")
    x, bias = x.contiguous(), None if bias is None else bias.contiguous()
    held = panels(kernels, weight, precision)  # until the kernel is done: another thread may pack anew
    if kernels.linear(held.matrix, x.data_ptr(), len(x), _address(bias), y.data_ptr()):
        raise MemoryError("no memory for the buffers of the linear layer")
    return y


def panels(
    kernels: CDLL,
    weight: Tensor,
    precision: Precision = "float32",
    gates: bool = False,
    turned: bool = False,
) -> Panels:
    """The weight (columns, depth), or its transpose, in the kernels' panels, packed once."""

    def make(weight: Tensor) -> Panels:
        weight = weight.contiguous()
        (columns, depth), over, along = weight.shape, weight.shape[1], 1
        if turned:
            columns, depth, over, along = depth, columns, along, over
        matrix = Matrix(kind=KINDS[precision], columns=columns, depth=depth, gates=gates)
        memory = torch.empty(kernels.packed_bytes(matrix), dtype=torch.uint8)
        matrix.data = memory.data_ptr()
        source = as_halves(weight) if precision == "float16" else weight
        kernels.pack(matrix, source.data_ptr(), over, along)
        return Panels(matrix, memory)

    return packed(weight, f"panels {precision} {gates} {turned}", make)


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
        (index is None or index.device == products.device)
        and tuple(weight_hh.shape) == (4 * units, outputs)
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


def maxima(kernels: CDLL, tables: Sequence[Tensor], words: Tensor, live: Tensor) -> Tensor:
    """The largest sum of table rows over each word's windows, convolution by convolution: (W, sum of n).

    tables (size, characters, n) each; words (W, C), of which `live` (W,) characters are no padding.
    """
    if words.device != tables[0].device:
        raise ValueError(f"words are on {words.device}, tables on {tables[0].device}")
    if int(words.max()) >= tables[0].shape[1] or int(words.min()) < 0:
        raise IndexError(f"a character is {int(words.max())}; there are {tables[0].shape[1]}")
    words, live = words.to(torch.int64).contiguous(), live.to(torch.int64).contiguous()
    out = tables[0].new_empty(len(words), sum(table.shape[2] for table in tables))
    column = 0
    for table in tables:
        size, characters, filters = table.shape
        call = Maxima(
            table=table.data_ptr(),
            size=size,
            characters=characters,
            filters=filters,
            words=words.data_ptr(),
            live=live.data_ptr(),
            count=len(words),
            length=words.shape[1],
            out=out.data_ptr() + 4 * column,
            stride=out.shape[1],
        )
        kernels.maxima(call)
        column += filters
    return out
