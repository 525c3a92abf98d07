"""What pretraining on raw text shares between methods: its budget, its scores, where token files lie."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory

from pretune.tasks.next_token import perplexity
from pretune.training.loop import Fitted


def budget(epochs: int, steps: int, max_steps: int | None) -> tuple[int, int]:
    """Epochs, and steps of each, within `max_steps`."""
    if max_steps is None or max_steps >= epochs * steps:
        return epochs, steps
    fewer = ceil(max_steps / steps)
    return fewer, max_steps // fewer


def summary(fitted: Fitted) -> dict[str, float]:
    """The best scores on held-out text; without such text what the last epoch reported, named `train_…`."""
    if fitted.best:
        return {**fitted.best, "trained_tokens": float(fitted.tokens)}
    loss = float(fitted.history[-1]["loss"])
    return {
        "train_loss": loss,
        "train_perplexity": perplexity(loss, 1),
        "trained_tokens": float(fitted.tokens),
    }


@contextmanager
def token_cache(folder: Path | None) -> Iterator[Path]:
    """Where token files lie: beside the checkpoints, or nowhere for longer than the run."""
    if folder is not None:
        yield folder / "tokens"
        return
    with TemporaryDirectory(prefix="pretune-") as temporary:
        yield Path(temporary)
