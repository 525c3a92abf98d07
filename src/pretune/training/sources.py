"""Where batches come from: pure functions of (epoch, step), so that a resumed run repeats nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from pretune.data.rows import Codec, Row
from pretune.data.samples import Sample
from pretune.tasks.base import Task
from pretune.tensors.batch import Batch, collate
from pretune.tensors.lengths import length_batches


class Source(Protocol):
    carries: bool  # True: the encoder's state goes on from batch to batch within an epoch

    def steps(self, epoch: int) -> int:
        """Batches of this process in an epoch."""
        ...

    def batch(self, epoch: int, step: int) -> Batch: ...


def task_batch(task: Task, codec: Codec, samples: Sequence[Sample], rows: Sequence[list[Row]], gold: bool) -> Batch:
    """The batch of some samples whose rows are at hand."""
    return collate(
        rows, codec.pad_id, task.given(samples, rows), task.gold(samples, rows) if gold else None
    )


@dataclass
class SampleSource:
    """Labelled samples in shuffled batches of like length; one share of them per process."""

    task: Task
    codec: Codec
    samples: Sequence[Sample]
    batch_size: int
    seed: int
    rank: int = 0
    world: int = 1
    carries: bool = False
    rows: list[list[Row]] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = self.task.rows(self.codec, self.samples)
        lengths = [max(map(len, rows)) for rows in self.rows]
        self._plan = lru_cache(2)(
            lambda epoch: length_batches(lengths, self.batch_size * self.world, self.seed, epoch)
        )

    def steps(self, epoch: int) -> int:
        return len(self._plan(epoch))

    def batch(self, epoch: int, step: int) -> Batch:
        wanted = self._plan(epoch)[step][self.rank :: self.world]
        return task_batch(
            self.task, self.codec, [self.samples[i] for i in wanted], [self.rows[i] for i in wanted], gold=True
        )
