"""A task around another: what it does not change is the inner one's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from pretune.data.rows import Codec, Row
from pretune.data.samples import Sample
from pretune.encoder import Encoder
from pretune.tasks.base import Answer, Head, Scores, Task


@dataclass(frozen=True)
class Around(Task):
    """Rows, gold, head, answers and scores of `task`; subclasses add to what heads or encoders are given."""

    task: Task

    def __post_init__(self) -> None:
        object.__setattr__(self, "higher_is_better", self.task.higher_is_better)
        object.__setattr__(self, "tokens_at_once", self.task.tokens_at_once)

    @property
    def metric(self) -> str:
        return self.task.metric

    def fitted_to(self, samples: Sequence[Sample]) -> Around:
        return replace(self, task=self.task.fitted_to(samples))

    def classes(self, samples: Sequence[Sample]) -> list[str] | None:
        return self.task.classes(samples)

    def rows(self, codec: Codec, samples: Sequence[Sample]) -> list[list[Row]]:
        return self.task.rows(codec, samples)

    def given(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        return self.task.given(samples, rows)

    def gold(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        return self.task.gold(samples, rows)

    def head(self, encoder: Encoder) -> Head:
        return self.task.head(encoder)

    def decode(
        self, scores: Scores, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]
    ) -> list[Answer]:
        return self.task.decode(scores, samples, rows)

    def pieces(self, rows: Sequence[Row]) -> list[list[Row]]:
        return self.task.pieces(rows)

    def together(self, scores: Sequence[Scores], pieces: Sequence[Sequence[Row]]) -> Scores:
        return self.task.together(scores, pieces)

    def score(self, golds: Sequence[Any], answers: Sequence[Answer]) -> dict[str, float]:
        return self.task.score(golds, answers)
