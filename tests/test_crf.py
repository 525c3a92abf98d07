"""The CRF against sums over every sequence."""

from __future__ import annotations

from itertools import pairwise, product
from math import inf

import pytest
import torch
from torch import Tensor

from pretune.layers.crf import CRF, marginals, viterbi

K = 3
LENGTHS = (4, 1, 3, 5)


@pytest.fixture
def crf() -> CRF:
    """Going from 0 to 2 is forbidden, and so is beginning with 1 and ending with 0."""
    torch.manual_seed(0)
    transitions, begin, end = torch.zeros(K, K), torch.zeros(K), torch.zeros(K)
    transitions[0, 2] = begin[1] = end[0] = -inf
    crf = CRF(K, (transitions, begin, end)).double()
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter)
    return crf


def drawn() -> tuple[Tensor, Tensor]:
    """Scores (N, T, K) and mask (N, T)."""
    chance = torch.Generator().manual_seed(1)
    scores = torch.randn(len(LENGTHS), max(LENGTHS), K, generator=chance, dtype=torch.float64)
    return scores, torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]


def allowed(path: tuple[int, ...]) -> bool:
    return path[0] != 1 and path[-1] != 0 and (0, 2) not in pairwise(path)


def by_hand(crf: CRF, scores: Tensor, length: int) -> dict[tuple[int, ...], Tensor]:
    """The score of every allowed sequence."""
    found = {}
    for path in filter(allowed, product(range(K), repeat=length)):
        total = crf.begin[path[0]] + crf.end[path[-1]] + sum(scores[t, k] for t, k in enumerate(path))
        found[path] = total + sum(crf.transitions[a, b] for a, b in pairwise(path))
    return found


def test_likelihood_and_gradients_are_those_of_all_sequences(crf: CRF) -> None:
    scores, mask = drawn()
    scores.requires_grad_()
    tags = torch.tensor([[0, 1, 1, 2, 1], [2, 0, 0, 0, 0], [2, 0, 1, 0, 2], [2, 2, 0, 1, 1]])
    likelihood = crf.log_likelihood(scores, tags, mask)
    wanted = []
    for n, length in enumerate(LENGTHS):
        every = by_hand(crf, scores[n], length)
        assert tuple(tags[n, :length].tolist()) in every
        wanted.append(every[tuple(tags[n, :length].tolist())] - torch.stack([*every.values()]).logsumexp(0))
    torch.testing.assert_close(likelihood, torch.stack(wanted))
    moved = (scores, *crf.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(likelihood.sum(), moved), torch.autograd.grad(sum(wanted), moved), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_marginals_are_those_of_all_sequences(crf: CRF) -> None:
    scores, mask = drawn()
    found = marginals(scores, mask, *crf.moves())
    for n, length in enumerate(LENGTHS):
        every = by_hand(crf, scores[n], length)
        shares = torch.stack([*every.values()]).softmax(0)
        wanted = torch.zeros(length, K, dtype=torch.float64)
        for path, share in zip(every, shares, strict=True):
            wanted[torch.arange(length), list(path)] += share
        torch.testing.assert_close(found[n, :length], wanted)


def test_viterbi_finds_the_best_of_all_sequences(crf: CRF) -> None:
    scores, mask = drawn()
    found = viterbi(scores, mask, *crf.moves())
    for n, length in enumerate(LENGTHS):
        every = by_hand(crf, scores[n], length)
        assert tuple(found[n]) == max(every, key=lambda path: float(every[path].detach()))


def test_viterbi_takes_minus_infinity(crf: CRF) -> None:
    scores, mask = drawn()
    transitions, begin, end = torch.zeros(K, K).double(), torch.zeros(K).double(), torch.zeros(K).double()
    transitions[0, 2] = begin[1] = end[0] = -inf
    for n, path in enumerate(viterbi(scores, mask, transitions, begin, end)):
        every = {
            p: sum(float(scores[n, t, k]) for t, k in enumerate(p))
            for p in filter(allowed, product(range(K), repeat=LENGTHS[n]))
        }
        assert tuple(path) == max(every, key=lambda p: every[p])


def test_where_nothing_is_allowed_as_little_as_possible_is_broken() -> None:
    zero = torch.zeros(2)
    only = torch.tensor([[-inf, 0.0], [-inf, -inf]])  # from 0 to 1: of three words' two steps one breaks it
    (path,) = viterbi(torch.zeros(1, 3, 2), torch.ones(1, 3, dtype=torch.bool), only, zero, zero)
    assert sum(step == (0, 1) for step in pairwise(path)) == 1


def test_padding_and_neighbours_do_not_matter(crf: CRF) -> None:
    scores, mask = drawn()
    tags = torch.tensor([[0, 1, 1, 2, 1], [2, 0, 0, 0, 0], [2, 0, 1, 0, 2], [2, 2, 0, 1, 1]])
    together = crf.log_likelihood(scores, tags, mask), marginals(scores, mask, *crf.moves())
    paths = viterbi(scores, mask, *crf.moves())
    for n, length in enumerate(LENGTHS):
        alone = scores[n : n + 1, :length], mask[n : n + 1, :length]
        assert torch.equal(
            crf.log_likelihood(alone[0], tags[n : n + 1, :length], alone[1])[0], together[0][n]
        )
        assert torch.equal(marginals(*alone, *crf.moves())[0], together[1][n, :length])
        assert viterbi(*alone, *crf.moves()) == [paths[n]]


def test_no_words_have_no_tags() -> None:
    zero = torch.zeros(2)
    nothing = torch.zeros(1, 2, dtype=torch.bool)
    assert viterbi(torch.zeros(1, 2, 2), nothing, torch.zeros(2, 2), zero, zero) == [[]]
    assert viterbi(torch.zeros(1, 0, 2), nothing[:, :0], torch.zeros(2, 2), zero, zero) == [[]]


def test_forbidden_transitions_stay_so_through_training(crf: CRF) -> None:
    scores, mask = drawn()
    tags = torch.tensor([[0, 1, 1, 2, 1], [2, 0, 0, 0, 0], [2, 0, 1, 0, 2], [2, 2, 0, 1, 1]])
    optimizer = torch.optim.Adam(crf.parameters(), lr=0.5)
    before = crf.log_likelihood(scores, tags, mask).sum()
    for _ in range(20):
        optimizer.zero_grad()
        (-crf.log_likelihood(scores, tags, mask).sum()).backward()
        optimizer.step()
    assert crf.log_likelihood(scores, tags, mask).sum() > before
    assert all(torch.isfinite(p).all() for p in crf.parameters())
    assert all(map(allowed, map(tuple, viterbi(scores * 100, mask, *crf.moves()))))
