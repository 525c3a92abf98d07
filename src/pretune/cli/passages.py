"""What finetune is given for span question answering: questions on passages, read, checked and noted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretune.cli.common import Notes

if TYPE_CHECKING:
    from pretune.data.samples import Sample


def answering(
    train: Path, valid: Path | None, share: float, reading: Mapping[str, Any], seed: int, notes: Notes
) -> tuple[list[Sample], list[Sample], dict[str, Any]]:
    """Samples to learn from, samples to validate on, and what run.json says of them."""
    from pretune.cli.inputs import prints_of
    from pretune.data.passages import read_passages
    from pretune.data.splits import split, without_leaks

    columns = {name: reading[name] for name in ("text", "label", "format", "encoding")}
    found = read_passages(train, **columns)
    notes(*found.notes)
    learn, check = found.samples, []
    if valid is not None:
        other = read_passages(valid, **columns, training=False)
        check = other.samples
        notes(*other.notes)
        learn, lost = without_leaks(learn, check)
        notes(*lost)
    elif share:
        learn, check = split(learn, share, seed, stratify=False)
        notes(f"{len(check)} of {len(found.samples)} questions are held out for validation")
    prints = {
        **prints_of(train, learn, valid, check),
        "kind": "qa",
        "text": list(found.text_columns),
        "label": list(found.label_columns),
    }
    return learn, check, prints
