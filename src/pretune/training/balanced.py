"""Balanced sampling: an epoch with as many samples of each class, a pure function of its number."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pretune.keys import generator


def balanced(classes: Sequence[str], seed: int, epoch: int) -> list[int]:
    """Indices of an epoch as long as there are samples, shared out evenly among the classes.

    Each class has an endless line of its samples, shuffled anew whenever all have passed, and every epoch
    takes the next of it. So of one class no sample is seen twice more often than another: those of rare
    ones several times an epoch, those of frequent ones in some epochs only.
    """
    members: dict[str, list[int]] = {}
    for index, name in enumerate(classes):
        members.setdefault(name, []).append(index)
    each, rest = divmod(len(classes), len(members))
    chosen: list[int] = []
    for place, name in enumerate(sorted(members)):
        own, wanted = members[name], each + (place < rest)
        chosen += [own[i] for i in _line(len(own), epoch * wanted, wanted, (seed, "balanced", name))]
    return chosen


def _line(members: int, start: int, wanted: int, keys: tuple[object, ...]) -> list[int]:
    """So many numbers, from `start`, of all permutations of `members` one after another."""
    rounds = range(start // members, (start + wanted - 1) // members + 1)
    orders = [torch.randperm(members, generator=generator(*keys, each)).tolist() for each in rounds]
    first = start - rounds.start * members
    return [i for order in orders for i in order][first : first + wanted]
