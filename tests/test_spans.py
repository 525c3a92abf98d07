"""Spans and their links against loops over all spans and all antecedents, and against enumeration."""

from __future__ import annotations

from itertools import product
from math import exp, log
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import pretune.layers.spans as spans_module
from pretune.layers.spans import (
    Feedforward,
    Links,
    PairScorer,
    SpanScorer,
    antecedent_loss,
    best_spans,
    buckets,
)

WIDTH, HIDDEN, FEATURE = 5, 7, 3


def scorer(max_width: int = 4) -> SpanScorer:
    torch.manual_seed(0)
    return SpanScorer(WIDTH, max_width, HIDDEN, FEATURE, 0.0).double()


def pairs(most: int, order: int = 1) -> PairScorer:
    torch.manual_seed(1)
    made = PairScorer(WIDTH, HIDDEN, FEATURE, 0.0, most, order).double()
    torch.nn.init.normal_(made.coarse.weight, std=0.5)
    return made


def plain(network: Feedforward, x: Tensor) -> float:
    """A feedforward network, layer by layer."""
    for layer in (network.first, network.second):
        x = (layer.weight @ x + layer.bias).relu()
    return float(network.last.weight[0] @ x + network.last.bias[0])


def vector(spans: SpanScorer, words: Tensor, first: int, last: int) -> Tensor:
    """[start; end; attention; width], word by word."""
    logits = [
        float(spans.attention.weight[0] @ words[t] + spans.attention.bias[0]) for t in range(first, last + 1)
    ]
    total = sum(map(exp, logits))
    head = sum(exp(x) / total * words[t] for x, t in zip(logits, range(first, last + 1), strict=True))
    return torch.cat([words[first], words[last], head, spans.widths.weight[last - first]])


def test_every_span_within_sentences_is_scored_as_its_vector_says() -> None:
    spans, words = scorer(), torch.randn(9, WIDTH, dtype=torch.double)
    sentence = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2, 2])
    with torch.no_grad():
        found, scores = spans(words, sentence)
        expected = {
            (first, last): plain(spans.scorer, vector(spans, words, first, last))
            for first in range(9)
            for last in range(first, min(9, first + 4))
            if sentence[first] == sentence[last]
        }
        assert sorted(map(tuple, found.tolist())) == sorted(expected)
        for (first, last), score in zip(found.tolist(), scores.tolist(), strict=True):
            assert score == pytest.approx(expected[first, last])
        vectors = spans.vectors(words, found)
        for (first, last), one in zip(found.tolist(), vectors, strict=True):
            torch.testing.assert_close(one, vector(spans, words, first, last))


def test_a_span_is_as_likely_whatever_else_the_document_has() -> None:
    spans, words = scorer(), torch.randn(6, WIDTH, dtype=torch.double)
    sentence = torch.tensor([0, 0, 0, 1, 1, 1])
    whole = dict(zip(map(tuple, (x := spans(words, sentence))[0].tolist()), x[1].tolist(), strict=True))
    found, scores = spans(words[3:], sentence[3:])
    for (first, last), score in zip(found.tolist(), scores.tolist(), strict=True):
        assert score == pytest.approx(whole[first + 3, last + 3])


def test_no_words_have_no_spans() -> None:
    found, scores = scorer()(torch.zeros(0, WIDTH, dtype=torch.double), torch.zeros(0, dtype=torch.long))
    assert found.shape == (0, 2) and scores.shape == (0,)
    links = pairs(3)(torch.zeros(0, WIDTH, dtype=torch.double), torch.zeros(0, dtype=torch.double))
    assert links.scores.shape == (0, 0)


def test_every_antecedent_is_scored_as_the_pair_says() -> None:
    made, g = pairs(50), torch.randn(8, WIDTH, dtype=torch.double)
    mention = torch.randn(8, dtype=torch.double)
    with torch.no_grad():
        links = made(g, mention)
        seen = 0
        for i, (own, scores) in enumerate(
            zip(links.antecedents.tolist(), links.scores.tolist(), strict=True)
        ):
            assert sorted(j for j in own if j >= 0) == list(range(i))
            for j, score in zip(own, scores, strict=True):
                if j < 0:
                    assert score == -torch.inf
                    continue
                far = made.distances.weight[i - j if i - j < 5 else 5]
                pair = torch.cat([g[i], g[j], g[i] * g[j], far])
                coarse = float(g[j] @ made.coarse.weight @ g[i]) / WIDTH**0.5
                expected = float(mention[i] + mention[j]) + coarse + plain(made.scorer, pair)
                assert score == pytest.approx(expected)
                seen += 1
        assert seen == 28


def test_only_the_best_antecedents_by_the_bilinear_score_are_looked_at() -> None:
    g, mention = torch.randn(8, WIDTH, dtype=torch.double), torch.randn(8, dtype=torch.double)
    with torch.no_grad():
        all_of_them, few = pairs(50)(g, mention), pairs(2)(g, mention)
        coarse = mention[:, None] + mention + g @ pairs(2).coarse.weight.t() @ g.t() / WIDTH**0.5
    assert few.scores.shape == (8, 2)
    for i in range(2, 8):
        best = sorted(range(i), key=lambda j: -float(coarse[i, j]))[:2]
        assert sorted(few.antecedents[i].tolist()) == sorted(best)
        known = dict(zip(all_of_them.antecedents[i].tolist(), all_of_them.scores[i].tolist(), strict=True))
        for j, score in zip(few.antecedents[i].tolist(), few.scores[i].tolist(), strict=True):
            assert score == pytest.approx(known[j])


def test_a_refined_span_is_what_its_likely_antecedents_say_through_a_gate() -> None:
    made, g = pairs(50, order=2), torch.randn(5, WIDTH, dtype=torch.double)
    mention = torch.randn(5, dtype=torch.double)
    assert made.gate is not None
    with torch.no_grad():
        first = pairs(50)
        first.load_state_dict(made.state_dict(), strict=False)
        before, after = first(g, mention), made(g, mention)
        refined = []
        for i in range(5):
            weights = [1.0, *(exp(x) for x in before.scores[i].tolist())]
            expected = (
                weights[0] * g[i]
                + sum(w * g[j] for w, j in zip(weights[1:], before.antecedents[i].tolist(), strict=True) if w)
            ) / sum(weights)
            gate = made.gate(torch.cat([g[i], expected])).sigmoid()
            refined.append(gate * g[i] + (1 - gate) * expected)
        difference = first.fine(torch.stack(refined), before.antecedents.clamp(min=0))
        difference = difference - first.fine(g, before.antecedents.clamp(min=0))
        there = before.antecedents >= 0
        torch.testing.assert_close(after.scores[there], (before.scores + difference)[there])


def test_chunks_of_pairs_change_neither_scores_nor_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    def gradients() -> tuple[Tensor, list[Tensor]]:
        made = pairs(4)
        g = torch.randn(11, WIDTH, dtype=torch.double, generator=torch.Generator().manual_seed(5))
        g.requires_grad_()
        links = made(g, g.sum(1))
        loss = antecedent_loss(links, torch.tensor([1, 0, 1, 2, 2, 0, 1, 0, 3, 3, 0]))
        return links.scores, list(torch.autograd.grad(loss, [g, *made.parameters()]))

    scores, found = gradients()
    monkeypatch.setattr(spans_module, "PAIRS", 2 * 4 * WIDTH)  # two spans at a time
    again, theirs = gradients()
    torch.testing.assert_close(scores, again)
    for one, other in zip(found, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_distances_are_bucketed_by_powers_of_two() -> None:
    distance = torch.tensor([-3, 0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 31, 32, 63, 64, 900])
    assert buckets(distance).tolist() == [0, 0, 1, 2, 3, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9]


def test_kept_spans_never_cross_and_better_ones_come_first() -> None:
    spans = [(0, 2), (1, 3), (1, 2), (3, 3), (2, 4)]
    assert best_spans(spans, [5, 4, 3, 2, 1], 9) == [0, 2, 3]  # (1, 3) and (2, 4) cross (0, 2)
    assert best_spans(spans, [4, 5, 3, 2, 1], 2) == [2, 1]  # in the order of the text
    chance = Random(0)
    for _ in range(50):
        some = [(a, a + chance.randint(0, 4)) for a in range(8) for _ in range(2)]
        scores = [chance.random() for _ in some]
        kept = best_spans(some, scores, 6)
        slow: list[int] = []
        for i in sorted(range(len(some)), key=lambda i: -scores[i]):
            a, b = some[i]
            if len(slow) < 6 and not any(
                a < c <= b < d or c < a <= d < b for c, d in (some[k] for k in slow)
            ):
                slow.append(i)
        assert sorted(kept) == sorted(slow)


def test_the_loss_is_that_of_all_right_antecedents_by_enumeration() -> None:
    scores = torch.tensor([[-torch.inf, -torch.inf], [0.3, -torch.inf], [1.1, -0.4], [0.2, 0.7]])
    antecedents = torch.tensor([[-1, -1], [0, -1], [0, 1], [1, 2]])
    cluster = [1, 0, 1, 1]
    options = [[(None, 1.0), *((j, exp(s)) for j, s in zip(js, ss, strict=True) if j >= 0)]
               for js, ss in zip(antecedents.tolist(), scores.tolist(), strict=True)]  # fmt: skip

    def right(i: int, j: int | None) -> bool:
        known = [k for k, _ in options[i] if k is not None and cluster[k] == cluster[i] and cluster[i]]
        return j in known if known else j is None

    total = good = 0.0  # over all ways to give every span an antecedent
    for way in product(*options):
        weight = 1.0
        for _, w in way:
            weight *= w
        total += weight
        good += weight * all(right(i, j) for i, (j, _) in enumerate(way))
    loss = antecedent_loss(Links(antecedents, scores), torch.tensor(cluster))
    assert float(loss) == pytest.approx(-log(good / total))


class Largest(TorchDispatchMode):
    """The most numbers that any tensor made inside has."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(x, Tensor):
                self.most = max(self.most, x.untyped_storage().nbytes() // x.element_size())
        return out


def test_no_tensor_of_a_long_document_is_large() -> None:
    words, width, hidden = 2000, 96, 20
    torch.manual_seed(0)
    spans = SpanScorer(width, 10, hidden, 4, 0.1)
    made = PairScorer(spans.width, hidden, 4, 0.1, 50)
    x = torch.randn(words, width, requires_grad=True)
    with Largest() as seen:
        found, scores = spans(x, torch.arange(words) // 25)
        kept = torch.tensor(best_spans(found.tolist(), scores.tolist(), int(0.4 * words)))
        links = made(spans.vectors(x, found[kept]), scores[kept])
        antecedent_loss(links, torch.arange(len(kept)) % 7).backward()
    count = len(kept)
    assert count == 800 and x.grad is not None
    whole = count * 50 * spans.width  # what all pairs at once would take, and candidates
    bound = max(spans_module.PAIRS, count * words, count * 50 * hidden)
    assert seen.most <= bound < whole / 2
    assert bound < len(found) * spans.width
