"""BERT: a Transformer that reads both ways, pretrained by words masked out and by which sentence follows."""

from __future__ import annotations

from dataclasses import replace

from pretune.data.rows import Codec
from pretune.encoder import Encoder
from pretune.errors import UsageError
from pretune.methods.base import Method
from pretune.methods.bert.adopting import adopt
from pretune.methods.bert.encoder import BERT, BERTConfig
from pretune.methods.bert.pretraining import ADAPTATION, PRETRAINING, BERTPretraining
from pretune.methods.bert.tokens import BERTCodec, BERTCodecConfig
from pretune.recipes.gradual import Gradual
from pretune.recipes.published_full import BERT_FEW_LABELS


def build(config: BERTConfig, codec: Codec) -> Encoder:
    if not isinstance(codec, BERTCodec):
        raise UsageError("BERT reads what its own codec makes of text")
    if codec.config.context > config.context:
        raise UsageError(
            f"codec.context is {codec.config.context}, and the encoder has {config.context} positions "
            "(encoder.context): make both alike"
        )
    return BERT(config, codec.size, codec.pad_id, codec.mask_id)


def learner(config: BERTConfig) -> BERTConfig:
    """With what predicts masked words and next sentences, and the pooler that these read."""
    return replace(config, pooler=True, pretraining_heads=True)


METHOD = Method(
    name="bert",
    title="BERT (Transformer encoder)",
    paper="Devlin et al. 2019, arXiv 1810.04805",
    learn_codec=BERTCodec.learn,
    load_codec=BERTCodec.load,
    codec_config=BERTCodecConfig,
    build=build,
    encoder_config=BERTConfig,
    sizes={  # all but `large` are among Google's small models of March 2020
        "tiny": BERTConfig(128, 2, 2),
        "small": BERTConfig(256, 4, 4),
        "medium": BERTConfig(512, 8, 8),
        "base": BERTConfig(),
        "large": BERTConfig(1024, 24, 16),
    },
    pretraining=PRETRAINING,
    adaptation=ADAPTATION,
    adopt=adopt,
    recipe=BERT_FEW_LABELS,
    recipes={"gradual": Gradual(schedule="transformer")},
    learner=learner,
    vocabulary="keep",
    adjustable=("dropout", "attention_dropout", "checkpointing"),
)

__all__ = ["BERT", "METHOD", "BERTCodec", "BERTCodecConfig", "BERTConfig", "BERTPretraining", "adopt"]
