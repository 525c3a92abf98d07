"""Published vectors as a codec and an encoder."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Literal

import torch

from pretune.data.vector_files import read_vectors
from pretune.methods.wordvectors.encoder import WordVectorConfig, WordVectorEncoder
from pretune.methods.wordvectors.tokens import RESERVED, WordCodec, WordCodecConfig


def import_vectors(
    file: Path,
    *,
    max_words: int | None = None,
    words: Container[str] | None = None,
    language: str = "en",
    segmenter: str | None = None,
    lowercase: bool | None = None,
    pooling: Literal["mean", "mean_max"] = "mean",
) -> tuple[WordCodec, WordVectorEncoder]:
    """A codec and an encoder of the file's words, values as published.

    `max_words` takes the first (most frequent) ones, `words` only those that it contains. `lowercase` None:
    texts are lowercased if no word of the file has a capital.
    """
    names, table = read_vectors(file, max_words=max_words, words=words)
    if lowercase is None:
        lowercase = all(name == name.lower() for name in names)
    codec = WordCodec.of_words(names, WordCodecConfig(language, segmenter, lowercase))
    encoder = WordVectorEncoder(WordVectorConfig(table.shape[1], pooling), codec.size)
    with torch.no_grad():
        encoder.embedding.weight[len(RESERVED) :] = torch.from_numpy(table)
    return codec, encoder
