"""Windows of documents, each read on its own: cut anew every epoch to learn from, overlapping to score by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pretune.errors import UserError
from pretune.keys import generator
from pretune.tensors.batch import Batch
from pretune.tensors.streams import NO_TARGET, Ids


@dataclass
class RandomWindows:
    """Documents cut into windows of `context` tokens, in other places every epoch, in shuffled batches.

    Document d is `ids[starts[d]:starts[d + 1]]`; each of its tokens but the last is read to predict the one
    after it. One that fits into a window is read whole. Of a longer one the first window has 1 to `context`
    tokens, drawn evenly, the last what is left, all between are full: so no window crosses documents, and
    every token but the first of a document is a target once an epoch.

    A batch is as many windows as have `rows * context` tokens together: `rows` full ones, more where some are
    short. What is left of an epoch, less than a batch, is something else every time. Everything is a pure
    function of (seed, epoch, step).
    """

    ids: Ids  # (M,)
    starts: Ids  # (documents + 1,)
    context: int
    rows: int  # full windows of a batch, of each process
    seed: int = 0
    pad_id: int = 0
    rank: int = 0
    world: int = 1
    carries: bool = False
    _planned: tuple[int, Ids, Ids, Ids] | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        self.starts = np.asarray(self.starts, dtype=np.int64)
        self.targets = int(np.maximum(np.diff(self.starts) - 1, 0).sum())
        self.tokens = self.rows * self.context * self.world  # of a batch of all processes
        if self.targets < self.tokens and len(self._cut(0)[0]) < self.world:
            raise UserError(
                f"the corpus has {int(self.starts[-1] - self.starts[0])} tokens, too few for a language model"
                + (f" on {self.world} processes; give more text" if self.world > 1 else "; give more text")
            )

    def steps(self, epoch: int) -> int:
        return max(1, self.targets // self.tokens)

    def batch(self, epoch: int, step: int) -> Batch:
        begins, lengths, cuts = self._plan(epoch)
        some = np.arange(cuts[step], cuts[step + 1])
        longest_first = some[np.argsort(-lengths[some], kind="stable")]
        own = longest_first[self.rank :: self.world]  # (N,)
        return window_batch(self.ids, begins[own], lengths[own], np.zeros_like(own), self.pad_id)

    def _plan(self, epoch: int) -> tuple[Ids, Ids, Ids]:
        """Where the epoch's windows begin, how long they are, and which is the first of each batch."""
        if self._planned is None or self._planned[0] != epoch:
            begins, lengths = self._cut(epoch)
            order = torch.randperm(len(begins), generator=generator(self.seed, "windows", epoch)).numpy()
            begins, lengths = begins[order], lengths[order]
            before = lengths.cumsum() - lengths
            cuts = np.searchsorted(before, np.arange(self.steps(epoch) + 1) * self.tokens)
            self._planned = epoch, begins, lengths, cuts
        return self._planned[1:]

    def _cut(self, epoch: int) -> tuple[Ids, Ids]:
        """Where windows begin in `ids`, and how many tokens they read, document after document."""
        targets = np.maximum(np.diff(self.starts) - 1, 0)  # of each document
        chance = generator(self.seed, "offsets", epoch)
        drawn = torch.randint(1, self.context + 1, (len(targets),), generator=chance).numpy()
        first = np.where(targets <= self.context, targets, drawn)
        counts = (targets > 0) - (first - targets) // self.context
        document = np.repeat(np.arange(len(targets)), counts)
        number = np.arange(len(document)) - np.repeat(counts.cumsum() - counts, counts)  # in its document
        begin = np.where(number == 0, 0, first[document] + (number - 1) * self.context)
        end = np.minimum(targets[document], first[document] + number * self.context)
        return self.starts[document] + begin, end - begin


class Window(NamedTuple):
    """Tokens `begin` to `end` of a text are read; what follows those from `scored` on is asked for."""

    begin: int
    end: int
    scored: int


def overlapping(tokens: int, context: int, overlap: int) -> Iterator[Window]:
    """Windows in which every one of `tokens` is asked for once, with `overlap` or more tokens before it.

    Fewer stand before those that are within `overlap` of the beginning. The last window reaches back as far
    as the context does.
    """
    end = min(tokens, context)
    if tokens > 0:
        yield Window(0, end, 0)
    while end < tokens:
        scored, end = end, min(tokens, end - overlap + context)
        yield Window(end - context, end, scored)


@dataclass
class ScoredWindows:
    """Every token but the first of each document as a target once, in windows that overlap: for evaluation.

    Batches are of like length, the longest first.
    """

    ids: Ids  # (M,)
    starts: Ids  # (documents + 1,)
    context: int
    rows: int  # windows of a batch
    overlap: int = 0  # tokens before the first that is scored, but at the beginning of documents
    pad_id: int = 0
    carries: bool = False

    def __post_init__(self) -> None:
        found = [
            (start + window.begin, window.end - window.begin, window.scored - window.begin)
            for start, size in zip(self.starts[:-1].tolist(), np.diff(self.starts).tolist(), strict=True)
            for window in overlapping(size - 1, self.context, self.overlap)
        ]
        if not found:
            raise UserError("the held-out text has no two tokens in a row; hold out more")
        windows = np.array(sorted(found, key=lambda window: -window[1]), dtype=np.int64)
        self._begins, self._lengths, self._skipped = windows.T  # (W,) each

    def steps(self, epoch: int) -> int:
        return -(-len(self._begins) // self.rows)

    def batch(self, epoch: int, step: int) -> Batch:
        some = slice(step * self.rows, (step + 1) * self.rows)
        begins, lengths, skipped = self._begins[some], self._lengths[some], self._skipped[some]
        return window_batch(self.ids, begins, lengths, skipped, self.pad_id)


def window_batch(
    ids: Ids, begins: NDArray[Any], lengths: NDArray[Any], skipped: NDArray[Any], pad_id: int
) -> Batch:
    """`lengths[n]` tokens from `begins[n]` on; what follows is asked of all but the first `skipped[n]`.

    begins, lengths, skipped (N,); all of a window's tokens have one after them in `ids`.
    """
    place = np.arange(lengths.max())  # (T,)
    inside = place < lengths[:, None]  # (N, T)
    at = np.where(inside, begins[:, None] + place, begins[:, None])
    read = np.where(inside, np.asarray(ids[at], np.int64), pad_id)
    asked = inside & (place >= skipped[:, None])
    following = np.where(asked, np.asarray(ids[at + 1], np.int64), NO_TARGET)
    tokens = torch.from_numpy(read)
    return Batch(
        tokens,
        torch.from_numpy(inside),
        torch.zeros_like(tokens),
        torch.arange(len(tokens)),
        gold={"next": torch.from_numpy(following)},
    )
