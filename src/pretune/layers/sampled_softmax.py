"""Sampled softmax over a vocabulary in order of frequency (Jean et al. 2015), as TensorFlow computes it."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, log1p
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LOGITS_HELD = 6_000_000  # at once: 24 MB in float32


@dataclass(frozen=True)
class Candidates:
    """Words drawn without repetition, to compare targets with."""

    ids: Tensor  # (S,)
    tries: int  # draws it took to find S different ones


def log_uniform(words: int, candidates: int, generator: torch.Generator | None = None) -> Candidates:
    """S different words of `words`, drawn by P(k) = log((k + 2) / (k + 1)) / log(V + 1): Zipf's law.

    Raises `ValueError` where there are fewer words than candidates.
    """
    if candidates > words:
        raise ValueError(f"{candidates} different candidates cannot be drawn from {words} words")
    drawn = torch.empty(0, dtype=torch.long)
    while True:
        uniform = torch.rand(2 * candidates + 64, dtype=torch.float64, generator=generator)
        more = (uniform * log1p(words)).exp().sub_(1).long().clamp_(max=words - 1)
        drawn = torch.cat((drawn, more))
        by_word, order = drawn.sort(stable=True)
        first = torch.ones(len(drawn), dtype=torch.bool)
        first[1:] = by_word[1:] != by_word[:-1]
        places = order[first].sort().values  # of each word's first draw
        if len(places) >= candidates:
            places = places[:candidates]
            return Candidates(drawn[places], int(places[-1]) + 1)


def log_expected(ids: Tensor, words: int, tries: int) -> Tensor:
    """log Q(k), Q(k) = 1 - (1 - P(k))^tries: how often a word is expected among the candidates."""
    rank = ids.double()
    probability = ((rank + 2) / (rank + 1)).log() / log(words + 1)
    return (-torch.expm1(tries * torch.log1p(-probability))).log().float()


def log_uniform_loss(
    hidden: Tensor,
    true_weight: Tensor,
    true_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    candidates: Tensor,
) -> Tensor:
    """-sum_m log softmax over target and candidates of logit - log Q, summed: a scalar.

    hidden (M, D); the targets' rows `true_weight` (M, D) and biases less log Q (M,); the candidates' `weight`
    (S, D) and biases less log Q (S,). A candidate that is the target does not count against it.
    """
    loss: Tensor = _Loss.apply(hidden, true_weight, true_bias, weight, bias, targets, candidates)  # type: ignore[no-untyped-call]
    return loss


class _Loss(torch.autograd.Function):
    """Gradients are made in the forward pass, some rows at a time, so that no (M, S) logits are kept."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        true_weight: Tensor,
        true_bias: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        candidates: Tensor,
    ) -> Tensor:
        loss = hidden.new_zeros(())
        d_hidden, d_weight, d_bias = (
            torch.empty_like(hidden),
            torch.zeros_like(weight),
            torch.zeros_like(bias),
        )
        true = (hidden * true_weight).sum(1) + true_bias  # (M,)
        places, order = candidates.sort()
        found = torch.searchsorted(places, targets).clamp_(max=len(places) - 1)
        hit = places[found] == targets  # (M,) targets that were drawn, too
        rows = hit.nonzero()[:, 0]
        d_true = torch.empty_like(true)
        step = max(32, LOGITS_HELD // len(weight))
        logits = hidden.new_empty(min(step, len(hidden)), len(weight))
        for start in range(0, len(hidden), step):
            part = slice(start, start + step)
            h = hidden[part]
            p = torch.addmm(bias, h, weight.t(), out=logits[: len(h)])  # (m, S)
            inside = rows[(rows >= start) & (rows < start + len(h))]
            p[inside - start, order[found[inside]]] = float("-inf")
            total = torch.logaddexp(p.logsumexp(1), true[part])  # (m,)
            loss += (total - true[part]).sum()
            p.sub_(total[:, None]).exp_()
            d_true[part] = (true[part] - total).exp_() - 1
            torch.mm(p, weight, out=d_hidden[part])
            d_weight.addmm_(p.t(), h)
            d_bias += p.sum(0)
        d_true_weight = d_true[:, None] * hidden
        d_hidden.addcmul_(d_true[:, None], true_weight)
        ctx.save_for_backward(d_hidden, d_true_weight, d_true, d_weight, d_bias)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        return *(d * scale for d in ctx.saved_tensors), None, None
