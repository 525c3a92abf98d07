"""What the head of a published classifier answers: labels and kind, by the file and by the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pretune.config import build
from pretune.errors import UsageError
from pretune.runs.published import Published
from pretune.tasks.classification import Classification, Kind
from pretune.tasks.head_kinds import READERS


def classification_of(
    published: Published,
    outputs: int,
    labels: Sequence[str],
    head: Mapping[str, Any],
    kind: Kind | None = None,
) -> tuple[Classification, list[str]]:
    """`labels`, `head` (settings) and `kind` are what the file says; one score is a number unless there are
    labels. What the user should know comes second.
    """
    if "labels" in published.task:
        raise UsageError(
            "task.labels is --labels here: their names in the order of the scores, as in neg,pos"
        )
    for name in published.task:
        if name in head and published.task[name] != head[name]:
            raise UsageError(f"task.{name} is said by the file; leave it out")
    labels = tuple(published.labels or labels)
    guessed: Kind = "number" if outputs == 1 and not labels else "one"
    settings: dict[str, Any] = {"kind": kind or guessed, **head, **published.task}
    notes: list[str] = []
    if settings["kind"] == "number":
        _check_number(labels, outputs)
    else:
        if not labels:
            labels = tuple(map(str, range(outputs)))
            notes.append(
                f"labels are called {labels[0]} to {labels[-1]}; --labels says their names, in order"
            )
        _check_labels(labels, outputs, settings["kind"])
        settings["labels"] = labels
    task = build(Classification, settings, "task")
    if task.head_kind in READERS:
        raise UsageError(f"task.head_kind is {task.head_kind}, which no published head is; leave it out")
    if task.apart:
        raise UsageError("task.pair=siamese compares two texts, which no published head does; leave it out")
    what = "a number" if task.kind == "number" else f"{outputs} labels: {', '.join(labels[:8])}"
    return task, [f"a classifier of {what}", *notes]


def _check_number(labels: Sequence[str], outputs: int) -> None:
    if labels:
        raise UsageError("task.kind is number, which has no labels; leave --labels out")
    if outputs != 1:
        raise UsageError(f"task.kind is number, but the head gives {outputs} scores")


def _check_labels(labels: Sequence[str], outputs: int, kind: Kind) -> None:
    if len(labels) != outputs:
        raise UsageError(f"there are {len(labels)} labels, but the head gives {outputs} scores")
    if kind == "one" and outputs == 1:
        raise UsageError(
            "one label alone would always be the answer; task.kind=many says whether it holds, and "
            "without --labels the score is a number"
        )
    if len(set(labels)) < outputs:
        raise UsageError(f"--labels names one twice: {', '.join(labels)}")
