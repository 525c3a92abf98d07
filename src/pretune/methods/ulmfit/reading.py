"""How long documents are read: which tokens a call of the network sees, and where its vectors go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pretune.layers.lstm import State
from pretune.layers.steps import Steps

Carry = tuple[State, ...]  # a pair a layer, each (1, N, ...): h and c of an LSTM, c and last input of a QRNN


@dataclass(frozen=True)
class Call:
    """Some steps of the rows that have a token at the first of them."""

    reads: Tensor  # (T, R) what is read at each step, padding perhaps among it
    real: Tensor  # (T, R) what is a token
    begins: Tensor  # (R,) places in their rows of the first step

    def filled(self) -> Call:
        """The same as a rectangle, whose padding is read for the sake of speed and then forgotten."""
        return Call(torch.ones_like(self.reads), self.real, self.begins)

    @property
    def steps(self) -> Steps:
        return Steps.of(self.reads)


@dataclass
class Reading:
    """Rows sorted by their lengths, and what has been read of them so far."""

    ids: Tensor  # (N, T) sorted, longest row first
    order: Tensor  # (N,) where each of the sorted rows stood
    _layers: list[list[Tensor]] = field(default_factory=list)
    _places: list[Tensor] = field(default_factory=list)

    def calls(self, lengths: Tensor, most: int, begins: Tensor | None = None) -> Iterator[Call]:
        """`lengths[n]` tokens of each row, never rising, from `begins` on, `most` steps at a time."""
        begins = torch.zeros_like(lengths) if begins is None else begins
        for first in range(0, int(lengths[0]), most):
            live = int((lengths > first).sum())
            step = torch.arange(first, min(first + most, int(lengths[0])))
            reads = step[:, None] < lengths[:live]  # (T, R)
            yield Call(reads, reads, begins[:live] + first)

    def find(self, call: Call, steps: Steps) -> tuple[Tensor, Tensor]:
        """The ids of a call, (M,), and where its vectors belong in (N · T + 1,), padding's in the last."""
        rows, length = self.ids.shape
        real = call.real.to(self.ids.device)[steps.step, steps.row]  # (M,)
        at = call.begins.to(self.ids.device)[steps.row] + steps.step  # (M,)
        ids = self.ids[steps.row, at.clamp(max=length - 1)]
        return ids, torch.where(real, self.order[steps.row] * length + at, rows * length)

    def keep(self, layers: Sequence[Tensor], places: Tensor) -> None:
        """The vectors of a call: L + 1 × (M, D_l)."""
        self._layers.append(list(layers))
        self._places.append(places)

    def layers(self) -> tuple[Tensor, ...]:
        """All that was kept, rows in their old order, zeros at padding: L + 1 × (N, T, D_l)."""
        return tuple(self._joined(parts) for parts in zip(*self._layers, strict=True))

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        rows, length = self.ids.shape
        whole = parts[0].new_zeros(rows * length + 1, parts[0].shape[1])  # (N · T + 1, D)
        if torch.is_grad_enabled():
            whole = whole.index_copy(0, torch.cat(self._places), torch.cat(list(parts)))
        else:
            for places, part in zip(self._places, parts, strict=True):
                whole.index_copy_(0, places, part)
        return whole[:-1].view(rows, length, -1)


def pick_rows(carry: Carry, rows: Tensor) -> Carry:
    """The state of these rows."""
    return tuple((first.index_select(1, rows), second.index_select(1, rows)) for first, second in carry)
