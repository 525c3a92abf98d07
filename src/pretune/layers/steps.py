"""Rows of different lengths packed step by step, without padding: how recurrent layers read them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Steps:
    """Where the tokens of R rows stand, all rows of the first step first; rows are sorted, longest first.

    Of a rectangle, where all rows have a token at every step, tokens are simply (T, R) flattened.
    """

    counts: tuple[int, ...]  # rows at each step: never rising, the first is R; they sum to M
    step: Tensor  # (M,) of each token
    row: Tensor  # (M,)

    @classmethod
    def of(cls, reads: Tensor) -> Steps:
        """From whether there is a token at each step of each row, (T, R)."""
        step, row = reads.nonzero(as_tuple=True)
        return cls(tuple(reads.sum(1).tolist()), step, row)

    @classmethod
    def rectangle(cls, steps: int, rows: int, device: torch.device | str = "cpu") -> Steps:
        at = torch.arange(steps * rows, device=device)
        return cls((rows,) * steps, at // rows, at % rows)

    @property
    def rows(self) -> int:
        return self.counts[0]

    @property
    def even(self) -> bool:
        """Whether they are a rectangle."""
        return self.counts[-1] == self.counts[0]

    def to(self, device: torch.device | str) -> Steps:
        return Steps(self.counts, self.step.to(device), self.row.to(device))

    def earlier(self) -> Tensor:
        """Each token's predecessor, (M,), among what was before the first step (R places) and all tokens."""
        counts = torch.tensor((self.rows, *self.counts), device=self.row.device)
        return (counts.cumsum(0) - counts)[self.step] + self.row

    def last(self) -> Tensor:
        """The place of each row's last token: (R,)."""
        counts = torch.tensor(self.counts, device=self.row.device)  # (T,)
        lasting = (counts[:, None] > torch.arange(self.rows, device=counts.device)).sum(0) - 1  # (R,)
        return (counts.cumsum(0) - counts)[lasting] + torch.arange(self.rows, device=counts.device)
