"""A linear layer without a gradient, its weight laid out once for the processor, in full or low precision."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from pretune.errors import UsageError, choose
from pretune.layers import fused
from pretune.layers.compiled import kernels_for, readable
from pretune.layers.packing import Precision, as_halves, packed

Multiply = Callable[[Tensor], Tensor]


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    precision: Precision = "float32",
    out: Tensor | None = None,
) -> Tensor:
    """x W^T + bias of rows x (M, K): (M, N), written into `out` where one is given (fresh memory is slow).

    float32 equals `F.linear` but for the order of sums; where a gradient is wanted it is `F.linear`. float16
    rounds the weights to 16 bits. int8 also rounds the rows of x: every row of either has its own scale, its
    greatest size over 127. A call of the kernel takes one thread.
    """
    check(precision, x, weight, bias)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)):
        return F.linear(x, weight, bias)
    kernels = kernels_for(x, weight, bias, out)
    if kernels is not None:
        return fused.linear(kernels, x, weight, bias, precision, out)
    y = multiplier(weight, precision)(x)  # (M, N)
    y = y if bias is None else y.add_(bias)
    return y if out is None else out.copy_(y)


def check(precision: Precision, *tensors: Tensor | None) -> None:
    """Refuses an unknown precision, and a gradient through a low one."""
    if precision not in get_args(Precision):
        raise choose("precision", precision, get_args(Precision))
    wanted = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
    if wanted and precision != "float32":
        raise UsageError(f"precision is {precision!r}, which cannot be trained; train with 'float32'")


def multiplier(weight: Tensor, precision: Precision = "float32") -> Multiply:
    """The function x -> x W^T in plain torch; it holds the weight as it is now."""
    if readable(weight):
        return packed(weight, f"plain {precision}", lambda w: _make(w, precision))
    return _make(weight, precision)


def _make(weight: Tensor, precision: Precision) -> Multiply:
    if precision == "float16":
        return _full(as_halves(weight).to(weight.dtype))
    if precision == "int8":
        scales = weight.abs().amax(1) / 127  # (N,)
        whole = _full((weight / scales.clamp_min(torch.finfo(weight.dtype).tiny)[:, None]).round())
        return lambda x: _rounded(x, whole, scales)
    return _full(weight)


def _rounded(x: Tensor, whole: Multiply, scales: Tensor) -> Tensor:
    """x W^T, both as whole numbers up to 127 times a scale a row."""
    given = x.abs().amax(1, keepdim=True) / 127  # (M, 1)
    return whole((x / given.clamp_min(torch.finfo(x.dtype).tiny)).round()) * given * scales


def _full(weight: Tensor) -> Multiply:
    if not (readable(weight) and _onednn()):
        return lambda x: F.linear(x, weight)
    ordered = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    none: list[float] = []

    def multiply(x: Tensor) -> Tensor:
        if not readable(x):
            return F.linear(x, weight)
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, ordered, None, "none", none, "")
        return result

    return multiply


@cache
def _onednn() -> bool:
    """Whether this torch multiplies with weights that oneDNN has reordered."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    weight, x = torch.ones(2, 2), torch.ones(1, 2)
    try:  # torch promises nothing of these two
        ordered = torch.ops.mkldnn._reorder_linear_weight(weight)
        said = torch.ops.mkldnn._linear_pointwise(x, ordered, None, "none", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool((said == 2).all())
