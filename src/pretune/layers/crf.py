"""The linear-chain conditional random field: scores of whole tag sequences, and the best of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

NEVER = -1e30  # for -inf: sums over nothing that is allowed keep finite gradients


class CRF(nn.Module):
    """p(y | x) ∝ exp(begin[y_1] + Σ_t scores[t, y_t] + Σ_t transitions[y_t, y_t+1] + end[y_T]).

    Lafferty, McCallum & Pereira (2001), as Lample et al. (2016, section 2.2) put it on a biLSTM. All sums
    over sequences are exact. `allowed` forbids transitions: three tensors of 0 and -inf, shaped as
    `transitions` (K, K), `begin` and `end` (K,). Parameters start at 0. `mask` (N, T) is true at words, which
    stand left of all padding.
    """

    def __init__(self, tags: int, allowed: tuple[Tensor, Tensor, Tensor] | None = None) -> None:
        super().__init__()
        self.transitions = nn.Parameter(torch.zeros(tags, tags))
        self.begin, self.end = nn.Parameter(torch.zeros(tags)), nn.Parameter(torch.zeros(tags))
        free = torch.zeros(tags, tags), torch.zeros(tags), torch.zeros(tags)
        for name, value in zip(("transitions", "begin", "end"), allowed or free, strict=True):
            self.register_buffer(f"allowed_{name}", value.clamp(min=NEVER), persistent=False)

    def moves(self) -> tuple[Tensor, Tensor, Tensor]:
        """(transitions, begin, end), forbidden ones `NEVER`: what `viterbi` and `marginals` take."""
        names = "transitions", "begin", "end"
        transitions, begin, end = (getattr(self, x) + getattr(self, f"allowed_{x}") for x in names)
        return transitions, begin, end

    def log_likelihood(self, scores: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """log p of `tags` (N, T), which has any tag at padding. scores (N, T, K) -> (N,)"""
        transitions, begin, end = self.moves()
        said = scores.gather(2, tags[..., None]).squeeze(2).masked_fill(~mask, 0)  # (N, T)
        moved = transitions[tags[:, :-1], tags[:, 1:]].masked_fill(~mask[:, 1:], 0)  # (N, T - 1)
        last = tags.gather(1, mask.sum(1, keepdim=True) - 1).squeeze(1)  # (N,)
        right = begin[tags[:, 0]] + said.sum(1) + moved.sum(1) + end[last]  # (N,)
        return right - (_forward(scores, mask, transitions, begin)[-1] + end).logsumexp(1)


def marginals(scores: Tensor, mask: Tensor, transitions: Tensor, begin: Tensor, end: Tensor) -> Tensor:
    """p(y_t = k | x) of every word and tag. (N, T, K) -> (N, T, K)"""
    if not scores.shape[1]:
        return scores
    before = _forward(scores, mask, transitions, begin)  # T × (N, K)
    after = [end.expand_as(scores[:, -1])]  # backwards
    for t in range(scores.shape[1] - 1, 0, -1):
        through = (transitions + (scores[:, t] + after[-1])[:, None]).logsumexp(2)  # (N, K)
        after.append(torch.where(mask[:, t, None], through, end))
    return torch.stack([a + b for a, b in zip(before, reversed(after), strict=True)], 1).softmax(2)


def viterbi(scores: Tensor, mask: Tensor, transitions: Tensor, begin: Tensor, end: Tensor) -> list[list[int]]:
    """The best sequence of each row: scores (N, T, K), mask (N, T), transitions (K, K), begin and end (K,).

    transitions[i, j] is that of going from tag i to tag j. What is -inf in `transitions`, `begin` or `end` is
    forbidden; only where nothing at all is allowed as little of it as possible is done. Of sequences that
    are equally good one with lower tags is taken.
    """
    transitions, begin, end = (x.detach().clamp(min=NEVER) for x in (transitions, begin, end))
    scores, lengths = scores.detach(), mask.sum(1).tolist()
    best = begin + scores[:, 0] if scores.shape[1] else scores.new_zeros(len(scores), len(begin))  # (N, K)
    came = []  # T - 1 × (N, K): the best tag before each
    for t in range(1, scores.shape[1]):
        reached, source = (best[:, :, None] + transitions).max(1)  # (N, K) each
        best = torch.where(mask[:, t, None], reached + scores[:, t], best)
        came.append(source)
    last, sources = (best + end).argmax(1).tolist(), torch.stack(came, 1).tolist() if came else None
    found = []
    for n, length in enumerate(lengths):
        path = [last[n]] if length else []
        for t in range(length - 1, 0, -1):
            path.append(sources[n][t - 1][path[-1]])  # type: ignore[index]
        found.append(path[::-1])
    return found


def _forward(scores: Tensor, mask: Tensor, transitions: Tensor, begin: Tensor) -> list[Tensor]:
    """T × (N, K): the log of the sum over all beginnings that end in each tag; at padding as before it."""
    found = [begin + scores[:, 0]]
    for t in range(1, scores.shape[1]):
        reached = (found[-1][:, :, None] + transitions).logsumexp(1) + scores[:, t]  # (N, K)
        found.append(torch.where(mask[:, t, None], reached, found[-1]))
    return found
