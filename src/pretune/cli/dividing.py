"""A labelled file as samples to learn from and samples to validate on."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pretune.cli.common import Notes

if TYPE_CHECKING:
    from pretune.data.samples import Sample


class Found(Protocol):
    """What a reader gives."""

    @property
    def samples(self) -> list[Sample]: ...

    @property
    def notes(self) -> Sequence[str]: ...


F = TypeVar("F", bound=Found)


def divided(
    read: Callable[[Path, F | None], F],
    train: Path,
    valid: Path | None,
    share: float,
    seed: int,
    notes: Notes,
    counted: str = "samples",
    *,
    stratify: Callable[[F], bool] = lambda found: False,
    together: Callable[[Sample], Hashable] | None = None,
) -> tuple[F, list[Sample], list[Sample]]:
    """What `train` holds, of it what is learned from, and what is validated on.

    That is `valid`, whose texts are then not learned from, or else a share of `train`; of samples that are
    equal by `together`, such as the questions on a passage, all are held out or none. `read` is told what it
    found in `train` when it reads `valid`. `counted` names the samples, or what is together, for the user.
    """
    from pretune.data.splits import split, without_leaks

    found = read(train, None)
    notes(*found.notes)
    learn: list[Sample] = found.samples
    if valid is not None:
        other = read(valid, found)
        notes(*other.notes)
        learn, lost = without_leaks(learn, other.samples)
        notes(*lost)
        return found, learn, other.samples
    if not share:
        return found, learn, []
    rest, held = split(learn, share, seed, stratify(found), together)
    units: list[Any] = [learn, held]
    if together is not None:
        of = [{together(sample) for sample in some} for some in units]
        units, counted = (of, counted) if len(of[0]) > 1 else (units, "samples")
    notes(f"{len(units[1])} of {len(units[0])} {counted} are held out for validation")
    return found, rest, held


def prints_of(
    train: Path, learn: Sequence[Sample], valid: Path | None, check: Sequence[Sample]
) -> dict[str, Any]:
    """What run.json says of both."""
    from pretune.runs.measure import fingerprint

    return {
        "train": {"path": str(train), "samples": len(learn), "fingerprint": fingerprint(learn)},
        "valid": {"path": str(valid or train), "samples": len(check), "fingerprint": fingerprint(check)},
    }


def note_unseen(learn: Sequence[Sample], check: Sequence[Sample], notes: Notes) -> None:
    """Say which tags are in the validation samples alone."""
    from pretune.data.splits import count_labels

    if unseen := sorted(count_labels(check).keys() - count_labels(learn).keys()):
        notes(f"tags never seen in training count as errors: {', '.join(unseen[:8])}")
