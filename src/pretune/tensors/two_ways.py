"""Sentences packed into streams that are read both ways: the batches of ELMo's language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretune.errors import UserError
from pretune.keys import generator
from pretune.tensors.batch import Batch
from pretune.tensors.streams import NO_TARGET

Ids = NDArray[Any]  # whole numbers, perhaps mapped from a file
Way = Literal["forward", "backward"]
WAYS: tuple[Way, ...] = ("forward", "backward")


@dataclass(frozen=True)
class Plan:
    """Which sentences each stream of an epoch reads, one way."""

    sentences: tuple[Ids, ...]  # of each stream, in order
    begins: tuple[Ids, ...]  # where each of them begins in its stream
    filled: tuple[int, ...]  # targets of each stream
    steps: int


@dataclass
class TwoWaySource:
    """Two independent readings of a corpus: rows 0..S-1 of a batch left to right, the others right to left.

    `segments` says which way a row is read (0, 1).

    As `bilm/data.py`: a stream is sentence after sentence, `<S> w1 .. wn` with targets `w1 .. wn </S>` (or
    `</S> wn .. w1` with targets `wn .. w1 <S>`), cut into windows without regard to sentences; streams take
    their next sentence in turn, in an order shuffled for each way alone; windows that are not full in all
    streams are dropped. State is carried from batch to batch.

    Sentence k is `ids[starts[k]:starts[k + 1]]`, without marks. An id below `words` is what is predicted;
    ids from there on are words that can only be read, predicted as `unknown`.
    """

    ids: Ids  # (M,)
    starts: Ids  # (sentences + 1,)
    words: int  # V
    marks: tuple[int, int, int]  # ids of <S>, </S>, <UNK>
    spell: Callable[[Ids], Tensor] | None  # different ids -> characters (W, C); None: the model reads ids
    ways: tuple[Way, ...] = WAYS
    streams: int = 64  # of each way and process
    window: int = 20
    seed: int = 0
    shuffle: bool = True
    whole: bool = False  # also the windows that are not full, padded: for evaluation
    restarts: float = 0.0  # share of the windows that begin without what came before
    rank: int = 0
    world: int = 1
    carries: bool = True
    _planned: tuple[int, tuple[Plan, ...]] | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        self.starts = np.asarray(self.starts, np.int64)
        while self.steps(0) < 1 and self.streams > 1:
            self.streams, self._planned = self.streams // 2, None
        if self.steps(0) < 1:
            targets = int(self.starts[-1] - self.starts[0]) + len(self.starts) - 1
            raise UserError(
                f"{targets} words and marks are too few for {self.streams * self.world} streams of "
                f"{self.window}; give more text or shorter windows"
            )

    def steps(self, epoch: int) -> int:
        return min(plan.steps for plan in self._plan(epoch))

    def batch(self, epoch: int, step: int) -> Batch:
        read = [self._window(plan, way, step) for plan, way in zip(self._plan(epoch), self.ways, strict=True)]
        inputs = np.concatenate([given for given, _ in read])  # (ways · S, U)
        targets = torch.from_numpy(np.concatenate([wanted for _, wanted in read]))  # (ways · S, U)
        characters = None
        if self.spell is None:
            ids = torch.from_numpy(self._predicted(inputs))
        else:
            different, places = np.unique(inputs, return_inverse=True)
            ids = torch.from_numpy(places.reshape(inputs.shape))
            characters = self.spell(different)  # (W, C)
        segments = torch.arange(len(ids))[:, None].div(self.streams, rounding_mode="floor").expand(ids.shape)
        return Batch(
            ids,
            targets != NO_TARGET,
            segments,
            torch.arange(len(ids)),
            given={"restart": self._restarting(epoch, step)} if self.restarts else {},
            gold={"next": targets},
            words=characters,
        )

    def _restarting(self, epoch: int, step: int) -> Tensor:
        """Which of this process's streams begin at zero: (ways · S,)."""
        chance = generator(self.seed, "restarts", epoch, step)
        drawn = torch.rand(len(self.ways), self.world, self.streams, generator=chance)
        return (drawn[:, self.rank] < self.restarts).flatten()

    def _window(self, plan: Plan, way: Way, step: int) -> tuple[Ids, Ids]:
        """Inputs and targets of this process's streams, (S, U) each; no targets where a stream is over."""
        at = np.arange(step * self.window, (step + 1) * self.window)
        own = range(self.rank * self.streams, (self.rank + 1) * self.streams)
        rows = [self._stream(plan.sentences[row], plan.begins[row], way, at) for row in own]
        inputs, targets = (np.stack(side) for side in zip(*rows, strict=True))
        over = at >= np.asarray([plan.filled[row] for row in own])[:, None]  # (S, U)
        return inputs, np.where(over, NO_TARGET, self._predicted(targets))

    def _stream(self, sentences: Ids, begins: Ids, way: Way, at: Ids) -> tuple[Ids, Ids]:
        """Inputs and targets at some places of one stream, (U,) each."""
        number = np.searchsorted(begins, at, side="right") - 1
        sentence, k = sentences[number], at - begins[number]  # k = 0 at the first mark
        first, length = self.starts[sentence], self.starts[sentence + 1] - self.starts[sentence]
        opening, closing = self.marks[:2] if way == "forward" else self.marks[1::-1]

        def word(place: Ids) -> Ids:
            """Word `place` (from 0) of the sentence, in reading order."""
            inside = np.clip(place, 0, np.maximum(length - 1, 0))
            source = first + (inside if way == "forward" else length - 1 - inside)
            return np.asarray(self.ids[np.minimum(source, len(self.ids) - 1)], np.int64)

        inputs = np.where(k == 0, opening, word(k - 1))
        return inputs, np.where(k == length, closing, word(k))

    def _predicted(self, ids: Ids) -> Ids:
        return np.where(ids < self.words, ids, self.marks[2])

    def _plan(self, epoch: int) -> tuple[Plan, ...]:
        if self._planned is None or self._planned[0] != epoch:
            self._planned = epoch, tuple(self._way(epoch, way) for way in self.ways)
        return self._planned[1]

    def _way(self, epoch: int, way: Way) -> Plan:
        count = len(self.starts) - 1
        order: Ids = np.arange(count)
        if self.shuffle:
            chance = generator(self.seed, "sentences", way, epoch)
            order = torch.randperm(count, generator=chance).numpy()
        lengths = (np.diff(self.starts) + 1)[order]  # targets of each
        return dealt(order, lengths, self.streams * self.world, self.window, self.whole)


def dealt(order: Ids, lengths: Ids, streams: int, window: int, whole: bool = False) -> Plan:
    """Sentences dealt to streams as the release does: row by row, each until its window is full.

    Windows that are not full in all streams are not counted, unless the `whole` text is wanted.
    """
    taken: list[list[int]] = [[] for _ in range(streams)]
    filled = [0] * streams
    sizes: Sequence[int] = lengths.tolist()
    number, steps = 0, 0
    while True:
        goal = (steps + 1) * window
        for row in range(streams):
            while filled[row] < goal and number < len(sizes):
                taken[row].append(number)
                filled[row] += sizes[number]
                number += 1
        if min(filled) < goal:
            break
        steps += 1
    if whole:
        steps = -(-max(filled) // window)
    nothing = np.zeros(1, np.int64)
    begins = [np.concatenate(([0], lengths[row].cumsum()))[:-1] if row else nothing for row in taken]
    sentences = [order[row] if row else nothing for row in taken]
    return Plan(tuple(sentences), tuple(begins), tuple(filled), steps)
