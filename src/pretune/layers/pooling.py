"""From token vectors to one vector a row; padding never counts."""

from __future__ import annotations

import torch
from torch import Tensor


def last_pool(h: Tensor, mask: Tensor) -> Tensor:
    """The vector of each row's last token. h (N, T, D), mask (N, T) -> (N, D)."""
    last = (mask.sum(1) - 1).clamp(min=0)  # (N,)
    return h[torch.arange(len(h), device=h.device), last]


def max_pool(h: Tensor, mask: Tensor) -> Tensor:
    """The largest value of each dimension. h (N, T, D), mask (N, T) -> (N, D)."""
    return h.masked_fill(~mask.unsqueeze(-1), torch.finfo(h.dtype).min).amax(1)


def mean_pool(h: Tensor, mask: Tensor) -> Tensor:
    """The mean over real tokens. h (N, T, D), mask (N, T) -> (N, D)."""
    return (h * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def concat_pool(h: Tensor, mask: Tensor, pooled: Tensor | None = None) -> Tensor:
    """[h_T; max; mean], section 3.3 of Howard & Ruder (2018). h (N, T, D), mask (N, T) -> (N, 3D).

    Maximum and mean are of the tokens `pooled` (N, T), by default of all.
    """
    pooled = mask if pooled is None else pooled
    return torch.cat((last_pool(h, mask), max_pool(h, pooled), mean_pool(h, pooled)), dim=-1)
