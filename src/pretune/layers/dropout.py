"""Dropouts of recurrent networks: masks that time, or every use of a word, shares."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pretune.layers.steps import Steps

PARTS = 1 << 16  # of which a probability is a whole number, where 16 bits are drawn for each entry


def entry_dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """`F.dropout` of a large matrix: on a processor from 16 random bits an entry, in half the time."""
    gone = round(p * PARTS)
    if not training or x.device.type != "cpu" or not 0 < gone < PARTS:
        return F.dropout(x, p, training)
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    kept = bits[: x.numel()].view(x.shape) >= gone - PARTS // 2
    return x * kept.to(x.dtype).mul_(PARTS / (PARTS - gone))


def locked_dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """One mask per row for all time steps (Gal & Ghahramani 2016). x (N, T, D) -> (N, T, D)."""
    if not training or p == 0:
        return x
    return x * F.dropout(x.new_ones(x.shape[0], 1, x.shape[2]), p)


def word_dropout(x: Tensor, ids: Tensor, words: int, p: float, training: bool) -> Tensor:
    """Drop word types: every occurrence of a word in the call goes or stays.

    Equal to dropping whole rows of the embedding matrix (Merity et al. 2017, section 4.3), without
    a copy of that matrix: only the rows looked up are scaled. x (N, T, D), ids (N, T) -> (N, T, D).
    """
    if not training or p == 0:
        return x
    kept = F.dropout(torch.ones(words, dtype=x.dtype, device=x.device), p)  # (V,)
    return x * kept[ids].unsqueeze(-1)


def packed_locked_dropout(x: Tensor, steps: Steps, p: float, training: bool) -> Tensor:
    """`locked_dropout` of packed rows. x (M, D) -> (M, D)."""
    if not training or p == 0:
        return x
    return x * F.dropout(x.new_ones(steps.rows, x.shape[1]), p).index_select(0, steps.row)
