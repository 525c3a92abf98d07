"""The contract of a method: codec + encoder + how it is pretrained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from pretune.data.rows import Codec
from pretune.encoder import Encoder
from pretune.recipes.base import Recipe
from pretune.training.loop import Fitting

Vocabulary = Literal[
    "target", "union", "keep"
]  # whose words adaptation predicts: the new text's, both, the old


# By name codecs and encoders of several directions -> one codec, one encoder of all, its settings.
Beside = Callable[[Mapping[str, tuple[Codec, Encoder]]], tuple[Codec, Encoder, Any]]


class Pretraining(Protocol):
    """A frozen dataclass of the paper's pretraining settings."""

    def run(
        self,
        encoder: Encoder,
        codec: Codec,
        corpus: Callable[[], Iterable[str]],
        held_out: Callable[[], Iterable[str]] | None,
        fitting: Fitting,
    ) -> dict[str, float]:
        """Train `encoder` in place on documents; returns scores such as {"perplexity": ...}.

        `corpus` is called for every pass and streams documents: nothing is kept in memory.
        """
        ...


@dataclass(frozen=True)
class Method:
    """One published way to carry knowledge from text to tasks. Methods never import one another."""

    name: str
    title: str
    paper: str
    learn_codec: Callable[[Callable[[], Iterable[str]], Any], Codec]  # documents, codec settings -> codec
    load_codec: Callable[[Path], Codec]
    codec_config: type  # a frozen dataclass: language, vocabulary size, rules
    build: Callable[[Any, Codec], Encoder]  # encoder settings, codec -> encoder with fresh weights
    encoder_config: type  # a frozen dataclass
    sizes: Mapping[str, Any]  # name -> encoder settings
    pretraining: Pretraining  # from raw text
    adaptation: Pretraining  # on the user's text, from pretrained weights
    adopt: Callable[
        [Encoder, Codec, Encoder, Codec], None
    ]  # old encoder, old codec -> copy into new encoder, new codec
    recipe: Recipe  # the paper's own way to a task
    task_options: Mapping[str, Any] = field(
        default_factory=dict
    )  # the paper's head, as `Classification.of(samples, kind, **these)`
    recipes: Mapping[str, Recipe] = field(default_factory=dict)  # what other names of recipes mean here
    learner: Callable[[Any], Any] = lambda config: config  # encoder settings with all that pretraining needs
    vocabulary: Vocabulary = "target"  # of adaptation, where none is asked for
    adjustable: tuple[str, ...] = ()  # encoder settings that no weight depends on, such as dropout
    beside: Beside | None = None  # one encoder of several directions; None: there is no such thing
