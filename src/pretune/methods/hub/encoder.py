"""Guest: a model of transformers as an encoder; what it says of a text never depends on the batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretune.encoder import Encoded, Encoder
from pretune.errors import UsageError, choose
from pretune.methods.hub.groups import groups_of
from pretune.methods.hub.library import fresh_model
from pretune.tensors.batch import Batch

Pooling = Literal["pooler", "first", "last", "mean", "max"]


@dataclass(frozen=True)
class HubConfig:
    """A model of transformers, and what was found out about it when it was read."""

    model: dict[str, Any]
    """Its config.json."""
    pooling: Pooling = "mean"
    """A text's summary: pooler, its own, such as BERT's dense layer over [CLS]; the vector of its first or
    last token; mean or max over all tokens."""
    widths: tuple[int, ...] = ()
    """Of each layer that it shows, bottom to top."""
    token_types: bool = False
    """Whether it is told which text of a pair a token belongs to."""
    padded: bool = False
    """Whether rows of several lengths can be run together without feeling one another. Where they would
    (convolutions over padding, Fourier transforms), rows are run with those of their own length."""

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            raise choose("encoder.pooling", self.pooling, get_args(Pooling))
        if "model_type" not in self.model:
            raise UsageError("encoder.model is no config.json of transformers: it has no model_type")


class Guest(Encoder):
    """`layers` are the hidden states, embeddings first, the last as the model hands it on.

    `pooling` makes the summary. A model that reads one way and one that reads both, encoders of
    encoder-decoders and those without attention are all read alike.
    """

    def __init__(self, config: HubConfig, model: nn.Module | None = None) -> None:
        """`model` is at hand, or built anew with fresh weights."""
        super().__init__()
        self.config = config
        self.model = fresh_model(config.model, config.pooling == "pooler") if model is None else model
        self.width = self.summary_width = config.widths[-1]

    def layer_widths(self) -> tuple[int, ...]:
        return self.config.widths

    def fresh(self) -> Guest:
        return Guest(self.config)

    def groups(self) -> list[nn.Module]:
        return groups_of(self.model)

    def forward(self, batch: Batch, carry: Any = None) -> Encoded:
        if carry is not None:
            raise UsageError("a guest reads each text whole and has no state to begin with")
        return self._read(batch, "input_ids", batch.ids)

    def vectors(self, batch: Batch) -> Tensor:
        found: Tensor = self.model.get_input_embeddings()(batch.ids)  # type: ignore[operator]  # (N, T, D)
        return found

    def read_vectors(self, vectors: Tensor, batch: Batch) -> Encoded:
        return self._read(batch, "inputs_embeds", vectors)

    def _read(self, batch: Batch, name: str, x: Tensor) -> Encoded:
        if self.config.padded or bool(batch.mask.all()):
            layers, pooled = self._run(name, x, batch.mask, batch.segments)
        else:
            layers, pooled = self._by_length(name, x, batch)
        layers = tuple(h.masked_fill(~batch.mask[..., None], 0.0) for h in layers)
        return Encoded(layers, batch.mask, self._summary(layers[-1], batch.mask, pooled))

    def _by_length(self, name: str, x: Tensor, batch: Batch) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Rows with others of their length only, so that there is no padding."""
        T, order, found = x.shape[1], [], []
        for length in sorted(set(batch.lengths.tolist())):
            rows = (batch.lengths == length).nonzero()[:, 0]  # (n,)
            mask, segments = batch.mask[rows, :length], batch.segments[rows, :length]
            order.append(rows)
            found.append(self._run(name, x[rows, :length], mask, segments))
        back = torch.cat(order).argsort()  # (N,)
        layers = tuple(
            torch.cat([F.pad(h, (0, 0, 0, T - h.shape[1])) for h in of_layer])[back]  # (N, T, D_l)
            for of_layer in zip(*(layers for layers, _ in found), strict=True)
        )
        summaries = [pooled for _, pooled in found if pooled is not None]
        return layers, torch.cat(summaries)[back] if summaries else None

    def _run(
        self, name: str, x: Tensor, mask: Tensor, segments: Tensor
    ) -> tuple[tuple[Tensor, ...], Tensor | None]:
        given = {name: x, "attention_mask": mask.long()}
        given |= {"token_type_ids": segments} if self.config.token_types else {}
        layers, pooled = run(self.model, given)
        return layers if len(self.config.widths) > 1 else layers[-1:], pooled

    def _summary(self, top: Tensor, mask: Tensor, pooled: Tensor | None) -> Tensor:
        """(N, T, D) -> (N, D)"""
        if self.config.pooling == "pooler":
            assert pooled is not None
            return pooled
        if self.config.pooling == "first":
            return top[:, 0]
        if self.config.pooling == "last":
            return top[torch.arange(len(top), device=top.device), mask.sum(1) - 1]
        if self.config.pooling == "mean":
            return top.sum(1) / mask.sum(1, keepdim=True)
        return top.masked_fill(~mask[..., None], float("-inf")).amax(1)


def run(model: nn.Module, given: dict[str, Tensor]) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Hidden states L+1 × (N, T, D_l), the last as the model hands it on, and its own summary (N, D)."""
    out = model(**given, output_hidden_states=True, return_dict=True)
    top: Tensor = out.last_hidden_state
    below: tuple[Tensor, ...] = getattr(out, "hidden_states", None) or (top,)
    return (*below[:-1], top), getattr(out, "pooler_output", None)


@dataclass(frozen=True)
class Habits:
    """What a model does to rows."""

    widths: tuple[int, ...]
    padded: bool  # padding is not felt
    causal: bool  # no token feels those after it
    pools: bool  # it has a summary of its own


def habits_of(model: nn.Module, words: list[int], pad_id: int) -> Habits:
    """By trying: rows of some ordinary ids, alone, with a longer one, and with another last token."""
    long, short, other = words[:12], words[3:8], [*words[:11], words[12]]
    with torch.no_grad():
        alone, pooled = run(model.eval(), _rows([short], pad_id))
        beside, _ = run(model, _rows([long, short], pad_id))
        first, _ = run(model, _rows([long], pad_id))
        changed, _ = run(model, _rows([other], pad_id))
    T = len(short)
    if alone[-1].ndim != 3 or alone[-1].shape[1] != T or first[-1].shape[1] != len(long):
        raise UsageError("it gives no vector for each token")
    shown = alone if all(h.shape[1] == len(long) for h in first) else alone[-1:]
    pairs = zip(alone[-len(shown) :], beside[-len(shown) :], strict=True)
    padded = all(_alike(h[0], g[1, :T]) for h, g in pairs)
    causal = _alike(first[-1][0, :11], changed[-1][0, :11])
    return Habits(tuple(h.shape[-1] for h in shown), padded, causal, pooled is not None)


def _rows(rows: list[list[int]], pad_id: int) -> dict[str, Tensor]:
    T = max(map(len, rows))
    ids = torch.tensor([row + [pad_id] * (T - len(row)) for row in rows])  # (N, T)
    mask = torch.tensor([[1] * len(row) + [0] * (T - len(row)) for row in rows])  # (N, T)
    return {"input_ids": ids, "attention_mask": mask}


def _alike(x: Tensor, y: Tensor) -> bool:
    """Up to what sums in another order change."""
    return bool((x - y).abs().max() <= 2e-5 * x.abs().max())


def ordinary(size: int, special: set[int]) -> Iterator[int]:
    """Ids of no special token, far from one another, again from the start where there are few."""
    usual = [i for i in range(size) if i not in special] or list(range(size))
    step = max(1, len(usual) // 13)
    for k in range(13):
        yield usual[k * step % len(usual)]
