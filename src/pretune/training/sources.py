"""Where batches come from: pure functions of (epoch, step), so that a resumed run repeats nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from pretune.data.rows import Codec, Row
from pretune.data.samples import Sample
from pretune.errors import UserError
from pretune.tasks.base import Task
from pretune.tensors.batch import Batch, collate
from pretune.tensors.lengths import count_batches, length_batches, neighbours_within
from pretune.training.balanced import balanced

Keys = list[tuple[int, int]]  # (epoch, step) of each batch of one optimizer step


class Source(Protocol):
    carries: bool  # True: the encoder's state goes on from batch to batch within an epoch

    def steps(self, epoch: int) -> int:
        """Batches of this process in an epoch; the same number for every process."""
        ...

    def batch(self, epoch: int, step: int) -> Batch: ...


def own_rank() -> int:
    """Which of the launched processes this is (torchrun's RANK)."""
    return int(os.environ.get("RANK", 0))


def own_world() -> int:
    """How many processes were launched (torchrun's WORLD_SIZE)."""
    return int(os.environ.get("WORLD_SIZE", 1))


def task_batch(
    task: Task, codec: Codec, samples: Sequence[Sample], rows: Sequence[list[Row]], gold: bool
) -> Batch:
    """The batch of some samples whose rows are at hand."""
    wanted = task.gold(samples, rows) if gold else None
    return collate(rows, codec.pad_id, task.given(samples, rows), wanted, getattr(codec, "spell", None))


@dataclass
class SampleSource:
    """Labelled samples in shuffled batches of like length; one share of them per process.

    W processes share batches of W · `batch_size` samples. Every sample is seen once an epoch, unless the
    task asks for as many of each class: an epoch is then as long, and rare ones come several times. No
    share is ever empty: a last batch that would give a process fewer than two samples (one is too few
    for batch normalisation) joins the one before it.
    """

    task: Task
    codec: Codec
    samples: Sequence[Sample]
    batch_size: int
    seed: int
    rank: int = field(default_factory=own_rank)
    world: int = field(default_factory=own_world)
    carries: bool = False
    rows: list[list[Row]] = field(init=False)
    lengths: list[int] = field(init=False)
    classes: list[str] | None = field(init=False)
    _planned: tuple[int, list[list[int]]] = field(init=False, default=(-1, []), repr=False)

    def __post_init__(self) -> None:
        if len(self.samples) < self.world:
            raise UserError(
                f"{len(self.samples)} training samples cannot be shared by {self.world} processes; "
                "give more samples or start fewer processes"
            )
        self.rows = self.task.rows(self.codec, self.samples)
        self.lengths = [max(map(len, rows)) for rows in self.rows]
        self.classes = self.task.classes(self.samples)

    def steps(self, epoch: int) -> int:
        return count_batches(len(self.samples), self.batch_size * self.world, 2 * self.world)

    def batch(self, epoch: int, step: int) -> Batch:
        return self._of(self.wanted(epoch, step))

    def parts(self, epoch: int, step: int) -> list[Batch]:
        """The batch in parts with as many tokens as the task reads at once, or one sample that has more."""
        most = self.task.tokens_at_once
        if most is None:
            return [self.batch(epoch, step)]
        wanted = self.wanted(epoch, step)
        parts = neighbours_within([self.rows[i] for i in wanted], most)
        return [self._of([wanted[i] for i in part]) for part in parts]

    def _of(self, wanted: Sequence[int]) -> Batch:
        samples, rows = [self.samples[i] for i in wanted], [self.rows[i] for i in wanted]
        return task_batch(self.task, self.codec, samples, rows, gold=True)

    def wanted(self, epoch: int, step: int) -> list[int]:
        """Indices of this process's samples of a batch, longest first."""
        return self._plan(epoch)[step][self.rank :: self.world]

    def _plan(self, epoch: int) -> list[list[int]]:
        if self._planned[0] != epoch:
            together = self.batch_size * self.world
            chosen = balanced(self.classes, self.seed, epoch) if self.classes else range(len(self.samples))
            lengths = [self.lengths[i] for i in chosen]
            batches = length_batches(lengths, together, self.seed, epoch, 2 * self.world)
            self._planned = epoch, [[chosen[i] for i in batch] for batch in batches]
        return self._planned[1]


class _Batches(Dataset[list[Batch]]):
    """Looks batches up by their keys, in whichever worker is asked."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __getitem__(self, keys: Keys) -> list[Batch]:
        return batches_of(self.source, keys)


def batches_of(source: Source, keys: Keys) -> list[Batch]:
    """Those of one optimizer step, whose gradients add up whatever number of parts they come in."""
    if isinstance(source, SampleSource):
        return [part for epoch, step in keys for part in source.parts(epoch, step)]
    return [source.batch(epoch, step) for epoch, step in keys]


def optimizer_steps(source: Source, epoch: int, accumulate: int) -> int:
    """Optimizer steps in an epoch, the last of which may have fewer batches."""
    return -(-source.steps(epoch) // accumulate)


def step_keys(source: Source, epochs: Iterable[int], skip: int, accumulate: int) -> Iterator[Keys]:
    """The batches of every optimizer step of some epochs, without the first `skip` steps."""
    for epoch in epochs:
        last = source.steps(epoch)
        for start in range(skip * accumulate, last, accumulate):
            yield [(epoch, step) for step in range(start, min(start + accumulate, last))]
        skip = 0


def feed(source: Source, keys: Iterable[Keys], workers: int) -> Iterator[list[Batch]]:
    """The batches of each optimizer step, made here or ahead of time by `workers` processes."""
    batches = _Batches(source)
    if not workers:
        yield from map(batches.__getitem__, keys)
        return
    yield from DataLoader(
        batches,
        batch_size=None,
        sampler=keys,
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=_leave_interrupts_to_the_parent,
        generator=torch.Generator(),  # or the loader draws from the global one
    )


def _unchanged(batches: list[Batch]) -> list[Batch]:
    return batches


def _leave_interrupts_to_the_parent(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
