"""A recurrent language model of some hundred weights and endless text for it, for tests of the loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pretune.encoder import Encoded, Encoder
from pretune.keys import generator
from pretune.tasks.base import Head, Scores
from pretune.tensors.batch import Batch
from pretune.training.loop import Fitting
from pretune.training.model import Model
from pretune.training.schedules import SlantedTriangular
from pretune.training.stage import Group, Stage

VOCABULARY = 12


class TinyEncoder(Encoder):
    width = summary_width = 6

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 6)
        self.below = nn.ModuleDict({"dropout": nn.Dropout(dropout), "linear": nn.Linear(6, 6)})
        self.recurrent = nn.LSTM(6, 6, batch_first=True)
        self.unused = nn.Linear(2, 2)  # as a sentence summary is on the way to a task on tokens

    def forward(self, batch: Batch, carry: Any = None) -> Encoded:
        x = self.below["linear"](self.below["dropout"](self.embedding(batch.ids)))
        x, carry = self.recurrent(x, carry)
        return Encoded((x,), batch.mask, x.mean(1), carry)

    def groups(self) -> list[nn.Module]:
        return [self.embedding, self.below, self.recurrent]


class TinyHead(Head):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.output = nn.Linear(6, VOCABULARY)

    def forward(self, encoded: Encoded, batch: Batch) -> Scores:
        return {"next": self.output(encoded.layers[-1]), "norm": self.norm(encoded.summary)}

    def loss(self, scores: Scores, batch: Batch) -> Tensor:
        right = nn.functional.cross_entropy(
            scores["next"].transpose(1, 2), batch.gold["next"], reduction="none"
        )  # (N, T)
        return (right * batch.mask).sum()

    def targets(self, batch: Batch) -> int:
        return int(batch.mask.sum())


@dataclass
class TinySource:
    """`rows` streams whose texts, lengths and masks are functions of (epoch, step, row of all ranks)."""

    batches: int = 7
    rows: int = 2
    rank: int = 0
    world: int = 1
    carries: bool = True

    def steps(self, epoch: int) -> int:
        return self.batches

    def batch(self, epoch: int, step: int) -> Batch:
        chance = generator("text", epoch, step)
        ids = torch.randint(0, VOCABULARY, (self.rows * self.world, 6), generator=chance)  # (N, T + 1)
        mask = torch.rand((self.rows * self.world, 5), generator=chance) < 0.8
        mask[:, 0] = True
        own = slice(self.rank * self.rows, (self.rank + 1) * self.rows)
        ids, mask = ids[own], mask[own]
        after = (ids[:, :-1] * 5 + 3) % VOCABULARY  # learnable
        return Batch(ids[:, :-1], mask, torch.zeros_like(after), torch.arange(self.rows), {}, {"next": after})


def tiny_model(dropout: float = 0.3, seed: int = 1) -> Model:
    torch.manual_seed(seed)
    return Model(TinyEncoder(dropout), TinyHead(), alpha=0.1, beta=0.1)


def gradual(model: Model, epochs: int = 1) -> list[Stage]:
    """Head, then the recurrence too, then everything."""
    encoder: Any = model.encoder
    groups = [
        Group("head", (model.head,), 0.02, 0.01),
        Group("recurrent", (encoder.recurrent,), 0.01),
        Group("below", (encoder.embedding, encoder.below, encoder.unused), 0.005),
    ]
    return [
        Stage(f"thaw {n}", tuple(groups[:n][::-1]), epochs, SlantedTriangular(), clip=0.5) for n in (1, 2, 3)
    ]


def everything(model: Model, epochs: int = 1, lr: float = 0.01, **options: Any) -> list[Stage]:
    return [Stage("all", (Group("all", (model,), lr),), epochs, **options)]


def quietly(**options: Any) -> Fitting:
    return Fitting(**{"device": "cpu", "quiet": True} | options)


def loss_of(model: Model) -> dict[str, float]:
    """Loss per target on text of its own: for `validate`."""
    batch = TinySource(rows=8).batch(999, 0)
    with torch.no_grad():
        output = model(batch)
    assert output.reported is not None
    return {"loss": float(output.reported) / model.head.targets(batch)}


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: x.detach().clone() for name, x in model.state_dict().items()}
