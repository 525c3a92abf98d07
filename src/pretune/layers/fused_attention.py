"""Attention and GELU by the compiled kernels, without a gradient; heads and tokens shared among threads."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import CDLL

import torch
from torch import Tensor

from pretune.layers.compiled import Attention
from pretune.layers.threads import FEWEST, each


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


def gelu_(kernels: CDLL, x: Tensor, bias: Tensor) -> Tensor:
    """GELU(x + bias), approximated by tanh, in the memory of x (M, I), which is contiguous."""
    if bias.shape != x.shape[1:] or not x.is_contiguous():
        raise ValueError("input and bias of the activation do not agree in size")
    bias = bias.contiguous()
    M, columns = x.shape
    parts = max(1, min(torch.get_num_threads(), M // FEWEST))

    def share(part: int) -> None:
        first, last = M * part // parts, M * (part + 1) // parts
        kernels.gelu(x.data_ptr() + 4 * columns * first, bias.data_ptr(), last - first, columns)

    each(share, parts)
    return x
