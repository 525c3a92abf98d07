"""The most frequent tag of each word: the baseline of tagging without pretraining or context."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretune.data.samples import Sample
from pretune.errors import UserError
from pretune.runs.files import write_json
from pretune.runs.folders import CONFIG, FORMAT, read_config, write_folder, write_run
from pretune.runs.trained import task_config, task_from
from pretune.tasks.base import Answer, Task
from pretune.tasks.tagging import Tagging

Counts = dict[str, dict[str, int]]  # of what is seen, how often it had each tag
TABLE = "counts.json"


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
        counts = self.words.get(word) or next(known)
        total = sum(counts.values())
        return [counts.get(tag, 0) / total for tag in self.task.tags]

    def save(self, folder: Path, info: Mapping[str, Any]) -> None:
        """config.json, counts.json and run.json, atomically."""
        config = {"format": FORMAT, "kind": "unigram", "method": "unigram", "task": task_config(self.task)}

        def fill(new: Path) -> None:
            write_json(new / CONFIG, config)
            write_json(new / TABLE, {"words": self.words, "looks": self.looks})
            write_run(new, info)

        write_folder(folder, fill)


def looks_of(word: str) -> list[str]:
    """Its longest endings, each with how it is written: "9" has digits, "X" capitals, "Xa" one first."""
    digits = any(map(str.isdigit, word))
    shape = "9" if digits else "X" if word.isupper() else "Xa" if word[:1].isupper() else "a"
    return [*(f"{shape} {word[-n:].lower()}" for n in (3, 2, 1)), ""]


def fit(task: Task, train: Sequence[Sample], valid: Sequence[Sample]) -> tuple[Unigram, dict[str, float]]:
    """Counted in all labels; the scores are of `valid` by what `train` counts."""
    assert isinstance(task, Tagging)
    scores = task.score([s.gold for s in valid], counted(task, train).answers(valid))
    return counted(task, [*train, *valid]), scores


def counted(task: Tagging, samples: Sequence[Sample]) -> Unigram:
    pairs: list[tuple[str, str]] = []
    for sample in samples:
        text = sample.parts[0].text
        words = [text[span.start : span.end] for span in task.words_of(sample)]
        pairs += zip(words, sample.gold, strict=True)
    seen = Counter(word for word, _ in pairs)
    rare = [(word, tag) for word, tag in pairs if seen[word] == 1] or pairs
    looks = _table((look, tag) for word, tag in rare for look in dict.fromkeys(looks_of(word)))
    return Unigram(task, _table(pairs), looks)


def load(folder: Path) -> Unigram:
    """The baseline that was saved in `folder`."""
    task = task_from(read_config(folder)["task"])
    try:
        table = json.loads((folder / TABLE).read_text(encoding="utf-8"))
        words, looks = table["words"], table["looks"]
        if not isinstance(task, Tagging) or not sum(looks[""].values()):
            raise ValueError("no counts of tags")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder}: its {TABLE} cannot be read: {error}") from None
    return Unigram(task, words, looks)


def _table(pairs: Iterable[tuple[str, str]]) -> Counts:
    found: dict[str, Counter[str]] = {}
    for what, tag in pairs:
        found.setdefault(what, Counter())[tag] += 1
    return {what: dict(counts) for what, counts in found.items()}
