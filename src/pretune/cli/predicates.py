"""What finetune is given for semantic roles: predicates and their arguments, read, checked and noted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretune.cli.common import Notes
from pretune.cli.dividing import divided, note_unseen, prints_of

if TYPE_CHECKING:
    from pretune.data.samples import Sample


def labelling_roles(
    train: Path, valid: Path | None, share: float, reading: Mapping[str, Any], seed: int, notes: Notes
) -> tuple[list[Sample], list[Sample], dict[str, Any]]:
    """Samples to learn from, samples to validate on, and what run.json says of them.

    All predicates of a sentence are held out or none.
    """
    from pretune.data.roles import read_roles
    from pretune.data.splits import same_text

    columns = {name: reading[name] for name in ("text", "label", "format", "encoding")}
    _, learn, check = divided(
        lambda path, first: read_roles(path, **columns),
        train,
        valid,
        share,
        seed,
        notes,
        "sentences",
        together=same_text,
    )
    note_unseen(learn, check, notes)
    prints = {
        **prints_of(train, learn, valid, check),
        "kind": "roles",
        "text": list(reading["text"]),
        "label": list(reading["label"]),
    }
    return learn, check, prints
