"""What finetune is given for multiple choice: questions, read, checked and noted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretune.cli.common import Notes
from pretune.cli.dividing import divided, prints_of

if TYPE_CHECKING:
    from pretune.data.samples import Sample


def choosing(
    train: Path, valid: Path | None, share: float, reading: Mapping[str, Any], seed: int, notes: Notes
) -> tuple[list[Sample], list[Sample], dict[str, Any]]:
    """Samples to learn from, samples to validate on, and what run.json says of them."""
    from pretune.data.choices import ChoiceReading, read_choices
    from pretune.data.splits import conflicts

    columns = {name: reading[name] for name in ("text", "choices", "label", "format", "encoding")}

    def read(path: Path, first: ChoiceReading | None) -> ChoiceReading:
        return read_choices(path, **columns, counts_from=first.counts_from if first else None)

    found, learn, check = divided(read, train, valid, share, seed, notes, "questions")
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
