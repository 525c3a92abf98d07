"""Rows of different lengths packed step by step, so that a recurrence never computes on padding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where the tokens of N rows are read: all first ones, longest row first, then all second ones, ..."""

    order: Tensor  # (N,) rows, longest first
    counts: list[int]  # rows that have a token at each step; M in all
    index: Tensor  # (M,) places in a flattened (N, T)
    width: int  # T

    @classmethod
    def of(cls, lengths: Tensor, width: int, backward: bool = False) -> Packing:
        """lengths (N,), at most `width`; `backward` reads each row from its own end."""
        ordered, order = lengths.sort(descending=True, stable=True)
        steps = torch.arange(int(ordered[0]) if len(ordered) else 0, device=lengths.device)[
            :, None
        ]  # (T', 1)
        live = steps < ordered  # (T', N)
        column = ordered - 1 - steps if backward else steps.expand(live.shape)
        index = (order * width + column)[live]  # (M,)
        return cls(order, live.sum(1).tolist(), index, width)

    def pack(self, x: Tensor) -> Tensor:
        """(N, T) or (N, T, D) -> (M,) or (M, D)."""
        return x.flatten(0, 1).index_select(0, self.index)

    def unpack(self, y: Tensor) -> Tensor:
        """(M, D) -> (N, T, D), zero where there is no token."""
        rows = len(self.order)
        flat = y.new_zeros(rows * self.width, y.shape[1]).index_copy(0, self.index, y)
        return flat.view(rows, self.width, -1)

    def inside(self, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Of tokens that are neither first nor last of their row: their number among the M, and their place
        in a flattened (N, T - 2) without those two. lengths (N,)."""
        row, column = self.index // self.width, self.index % self.width
        of = ((column > 0) & (column < lengths[row] - 1)).nonzero()[:, 0]
        return of, row[of] * (self.width - 2) + column[of] - 1
