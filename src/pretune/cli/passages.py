"""What finetune is given for span question answering: questions on passages, read, checked and noted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretune.cli.common import Notes
from pretune.cli.dividing import divided, prints_of

if TYPE_CHECKING:
    from pretune.data.samples import Sample


def answering(
    train: Path, valid: Path | None, share: float, reading: Mapping[str, Any], seed: int, notes: Notes
) -> tuple[list[Sample], list[Sample], dict[str, Any]]:
    """Samples to learn from, samples to validate on, and what run.json says of them."""
    from pretune.data.passages import PassageReading, read_passages
    from pretune.data.span_answers import passage_of

    columns = {name: reading[name] for name in ("text", "label", "format", "encoding")}

    def read(path: Path, first: PassageReading | None) -> PassageReading:
        return read_passages(path, **columns, training=first is None)

    found, learn, check = divided(read, train, valid, share, seed, notes, "passages", together=passage_of)
    prints = {
        **prints_of(train, learn, valid, check),
        "kind": "qa",
        "text": list(found.text_columns),
        "label": list(found.label_columns),
    }
    return learn, check, prints
