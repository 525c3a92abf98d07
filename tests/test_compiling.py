"""torch.compile in training: refused where it can do nothing, and no other result where it can."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pretune.errors import UsageError, UserError
from pretune.methods.gpt.encoder import GPT, GPTConfig
from pretune.tasks.next_token import NextToken
from pretune.tensors.batch import Batch
from pretune.training.compiling import compiling
from pretune.training.loop import fit
from pretune.training.model import Model
from tiny_training import TinySource, everything, quietly, tiny_model


def language_model(residual_dropout: float = 0.0) -> Model:
    torch.manual_seed(0)
    rates = {"embedding_dropout": 0.0, "attention_dropout": 0.0, "residual_dropout": residual_dropout}
    encoder = GPT(GPTConfig(16, 2, 2, context=8, **rates), 30, 29)  # type: ignore[arg-type]
    encoder.purpose("language_model")
    return Model(encoder, NextToken(0.0).head(encoder))


class Texts:
    """Rows of lengths that change from step to step."""

    carries = False

    def steps(self, epoch: int) -> int:
        return 6

    def batch(self, epoch: int, step: int) -> Batch:
        lengths = torch.tensor([2 + step % 3, 6])
        mask = torch.arange(6) < lengths[:, None]
        ids = torch.arange(12).view(2, 6) % 7 + step
        following = torch.where(mask[:, 1:], ids[:, 1:], -100)
        gold = torch.cat((following, torch.full((2, 1), -100)), 1)
        return Batch(ids * mask, mask, torch.zeros_like(ids), torch.arange(2), gold={"next": gold})


def test_a_model_without_a_transformer_is_not_said_to_be_compiled() -> None:
    model = tiny_model()
    with pytest.raises(UsageError, match="gpt and bert"):
        fit(model, everything(model), TinySource(), quietly(compile=True))


def test_where_nothing_can_be_compiled_training_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("InvalidCxxCompiler: no working C++ compiler\nand so on")

    monkeypatch.setattr(torch, "compile", broken)
    model = language_model()
    with pytest.raises(UserError, match=r"no working C\+\+ compiler; install"):
        fit(model, everything(model), Texts(), quietly(compile=True))


def test_afterwards_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pretune.training.compiling._try", lambda device: None)
    model = language_model()
    with compiling(model, True, "cpu"):
        assert all(block.compiled for block in model.encoder.groups()[1:])
    assert not any(block.compiled for block in model.encoder.groups()[1:])


@pytest.mark.slow
def test_a_compiled_training_loses_as_one_that_is_not_compiled() -> None:
    losses = []
    for compiled in (False, True):
        model = language_model()
        fitted = fit(model, everything(model, 2, lr=0.01), Texts(), quietly(compile=compiled))
        losses.append([entry["loss"] for entry in fitted.history])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4) and losses[0][1] < losses[0][0]


@pytest.mark.slow
def test_a_compiled_block_drops_in_training_alone() -> None:
    model, batch = language_model(0.5), Texts().batch(0, 0)
    with compiling(model, True, "cpu"):
        model.train()
        said = [model.encoder(batch).layers[-1] for _ in range(2)]
        model.eval()
        whole = [model.encoder(batch).layers[-1] for _ in range(2)]
    assert not torch.equal(*said) and torch.equal(*whole)
