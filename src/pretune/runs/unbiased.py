"""A head with a bias as one without, for GPT in transformers: what it adds is moved to where it can be."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor

from pretune.errors import UserError
from pretune.keys import generator

ROUNDING: Final = 1e-5  # what scores may lose, of a bias of 1 or less
VECTORS: Final = 512  # that it is measured on


class Unbiased(NamedTuple):
    """What gives the same scores without a bias."""

    weight: Tensor  # (C, D)
    shift: Tensor  # (D,) of the norm before the head
    note: str


def without_bias(weight: Tensor, bias: Tensor, gain: Tensor, shift: Tensor, where: Path) -> Unbiased:
    """W h + c as W' h', where h = g · z + b is what a norm says: z has mean 0. All in float64.

    u = 1 / (g · Σ b / g) has u · h = 1 whatever z is, so W' = W + c uᵀ leaves h as it is. Where rounding
    would be felt, as with a b near 0, the norm's shift takes it over: b' = b + v with W v = c.
    """
    if not bias.any():
        return Unbiased(weight, shift, "the head's bias is zero")
    z = torch.randn(VECTORS, len(gain), generator=generator(0, "vectors"), dtype=torch.float64)
    z = torch.nn.functional.layer_norm(z, (len(gain),)) * gain  # (K, D)
    wanted = (z + shift) @ weight.t() + bias  # (K, C)
    u = 1 / gain / (shift / gain).sum()  # (D,)
    v = torch.linalg.lstsq(weight, bias[:, None], driver="gelsd").solution[:, 0]  # (D,) the shortest
    for found in (
        Unbiased(weight + bias[:, None] * u, shift, "the head's bias is part of its weights"),
        Unbiased(
            weight,
            shift + v,
            "the head's bias is part of the last norm's shift, so AutoModel's vectors differ from ours by "
            "the same small vector everywhere",
        ),
    ):
        said = (z + found.shift).float() @ found.weight.float().t()
        if (said - wanted).abs().max() <= ROUNDING * max(1.0, float(bias.abs().max())):
            return found
    raise UserError(
        f"{where}: its head has a bias, which transformers' GPT head has not, and no weights that give the "
        "same scores without one; export the folder that it started from"
    )
