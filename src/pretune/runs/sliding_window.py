"""The words nearest to those of the question: the baseline of span question answering."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pretune.data.samples import Sample, Span
from pretune.data.segment import segmenter
from pretune.data.sentences import sentence_spans
from pretune.metrics.span_qa import best_of
from pretune.runs import counts
from pretune.runs.counts import Fit
from pretune.tasks.base import Answer, Task
from pretune.tasks.passages import PASSAGE, QUESTION
from pretune.tasks.span_decoding import Guess
from pretune.tasks.span_qa import SpanQA, checked

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
WIDTHS: Final = (1, 2, 3, 5, 8, 13, 21, 0)  # words of an answer; 0 for whole sentences
TRIED: Final = 2000  # training questions that they are tried on


@dataclass
class SlidingWindow:
    """The `width` words that have most words of the question around them in their sentence, or the sentence.

    A word w of the passage that the question has too counts log(1 + 1 / C(w)), where C(w) is how often the
    passage has it (algorithm 1 of Richardson, Burges & Renshaw 2013, which Rajpurkar et al. 2016 took as
    a baseline for spans). It counts fully beside the answer, less for each word between,
    and not at all farther away than the question is long; inside the answer it counts against it, since what
    is asked for is not in the question. The score is the share of what all words of the question would
    count, so that a threshold means the same for all questions; the probabilities of guesses are a softmax
    over these shares.
    """

    task: SpanQA
    width: int  # 0: whole sentences

    @property
    def parameters(self) -> int:
        return 1 + self.task.no_answer

    def answers(self, samples: Sequence[Sample], batch_size: int = 64) -> list[Answer]:
        """One answer a sample, in order; nothing here depends on the batch."""
        none = 0.0 if self.task.no_answer else None
        return [
            self.task.answer_of(sample.parts[PASSAGE].text, guesses_of(self.task, sample, self.width), none)
            for sample in map(checked, samples)
        ]

    def save(self, folder: Path, info: Mapping[str, Any]) -> None:
        counts.save(folder, "window", self.task, {"width": self.width}, info)


def guesses_of(task: SpanQA, sample: Sample, width: int) -> list[Guess]:
    """The best spans of `width` words, at most `task.n_best`; equals in the order of the text."""
    passage = sample.parts[PASSAGE].text
    spans, sentences = _words(task.language, passage)
    if not spans:
        return []
    asked = {
        _folded(sample.parts[QUESTION].text, span)
        for span in _cut(task.language, sample.parts[QUESTION].text)
    }
    words = [_folded(passage, span) for span in spans]
    often = Counter(words)
    weight = {word: float(np.log1p(1 / max(1, often[word]))) for word in sorted(asked)}
    hits = np.array([weight.get(word, 0.0) for word in words])  # (W,)
    found = [_scored(hits[slice(*one)], width, max(1, len(asked))) for one in sentences]
    first, last = (
        np.concatenate([x[side] + begin for x, (begin, _) in zip(found, sentences, strict=True)])
        for side in (0, 1)
    )
    scores = np.concatenate([x[2] for x in found]) / max(sum(weight.values()), 1e-9)
    order = np.lexsort((last, first, -scores))[: task.n_best]
    return [Guess(Span(spans[first[i]].start, spans[last[i]].end), float(scores[i])) for i in order]


def _scored(hits: Floats, width: int, around: int) -> tuple[Ints, Ints, Floats]:
    """First word, last word and score of each candidate of a sentence whose words count `hits` (W,)."""
    before = np.concatenate([[0.0], np.cumsum(hits)])  # (W + 1,)
    if not width:
        return np.array([0]), np.array([len(hits) - 1]), before[-1:]
    fading = np.concatenate([[0.0], 1 - np.arange(around) / around])  # by how many words away
    left = np.convolve(hits, fading)[: len(hits)]  # of the words before each
    right = np.convolve(hits[::-1], fading)[: len(hits)][::-1]
    first = np.arange(max(1, len(hits) - width + 1))  # a sentence that is shorter, whole
    last = np.minimum(first + width, len(hits)) - 1
    return first, last, left[first] + right[last] - (before[last + 1] - before[first])


@lru_cache(maxsize=256)
def _words(language: str, passage: str) -> tuple[list[Span], list[tuple[int, int]]]:
    """The words of a passage, and its sentences, each by its first word and the one after its last."""
    spans = _cut(language, passage)
    borders = [bisect_left(spans, (sentence.start, 0)) for sentence in sentence_spans(passage)[1:]]
    return spans, list(pairwise(sorted({0, len(spans), *borders})))


def _cut(language: str, text: str) -> list[Span]:
    """Words and numbers, without signs."""
    return [span for span in _segmenter(language)(text) if any(map(str.isalnum, text[slice(*span)]))]


@lru_cache(maxsize=8)
def _segmenter(language: str) -> Any:
    return segmenter(language)


def _folded(text: str, span: Span) -> str:
    return text[span.start : span.end].casefold()


def fit(task: Task, train: Sequence[Sample], valid: Sequence[Sample]) -> Fit[SlidingWindow]:
    """The width that is best for F1 on training questions with an answer; the threshold by `valid`."""
    assert isinstance(task, SpanQA)
    asked = [sample for sample in train if sample.gold][:TRIED]
    totals = np.zeros(len(WIDTHS))
    for sample in asked:
        totals += _f1(task, sample)
    model = SlidingWindow(task, WIDTHS[int(totals.argmax())])
    golds = [sample.gold for sample in valid]
    model = replace(model, task=task.tuned(golds, model.answers(valid)))
    answers = model.answers(valid)
    return Fit(model, model.task.score(golds, answers), answers)


def _f1(task: SpanQA, sample: Sample) -> list[float]:
    """Of the first guess of each width."""
    golds, found = [gold.text for gold in sample.gold], []
    for width in WIDTHS:
        guesses = guesses_of(task, sample, width)[:1]
        said = sample.parts[PASSAGE].text[slice(*guesses[0].span)] if guesses else ""
        found.append(best_of(golds, said, task.scorer)[1])
    return found


def load(folder: Path) -> SlidingWindow:
    """The baseline that was saved in `folder`."""

    def made(task: SpanQA, tables: Any) -> SlidingWindow:
        if tables["width"] not in WIDTHS:
            raise ValueError(f"width is {tables['width']!r}")
        return SlidingWindow(task, tables["width"])

    return counts.load(folder, SpanQA, made)
