"""What a comparison must know of a task beside the task itself: how samples come and are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import eq
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretune.data.samples import Sample
from pretune.data.splits import Together, count_labels
from pretune.data.tables import Table

if TYPE_CHECKING:
    from pretune.tasks.base import Task

COLUMNS = ("text", "label")  # options of reading a table
READING = (*COLUMNS, "format", "encoding")  # options that every reader of files has
OWN = ("kind", "choices", "label_separator")  # those that only some have


@dataclass(frozen=True)
class Read:
    """Samples, and how they came."""

    samples: list[Sample]
    kind: str
    columns: Mapping[str, Any]  # how files of this kind are read; empty where samples were made in Python
    notes: list[str]


Pictures = dict[str, Any]  # fields of `Comparison`


@dataclass(frozen=True)
class Asked:
    """A task as `compare` sees it."""

    read: Callable[[Path | Table, str | None, Mapping[str, Any], Read | None], Read]
    """A file or a table, the kind asked for, the options of reading, and for the test what training was."""
    kind: Callable[[Sequence[Sample]], str]
    """Of samples made in Python; raises where they are another task's."""
    checked: Callable[[Sequence[Sample], Sequence[Sample], str], list[str]]
    """Training samples, test samples and their kind -> what users should know of them."""
    options: tuple[str, ...] = ()
    """Of `OWN`, those that its files are read with."""
    tables: bool = True
    """Whether `read` reads tables; else samples that are in Python already must be `Sample`."""
    baseline: str = "tfidf"
    counted: str = "labels"
    """What sizes are numbers of."""
    together: Together | None = None
    """What samples have in common that no split parts; else they are stratified by their golds."""
    side_by_side: bool = False
    """Whether the two directions of a folder are read as one model, as `finetune` does, not averaged."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Settings of recipes where nothing else is said."""
    unlabelled: Callable[[Mapping[str, Any]], str | None] = lambda columns: None
    """The column of a table of unlabelled texts, by how training was read."""
    text: Callable[[Sample], str] = lambda sample: " ⏐ ".join(sample.texts)
    """A sample in one line."""
    said: Callable[[Task, Sample, Any], str] | None = None
    """A gold or an answer in a few words; else as it is."""
    right: Callable[[Task, Any, Any], bool] = lambda task, gold, said: eq(gold, said)
    """Whether an answer is all right, for the list of those that are hard."""
    pictures: Callable[[Task, Sequence[Sample], Sequence[Any], Sequence[Any]], Pictures] | None = None
    """Test samples, golds and answers -> fields that show the errors; else the confusion of labels."""


def given(reading: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Those options of reading that there are."""
    return {name: reading[name] for name in names if name in reading}


def unseen(learn: Sequence[Sample], check: Sequence[Sample]) -> list[str]:
    """A note on tags that test samples alone have."""
    found = sorted(count_labels(check).keys() - count_labels(learn).keys())
    return [f"tags never seen in training count as errors: {', '.join(found[:8])}"] if found else []
