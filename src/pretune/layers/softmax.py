"""Cross-entropy over a large vocabulary, exact, without keeping (tokens, V) logits."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, log
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pretune.layers.threads import scratch

LOGITS_HELD = 24_000_000  # at once: 96 MB in float32, which on a processor every chunk and call shares

UNLIKELY = 1e-30  # a probability below which a float32 begins to lose it


def softmax_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, by: Tensor | None = None
) -> Tensor:
    """-sum_m by_m log softmax(W h_m + b)[target_m]: a scalar in float32; without `by` all count once.

    hidden (M, D), weight (V, D), bias (V,), targets and `by` (M,). Gradients are made during the forward
    pass, a chunk of rows at a time, so that logits are computed once and never stored.
    """
    if not torch.is_grad_enabled():
        said = log_probabilities(hidden, weight, bias, targets)
        return -(said if by is None else said * by).sum()
    device = hidden.device.type
    if torch.is_autocast_enabled(device):  # products in the fast type, softmax and sums in float32
        hidden = hidden.to(torch.get_autocast_dtype(device))
    with torch.autocast(device, enabled=False):
        loss: Tensor = _SoftmaxLoss.apply(hidden, weight, bias, targets, by)  # type: ignore[no-untyped-call]
    return loss


def sampled_softmax_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, candidates: int
) -> Tensor:
    """The same with the sum over words estimated from some of them: for training on large vocabularies.

    Half of `candidates` are the first words (of a vocabulary in order of frequency), which with all
    targets count exactly; half are drawn evenly from the R other words, each standing for R / drawn of
    them. So the estimate of each row's normaliser is unbiased. Draws from torch's global generator.
    """
    if candidates >= len(weight):
        return softmax_loss(hidden, weight, bias, targets)
    surely = torch.zeros(len(weight), dtype=torch.bool, device=hidden.device)  # (V,)
    surely[: candidates // 2] = True
    surely[targets] = True
    others = (~surely).nonzero()[:, 0]  # (R,)
    drawn = others[torch.randperm(len(others), device=hidden.device)[: candidates - candidates // 2]]
    words = torch.cat((surely.nonzero()[:, 0], drawn))  # (C,)
    standing_for = torch.zeros(len(words), device=hidden.device)  # (C,) log of how many words each counts for
    standing_for[len(words) - len(drawn) :] = log(max(1, len(others)) / max(1, len(drawn)))
    places = surely.cumsum(0)[targets] - 1  # (M,) of the targets among `words`
    return softmax_loss(hidden, weight[words], bias[words] + standing_for, places)


def log_probabilities(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """log softmax(W h_m + b)[target_m] of each row, without a gradient: (M,)."""
    with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
        said = [
            _log_softmax(hidden[rows].to(weight.dtype), weight, bias).gather(1, targets[rows, None])[:, 0]
            for rows in _rows(len(hidden), len(weight))
        ]
    return torch.cat(said) if said else hidden.new_zeros(0)


class _SoftmaxLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, by: Tensor | None
    ) -> Tensor:
        by_hidden, by_weight, by_bias = ctx.needs_input_grad[:3]
        fast = weight.to(hidden.dtype)  # (V, D)
        loss = torch.zeros((), device=hidden.device)
        d_hidden = torch.empty_like(hidden) if by_hidden else None  # (M, D)
        fresh = torch.empty_like if len(hidden) else torch.zeros_like
        d_weight = fresh(weight) if by_weight else None  # (V, D)
        d_bias = torch.zeros_like(bias) if by_bias else None  # (V,)
        for rows in _rows(len(hidden), len(weight)):
            h, at = hidden[rows], targets[rows, None]
            logits = _logits(h, fast, bias)  # (m, V)
            p = torch.softmax(logits, 1, out=logits)
            said = _said(p, h, fast, bias, at)  # (m, 1)
            loss -= (said if by is None else said * by[rows, None]).sum()
            if not any(ctx.needs_input_grad):
                continue
            p.scatter_add_(1, at, p.new_full(at.shape, -1.0))  # softmax - one_hot
            if by is not None:
                p *= by[rows, None]
            if d_bias is not None:
                d_bias += p.sum(0)
            p = p.to(h.dtype)
            if d_hidden is not None:
                d_hidden[rows] = p @ fast
            if d_weight is not None:
                _add_product(d_weight, p, h, first=rows.start == 0)
        ctx.kept = d_hidden, d_weight, d_bias
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        kept, ctx.kept = ctx.kept, None
        if kept is None:
            raise RuntimeError("the gradient of this softmax has been asked for before, and was given away")
        return *(None if d is None else d.mul_(scale.to(d.dtype)) for d in kept), None, None


def _rows(tokens: int, words: int) -> Iterator[slice]:
    """Chunks of like size."""
    step = max(1, ceil(tokens / ceil(tokens / max(32, LOGITS_HELD // words)))) if tokens else 1
    return (slice(i, i + step) for i in range(0, tokens, step))


def _logits(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Of some rows, in float32, in memory that the next call may take: (m, V)."""
    if h.dtype != bias.dtype:
        return (h @ weight.t()).float() + bias
    if h.device.type == "cpu" and h.dtype == torch.float32:
        return torch.addmm(bias, h, weight.t(), out=scratch(len(h), len(weight)))
    return torch.addmm(bias, h, weight.t())


def _log_softmax(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    logits = _logits(h, weight, bias)  # (m, V)
    return torch.log_softmax(logits, 1, out=logits)


def _said(p: Tensor, h: Tensor, weight: Tensor, bias: Tensor, at: Tensor) -> Tensor:
    """log p[at] of rows (m, V), at (m, 1), also where p itself is too small for a float: (m, 1)."""
    found = p.gather(1, at)
    said = found.log()
    rows = (found < UNLIKELY).nonzero()[:, 0]
    if len(rows):  # from the likeliest word, and how much larger its logit is
        most, word = p[rows].max(1)

        def logit(words: Tensor) -> Tensor:
            return (h[rows].float() * weight[words].float()).sum(1) + bias[words]

        said[rows, 0] = most.log() + logit(at[rows, 0]) - logit(word)
    return said


def _add_product(into: Tensor, p: Tensor, h: Tensor, first: bool) -> None:
    """into += pᵀ h, or = where it is the `first` of them; (V, D), (m, V), (m, D)."""
    if into.dtype == h.dtype:
        into.addmm_(p.t(), h, beta=0 if first else 1)
    elif first:
        into.copy_(p.t() @ h)
    else:
        into += p.t() @ h
