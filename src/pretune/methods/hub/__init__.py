"""Any encoder of transformers as a guest in our tasks, recipes and comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from pretune.data.rows import Codec
from pretune.encoder import Encoder
from pretune.errors import UsageError
from pretune.methods.base import Method
from pretune.methods.hub.encoder import Guest, HubConfig, Pooling
from pretune.methods.hub.loading import load
from pretune.methods.hub.tokens import HubCodec, HubCodecConfig
from pretune.recipes.full import Full
from pretune.recipes.gradual import Gradual
from pretune.training.loop import Fitting

PRETRAINED = (
    "guests come pretrained: give a folder of transformers with --from, or hf:OWNER/NAME; pretrain and "
    "adapt are for pretune's own methods"
)


@dataclass(frozen=True)
class HubPretraining:
    """Guests come pretrained."""

    def run(
        self,
        encoder: Encoder,
        codec: Codec,
        corpus: Callable[[], Iterable[str]],
        held_out: Callable[[], Iterable[str]] | None,
        fitting: Fitting,
    ) -> dict[str, float]:
        raise UsageError(PRETRAINED)


def learn_codec(corpus: Callable[[], Iterable[str]], config: HubCodecConfig) -> NoReturn:
    raise UsageError(PRETRAINED)


def adopt(old: Encoder, old_codec: Codec, new: Encoder, new_codec: Codec) -> None:
    raise UsageError(PRETRAINED)


def build(config: HubConfig, codec: Codec) -> Encoder:
    """The same architecture with fresh weights."""
    return Guest(config)


NO_SIZES: Mapping[str, Any] = {}

HUB = Method(
    name="hub",
    title="Guest (transformers)",
    paper="Wolf et al. 2020, arXiv 1910.03771",
    learn_codec=learn_codec,
    load_codec=HubCodec.load,
    codec_config=HubCodecConfig,
    build=build,
    encoder_config=HubConfig,
    sizes=NO_SIZES,
    pretraining=HubPretraining(),
    adaptation=HubPretraining(),
    adopt=adopt,
    # Rate, epochs and batch of appendix A.3 of Devlin et al. (2019); more steps where labels are few, as
    # Mosbach et al. (2021) and Zhang et al. (2021) found to be needed.
    recipe=Full(lr=3e-5, epochs=4, least_steps=300, batch_size=16),
    recipes={"gradual": Gradual(schedule="transformer")},  # as of GPT and BERT: normalised layers
    task_options={"head_kind": "linear"},
)

__all__ = ["HUB", "PRETRAINED", "Guest", "HubCodec", "HubCodecConfig", "HubConfig", "Pooling", "load"]
