"""Tiny models and data that tests share: seconds, not minutes."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

from pretune.config import build, update
from pretune.data.samples import Sample, sample
from pretune.methods import METHODS
from pretune.recipes.base import Recipe
from pretune.runs.run import TABLES, Start, scratch

WORDS = "the a it was film book plot good great fine bad poor dull but and not very quite too".split()
CODEC: dict[str, dict[str, Any]] = {
    "ulmfit": {"min_count": 1},
    "wordvectors": {"min_count": 1},
    "elmo": {"min_count": 1},
    "gpt": {"min_count": 1, "merges": 40, "context": 64},
    "bert": {"vocab_size": 80, "context": 64},
}
ENCODER: dict[str, dict[str, Any]] = {
    "ulmfit": {"embedding": 6, "hidden": 7, "layers": 2, "bptt": 10, "max_len": 40},
    "wordvectors": {"width": 6, "pooling": "mean_max"},
    "elmo": {
        "dim": 5,
        "projection_dim": 3,
        "filters": ((1, 3), (2, 3)),
        "activation": "tanh",
        "highways": 1,
        "char_dim": 3,
        "softmax": True,
    },
    "gpt": {"width": 8, "layers": 2, "heads": 2, "context": 64, "deviation": 0.3},
    "bert": {
        "width": 8,
        "layers": 2,
        "heads": 2,
        "context": 64,
        "pretraining_heads": False,
        "deviation": 0.3,
    },
}
EPOCHS: dict[str, dict[str, Any]] = {
    "features": {"epochs": 1, "lr": 0.05},
    "gradual": {"epochs": 1, "lr": 0.05},
    "full": {"epochs": 1, "lr": 0.05},
}


def texts(count: int, seed: int = 0, length: int = 12) -> list[str]:
    chance = Random(seed)
    return [" ".join(chance.choices(WORDS, k=chance.randint(1, length))) for _ in range(count)]


def labelled(count: int, seed: int = 0) -> list[Sample]:
    """Texts that say by their first word which label they have."""
    rest = texts(count, seed)
    return [
        sample(f"{('good', 'bad')[i % 2]} {rest[i]}", key=str(i), gold=("yes", "no")[i % 2])
        for i in range(count)
    ]


def corpus() -> Iterable[str]:
    return texts(30, 1)


def start(method: str, seed: int = 0, **encoder: Any) -> Start:
    """An untrained encoder of some hundred weights."""
    found = METHODS[method]
    codec = build(found.codec_config, CODEC[method], "codec")
    shape = build(found.encoder_config, {**ENCODER[method], **encoder}, "encoder")
    return scratch(found, "", corpus, seed, codec, encoder_config=shape)


def recipe(name: str, **changes: Any) -> Recipe:
    made: Recipe = build(Recipe, {"kind": name, **EPOCHS[name]}, "recipe", TABLES)  # type: ignore[type-abstract]
    return update(made, changes, "recipe", TABLES)


def gentle(method: str) -> dict[str, Any]:
    """What `recipe` is changed by to learn by heart: a rate that a Transformer bears."""
    return {"lr": 0.01} if method in ("gpt", "bert") else {}
