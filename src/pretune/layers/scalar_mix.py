"""The scalar mix: one weighted mean of an encoder's layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ScalarMix(nn.Module):
    """gamma * sum_l softmax(w)_l h_l, eq. 1 of Peters et al. (2018).

    The weights start equal, so an untrained mix is the mean of the layers, or at `weights` (as they are
    before the softmax; `[-9e10, 1, -9e10]` picks the middle one). `layer_norm` first gives each layer
    mean 0 and variance 1 over all real tokens of the batch, as published: a vector then depends on its
    batch. It is off by default, as in every published model. `top` takes the last layer alone, times
    gamma. A `frozen` mix has no parameters: weights and gamma stay as they were set.
    """

    def __init__(
        self,
        layers: int,
        layer_norm: bool = False,
        *,
        top: bool = False,
        weights: Sequence[float] | None = None,
        gamma: float = 1.0,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        if weights is not None and len(weights) != layers:
            raise ValueError(f"a mix of {layers} layers was given {len(weights)} weights")
        self.layers, self.layer_norm, self.top = layers, layer_norm, top
        self.weights: Tensor | None
        self.gamma: Tensor
        start = None  # (L,)
        if not top:
            start = torch.zeros(layers) if weights is None else torch.tensor(weights, dtype=torch.float32)
        for name, value in (("weights", start), ("gamma", torch.tensor(float(gamma)))):
            if frozen or value is None:
                self.register_buffer(name, value)
            else:
                self.register_parameter(name, nn.Parameter(value))

    def forward(self, layers: Sequence[Tensor], mask: Tensor) -> Tensor:
        """L × (N, T, D), (N, T) -> (N, T, D), zero at padding."""
        if len(layers) != self.layers:
            raise ValueError(f"a mix of {self.layers} layers was given {len(layers)}")
        if self.top:
            layers = layers[-1:]
        if self.layer_norm:
            layers = [_norm(h, mask) for h in layers]
        mixed = layers[0]
        if self.weights is not None:
            shares = self.weights.softmax(0)  # (L,)
            mixed = torch.stack([s * h for s, h in zip(shares, layers, strict=True)]).sum(0)  # (N, T, D)
        return self.gamma * mixed * mask[..., None]

    def shares(self) -> Tensor:
        """(L,) what each layer counts, adding up to 1."""
        if self.weights is None:
            return nn.functional.one_hot(torch.tensor(self.layers - 1), self.layers).float()
        return self.weights.detach().softmax(0)

    def penalty(self) -> Tensor:
        """sum_l w_l², what lambda weighs (section 5.1): large, it holds the layers at equal shares.

        It is of the weights before the softmax; gamma is free.
        """
        return self.gamma.new_zeros(()) if self.weights is None else self.weights.square().sum()


def _norm(h: Tensor, mask: Tensor, eps: float = 1e-12) -> Tensor:
    """One mean and one variance over all real tokens and all dimensions, no learned scale."""
    real = mask[..., None].to(h.dtype)  # (N, T, 1)
    numbers = real.sum() * h.shape[-1]
    mean = (h * real).sum() / numbers
    variance = ((h - mean) * real).square().sum() / numbers
    return (h - mean) / (variance + eps).sqrt()
