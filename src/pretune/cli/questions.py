"""What finetune is given for multiple choice: questions, read, checked and noted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretune.cli.common import Notes

if TYPE_CHECKING:
    from pretune.data.samples import Sample


def choosing(
    train: Path, valid: Path | None, share: float, reading: Mapping[str, Any], seed: int, notes: Notes
) -> tuple[list[Sample], list[Sample], dict[str, Any]]:
    """Samples to learn from, samples to validate on, and what run.json says of them."""
    from pretune.cli.inputs import prints_of
    from pretune.data.choices import read_choices
    from pretune.data.splits import conflicts, split, without_leaks

    columns = {name: reading[name] for name in ("text", "choices", "label", "format", "encoding")}
    found = read_choices(train, **columns)
    notes(*found.notes)
    learn, check = found.samples, []
    if valid is not None:
        other = read_choices(valid, **columns, counts_from=found.counts_from)
        check = other.samples
        notes(*other.notes)
        learn, lost = without_leaks(learn, check)
        notes(*lost)
    elif share:
        learn, check = split(learn, share, seed, stratify=False)
        notes(f"{len(check)} of {len(found.samples)} questions are held out for validation")
    notes(*conflicts(learn))
    prints = {
        **prints_of(train, learn, valid, check),
        "kind": "choice",
        "text": list(found.text_columns),
        "choices": list(found.choice_columns),
        "label": list(found.label_columns),
        "counts_from": found.counts_from,
    }
    return learn, check, prints
