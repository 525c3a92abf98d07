"""Penalties on activations."""

from __future__ import annotations

import torch
from torch import Tensor


def activation_penalty(dropped: Tensor, raw: Tensor, mask: Tensor, alpha: float, beta: float) -> Tensor:
    """AR + TAR: alpha mean(h_dropped²) + beta mean((h[t+1] - h[t])²), at real positions only.

    Merity et al. (2017), section 4.6. `dropped`, `raw` (N, T, D), `mask` (N, T) -> scalar, in float32.
    """
    dropped, raw = dropped.float(), raw.float()
    penalty = torch.zeros((), device=raw.device)
    if alpha:
        squares = dropped.square().mean(-1)  # (N, T)
        penalty = penalty + alpha * (squares * mask).sum() / mask.sum().clamp(min=1)
    if beta and raw.shape[1] > 1:
        both = mask[:, 1:] & mask[:, :-1]  # (N, T-1)
        squares = (raw[:, 1:] - raw[:, :-1]).square().mean(-1)  # (N, T-1)
        penalty = penalty + beta * (squares * both).sum() / both.sum().clamp(min=1)
    return penalty
