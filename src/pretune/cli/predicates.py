"""What finetune is given for semantic roles: predicates and their arguments, read, checked and noted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretune.cli.common import Notes

if TYPE_CHECKING:
    from pretune.data.samples import Sample


def labelling_roles(
    train: Path, valid: Path | None, share: float, reading: Mapping[str, Any], seed: int, notes: Notes
) -> tuple[list[Sample], list[Sample], dict[str, Any]]:
    """Samples to learn from, samples to validate on, and what run.json says of them.

    All predicates of a sentence are held out or none.
    """
    from pretune.cli.inputs import prints_of
    from pretune.data.roles import read_roles
    from pretune.data.splits import count_labels, same_text, split, without_leaks

    columns = {name: reading[name] for name in ("text", "label", "format", "encoding")}
    found = read_roles(train, **columns)
    notes(*found.notes)
    learn, check = found.samples, []
    if valid is not None:
        other = read_roles(valid, **columns)
        check = other.samples
        notes(*other.notes)
        learn, lost = without_leaks(learn, check)
        notes(*lost)
    elif share:
        sentences = list({same_text(sample): sample for sample in learn}.values())
        held = {same_text(sample) for sample in split(sentences, share, seed, stratify=False)[1]}
        check = [sample for sample in learn if same_text(sample) in held]
        learn = [sample for sample in learn if same_text(sample) not in held]
        notes(f"{len(held)} of {len(sentences)} sentences are held out for validation")
    if unseen := sorted(count_labels(check).keys() - count_labels(learn).keys()):
        notes(f"tags never seen in training count as errors: {', '.join(unseen[:8])}")
    prints = {
        **prints_of(train, learn, valid, check),
        "kind": "roles",
        "text": list(reading["text"]),
        "label": list(reading["label"]),
    }
    return learn, check, prints
