"""Batches of like length: shuffled for training, sorted for prediction."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pretune.keys import generator


def length_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Indices of an epoch's batches, a pure function of (seed, epoch).

    Permute, cut into chunks of 50 batches, sort each by length, cut into batches, shuffle those
    (the "sort-ish" sampler of the ULMFiT release). Every index appears once.
    """
    chance = generator(seed, "order", epoch)
    order: list[int] = torch.randperm(len(lengths), generator=chance).tolist()
    batches = []
    for start in range(0, len(order), 50 * batch_size):
        chunk = sorted(order[start : start + 50 * batch_size], key=lambda i: -lengths[i])
        batches += [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=chance).tolist()]


def sorted_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in batches, longest first; for prediction, where order is restored afterwards."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
