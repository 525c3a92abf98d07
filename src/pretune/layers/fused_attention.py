"""What a Transformer does beside its products, by the compiled kernels, without a gradient.

Heads and tokens are shared among threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ctypes import CDLL

import torch
from torch import Tensor
from torch.nn import functional as F

from pretune.layers.compiled import Attention
from pretune.layers.threads import FEWEST, each, scratch

FEW = 3, 12  # rows whose product costs no more here than the reading of the weight, unlike torch's


def attend(
    kernels: CDLL, qkv: Tensor, groups: Sequence[tuple[int, int]], heads: int, causal: bool
) -> Tensor | None:
    """softmax(q kᵀ / √d) v inside each row: (M, 3D) -> (M, D); None where heads are no whole vectors.

    `groups` are (rows, tokens of each), one after the other.
    """
    M, D = len(qkv), qkv.shape[1] // 3
    if sum(rows * tokens for rows, tokens in groups) != M or qkv.shape[1] != 3 * D or D % heads:
        raise ValueError("rows, heads and vectors of attention do not agree in size")
    if D // heads % int(kernels.lanes()):
        return None
    qkv, y = qkv.contiguous(), qkv.new_empty(M, D)
    lengths = torch.tensor(groups, dtype=torch.int64)  # (count, 2)
    parts = max(1, min(torch.get_num_threads(), heads, M // FEWEST))

    def share(part: int) -> int:
        call = Attention(
            qkv=qkv.data_ptr(),
            groups=lengths.data_ptr(),
            count=len(lengths),
            heads=heads,
            size=D // heads,
            first=heads * part // parts,
            last=heads * (part + 1) // parts,
            causal=causal,
            y=y.data_ptr(),
        )
        return int(kernels.attend(call))

    if any(each(share, parts)):
        raise MemoryError("no memory for the buffers of attention")
    return y


def linear(
    kernels: CDLL, x: Tensor, weight: Tensor, bias: Tensor | None = None, lent: bool = False
) -> Tensor:
    """`F.linear` without a gradient, few rows of it in the time of one reading of the weight.

    x (..., K), weight (N, K) -> (..., N), if `lent` in memory that the next such call may overwrite.
    """
    rows, (N, K) = x.numel() // weight.shape[1], weight.shape
    if not FEW[0] <= rows <= FEW[1] or not weight.is_contiguous():
        if not lent:
            return F.linear(x, weight, bias)
        out, flat = scratch(rows, N), x.reshape(rows, K)
        if bias is None:
            torch.mm(flat, weight.t(), out=out)
        else:
            torch.addmm(bias, flat, weight.t(), out=out)
        return out.view(*x.shape[:-1], N)
    if x.shape[-1] != K or (bias is not None and (bias.shape != (N,) or not bias.is_contiguous())):
        raise ValueError("input, weight and bias of a linear layer do not agree in size")
    x, y = x.contiguous(), x.new_empty(*x.shape[:-1], N)
    added = None if bias is None else bias.data_ptr()

    def share(first: int, count: int) -> None:
        of = rows, N, K, first, first + count
        kernels.few(weight.data_ptr(), added, x.data_ptr(), y.data_ptr(), *of)

    _shared(share, N)
    return y


def gelu_(kernels: CDLL, x: Tensor, bias: Tensor, tanh: bool) -> Tensor:
    """GELU(x + bias), by the error function or by tanh, in the memory of x (..., I), which is contiguous."""
    _check(x, bias)

    def share(first: int, count: int) -> None:
        kernels.gelu(_at(x, first), bias.data_ptr(), count, len(bias), tanh)

    _shared(share, x.numel() // len(bias))
    return x


def norm_(
    kernels: CDLL, y: Tensor, bias: Tensor, x: Tensor, gain: Tensor, shift: Tensor, eps: float
) -> Tensor:
    """Layer norm of x + y + bias, in the memory of y (..., D), which is contiguous as all of them are."""
    _check(y, bias, gain, shift)
    x = x.contiguous()
    if x.shape != y.shape:
        raise ValueError("what a norm adds up does not agree in size")

    def share(first: int, count: int) -> None:
        rest = gain.data_ptr(), shift.data_ptr(), eps, count, len(bias)
        kernels.norm(_at(y, first), bias.data_ptr(), _at(x, first), *rest)

    _shared(share, y.numel() // len(bias))
    return y


def _check(x: Tensor, *vectors: Tensor) -> None:
    if any(v.shape != x.shape[-1:] or not v.is_contiguous() for v in vectors) or not x.is_contiguous():
        raise ValueError("the tensors of a kernel do not agree in size, or are not in one piece")


def _at(x: Tensor, row: int) -> int:
    """The address of a row of x (..., columns), which is contiguous."""
    return x.data_ptr() + row * x.shape[-1] * x.element_size()


def _shared(share: Callable[[int, int], None], rows: int) -> None:
    """`share(first, count)` of all rows, a part of them in each thread."""
    parts = max(1, min(torch.get_num_threads(), rows // FEWEST))
    bounds = [rows * part // parts for part in range(parts + 1)]
    each(lambda part: share(bounds[part], bounds[part + 1] - bounds[part]), parts)
