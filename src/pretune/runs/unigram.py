"""The most frequent tag of each word: the baseline of tagging without pretraining or context."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretune.data.samples import Sample
from pretune.runs import counts
from pretune.runs.counts import Counts, Fit
from pretune.tasks.base import Answer, Task
from pretune.tasks.tagging import Tagging


@dataclass
class Unigram:
    """How often each word had each tag, without its neighbours.

    A word that training never had is taken for one that looks alike: the same ending, capitals, digits. Looks
    are counted of words that training had once, for those are most like new ones.
    """

    task: Tagging
    words: Counts
    looks: Counts  # "" is any

    @property
    def parameters(self) -> int:
        return sum(map(len, (*self.words.values(), *self.looks.values())))

    def answers(self, samples: Sequence[Sample], batch_size: int = 64) -> list[Answer]:
        """One answer a sample, in order; nothing here depends on the batch."""
        found = []
        for sample in samples:
            text, spans = sample.parts[0].text, self.task.words_of(sample)
            shares = [self._shares(text[span.start : span.end]) for span in spans]
            found.append(self.task.answer_of(spans, shares))
        return found

    def _shares(self, word: str) -> list[float]:
        known = (self.looks[look] for look in looks_of(word) if look in self.looks)
        seen = self.words.get(word) or next(known)
        total = sum(seen.values())
        return [seen.get(tag, 0) / total for tag in self.task.tags]

    def save(self, folder: Path, info: Mapping[str, Any]) -> None:
        counts.save(folder, "unigram", self.task, {"words": self.words, "looks": self.looks}, info)


def looks_of(word: str) -> list[str]:
    """Its longest endings, each with how it is written: "9" has digits, "X" capitals, "Xa" one first."""
    digits = any(map(str.isdigit, word))
    shape = "9" if digits else "X" if word.isupper() else "Xa" if word[:1].isupper() else "a"
    return [*(f"{shape} {word[-n:].lower()}" for n in (3, 2, 1)), ""]


def fit(task: Task, train: Sequence[Sample], valid: Sequence[Sample]) -> Fit[Unigram]:
    assert isinstance(task, Tagging)
    return counts.fit(counted, task, train, valid)


def counted(task: Tagging, samples: Sequence[Sample]) -> Unigram:
    """Of tags in the scheme that the task learns."""
    words = [
        sample.parts[0].text[span.start : span.end] for sample in samples for span in task.words_of(sample)
    ]
    tags = [task.tags[tag] for tag in task.gold(samples, [])["tags"].tolist()]
    pairs, seen = list(zip(words, tags, strict=True)), Counter(words)
    rare = [(word, tag) for word, tag in pairs if seen[word] == 1] or pairs
    looks = counts.counted((look, tag) for word, tag in rare for look in dict.fromkeys(looks_of(word)))
    return Unigram(task, counts.counted(pairs), looks)


def load(folder: Path) -> Unigram:
    """The baseline that was saved in `folder`."""

    def made(task: Tagging, tables: Any) -> Unigram:
        if not sum(tables["looks"][""].values()):
            raise ValueError("no counts of tags")
        return Unigram(task, tables["words"], tables["looks"])

    return counts.load(folder, Tagging, made)
