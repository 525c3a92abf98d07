"""Randomness as a function: every draw is keyed by what it is for, never by what came before."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def key(*parts: object) -> int:
    """A 56-bit number that depends on `parts` alone: (seed, what, epoch, index or step, rank)."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=7).digest(), "little")


def generator(*parts: object) -> torch.Generator:
    """A torch generator seeded by `key(*parts)`."""
    import torch

    return torch.Generator().manual_seed(key(*parts))
