"""A small GPT and a corpus that it can learn, for tests."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

import torch

from pretune.methods.gpt.encoder import GPT, GPTConfig
from pretune.methods.gpt.language import PlainText
from pretune.methods.gpt.tokens import GPTCodec, GPTCodecConfig
from pretune.training.loop import Fitting
from pretune.training.model import Model

QUIET = Fitting(device="cpu", quiet=True)
CONTEXT = 16
SAYINGS = ["the cat sat on the mat .", "a dog ran in the park .", "it was very good , and we liked it ."]


def documents(count: int, seed: int, most: int = 12) -> list[str]:
    chance = Random(seed)
    return [" ".join(chance.choices(SAYINGS, k=chance.randint(1, most))) for _ in range(count)]


def corpus() -> Iterable[str]:
    return documents(20, 1)


def held_out() -> Iterable[str]:
    return documents(4, 2)


def codec() -> GPTCodec:
    return GPTCodec.learn(corpus, GPTCodecConfig(merges=60, context=CONTEXT))


def encoder(of: GPTCodec, seed: int = 0, **changes: Any) -> GPT:
    torch.manual_seed(seed)
    shape = {"width": 16, "layers": 2, "heads": 2, "context": CONTEXT} | changes
    return GPT(GPTConfig(**shape), of.size, of.classify_id).eval()


def language_model(of: GPTCodec, bolder: float = 1.0, **changes: Any) -> Model:
    """With weights that make some tokens much likelier than others, where it is to be `bolder`."""
    made = encoder(of, **changes)
    with torch.no_grad():
        made.tokens.weight.mul_(bolder)
    return Model(made, PlainText().head(made)).eval()
