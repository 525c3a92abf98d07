"""From raw text to a task, along two ablations of GPT's paper: the auxiliary loss, and layer transfer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from gpt_models import CONTEXT, QUIET, SAYINGS, codec, corpus, encoder, held_out
from pretune.data.samples import sample
from pretune.methods import METHODS
from pretune.methods.gpt.pretraining import GPTPretraining
from pretune.recipes.full import Full
from pretune.runs.run import Start, finetune
from pretune.tasks.classification import Classification

SAMPLES = [
    sample(f"{SAYINGS[n % 2]} {SAYINGS[2]}"[: 20 + n], key=str(n), gold=("cat", "dog")[n % 2])
    for n in range(12)
]
TASK = Classification.of(SAMPLES, "one")
RECIPE = Full(lr=0.01, epochs=4, batch_size=4, optimizer="openai", rate_schedule="openai_linear")


@pytest.fixture(scope="module")
def pretrained() -> Start:
    text = codec()
    setting = GPTPretraining(epochs=3, sequences=8, lr=0.02)
    begun = replace(setting, epochs=1, lr=0.0).run(encoder(text), text, corpus, held_out, QUIET)
    made = encoder(text)
    found = setting.run(made, text, corpus, held_out, QUIET)
    assert found["loss"] < begun["loss"] - 0.5 and made.config.context == CONTEXT
    return Start("gpt", METHODS["gpt"], text, made, made.config)


@pytest.mark.parametrize("n_transfer", [0, None])
@pytest.mark.parametrize("auxiliary", [0.0, 0.5])
def test_losses_fall_and_are_the_same_again(
    pretrained: Start, auxiliary: float, n_transfer: int | None
) -> None:
    recipe = replace(RECIPE, auxiliary=auxiliary, n_transfer=n_transfer)

    def once() -> tuple[list[Any], dict[str, torch.Tensor]]:
        trained, fitted = finetune(pretrained, TASK, recipe, SAMPLES, [], QUIET)
        losses = [entry.get("losses", {"task": entry["loss"]}) for entry in fitted.history]
        return losses, trained.model.state_dict()

    losses, weights = once()
    assert losses[0].keys() == ({"task", "next_tokens"} if auxiliary else {"task"})
    assert all(losses[-1][name] < losses[0][name] for name in losses[0])
    again, same = once()
    assert again == losses and all(torch.equal(x, same[name]) for name, x in weights.items())
