"""Perplexity of streams of text with a cache of the recent past beside the model."""

from __future__ import annotations

import torch

from pretune.encoder import Encoder
from pretune.layers.continuous_cache import ContinuousCache, Memory
from pretune.tasks.next_token import NextTokenHead, scores_of
from pretune.tensors.streams import NO_TARGET, Streams


def cached_scores(
    encoder: Encoder, head: NextTokenHead, source: Streams, cache: ContinuousCache
) -> dict[str, float]:
    """As `stream_scores`, each stream with a cache of its own that goes on from document to document."""
    device = next(encoder.parameters()).device
    nats, tokens, carry = 0.0, 0, None
    memory: Memory | None = None
    with torch.no_grad():
        for step in range(source.steps(0)):
            batch = source.batch(0, step).to(device)
            encoded = encoder(batch, carry)
            hidden, targets = encoded.layers[-1], batch.gold["next"]  # (N, T, D), (N, T)
            asked = targets != NO_TARGET
            said = head.log_probabilities(hidden.flatten(0, 1), targets.clamp(min=0).flatten())
            mixed, memory = cache.mixed(said.view(targets.shape), hidden, targets, memory)
            nats -= float(mixed[asked].double().sum())
            tokens += int(asked.sum())
            carry = encoded.carry
    return scores_of(nats, tokens)
