"""A handful of samples of every task, for a tiny model to learn by heart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import tiny
from pretune.data.samples import Part, Sample, Span, sample
from pretune.data.span_answers import question_sample

LONG = " ".join(tiny.WORDS * 3)  # longer than what ULMFiT pools, and than a window of others


def said(text: str, gold: Any = None, mark: int | None = None) -> Sample:
    """A text whose words are given; `mark` is the one that is asked about."""
    spans, at = [], 0
    for word in text.split():
        spans.append(Span(at, at + len(word)))
        at += len(word) + 1
    return Sample("", (Part(text, tuple(spans)),), gold, () if mark is None else (spans[mark],))


def tagged(line: str, mark: int | None = None) -> Sample:
    """`good/B-X film/O`: words, each with its tag."""
    pairs = [word.split("/") for word in line.split()]
    return said(" ".join(word for word, _ in pairs), tuple(tag for _, tag in pairs), mark)


def linked(line: str) -> Sample:
    """`film/1 was it/1`: words, some with the number of what they are."""
    pairs = [(*word.split("/"), "")[:2] for word in line.split()]
    made = said(" ".join(word for word, _ in pairs))
    words = made.parts[0].words
    names = dict.fromkeys(name for _, name in pairs if name)
    gold = tuple(tuple(w for w, (_, own) in zip(words, pairs, strict=True) if own == name) for name in names)
    return replace(made, gold=gold)


@dataclass(frozen=True)
class Asked:
    """A task with a handful of samples to learn by heart."""

    task: str
    samples: Sequence[Sample]
    long: Sample  # a neighbour that no model has seen
    kind: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    recipes: Sequence[str] = ()  # all, unless only some read the task so


ONE = [
    sample("the film was good", gold="yes"),
    sample("a dull and poor book", gold="no"),
    sample("quite great", gold="yes"),
    sample("it was too bad", gold="no"),
]
PAIRS = [
    sample("the film was good", "it was great", gold="same"),
    sample("a dull book", "it was fine", gold="other"),
    sample("poor plot", "quite bad", gold="same"),
    sample("the plot was great", "too dull", gold="other"),
]
GRADES = (5.0, 1.0, 4.0, 0.0)
ROLES = [
    tagged("film/B-ARG0 was/B-V good/B-ARG1", 1),
    tagged("very/B-ARG1 dull/I-ARG1 book/B-V", 2),
    tagged("plot/B-V a/B-ARG0 great/I-ARG0 it/O", 0),
]
QUESTIONS = [
    question_sample("what was good", "the film was very good", ["film"]),
    question_sample("what was dull", "a book and too dull", ["book"]),
    question_sample("what was fine", "it was fine", []),
]
ASKED = {
    "one": Asked("classification", ONE, sample(LONG), "one"),
    "pair": Asked("classification", PAIRS, sample(LONG, "a film"), "one"),
    "siamese": Asked("classification", PAIRS, sample(LONG, "a film"), "one", {"pair": "siamese"}),
    "many": Asked(
        "classification",
        [replace(s, gold=g) for s, g in zip(ONE, (("film", "good"), (), ("good",), ("it",)), strict=True)],
        sample(LONG),
        "many",
    ),
    "number": Asked(
        "classification",
        [replace(s, gold=g) for s, g in zip(ONE, GRADES, strict=True)],
        sample(LONG),
        "number",
    ),
    "similarity": Asked(
        "classification",
        [replace(s, gold=g) for s, g in zip(PAIRS, GRADES, strict=True)],
        sample(LONG, "a film"),
        "number",
        {"orders": "both", "levels": (0, 5)},
    ),
    "choice": Asked(
        "choice",
        [
            sample("the film was", "good", "a book", gold=0),
            sample("a plot", "dull film", "too bad it was", "great", gold=2),
            sample("the book", "poor", "fine", gold=1),
        ],
        sample("the film", LONG, "a film", "dull"),
    ),
    "tagging": Asked(
        "tagging",
        [
            tagged("the/O film/B-X was/O good/B-Y"),
            tagged("a/O dull/B-X book/I-X"),
            tagged("it/O was/O great/B-Y and/I-Y fine/I-Y"),
        ],
        said(LONG),
        options={"token": "mean"},
    ),
    "tagging, crf": Asked(
        "tagging",
        [tagged("the/O film/B-X was/O good/B-Y"), tagged("a/O dull/B-X book/I-X")],
        said(LONG),
        options={"crf": True, "scheme": "bioes"},
        recipes=["features"],
    ),
    "srl": Asked("srl", ROLES, said(LONG, mark=3), options={"hidden": 16, "indicator": 4}),
    "srl, highway": Asked(
        "srl",
        ROLES,
        said(LONG, mark=3),
        options={"highway_layers": 2, "highway_width": 12, "indicator": 4, "recurrent_dropout": 0.0},
        recipes=["features", "full"],
    ),
    "qa": Asked(
        "qa", QUESTIONS, question_sample("what was it", LONG), options={"max_length": 20, "stride": 5}
    ),
    "qa, bidaf": Asked(
        "qa",
        QUESTIONS,
        question_sample("what was it", LONG),
        options={"max_length": 20, "stride": 5, "model": "bidaf", "hidden": 8},
        recipes=["features"],
    ),
    "coref": Asked(
        "coref",
        [linked("the film/1 was good but it/1 was dull"), linked("a plot and a book/1 it/1 was poor")],
        said(LONG),
        options={"max_width": 2, "hidden": 12, "feature": 4, "spans_per_word": 0.6},
    ),
}
