"""Mentions of the same words are of the same thing: the baseline of coreference without pretraining."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretune.data.documents import in_order
from pretune.data.samples import Sample, Span
from pretune.metrics.coreference import distinct
from pretune.runs import counts
from pretune.runs.counts import Fit
from pretune.tasks.base import Answer, Task
from pretune.tasks.coref import Coref, words_under
from pretune.tasks.segments import Range

Seen = dict[str, list[int]]  # of what, how often it was one, and how often it could have been


@dataclass
class SameStrings:
    """Strings that training has as mentions more often than not, and names; the same ones belong together.

    A name is a run of words with capitals. A mention joins the cluster of the last one before it with the
    same string (of names the last word alone, their head), unless training says that such neighbours are
    mostly of different things, as they may be of a pronoun.
    """

    task: Coref
    mentions: Seen  # strings that were mentions: how often, and how often they stand anywhere
    links: Seen  # neighbouring mentions of a string: how many are of one cluster, how many there are
    names: list[int]  # names: how many are mentions, how many there are

    @property
    def parameters(self) -> int:
        return 2 * (len(self.mentions) + len(self.links) + 1)

    def answers(self, samples: Sequence[Sample], batch_size: int = 64) -> list[Answer]:
        """One answer a sample, in order; nothing here depends on the batch."""
        return [self._answer(sample) for sample in samples]

    def _answer(self, sample: Sample) -> Answer:
        spans = self.task.words_of(sample)
        words = words_of(sample, spans)
        clusters: list[list[Span]] = []
        last: dict[str, list[Span]] = {}
        for first, end in sorted(self._found(sample, words), key=lambda found: (found[0], -found[1])):
            name = head(words[first:end])
            cluster = last.get(name)
            if cluster is None or not mostly(self.links.get(name, [1, 1])):
                clusters.append(cluster := [])
            last[name] = cluster
            cluster.append(Span(spans[first].start, spans[end - 1].end))
        return Answer(clusters=in_order([x for x in clusters if len(x) > 1 or self.task.singletons]))

    def _found(self, sample: Sample, words: Sequence[str]) -> set[Range]:
        found = {
            place for place, text in strings(words, self._longest) if mostly(self.mentions.get(text, [0, 1]))
        }
        if mostly(self.names):
            runs = names_in(self.task, sample, words)
            found |= {(a, b) for a, b in runs if " ".join(words[a:b]) not in self.mentions}
        return found

    @property
    def _longest(self) -> int:
        return min(self.task.max_width, max((text.count(" ") + 1 for text in self.mentions), default=0))

    def save(self, folder: Path, info: Mapping[str, Any]) -> None:
        tables = {"mentions": self.mentions, "links": self.links, "names": self.names}
        counts.save(folder, "strings", self.task, tables, info)


def mostly(seen: Sequence[int]) -> bool:
    """Whether more than half were."""
    return 2 * seen[0] > seen[1]


def words_of(sample: Sample, spans: Sequence[Span]) -> list[str]:
    """Without white space inside, so that strings can be joined by it."""
    return ["".join(sample.parts[0].text[start:end].split()) for start, end in spans]


def head(words: Sequence[str]) -> str:
    """What mentions are the same by: of names the last word, else all; in small letters."""
    return (words[-1] if words[-1][:1].isupper() else " ".join(words)).casefold()


def strings(words: Sequence[str], longest: int) -> Iterator[tuple[Range, str]]:
    """Every run of up to `longest` words, its end exclusive."""
    for first in range(len(words)):
        for end in range(first + 1, min(first + longest, len(words)) + 1):
            yield (first, end), " ".join(words[first:end])


def names_in(task: Coref, sample: Sample, words: Sequence[str]) -> list[Range]:
    """Runs of words with capitals within a sentence, of up to `max_width` words.

    The first word of a sentence counts only where the document has it with a capital inside a sentence too.
    """
    sentences = task.sentences_of(sample)
    inside = {word for start, end in sentences for word in words[start + 1 : end] if word[:1].isupper()}
    found = []
    for start, end in sentences:
        begun: int | None = None
        for i in range(start, end + 1):
            capital = i < end and words[i][:1].isupper() and (i > start or words[i] in inside)
            if begun is not None and not capital:
                found += [(begun, i)] if i - begun <= task.max_width else []
                begun = None
            elif begun is None and capital:
                begun = i
    return found


def fit(task: Task, train: Sequence[Sample], valid: Sequence[Sample]) -> Fit[SameStrings]:
    assert isinstance(task, Coref)
    return counts.fit(counted, task, train, valid)


def counted(task: Coref, samples: Sequence[Sample]) -> SameStrings:
    """Of mentions of up to `max_width` words."""
    read, names, links = [], [0, 0], dict[str, list[int]]()
    were: Counter[str] = Counter()
    for sample in samples:
        spans = task.words_of(sample)
        words = words_of(sample, spans)
        cluster_of = _clusters(task, sample, spans)
        read.append(words)
        were.update(" ".join(words[first:end]) for first, end in cluster_of)
        runs = names_in(task, sample, words)
        names = [names[0] + sum(run in cluster_of for run in runs), names[1] + len(runs)]
        last: dict[str, int] = {}
        for (first, end), cluster in sorted(cluster_of.items(), key=lambda item: (item[0][0], -item[0][1])):
            name = head(words[first:end])
            if name in last:
                seen = links.setdefault(name, [0, 0])
                links[name] = [seen[0] + (last[name] == cluster), seen[1] + 1]
            last[name] = cluster
    longest = max((text.count(" ") + 1 for text in were), default=0)
    stand = Counter(text for words in read for _, text in strings(words, longest) if text in were)
    return SameStrings(task, {text: [count, stand[text]] for text, count in were.items()}, links, names)


def _clusters(task: Coref, sample: Sample, spans: Sequence[Span]) -> dict[Range, int]:
    """Of each gold mention, as words with its end exclusive, the number of its cluster."""
    found: dict[Range, int] = {}
    for number, cluster in enumerate(distinct(sample.gold)):
        for mention in cluster:
            first, last = words_under(spans, mention)  # type: ignore[arg-type]
            if first <= last < first + task.max_width:
                found.setdefault((first, last + 1), number)
    return found


def load(folder: Path) -> SameStrings:
    """The baseline that was saved in `folder`."""

    def made(task: Coref, tables: Any) -> SameStrings:
        seen = [*tables["mentions"].values(), *tables["links"].values(), tables["names"]]
        if any([type(x) for x in pair] != [int, int] for pair in seen):
            raise ValueError("counts come in pairs")
        return SameStrings(task, tables["mentions"], tables["links"], tables["names"])

    return counts.load(folder, Coref, made)
