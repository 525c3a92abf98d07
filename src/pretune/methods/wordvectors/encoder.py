"""The word vector encoder: a table of vectors, and their mean as summary."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pretune.encoder import Encoded, Encoder
from pretune.errors import UsageError
from pretune.methods.wordvectors.tokens import UNKNOWN
from pretune.tensors.batch import Batch


@dataclass(frozen=True)
class WordVectorConfig:
    """Settings of `WordVectorEncoder`."""

    width: int = 100
    """Numbers a vector."""
    pooling: Literal["mean", "mean_max"] = "mean"
    """The summary: the mean of a text's vectors, or mean and maximum side by side."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise UsageError(f"encoder.width is {self.width}; it must be at least 1")


class WordVectorEncoder(Encoder):
    """One vector a word, whatever its neighbours: what came before ELMo.

    Unknown words have the zero vector and are left out of mean and maximum; the summary of a text that
    has only unknown words is zero.
    """

    def __init__(self, config: WordVectorConfig, size: int) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(size, config.width, padding_idx=UNKNOWN)  # (V, D), row 0 stays zero
        with torch.no_grad():
            self.embedding.weight[UNKNOWN + 1 :].normal_(0, 0.1)  # about the size of published vectors
        self.width = config.width
        self.summary_width = config.width * (2 if config.pooling == "mean_max" else 1)

    def forward(self, batch: Batch, carry: Any = None) -> Encoded:
        return replace(self.read_vectors(self.vectors(batch), batch), carry=carry)

    def vectors(self, batch: Batch) -> Tensor:
        found: Tensor = self.embedding(batch.ids)  # (N, T, D)
        return found

    def read_vectors(self, vectors: Tensor, batch: Batch) -> Encoded:
        known = batch.mask & (batch.ids != UNKNOWN)  # (N, T)
        vectors = vectors * known[..., None]  # zero at padding, whatever its id
        summary = vectors.sum(1) / known.sum(1, keepdim=True).clamp(min=1)  # (N, D)
        if self.config.pooling == "mean_max":
            summary = torch.cat([summary, _maximum(vectors, known)], -1)  # (N, 2D)
        return Encoded((vectors,), batch.mask, summary)

    def fresh(self) -> WordVectorEncoder:
        return WordVectorEncoder(self.config, len(self.embedding.weight))

    def groups(self) -> list[nn.Module]:
        return [self.embedding]


def _maximum(vectors: Tensor, known: Tensor) -> Tensor:
    """The largest value of known words in each dimension; zero where none is known."""
    largest = vectors.masked_fill(~known[..., None], float("-inf")).amax(1)  # (N, D)
    return largest.masked_fill(~known.any(1, keepdim=True), 0.0)
