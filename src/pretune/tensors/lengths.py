"""Batches of like length: shuffled for training, sorted for prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized

import torch

from pretune.keys import generator

TOKENS = 1 << 16  # at most so many tokens, padding included, in an answering batch of several samples


def length_batches(
    lengths: Sequence[int], batch_size: int, seed: int, epoch: int, smallest: int = 1
) -> list[list[int]]:
    """Indices of an epoch's batches, a pure function of (seed, epoch).

    Permute, cut into chunks of 50 batches, sort each by length, cut into batches, shuffle those
    (the "sort-ish" sampler of the ULMFiT release). Every index appears once. A last batch with fewer
    than `smallest` joins the one before it. Their number is `count_batches`, the same in every epoch.
    """
    chance = generator(seed, "order", epoch)
    order: list[int] = torch.randperm(len(lengths), generator=chance).tolist()
    batches: list[list[int]] = []
    for start in range(0, len(order), 50 * batch_size):
        chunk = sorted(order[start : start + 50 * batch_size], key=lambda i: -lengths[i])
        batches += [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
    if len(batches) > count_batches(len(lengths), batch_size, smallest):
        crumbs = batches.pop()
        batches[-1] = batches[-1] + crumbs
    return [batches[i] for i in torch.randperm(len(batches), generator=chance).tolist()]


def count_batches(samples: int, batch_size: int, smallest: int = 1) -> int:
    """How many batches `length_batches` makes of so many samples."""
    whole, rest = divmod(samples, batch_size)
    return whole + int(rest >= smallest or (whole == 0 and rest > 0))


def padded_tokens(rows: Sequence[Sized]) -> int:
    """What a sample takes of a batch of its own: its rows, each as long as the longest."""
    return len(rows) * max(map(len, rows))


def neighbours_within(rows: Sequence[Sequence[Sized]], tokens: int) -> list[range]:
    """Neighbouring samples together, as many as `tokens` hold, padding included; one alone that has more."""
    found: list[range] = []
    count = longest = start = 0
    for i, of_sample in enumerate(rows):
        count, longest = count + len(of_sample), max(longest, *map(len, of_sample))
        if i > start and count * longest > tokens:
            found.append(range(start, i))
            start, count, longest = i, len(of_sample), max(map(len, of_sample))
    return [*found, range(start, len(rows))]


def answer_batches(lengths: Sequence[int], batch_size: int, tokens: int = TOKENS) -> Iterator[list[int]]:
    """Indices, longest first, in batches that a few very long texts cannot make huge."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    while order:
        size = max(1, min(batch_size, tokens // max(1, lengths[order[0]])))
        yield order[:size]
        order = order[size:]
