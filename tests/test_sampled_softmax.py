"""Sampled softmax: TensorFlow's numbers, the sampler's frequencies, gradients."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pretune.layers.sampled_softmax import log_expected, log_uniform, log_uniform_loss

V, S, M, D = 50, 12, 6, 4


def golden(shared: Callable[[str], Path]) -> dict[str, Tensor]:
    with np.load(shared("fixtures/elmo/golden_sampled_softmax.npz")) as arrays:
        return {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}


def loss_of(
    h: Tensor, weight: Tensor, bias: Tensor, y: Tensor, ids: Tensor, tries: int, words: int = V
) -> Tensor:
    true, drawn = log_expected(y, words, tries), log_expected(ids, words, tries)
    return log_uniform_loss(h, weight[y], bias[y] - true, weight[ids], bias[ids] - drawn, y, ids)


def test_expected_counts_and_losses_equal_tensorflows(shared: Callable[[str], Path]) -> None:
    g = golden(shared)
    tries = int(g["num_tries"])
    torch.testing.assert_close(
        log_expected(g["y"], V, tries).exp(), g["true_expected"][:, 0], rtol=1e-5, atol=0
    )
    torch.testing.assert_close(
        log_expected(g["ids"], V, tries).exp(), g["sampled_expected"], rtol=1e-5, atol=0
    )
    each = [loss_of(g["H"][m : m + 1], g["W"], g["b"], g["y"][m : m + 1], g["ids"], tries) for m in range(M)]
    torch.testing.assert_close(torch.stack(each), g["loss"], rtol=1e-5, atol=0)
    whole = loss_of(g["H"], g["W"], g["b"], g["y"], g["ids"], tries)
    torch.testing.assert_close(whole, g["loss"].sum(), rtol=1e-5, atol=0)


def plain(h: Tensor, weight: Tensor, bias: Tensor, y: Tensor, ids: Tensor, tries: int) -> Tensor:
    """The definition, in one line a step."""
    true = (h * weight[y]).sum(1) + bias[y] - log_expected(y, V, tries)
    others = h @ weight[ids].t() + bias[ids] - log_expected(ids, V, tries)
    others = others.masked_fill(ids == y[:, None], float("-inf"))
    logits = torch.cat((true[:, None], others), 1)
    return F.cross_entropy(logits, torch.zeros(len(y), dtype=torch.long), reduction="sum")


def test_gradients_equal_autograds_of_the_definition() -> None:
    torch.manual_seed(0)
    h, weight, bias = (
        torch.randn(M, D, requires_grad=True),
        torch.randn(V, D, requires_grad=True),
        torch.randn(V, requires_grad=True),
    )
    ids = torch.randperm(V)[:S]
    y = torch.cat((ids[:3], torch.tensor([int(ids[0]), 7, 9])))
    ours = torch.autograd.grad(2 * loss_of(h, weight, bias, y, ids, 28), (h, weight, bias))
    theirs = torch.autograd.grad(2 * plain(h, weight, bias, y, ids, 28), (h, weight, bias))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_candidates_are_different_and_as_frequent_as_expected() -> None:
    chance = torch.Generator().manual_seed(3)
    seen, expected = torch.zeros(V), torch.zeros(V)
    rounds = 4000
    for _ in range(rounds):
        drawn = log_uniform(V, S, chance)
        assert len(set(drawn.ids.tolist())) == S <= drawn.tries
        seen[drawn.ids] += 1
        expected += log_expected(torch.arange(V), V, drawn.tries).exp()
    assert (seen / rounds - expected / rounds).abs().max() < 0.03


def test_one_candidate_follows_zipfs_law() -> None:
    chance = torch.Generator().manual_seed(4)
    rounds = 20_000
    seen = torch.bincount(torch.cat([log_uniform(V, 1, chance).ids for _ in range(rounds)]), minlength=V)
    law = torch.tensor([(log(k + 2) - log(k + 1)) / log(V + 1) for k in range(V)])
    assert (seen / rounds - law).abs().max() < 0.012


def test_all_words_can_be_candidates_and_no_more() -> None:
    assert sorted(log_uniform(V, V).ids.tolist()) == list(range(V))
    with pytest.raises(ValueError, match="51 different candidates"):
        log_uniform(V, V + 1)
