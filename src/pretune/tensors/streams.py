"""Parallel streams of documents cut into windows, for recurrent language models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretune.errors import UserError
from pretune.keys import generator
from pretune.tensors.batch import Batch

Direction = Literal["forward", "backward"]
Ids = NDArray[Any]  # whole numbers, perhaps mapped from a file

NO_TARGET = -100  # in `gold["next"]`, where nothing is to be predicted


@dataclass
class StreamSource:
    """All documents of an epoch, end to end, cut into equal streams; a batch is one window of each.

    Document d is `ids[starts[d]:starts[d + 1]]`. With M tokens in S streams, a stream has
    floor((M - 1) / S) targets, and row j of a batch begins at j times that plus what was read before
    (as fastai's `LMDataLoader`); the few tokens left over change from epoch to epoch. State must be
    carried from batch to batch within an epoch. Everything is a pure function of (seed, epoch, step).

    A corpus too small for `streams` of two targets each gets fewer streams: (M - 1) // 2, at least one
    for each process.
    """

    ids: Ids  # (M,)
    starts: Ids  # (documents + 1,)
    streams: int  # of each process
    window: int = 70  # tokens a batch: the reach of the gradient
    seed: int = 0
    direction: Direction = "forward"  # backward: each document from its last token to its first
    shuffle: bool = True  # documents in a new order every epoch
    variable: bool = False  # windows of varying length (Merity et al. 2017, section 4.1)
    whole: bool = False  # keep the tokens left over, in a last stream that may be shorter: for evaluation
    pad_id: int = 1
    restarts: float = 0.0  # share of the windows that begin without what came before
    rank: int = 0
    world: int = 1
    carries: bool = True
    _planned: tuple[int, Ids, Ids, Ids] | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        self.starts = np.asarray(self.starts, dtype=np.int64)
        targets = int(self.starts[-1] - self.starts[0]) - 1
        if targets < self.world:
            raise UserError(
                f"the corpus has {max(0, targets + 1)} tokens, too few for a language model"
                + (f" on {self.world} processes; give more text" if self.world > 1 else "; give more text")
            )
        self.targets = targets
        self.streams = max(1, min(self.streams, targets // 2 // self.world))
        rows = self.streams * self.world
        self.length = -(-targets // rows) if self.whole else targets // rows  # targets of a stream

    def steps(self, epoch: int) -> int:
        return len(self._plan(epoch)[0]) - 1

    def batch(self, epoch: int, step: int) -> Batch:
        cuts, order, offsets = self._plan(epoch)
        first, last = int(cuts[step]), int(cuts[step + 1])
        rows = np.arange(self.rank * self.streams, (self.rank + 1) * self.streams)  # (N,)
        at = rows[:, None] * self.length + np.arange(first, last + 1)  # (N, T+1) places in the epoch
        tokens = torch.from_numpy(self._read(np.minimum(at, self.targets), order, offsets))
        mask = torch.from_numpy(at[:, 1:] <= self.targets)  # (N, T)
        ids, following = tokens[:, :-1], tokens[:, 1:]  # (N, T) both
        if self.whole:
            ids, following = ids.masked_fill(~mask, self.pad_id), following.masked_fill(~mask, NO_TARGET)
        return Batch(
            ids.contiguous(),
            mask,
            torch.zeros_like(ids),
            torch.arange(len(ids)),
            given={"restart": self._restarting(epoch, step)} if self.restarts else {},
            gold={"next": following.contiguous()},
        )

    def _restarting(self, epoch: int, step: int) -> Tensor:
        """Which of this process's streams begin at zero: (N,)."""
        chance = generator(self.seed, "restarts", epoch, step)
        drawn = torch.rand(self.world, self.streams, generator=chance)
        return drawn[self.rank] < self.restarts

    def _read(self, at: Ids, order: Ids, offsets: Ids) -> NDArray[np.int64]:
        """The tokens at some places of the epoch's long text."""
        number = np.searchsorted(offsets, at, side="right") - 1  # which document of the epoch
        document, within = order[number], at - offsets[number]
        if self.direction == "forward":
            source = self.starts[document] + within
        else:
            source = self.starts[document + 1] - 1 - within
        return np.asarray(self.ids[source], dtype=np.int64)

    def _plan(self, epoch: int) -> tuple[Ids, Ids, Ids]:
        """Cuts of a stream into windows, the documents' order, where each begins in the epoch."""
        if self._planned is None or self._planned[0] != epoch:
            documents = len(self.starts) - 1
            order = np.arange(documents)
            if self.shuffle:
                chance = generator(self.seed, "documents", epoch)
                order = torch.randperm(documents, generator=chance).numpy()
            offsets = np.concatenate(([0], np.diff(self.starts)[order].cumsum()))
            self._planned = epoch, self._cuts(epoch), order, offsets
        return self._planned[1:]

    def _cuts(self, epoch: int) -> Ids:
        if not self.variable:
            return np.append(np.arange(0, self.length, self.window), self.length)
        chance = generator(self.seed, "windows", epoch)
        cuts = [0]
        while cuts[-1] < self.length:
            short = torch.rand((), generator=chance).item() >= 0.95
            base = self.window / 2 if short else float(self.window)
            drawn = int(torch.normal(base, 5.0, (), generator=chance).item())
            cuts.append(min(self.length, cuts[-1] + max(5, drawn)))
        return np.asarray(cuts)


class Streams(Protocol):
    """What both kinds of streams are: batches by epoch and step, state carried."""

    carries: bool

    def steps(self, epoch: int) -> int: ...

    def batch(self, epoch: int, step: int) -> Batch: ...


@dataclass
class Limited:
    """The first steps of every epoch of another source, so that a run fits a budget."""

    source: Streams
    most: int  # steps an epoch
    carries: bool = True

    def steps(self, epoch: int) -> int:
        return min(self.most, self.source.steps(epoch))

    def batch(self, epoch: int, step: int) -> Batch:
        return self.source.batch(epoch, step)
