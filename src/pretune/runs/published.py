"""Published: what `pretune import` was given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Published:
    """Files and settings; None or empty where nothing was said."""

    source: Path | None = None  # a file, folder or archive that says all
    options: Path | None = None
    weights: Path | None = None
    checkpoint: Path | None = None
    softmax: Path | None = None
    embedding: Path | None = None
    vocab: Path | None = None
    pieces: Path | None = None  # a SentencePiece model
    backward: Path | None = None  # weights of a model that reads from right to left
    labels: tuple[str, ...] = ()  # of a classifier, in the order of its scores
    encoder_only: bool = False
    seed: int = 0  # draws what a file lacks
    codec: Mapping[str, Any] = field(default_factory=dict)  # settings
    encoder: Mapping[str, Any] = field(default_factory=dict)
    task: Mapping[str, Any] = field(default_factory=dict)

    def given(self) -> dict[str, Any]:
        return {x.name: getattr(self, x.name) for x in fields(self) if getattr(self, x.name)}
