"""The scalar mix: one weighted mean of an encoder's layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ScalarMix(nn.Module):
    """gamma * sum_l softmax(w)_l h_l, eq. 1 of Peters et al. (2018).

    The weights start equal, so an untrained mix is the mean of the layers. `layer_norm` first gives each
    layer mean 0 and variance 1 over all real tokens of the batch, as published: a vector then depends on
    its batch. It is off by default, as in every published model.
    """

    def __init__(self, layers: int, layer_norm: bool = False) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(layers))  # (L,)
        self.gamma = nn.Parameter(torch.ones(()))
        self.layer_norm = layer_norm

    def forward(self, layers: Sequence[Tensor], mask: Tensor) -> Tensor:
        """L × (N, T, D), (N, T) -> (N, T, D), zero at padding."""
        if len(layers) != len(self.weights):
            raise ValueError(f"a mix of {len(self.weights)} layers was given {len(layers)}")
        if self.layer_norm:
            layers = [_norm(h, mask) for h in layers]
        weights = self.weights.softmax(0)  # (L,)
        mixed = torch.stack([w * h for w, h in zip(weights, layers, strict=True)]).sum(0)  # (N, T, D)
        return self.gamma * mixed * mask[..., None]


def _norm(h: Tensor, mask: Tensor, eps: float = 1e-12) -> Tensor:
    """One mean and one variance over all real tokens and all dimensions, no learned scale."""
    real = mask[..., None].to(h.dtype)  # (N, T, 1)
    numbers = real.sum() * h.shape[-1]
    mean = (h * real).sum() / numbers
    variance = ((h - mean) * real).square().sum() / numbers
    return (h - mean) / (variance + eps).sqrt()
