"""Search: which tokens to write, drawn one by one or the likeliest together; of any model that reads on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from pretune.errors import UsageError


class Reader(Protocol):
    """A language model that goes on from where it was: one step for each token."""

    def read(self, ids: Tensor, carry: Any) -> tuple[Tensor, Any]:
        """Ids (N, T) after `carry`, or at the very beginning: log-probabilities of what follows (N, V) on the
        CPU, and the state after them.
        """
        ...

    def pick(self, carry: Any, rows: Tensor) -> Any:
        """The state of some rows, one of them perhaps several times."""
        ...


class Written(NamedTuple):
    """Tokens that follow a prompt, and the log-probability that the model gives each."""

    ids: tuple[int, ...]  # a mark that ends the document is the last, where one was written
    nats: tuple[float, ...]

    def and_then(self, token: int, nats: float) -> Written:
        return Written((*self.ids, token), (*self.nats, nats))


class Drawn(NamedTuple):
    """The next token of one of several texts."""

    text: int
    token: int
    nats: float


@dataclass(frozen=True)
class Allowed:
    """Which tokens may be written, and which of them end a text."""

    ends: tuple[int, ...]
    barred: tuple[int, ...]

    def of(self, nats: Tensor) -> Tensor:  # (N, V) -> (N, V)
        """Minus infinity for the tokens that are barred; the others stay as the model has them."""
        if len(set(self.barred)) >= nats.shape[1]:
            raise UsageError("no word is left that may be written; bar fewer words")
        return nats.index_fill(1, torch.tensor(self.barred, dtype=torch.long), -inf)


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn: by temperature, then among the first `top_k`, then `top_p`, then `min_p`."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < inf:
            raise UsageError(f"temperature is {self.temperature}; give 0, which is greedy, or more")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top_k is {self.top_k}; it must be at least 1")
        for name in ("top_p", "min_p"):
            share = getattr(self, name)
            if share is not None and not 0 < share <= 1:
                raise UsageError(f"{name} is {share}; it must be above 0 and at most 1")

    def draw(self, nats: Tensor, chance: torch.Generator) -> int:
        """One of V tokens, by their log-probabilities (V,) and one number of `chance`."""
        if self.temperature == 0:
            return int(nats.argmax())
        scaled = (nats.double() - nats.max()) / self.temperature  # of the likeliest 0, however cold it is
        ids: Tensor | None = None  # of `scaled`, where it is sorted
        if self.top_k is not None:
            scaled, ids = scaled.topk(min(self.top_k, len(scaled)))
        elif self.top_p is not None or self.min_p is not None:
            scaled, ids = scaled.sort(descending=True)
        shares = scaled.softmax(0)
        if self.top_p is not None:  # the fewest that have so much together
            before = shares.cumsum(0) - shares
            shares = shares.where(before < self.top_p, 0.0)
        if self.min_p is not None:
            shares = shares.where(shares >= self.min_p * shares[0], 0.0)
        sums = shares.cumsum(0)
        at = torch.rand((), generator=chance, dtype=torch.float64) * sums[-1]
        place = int(torch.searchsorted(sums, at, right=True).clamp(max=int(shares.nonzero()[-1])))
        return place if ids is None else int(ids[place])


def draw(
    reader: Reader,
    prompt: Sequence[int],
    most: int,
    allowed: Allowed,
    sampling: Sampling,
    chances: Sequence[torch.Generator],
) -> Iterator[Drawn]:
    """The tokens of several texts as they come, until each has ended or has `most`; one `chance` a text.

    What a text draws does not depend on how many others are drawn beside it.
    """
    nats, carry = reader.read(torch.tensor([list(prompt)]), None)
    texts = list(range(len(chances)))  # that still go on
    rows = torch.zeros(len(texts), dtype=torch.long)
    nats, carry = nats[rows], reader.pick(carry, rows)
    for step in range(most):
        free = allowed.of(nats)
        tokens = [sampling.draw(free[n], chances[text]) for n, text in enumerate(texts)]
        yield from (
            Drawn(text, token, float(nats[n, token]))
            for n, (text, token) in enumerate(zip(texts, tokens, strict=True))
        )
        on = [n for n, token in enumerate(tokens) if token not in allowed.ends]
        if not on or step + 1 == most:
            return
        if len(on) < len(texts):
            texts, carry = [texts[n] for n in on], reader.pick(carry, torch.tensor(on))
        nats, carry = reader.read(torch.tensor([[tokens[n]] for n in on]), carry)


def beam_search(
    reader: Reader,
    prompt: Sequence[int],
    most: int,
    allowed: Allowed,
    beams: int,
    length_penalty: float = 0.0,
) -> list[Written]:
    """The `beams` likeliest texts of those that were kept in sight, the best first.

    At each step the `beams` likeliest beginnings go on; those that end are set aside. A text's value is the
    sum of its log-probabilities, its end included, over its number of tokens to the power `length_penalty`.
    With as many beams as there are texts the search is exact.
    """

    def value(text: Written, tokens: int | None = None) -> float:
        size: float = (tokens or len(text.nats)) ** length_penalty
        return sum(text.nats) / size

    def best(texts: list[Written]) -> list[Written]:
        return sorted(texts, key=value, reverse=True)[:beams]

    inner = Allowed((), (*allowed.barred, *allowed.ends))
    live, done = [Written((), ())], list[Written]()
    nats, carry = reader.read(torch.tensor([list(prompt)]), None)
    for step in range(most):
        if allowed.ends:
            likelier = nats[:, list(allowed.ends)].max(1)  # of the marks that can end a text, the likeliest
            ended = zip(live, likelier.indices.tolist(), likelier.values.tolist(), strict=True)
            done = best([*done, *(text.and_then(allowed.ends[e], nat) for text, e, nat in ended)])
        live, parents = _likeliest(live, inner.of(nats), beams)
        hopes = max(value(text, most) for text in live)  # no text that goes on can be worth more
        if len(done) == beams and value(done[-1]) >= hopes:
            return done
        if step + 1 < most:
            nats, carry = reader.read(
                torch.tensor([[text.ids[-1]] for text in live]), reader.pick(carry, parents)
            )
    return best(done + live)


def _likeliest(live: Sequence[Written], nats: Tensor, beams: int) -> tuple[list[Written], Tensor]:
    """The likeliest beginnings that are one token longer, and which row each goes on from."""
    totals = torch.tensor([sum(text.nats) for text in live], dtype=torch.float64)  # (n,)
    sums = (totals[:, None] + nats.double()).flatten()  # (n·V,)
    kept = sums.topk(min(beams, int((sums > -inf).sum()))).indices
    parents, tokens = kept // nats.shape[1], kept % nats.shape[1]
    texts = [
        live[n].and_then(token, float(nats[n, token]))
        for n, token in zip(parents.tolist(), tokens.tolist(), strict=True)
    ]
    return texts, parents
