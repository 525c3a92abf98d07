"""Semantic role labelling as `compare` sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretune.data.roles import read_roles
from pretune.data.samples import Sample
from pretune.data.splits import same_text
from pretune.data.tables import Table
from pretune.errors import UserError
from pretune.metrics.roles import Argument, arguments, by_role
from pretune.metrics.tag_errors import by_length_of, confusion_of
from pretune.runs.asked_base import READING, Asked, Pictures, Read, given, unseen
from pretune.runs.comparison import Breakdown

if TYPE_CHECKING:
    from pretune.tasks.base import Task

NONE = "none"
MOST = 15  # roles that are shown


def _read(path: Path | Table, kind: str | None, reading: Mapping[str, Any], first: Read | None) -> Read:
    assert isinstance(path, Path)  # see `tables`
    found = read_roles(path, **given(reading, READING))
    columns = {"kind": "roles", "text": list(reading["text"]), "label": list(reading["label"])}
    return Read(found.samples, "roles", columns, list(found.notes))


def _kind(samples: Sequence[Sample]) -> str:
    for sample in samples:
        words = [len(part.words) for part in sample.parts]
        tagged = isinstance(sample.gold, tuple) and words == [len(sample.gold)]
        if not tagged or len(sample.marks) != 1:
            raise UserError(
                f"sample {sample.key!r}: srl needs one text with words, the predicate in `marks`, and a "
                "tuple with a tag for each word"
            )
    return "roles"


def _text(sample: Sample) -> str:
    """With the predicate in brackets."""
    (text,), mark = sample.texts, sample.marks[0]
    return f"{text[: mark.start]}[{text[mark.start : mark.end]}]{text[mark.end :]}"


def _said(task: Task, sample: Sample, tags: Any) -> str:
    part = sample.parts[0]

    def words(start: int, end: int) -> str:
        return part.text[part.words[start].start : part.words[end - 1].end]

    found = [f"{one.role} {' … '.join(words(*x) for x in one.pieces)!r}" for one in arguments(tags)]
    return ", ".join(found) or "no argument"


def _words(one: Argument) -> int:
    return sum(end - start for start, end in one.pieces)


def _pictures(
    task: Task, samples: Sequence[Sample], golds: Sequence[Any], answers: Sequence[Any]
) -> Pictures:
    true, said = ([arguments(tags) for tags in side] for side in (golds, answers))
    places = [[{x.pieces: x.role for x in one} for one in side] for side in (true, said)]
    labels, counts = confusion_of(places[0], places[1], NONE)
    lengths = by_length_of(list(map(set, true)), list(map(set, said)), _words)
    roles = sorted(by_role(golds, answers).items(), key=lambda item: (-item[1].golds, item[0]))
    shown = [[role, x.golds, x.precision, x.recall, x.f1] for role, x in roles[:MOST]]
    rest = f" The {MOST} most frequent of {len(roles)}." if len(roles) > MOST else ""
    return {
        "confusion": {"labels": labels, "counts": counts},
        "breakdowns": [
            Breakdown(
                "Which roles does it find?",
                "An argument is found if its role and all its words are right." + rest,
                ["role", "true", "precision", "recall", "F1"],
                shown,
            ),
            Breakdown(
                "Arguments of which length does it find?",
                "Words of all pieces together.",
                ["words", "true", "answered", "F1"],
                [list(x) for x in lengths],
            ),
        ],
    }


ROLES = Asked(
    _read,
    _kind,
    lambda learn, check, kind: unseen(learn, check),
    tables=False,
    baseline="rolecounts",
    counted="predicates",
    together=same_text,
    side_by_side=True,
    text=_text,
    said=_said,
    right=lambda task, gold, said: set(arguments(gold)) == set(arguments(said)),
    pictures=_pictures,
)
