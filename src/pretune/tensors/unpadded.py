"""Rows of different lengths one after the other, so that nothing is computed on padding."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor


@dataclass(frozen=True)
class Unpadded:
    """Where the M tokens of N rows are: the longest row first, rows of equal length side by side.

    Padding may stand anywhere: places in a row are counted among its tokens.
    """

    groups: tuple[tuple[int, int], ...]  # (rows, tokens of each), in order; rows · tokens add up to M
    row: Tensor  # (M,) which row, in this order, a token belongs to
    place: Tensor  # (M,) its place among the tokens of its row
    index: Tensor  # (M,) its place in a flattened (N, T)
    shape: tuple[int, int]  # N, T
    dense: bool  # no padding at all: index is 0..M-1

    @classmethod
    def of(cls, mask: Tensor) -> Unpadded:
        """mask (N, T), True at tokens."""
        lengths, order = mask.sum(1).sort(descending=True, stable=True)  # (N,) both
        lasting = lengths.tolist()
        groups = tuple((len(list(same)), length) for length, same in groupby(lasting) if length)
        row, column = mask[order].nonzero(as_tuple=True)  # (M,) both
        begins = lengths.cumsum(0) - lengths  # (N,)
        place = torch.arange(len(row), device=mask.device) - begins[row]
        N, T = mask.shape
        return cls(groups, row, place, order[row] * T + column, (N, T), len(row) == N * T)

    @property
    def longest(self) -> int:
        return self.groups[0][1] if self.groups else 0

    def pack(self, x: Tensor) -> Tensor:
        """(N, T, ...) -> (M, ...)."""
        flat = x.flatten(0, 1)
        return flat if self.dense else flat.index_select(0, self.index)

    def unpack(self, y: Tensor) -> Tensor:
        """(M, D) -> (N, T, D), zero where there is no token."""
        N, T = self.shape
        if not self.dense:
            y = y.new_zeros(N * T, y.shape[1]).index_copy_(0, self.index, y)
        return y.view(N, T, -1)
