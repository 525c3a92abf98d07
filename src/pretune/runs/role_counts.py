"""How often a word had each role where it stands: the baseline of semantic roles, without syntax."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from pretune.data.samples import Sample
from pretune.runs import counts
from pretune.runs.counts import Counts, Fit
from pretune.tasks.base import Answer, Task
from pretune.tasks.srl import SemanticRoles

FAR: Final = 10  # words from the predicate; those that are farther count as this


@dataclass
class RoleCounts:
    """How likely each tag of a word is, by where it stands from the predicate, itself and the predicate.

    Each word is seen alone. From the most general of `seen_of` on, what is known is mixed with what was
    counted where more is the same, which weighs n / (n + t) where n words had t different tags (Witten & Bell
    1991, method C). Of all tags together the task's Viterbi takes the likeliest that are BIO.
    """

    task: SemanticRoles
    tags: Counts

    @property
    def parameters(self) -> int:
        return sum(map(len, self.tags.values()))

    def answers(self, samples: Sequence[Sample], batch_size: int = 64) -> list[Answer]:
        """One answer a sample, in order; nothing here depends on the batch."""
        if not samples:
            return []
        place = {label: i for i, label in enumerate(self.task.labels)}
        nats = []
        for sample in samples:
            shares = [self._shares(seen, place) for seen in seen_of(self.task, sample)]
            nats.append(torch.from_numpy(np.stack(shares)).log())  # (W, C)
        return self.task.answers_of([self.task.words_of(sample) for sample in samples], nats)

    def _shares(self, seen: Sequence[str], place: Mapping[str, int]) -> NDArray[np.float64]:
        shares = np.full(len(place), 1 / len(place))
        for what in seen:
            if found := self.tags.get(what):
                total = sum(found.values()) + len(found)
                shares *= len(found) / total
                shares[[place[tag] for tag in found]] += np.array([*found.values()]) / total
        return shares

    def save(self, folder: Path, info: Mapping[str, Any]) -> None:
        counts.save(folder, "rolecounts", self.task, {"tags": self.tags}, info)


def seen_of(task: SemanticRoles, sample: Sample) -> Iterator[tuple[str, ...]]:
    """Of each word what its tag is counted by, from the most general to the most particular.

    That is nothing; how many words before or behind the predicate it stands; on which side, and which word it
    is; its place and the word; its side, the word and the predicate.
    """
    spans = task.words_of(sample)
    words = [sample.parts[0].text[start:end].casefold() for start, end in spans]
    asked = [i for i, mine in enumerate(task.predicate_of(sample, spans)) if mine]
    predicate = " ".join(words[i] for i in asked)
    for i, word in enumerate(words):
        away = min(0, i - asked[0]) + max(0, i - asked[-1])
        place, side = max(-FAR, min(FAR, away)), "<" if away < 0 else ">" if away else "="
        yield "", f"{place}", f"{side}\t{word}", f"{place}\t{word}", f"{side}\t{word}\t{predicate}"


def fit(task: Task, train: Sequence[Sample], valid: Sequence[Sample]) -> Fit[RoleCounts]:
    assert isinstance(task, SemanticRoles)
    return counts.fit(counted, task, train, valid)


def counted(task: SemanticRoles, samples: Sequence[Sample]) -> RoleCounts:
    return RoleCounts(
        task,
        counts.counted(
            (what, tag)
            for sample in samples
            for seen, tag in zip(seen_of(task, sample), sample.gold, strict=True)
            for what in seen
        ),
    )


def load(folder: Path) -> RoleCounts:
    """The baseline that was saved in `folder`."""

    def made(task: SemanticRoles, tables: Any) -> RoleCounts:
        if {tag for of_word in tables["tags"].values() for tag in of_word} - set(task.labels):
            raise ValueError("tags that the task does not know")
        return RoleCounts(task, tables["tags"])

    return counts.load(folder, SemanticRoles, made)
