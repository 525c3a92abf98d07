"""What a comparison must know of each task beside the task itself: how samples come and are shown.

A task joins by an entry in `ASKED`. Its golds and what `Answer.said` gives must be plain values (text,
numbers, tuples), since cells keep them as JSON. A metric that is neither accuracy nor one of
`verdict.METRICS` needs the task's `tallies` and `scores_of`: intervals and tests then add up what drawn
samples say. A baseline is a method without an encoder, as `unigram.py` is one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from pretune.data.choices import read_choices
from pretune.data.golds import LabelKind
from pretune.data.json_spans import read_tagged
from pretune.data.readers import read_samples
from pretune.data.samples import Sample
from pretune.data.splits import check_labels, conflicts, count_labels
from pretune.errors import UserError, choose
from pretune.metrics.tag_errors import by_length, confusion
from pretune.metrics.tagging import chunks
from pretune.runs.choosing import guessing_note

if TYPE_CHECKING:
    from pretune.tasks.base import Task
    from pretune.tasks.tagging import Tagging

READING = ("text", "label", "format", "encoding")  # options that every reader has
OWN = ("kind", "choices", "label_separator")  # those that only some have


@dataclass(frozen=True)
class Read:
    """Samples, and how they came."""

    samples: list[Sample]
    kind: str
    columns: Mapping[str, Any]  # how files of this kind are read; empty where samples were made in Python
    notes: list[str]


@dataclass(frozen=True)
class Asked:
    """A task as `compare` sees it."""

    read: Callable[[Path, str | None, Mapping[str, Any]], Read]
    """A file, the kind asked for, and the options of reading."""
    kind: Callable[[Sequence[Sample]], str]
    """Of samples made in Python; raises where they are another task's."""
    checked: Callable[[Sequence[Sample], Sequence[Sample], str], list[str]]
    """Training samples, test samples and their kind -> what users should know of them."""
    options: tuple[str, ...] = ()
    """Of `OWN`, those that its files are read with."""
    baseline: str = "tfidf"
    counted: str = "labels"
    """What sizes are numbers of."""
    text: Callable[[Sample], str] = lambda sample: " ⏐ ".join(sample.texts)
    """A sample in one line."""
    said: Callable[[Task, Sample, Any], str] | None = None
    """A gold or an answer in a few words; else as it is."""
    pictures: Callable[[Task, Sequence[Any], Sequence[Any]], dict[str, Any]] | None = None
    """Golds and answers -> the fields of `Comparison` that show the errors; else the confusion of labels."""


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


def _labelled(path: Path, kind: str | None, reading: Mapping[str, Any]) -> Read:
    if kind is not None and kind not in get_args(LabelKind):
        raise choose("--kind", kind, get_args(LabelKind))
    separator = reading["label_separator"]
    options = {name: reading[name] for name in READING}
    found = read_samples(path, kind=cast(Any, kind), label_separator=separator, **options)
    columns = {"text": list(found.text_columns), "label": list(found.label_columns)}
    return Read(found.samples, found.kind, {**columns, "label_separator": separator}, list(found.notes))


def _choices(path: Path, kind: str | None, reading: Mapping[str, Any]) -> Read:
    options = {name: reading[name] for name in (*READING, "choices", "counts_from") if name in reading}
    found = read_choices(path, **options)
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


def _tagged(path: Path, kind: str | None, reading: Mapping[str, Any]) -> Read:
    options = {name: reading[name] for name in READING}
    found = read_tagged(path, **options, scheme=reading.get("scheme"))
    columns = {
        "kind": "tags",
        "text": [found.words_column],
        "label": [found.tags_column],
        "layout": found.layout,
    }
    return Read(found.samples, "tags", columns, list(found.notes))


def _kind_of_tags(samples: Sequence[Sample]) -> str:
    for sample in samples:
        words = [len(part.words) for part in sample.parts]
        if not isinstance(sample.gold, tuple) or words != [len(sample.gold)]:
            raise UserError(
                f"sample {sample.key!r}: tagging needs one text with words, and a tuple with a tag for each"
            )
    return "tags"


def _checked_tags(learn: Sequence[Sample], check: Sequence[Sample], kind: str) -> list[str]:
    unseen = sorted(count_labels(check).keys() - count_labels(learn).keys())
    return [f"tags never seen in training count as errors: {', '.join(unseen[:8])}"] if unseen else []


def _said_tags(task: Task, sample: Sample, tags: Any) -> str:
    """The spans; of plain tags each word with its own."""
    scheme = cast("Tagging", task).gold_scheme
    part = sample.parts[0]
    if scheme == "plain":
        words = zip(part.words, tags, strict=True)
        return " ".join(f"{part.text[span.start : span.end]}/{tag}" for span, tag in words)
    found = [(x.kind, part.words[x.start].start, part.words[x.end - 1].end) for x in chunks(tags, scheme)]
    return ", ".join(f"{kind} {part.text[start:end]!r}" for kind, start, end in found) or "no span"


def _pictures_of_tags(task: Task, golds: Sequence[Any], answers: Sequence[Any]) -> dict[str, Any]:
    scheme = cast("Tagging", task).gold_scheme
    labels, counts = confusion(golds, answers, scheme)
    lengths = by_length(golds, answers, scheme) if scheme != "plain" else []
    return {"confusion": {"labels": labels, "counts": counts}, "lengths": [x._asdict() for x in lengths]}


ASKED = {
    "classification": Asked(
        _labelled,
        kind_of,
        lambda learn, check, kind: check_labels(learn, check, cast(LabelKind, kind)),
        ("kind", "label_separator"),
    ),
    "choice": Asked(
        _choices,
        _kind_of_choices,
        lambda learn, check, kind: [*conflicts(learn), guessing_note(check)],
        ("choices",),
        text=_numbered,
    ),
    "tagging": Asked(
        _tagged,
        _kind_of_tags,
        _checked_tags,
        baseline="unigram",
        counted="sentences",
        said=_said_tags,
        pictures=_pictures_of_tags,
    ),
}
