"""How alike two texts are: pairs read in both orders, and numbers as shares of the levels around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from pretune.data.rows import Codec, Row
from pretune.data.samples import Sample
from pretune.errors import UserError

Orders = Literal["method", "given", "both"]


def rows_of_orders(codec: Codec, samples: Sequence[Sample], both: bool) -> list[list[Row]]:
    """The rows of pairs that have no order; `both` reads each also turned, whatever the method does.

    Without `both` the codec decides: GPT's makes two rows (section 3.3 of Radford et al. 2018), others one.
    """
    if not both:
        return codec.encode([sample.parts for sample in samples], unordered=True)
    for sample in samples:
        if len(sample.parts) != 2:
            raise UserError(
                f"sample {sample.key!r} has {len(sample.parts)} text{'s' * (len(sample.parts) != 1)}; "
                "task.orders is both, which reads two each way"
            )
    given = codec.encode([sample.parts for sample in samples])
    turned = codec.encode([sample.parts[::-1] for sample in samples])
    return [[*a, *map(_turned, b)] for a, b in zip(given, turned, strict=True)]


def _turned(row: Row) -> Row:
    """A row of the second text before the first, with the numbers of the sample's parts."""
    return replace(row, part=[1 - part if part >= 0 else part for part in row.part])


def shares_of_levels(values: Sequence[float], levels: tuple[int, int]) -> Tensor:  # (B, C)
    """p[floor(y)] = floor(y) - y + 1 and p[floor(y) + 1] = y - floor(y), of the levels from first to last.

    Section 4.2 of Tai et al. (2015), who compare such shares with a softmax over the levels.
    """
    first, last = levels
    above = torch.tensor(values, dtype=torch.float64) - first  # (B,)
    below = above.floor().clamp(max=last - first - 1)
    place = below.long()[:, None]  # (B, 1)
    upper = (above - below)[:, None]
    shares = torch.zeros(len(values), last - first + 1, dtype=torch.float64)
    return shares.scatter(1, place, 1 - upper).scatter(1, place + 1, upper).float()


def expected_level(logits: Tensor, levels: tuple[int, int]) -> Tensor:  # (B, C) -> (B,)
    """The mean of the levels, each weighing its probability."""
    numbers = torch.arange(levels[0], levels[1] + 1, dtype=logits.dtype, device=logits.device)  # (C,)
    return logits.softmax(-1) @ numbers
