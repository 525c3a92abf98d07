"""Spans of words: their vectors, which of them are mentions, and which earlier one each goes back to.

End-to-end coreference of Lee et al. (2017), pruned from coarse to fine as in Lee et al. (2018). P spans are
kept of a document of M words; H are hidden units, G = 3D + F the width of a span.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

PAIRS = 1 << 22  # numbers of span pairs that are held at a time: 16 MiB in float32
BUCKETS: Final = 10  # of distances: 0, 1, 2, 3, 4, 5-7, 8-15, 16-31, 32-63, 64 and more


class Feedforward(nn.Module):
    """Two hidden layers and one number; the first layer's input may come in pieces that were added up."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(width, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:  # (…, width) -> (…,)
        return self.above(self.first(x))

    def above(self, x: Tensor) -> Tensor:
        """From what the first layer says before its ReLU: (…, H) -> (…,)."""
        x = self.dropout(x.relu())
        x = self.dropout(self.second(x).relu())
        scores: Tensor = self.last(x)[..., 0].float()
        return scores

    def pieces(self, *widths: int) -> tuple[Tensor, ...]:
        """The first layer's weights for each piece of its input, (width, H)."""
        return torch.split(self.first.weight.t(), list(widths))


class SpanScorer(nn.Module):
    """g = [first word; last word; attention over the words; width], and how likely g is a mention.

    Section 4 of Lee et al. (2017). The scorer's first layer is linear, so that a candidate's H numbers are
    sums of what its words say: no tensor of all candidates is made that is as wide as their vectors.
    """

    def __init__(self, width: int, max_width: int, hidden: int, feature: int, dropout: float) -> None:
        super().__init__()
        self.width, self.max_width = 3 * width + feature, max_width
        self.attention = nn.Linear(width, 1)
        self.widths = nn.Embedding(max_width, feature)
        self.scorer = Feedforward(self.width, hidden, dropout)

    def forward(self, words: Tensor, sentence: Tensor) -> tuple[Tensor, Tensor]:
        """Words (M, D), the sentence of each (M,) -> all spans within sentences (S, 2), both words included,
        and their scores (S,); the shorter ones first.
        """
        size = words.shape[1]
        of_first, of_last, of_head, of_width = self.scorer.pieces(size, size, size, self.widths.embedding_dim)
        first, last, head = words @ of_first, words @ of_last, words @ of_head  # (M, H) each
        widths = self.widths.weight @ of_width + self.scorer.first.bias  # (max_width, H)
        attention = self.attention(words)[:, 0]  # (M,)
        spans, scores = [], []
        for width in range(1, min(self.max_width, len(words)) + 1):
            count = len(words) - width + 1  # M'
            (start,) = torch.nonzero(sentence[:count] == sentence[width - 1 :], as_tuple=True)  # (S',)
            share = attention.unfold(0, width, 1).softmax(-1)  # (M', width)
            heads = torch.zeros_like(head[:count])  # (M', H)
            for k in range(width):
                heads = heads + share[:, k, None] * head[k : k + count]
            end = start + width - 1
            scores.append(self.scorer.above(first[start] + last[end] + heads[start] + widths[width - 1]))
            spans.append(torch.stack([start, end], 1))
        if not spans:
            return sentence.new_zeros(0, 2), words.new_zeros(0)
        return torch.cat(spans), torch.cat(scores)

    def vectors(self, words: Tensor, spans: Tensor) -> Tensor:  # (M, D), (P, 2) -> (P, G)
        start, end = spans.unbind(1)
        place = torch.arange(len(words), device=words.device)
        inside = (place >= start[:, None]) & (place <= end[:, None])  # (P, M)
        share = self.attention(words)[:, 0].expand(len(spans), -1).masked_fill(~inside, -inf).softmax(-1)
        return torch.cat([words[start], words[end], share @ words, self.widths(end - start)], 1)


class Links(NamedTuple):
    """Of each of P spans, up to K earlier ones."""

    antecedents: Tensor  # (P, K) which span, -1 where there are fewer
    scores: Tensor  # (P, K) minus infinity there; that of no antecedent is 0


class PairScorer(nn.Module):
    """Which earlier span does each span go back to, or none?

    s(i, j) = s_m(i) + s_m(j) + s_c(i, j) + s_a(i, j): two mention scores, a bilinear score by which the K
    best antecedents of each span are found, and a network over [g_i; g_j; g_i ∘ g_j; distance] for these
    alone (Lee et al. 2018, section 4). The bilinear score starts at zero and is divided by √G, since a step
    of Adam moves it the further the wider encoders are. Pairs are scored in chunks, whose inner tensors are
    worked out again for the gradient: they never have many more than `PAIRS` numbers.

    With `order` 2 each span takes up what its likely antecedents say, through a gate, and pairs are scored
    again (section 3).
    """

    def __init__(
        self, width: int, hidden: int, feature: int, dropout: float, most: int, order: int = 1
    ) -> None:
        super().__init__()
        self.most, self.order = most, order
        self.coarse = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.coarse.weight)
        self.distances = nn.Embedding(BUCKETS, feature)
        self.scorer = Feedforward(3 * width + feature, hidden, dropout)
        self.gate = nn.Linear(2 * width, width) if order > 1 else None

    def forward(self, spans: Tensor, mention: Tensor) -> Links:  # (P, G), (P,) in the order of the text
        count = len(spans)
        place = torch.arange(count, device=spans.device)
        coarse = (self.coarse(spans) @ spans.t()).float() / spans.shape[1] ** 0.5  # (P, P)
        coarse = coarse + mention[:, None] + mention
        coarse = coarse.masked_fill(place >= place[:, None], -inf)
        coarse, found = coarse.topk(min(self.most, count), 1)  # (P, K)
        there = coarse > -inf
        scores = coarse + self.fine(spans, found)
        for _ in range(self.order - 1):
            spans = self._refined(spans, found, scores)
            scores = coarse + self.fine(spans, found)
        return Links(found.masked_fill(~there, -1), scores)

    def fine(self, spans: Tensor, antecedents: Tensor) -> Tensor:  # (P, G), (P, K) -> (P, K)
        size = spans.shape[1]
        own, other, both, far = self.scorer.pieces(size, size, size, self.distances.embedding_dim)
        mine = spans @ own + self.scorer.first.bias  # (P, H)
        theirs = spans @ other  # (P, H)
        distances = self.distances.weight @ far  # (BUCKETS, H)

        def score(rows: Tensor, found: Tensor) -> Tensor:  # (P',), (P', K) -> (P', K)
            products = (spans[rows, None] * spans[found]) @ both  # (P', K, H)
            apart = distances[buckets(rows[:, None] - found)]
            return self.scorer.above(mine[rows, None] + theirs[found] + products + apart)

        chunk = max(1, PAIRS // max(1, antecedents.shape[1] * size))
        parts = []
        for rows in torch.split(torch.arange(len(spans), device=spans.device), chunk):
            if torch.is_grad_enabled() and len(spans) > chunk:
                parts.append(checkpoint(score, rows, antecedents[rows], use_reentrant=False))
            else:
                parts.append(score(rows, antecedents[rows]))
        return torch.cat(parts) if parts else spans.new_zeros(antecedents.shape)

    def _refined(self, spans: Tensor, antecedents: Tensor, scores: Tensor) -> Tensor:
        """g' = f ∘ g + (1 - f) ∘ a, where a is what is expected of the antecedent, or g itself for none."""
        assert self.gate is not None
        shares = F.pad(scores, (1, 0)).softmax(1)  # (P, 1 + K)
        weights = torch.diag(shares[:, 0]).scatter_add(1, antecedents, shares[:, 1:])  # (P, P)
        expected = weights @ spans  # (P, G)
        gate = self.gate(torch.cat([spans, expected], 1)).sigmoid()
        refined: Tensor = gate * spans + (1 - gate) * expected
        return refined


def buckets(distance: Tensor) -> Tensor:
    """0 to 4 as they are, then by powers of two: 5-7, 8-15, 16-31, 32-63, more; below 0 as 0."""
    edges = torch.tensor([1, 2, 3, 4, 5, 8, 16, 32, 64], device=distance.device)
    return torch.bucketize(distance, edges, right=True)


def best_spans(spans: Sequence[Sequence[int]], scores: Sequence[float], most: int) -> list[int]:
    """Which spans are kept, best first up to `most`, none across another; in the order of the text.

    Spans (first, last) cross where each has words that the other lacks (Lee et al. 2017, section 5).
    """
    reach: dict[int, int] = {}  # first word -> the last of the longest span kept from there
    back: dict[int, int] = {}  # last word -> the first of the longest span kept up to there
    kept: list[int] = []
    for i in sorted(range(len(spans)), key=lambda i: -scores[i]):
        if len(kept) >= most:
            break
        first, last = spans[i]
        if any(reach.get(t, -1) > last for t in range(first + 1, last + 1)):
            continue
        if any(back.get(t, first) < first for t in range(first, last)):
            continue
        kept.append(i)
        reach[first] = max(reach.get(first, last), last)
        back[last] = min(back.get(last, first), first)
    return sorted(kept, key=lambda i: tuple(spans[i]))


def antecedent_loss(links: Links, cluster: Tensor) -> Tensor:
    """-log of the probability of all antecedents in a span's own cluster, summed over spans.

    cluster (P,): 0 for spans in none. Where no antecedent is right, none is (Lee et al. 2017, section 3).
    """
    found = links.antecedents  # (P, K)
    same = (found >= 0) & (cluster[found.clamp(min=0)] == cluster[:, None]) & (cluster > 0)[:, None]
    right = torch.cat([~same.any(1, keepdim=True), same], 1)  # (P, 1 + K)
    scores = F.pad(links.scores, (1, 0))
    return (scores.logsumexp(1) - scores.masked_fill(~right, -inf).logsumexp(1)).sum()
