"""Tagging as `compare` sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pretune.data.json_spans import layout_of, read_tagged
from pretune.data.samples import Sample
from pretune.data.tables import Table
from pretune.errors import UserError
from pretune.metrics.tag_errors import by_length, confusion
from pretune.metrics.tagging import chunks, scheme_of
from pretune.runs.asked_base import READING, Asked, Pictures, Read, given, unseen

if TYPE_CHECKING:
    from pretune.tasks.base import Task
    from pretune.tasks.tagging import Tagging


def _read(path: Path | Table, kind: str | None, reading: Mapping[str, Any], first: Read | None) -> Read:
    assert isinstance(path, Path)  # see `tables`
    scheme = None
    if first is not None:  # whose files may have another layout
        scheme = scheme_of(sample.gold for sample in first.samples)
        if first.columns.get("layout") == layout_of(path, reading["format"]):
            reading = {**reading, **first.columns}
    found = read_tagged(path, **given(reading, READING), scheme=scheme)
    columns = {
        "kind": "tags",
        "text": [found.words_column],
        "label": [found.tags_column],
        "layout": found.layout,
    }
    return Read(found.samples, "tags", columns, list(found.notes))


def _kind(samples: Sequence[Sample]) -> str:
    for sample in samples:
        words = [len(part.words) for part in sample.parts]
        if not isinstance(sample.gold, tuple) or words != [len(sample.gold)]:
            raise UserError(
                f"sample {sample.key!r}: tagging needs one text with words, and a tuple with a tag for each"
            )
    return "tags"


def _said(task: Task, sample: Sample, tags: Any) -> str:
    """The spans; of plain tags each word with its own."""
    scheme = cast("Tagging", task).gold_scheme
    part = sample.parts[0]
    if scheme == "plain":
        words = zip(part.words, tags, strict=True)
        return " ".join(f"{part.text[span.start : span.end]}/{tag}" for span, tag in words)
    found = [(x.kind, part.words[x.start].start, part.words[x.end - 1].end) for x in chunks(tags, scheme)]
    return ", ".join(f"{kind} {part.text[start:end]!r}" for kind, start, end in found) or "no span"


def _pictures(
    task: Task, samples: Sequence[Sample], golds: Sequence[Any], answers: Sequence[Any]
) -> Pictures:
    scheme = cast("Tagging", task).gold_scheme
    labels, counts = confusion(golds, answers, scheme)
    lengths = by_length(golds, answers, scheme) if scheme != "plain" else []
    return {"confusion": {"labels": labels, "counts": counts}, "lengths": [x._asdict() for x in lengths]}


TAGGING = Asked(
    _read,
    _kind,
    lambda learn, check, kind: unseen(learn, check),
    tables=False,
    baseline="unigram",
    counted="sentences",
    said=_said,
    pictures=_pictures,
)
