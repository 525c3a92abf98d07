"""What a comparison must know of each task beside the task itself: how samples come and are shown.

A task joins by an entry in `ASKED`. Its golds and what `Answer.said` gives must be plain values (text,
numbers, tuples), since cells keep them as JSON. A metric that is neither accuracy nor one of
`weighing.METRICS` needs the task's `tallies` and `scores_of`: intervals and tests then add up what drawn
samples say. A baseline is a method without an encoder, as `unigram.py` is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

from pretune.data.choices import from_table as choices_from_table
from pretune.data.choices import read_choices
from pretune.data.golds import LabelKind
from pretune.data.readers import from_table, read_samples
from pretune.data.samples import Sample
from pretune.data.splits import check_labels, conflicts
from pretune.data.tables import Table
from pretune.errors import UserError, choose
from pretune.runs.asked_answers import QA
from pretune.runs.asked_base import COLUMNS, OWN, READING, Asked, Read, given
from pretune.runs.asked_clusters import CLUSTERS
from pretune.runs.asked_roles import ROLES
from pretune.runs.asked_tags import TAGGING
from pretune.runs.choosing import guessing_note

__all__ = ["ASKED", "OWN", "Asked", "Read", "kind_of"]


def kind_of(samples: Sequence[Sample]) -> LabelKind:
    """What the golds of samples made in Python are."""
    if all(isinstance(s.gold, str) for s in samples):
        return "one"
    if all(isinstance(s.gold, tuple) for s in samples):
        return "many"
    if all(isinstance(s.gold, float) for s in samples):
        return "number"
    found = sorted({type(s.gold).__name__ for s in samples})
    raise UserError(f"golds are {', '.join(found)}; they must all be str, all tuple (of str), or all float")


def _labelled(data: Path | Table, kind: str | None, reading: Mapping[str, Any], first: Read | None) -> Read:
    if kind is not None and kind not in get_args(LabelKind):
        raise choose("--kind", kind, get_args(LabelKind))
    reading = {**reading, **(first.columns if first else {})}
    separator = reading["label_separator"]
    own: dict[str, Any] = {"kind": kind, "label_separator": separator}
    if isinstance(data, Table):
        found = from_table(data, **own, **given(reading, COLUMNS))
    else:
        found = read_samples(data, **own, **given(reading, READING))
    columns = {"text": list(found.text_columns), "label": list(found.label_columns)}
    return Read(found.samples, found.kind, {**columns, "label_separator": separator}, list(found.notes))


def _choices(data: Path | Table, kind: str | None, reading: Mapping[str, Any], first: Read | None) -> Read:
    reading = {**reading, **(first.columns if first else {})}
    own = given(reading, ("choices", "counts_from"))
    if isinstance(data, Table):
        found = choices_from_table(data, **own, **given(reading, COLUMNS))
    else:
        found = read_choices(data, **own, **given(reading, READING))
    columns = {
        "kind": "choice",
        "text": list(found.text_columns),
        "choices": list(found.choice_columns),
        "label": list(found.label_columns),
        "counts_from": found.counts_from,
    }
    return Read(found.samples, "choice", columns, list(found.notes))


def _kind_of_choices(samples: Sequence[Sample]) -> str:
    from pretune.tasks.choice import MultipleChoice

    MultipleChoice.of(samples)
    return "choice"


def _numbered(sample: Sample) -> str:
    """A question and its choices with their numbers."""
    question, *choices = sample.texts
    return " ⏐ ".join([question, *(f"{number}: {text}" for number, text in enumerate(choices))])


def _first_text(columns: Mapping[str, Any]) -> str | None:
    return next(iter(columns.get("text", ())), None)


ASKED = {
    "classification": Asked(
        _labelled,
        kind_of,
        lambda learn, check, kind: check_labels(learn, check, cast(LabelKind, kind)),
        ("kind", "label_separator"),
        unlabelled=_first_text,
    ),
    "choice": Asked(
        _choices,
        _kind_of_choices,
        lambda learn, check, kind: [*conflicts(learn), guessing_note(check)],
        ("choices",),
        unlabelled=_first_text,
        text=_numbered,
    ),
    "tagging": TAGGING,
    "qa": QA,
    "srl": ROLES,
    "coref": CLUSTERS,
}
