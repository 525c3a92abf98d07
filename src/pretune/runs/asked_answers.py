"""Span question answering as `compare` sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pretune.data.passages import from_table, read_passages
from pretune.data.samples import Sample
from pretune.data.span_answers import passage_of
from pretune.data.tables import Table
from pretune.metrics.answer_errors import Group, by_length, by_question, outcomes
from pretune.metrics.span_qa import best_of
from pretune.runs.asked_base import COLUMNS, READING, Asked, Pictures, Read, given
from pretune.runs.comparison import Breakdown

if TYPE_CHECKING:
    from pretune.tasks.base import Task
    from pretune.tasks.span_qa import SpanQA


def _read(data: Path | Table, kind: str | None, reading: Mapping[str, Any], first: Read | None) -> Read:
    if isinstance(data, Table):
        found = from_table(data, **given(reading, COLUMNS), training=first is None)
    else:
        before = first.columns if first is not None else None
        found = read_passages(data, **given(reading, READING), training=first is None, usual=before)
    columns = {"kind": "qa", "text": list(found.text_columns), "label": list(found.label_columns)}
    return Read(found.samples, "qa", columns, list(found.notes))


def _kind(samples: Sequence[Sample]) -> str:
    from pretune.tasks.span_qa import checked

    for sample in samples:
        checked(sample)
    return "qa"


def _checked(learn: Sequence[Sample], check: Sequence[Sample], kind: str) -> list[str]:
    known = set(map(passage_of, learn))
    shared = sum(passage_of(sample) in known for sample in check)
    return [f"{shared:,} of {len(check):,} test questions are on passages of training"] if shared else []


def _texts(gold: Any) -> list[str]:
    """The right answers, as cells keep them."""
    return [text for text, _ in gold]


def _said(task: Task, sample: Sample, value: Any) -> str:
    texts = dict.fromkeys([value] if isinstance(value, str) else _texts(value))
    return " / ".join(filter(None, texts)) or "no answer"


def _right(task: Task, gold: Any, said: str) -> bool:
    return best_of(_texts(gold), said, cast("SpanQA", task).scorer)[0] == 1


def _pictures(
    task: Task, samples: Sequence[Sample], golds: Sequence[Any], answers: Sequence[str]
) -> Pictures:
    scorer, right = cast("SpanQA", task).scorer, list(map(_texts, golds))
    questions = [sample.texts[0] for sample in samples]
    rows = []
    for name, found in zip(("answer", "no answer"), outcomes(right, answers, scorer), strict=True):
        if found.questions:
            rows.append(
                [name, *found] if name == "answer" else [name, found.questions, None, None, *found[3:]]
            )
    return {
        "breakdowns": [
            Breakdown(
                "What is answered, and what is not?",
                "Rows are what the passage has. Right is an exact match; in part are words in common.",
                ["passage has", "questions", "right", "in part", "wrong", "nothing answered"],
                rows,
            ),
            _table(
                "Answers of which length does it find?", "answer, words", by_length(right, answers, scorer)
            ),
            _table(
                "Which questions does it answer?",
                "asked",
                by_question(questions, right, answers, scorer),
            ),
        ]
    }


def _table(title: str, head: str, groups: Sequence[Group]) -> Breakdown:
    how = (
        "The shortest right answer counts; Chinese and Japanese are counted by characters."
        if head != "asked"
        else "By the first word of the question that asks."
    )
    return Breakdown(title, how, [head, "questions", "exact match", "F1"], [list(group) for group in groups])


QA = Asked(
    _read,
    _kind,
    _checked,
    baseline="window",
    counted="questions",
    together=passage_of,
    side_by_side=True,
    unlabelled=lambda columns: next(iter(columns.get("text", ())[1:]), None),
    said=_said,
    right=_right,
    pictures=_pictures,
)
