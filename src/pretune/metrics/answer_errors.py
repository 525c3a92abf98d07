"""What goes wrong in span question answering: answers of which length, to which questions, and none given."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import fmean
from typing import Final, NamedTuple

from pretune.metrics.buckets import bucket, buckets
from pretune.metrics.span_qa import Scorer, best_of, mixed, normalised, squad

LENGTHS: Final = (1, 2, 3, 5, 10, 20)  # words where groups of answers begin
OTHER: Final = "other"
NO_ANSWER: Final = "no answer"
ASKED: Final = tuple(
    (name, re.compile(pattern, re.IGNORECASE))
    for name, pattern in (
        ("how many, how much", r"\bhow (?:many|much)\b|多少|[几幾](?![何乎])"),
        ("why", r"\bwhy\b|为什么|為什麼|为何|為何|原因"),
        ("when", r"\bwhen\b|何时|何時|什么时候|什麼時候|哪[一]?[年月天日]"),
        ("where", r"\bwhere\b|哪里|哪裡|哪儿|何处|何處|在哪(?![一两几幾年月天日个個位种種场場本所座家部些])"),
        ("who", r"\b(?:who|whom|whose)\b|[谁誰]"),
        ("which", r"\bwhich\b|哪"),
        ("what", r"\bwhat\b|什么|什麼|(?:为|為|有|任)何|何(?:种|種|人|物)"),
        ("how", r"\bhow\b|怎么|怎麼|怎样|怎樣|如何"),
    )
)


class Outcome(NamedTuple):
    """What was said to questions of one sort."""

    questions: int
    right: int  # exactly
    partly: int  # with some words in common
    wrong: int  # with none
    none: int  # nothing was answered


class Group(NamedTuple):
    """How well questions of one sort are answered."""

    name: str
    questions: int
    exact_match: float
    f1: float


def outcomes(
    golds: Sequence[Sequence[str]], answers: Sequence[str], scorer: Scorer
) -> tuple[Outcome, Outcome]:
    """Of questions with an answer, and of those without; to the latter every answer is wrong."""
    found = ([0] * 5, [0] * 5)
    for gold, answer in zip(golds, answers, strict=True):
        exact, f1 = best_of(gold, answer, scorer)
        place = 3 if not gold or not f1 else 1 if exact else 2
        place = place if answer.strip() else 4
        row = found[not gold]
        row[0], row[place] = row[0] + 1, row[place] + 1
    return Outcome(*found[0]), Outcome(*found[1])


def by_length(golds: Sequence[Sequence[str]], answers: Sequence[str], scorer: Scorer) -> list[Group]:
    """By how many words, in Chinese characters, the shortest right answer has; questions without one last."""

    def length(gold: Sequence[str]) -> str:
        words = [len(normalised(text).split() if scorer is squad else mixed(text)) for text in gold]
        return bucket(min(words), LENGTHS) if words else NO_ANSWER

    return _groups(list(map(length, golds)), [*buckets(LENGTHS), NO_ANSWER], golds, answers, scorer)


def by_question(
    questions: Sequence[str], golds: Sequence[Sequence[str]], answers: Sequence[str], scorer: Scorer
) -> list[Group]:
    """By the question's word, English or Chinese."""
    names = [*(name for name, _ in ASKED), OTHER]
    return _groups(list(map(asks, questions)), names, golds, answers, scorer)


def asks(question: str) -> str:
    """The first of `ASKED` that stands in a question; of several in English the one that begins it."""
    found = [(match.start(), k) for k, (_, x) in enumerate(ASKED) if (match := x.search(question))]
    if not found:
        return OTHER
    return ASKED[min(found)[1]][0]


def _groups(
    own: Sequence[str],
    names: Sequence[str],
    golds: Sequence[Sequence[str]],
    answers: Sequence[str],
    scorer: Scorer,
) -> list[Group]:
    """Those that some question is in, in the order of `names`."""
    scores: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for name, gold, answer in zip(own, golds, answers, strict=True):
        scores[name].append(best_of(gold, answer, scorer))
    return [
        Group(name, len(some), fmean(exact for exact, _ in some), fmean(f1 for _, f1 in some))
        for name, some in scores.items()
        if some
    ]
