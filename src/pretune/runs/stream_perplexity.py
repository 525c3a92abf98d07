"""Perplexity of texts read one after another, as in pretraining, with a cache of the past where asked."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np

from pretune.errors import UserError
from pretune.layers.continuous_cache import ContinuousCache
from pretune.methods.ulmfit.tokens import UlmfitCodec
from pretune.runs.language_model import LanguageModel, Perplexity
from pretune.runs.readings import Sentence, part_of
from pretune.tasks.cached import cached_scores
from pretune.tasks.next_token import NextTokenHead, stream_scores
from pretune.tensors.streams import StreamSource

TOGETHER = 1024  # texts that are turned into ids at a time
WINDOW = 70  # tokens a step; no figure depends on it but for the last digits
CONTEXT_WINDOWS = 10  # windows, of the reading and of the cache, that a stream is long at least


def stream_perplexity(
    folder: str | Path,
    texts: Iterable[Sentence],
    cache: ContinuousCache | None = None,
    streams: int = 64,
    device: str = "auto",
) -> Perplexity:
    """Of a ULMFiT's folder on texts end to end: each is read on from the state that the one before left.

    Every token but the very first of all is predicted, marks included. Texts are shared by up to `streams`
    streams, fewer where these would be short; each begins at zero and has a cache of its own.
    """
    model = LanguageModel.load(folder, device)
    codec = model.start.codec
    if not isinstance(codec, UlmfitCodec):
        raise UserError(f"{folder} holds {model.start.method.name}; streams with a cache are read by ulmfit")
    ids, starts = _tokens(codec, texts)
    long = CONTEXT_WINDOWS * max(WINDOW, cache.window if cache else 0)
    source = StreamSource(
        ids,
        starts,
        max(1, min(streams, len(ids) // long)),
        WINDOW,
        direction=codec.config.direction,
        shuffle=False,
        whole=True,
        pad_id=codec.pad_id,
    )
    encoder, head = model.start.encoder, model.model.head
    assert isinstance(head, NextTokenHead)
    encoder.purpose("language_model")
    try:
        if cache is None:
            found = stream_scores(model.model, head, source)
        else:
            found = cached_scores(encoder, head, source, cache)
    finally:
        encoder.purpose("task")
    value = found["perplexity"]
    backward = codec.config.direction == "backward"
    return Perplexity(value, None if backward else value, value if backward else None, int(found["tokens"]))


def _tokens(codec: UlmfitCodec, texts: Iterable[Sentence]) -> tuple[np.ndarray, np.ndarray]:
    """Ids of all texts end to end, and where each begins; blank texts are left out."""
    kept = (text if isinstance(text, str) else part_of(text).text for text in texts)
    kept = (text for text in kept if text.strip())
    found: list[np.ndarray] = []
    while some := list(islice(kept, TOGETHER)):
        found += [np.asarray(ids) for ids in codec.ids(some)]
    if not found:
        raise UserError("there is no text to score: nothing but blank lines")
    return np.concatenate(found), np.cumsum([0, *map(len, found)])
