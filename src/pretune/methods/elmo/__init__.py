"""ELMo: a bidirectional language model over characters, whose layers are mixed into any task model."""

from __future__ import annotations

from dataclasses import replace

from pretune.data.rows import Codec
from pretune.encoder import Encoder
from pretune.errors import UsageError
from pretune.methods.base import Method
from pretune.methods.elmo.config import ELMoConfig
from pretune.methods.elmo.encoder import ELMo
from pretune.methods.elmo.pretraining import ADAPTATION, PRETRAINING, ElmoPretraining, adopt
from pretune.methods.elmo.tokens import ElmoCodec, ElmoCodecConfig
from pretune.recipes.features import Features


def build(config: ELMoConfig, codec: Codec) -> Encoder:
    """A fresh encoder; its codec must give what it reads."""
    reads = getattr(getattr(codec, "config", None), "inputs", config.inputs)
    if reads != config.inputs:
        raise UsageError(f"encoder.inputs is {config.inputs}, codec.inputs {reads}; set both alike")
    return ELMo(config, codec.size)


SMALL_FILTERS = ((1, 32), (2, 32), (3, 64), (4, 128), (5, 128))

ELMO = Method(
    name="elmo",
    title="ELMo (biLM)",
    paper="Peters et al. 2018, arXiv 1802.05365",
    learn_codec=ElmoCodec.learn,
    load_codec=ElmoCodec.load,
    codec_config=ElmoCodecConfig,
    build=build,
    encoder_config=ELMoConfig,
    sizes={
        "tiny": ELMoConfig(512, 128, filters=SMALL_FILTERS, highways=1, softmax=True),
        "small": ELMoConfig(1024, 128, highways=1, softmax=True),
        "medium": ELMoConfig(2048, 256, highways=1, softmax=True),
        "original": ELMoConfig(softmax=True),
    },
    pretraining=PRETRAINING,
    adaptation=ADAPTATION,
    adopt=adopt,
    recipe=Features(),
    task_options={"head_kind": "linear"},
    learner=lambda config: replace(config, softmax=True),
    vocabulary="keep",
    adjustable=("dropout",),
)

__all__ = ["ELMO", "ELMo", "ELMoConfig", "ElmoCodec", "ElmoCodecConfig", "ElmoPretraining", "adopt"]
