"""GPT: a Transformer decoder pretrained on raw text, tuned whole to the task beside its language model."""

from __future__ import annotations

from pretune.data.rows import Codec
from pretune.encoder import Encoder
from pretune.errors import UsageError
from pretune.methods.base import Method
from pretune.methods.gpt.adopting import adopt
from pretune.methods.gpt.encoder import GPT, GPTConfig
from pretune.methods.gpt.pretraining import ADAPTATION, PRETRAINING, GPTPretraining
from pretune.methods.gpt.tokens import GPTCodec, GPTCodecConfig
from pretune.recipes.gradual import Gradual
from pretune.recipes.published_full import GPT_FEW_LABELS


def build(config: GPTConfig, codec: Codec) -> Encoder:
    if not isinstance(codec, GPTCodec):
        raise UsageError("GPT reads what its own codec makes of text")
    if codec.config.context > config.context:
        raise UsageError(
            f"codec.context is {codec.config.context}, and the encoder has {config.context} positions "
            "(encoder.context): make both alike"
        )
    return GPT(config, codec.size, codec.classify_id)


METHOD = Method(
    name="gpt",
    title="GPT (Transformer decoder)",
    paper="Radford et al. 2018, Improving Language Understanding by Generative Pre-Training",
    learn_codec=GPTCodec.learn,
    load_codec=GPTCodec.load,
    codec_config=GPTCodecConfig,
    build=build,
    encoder_config=GPTConfig,
    sizes={
        "tiny": GPTConfig(128, 2, 2),
        "small": GPTConfig(256, 4, 4),
        "medium": GPTConfig(512, 8, 8),
        "base": GPTConfig(),  # the paper's
    },
    pretraining=PRETRAINING,
    adaptation=ADAPTATION,
    adopt=adopt,
    recipe=GPT_FEW_LABELS,
    recipes={"gradual": Gradual(schedule="transformer")},
    task_options={"of_rows": "sum"},  # of both orders of a pair, section 3.3
    vocabulary="keep",
    adjustable=(
        "embedding_dropout",
        "embedding_dropout_mode",
        "attention_dropout",
        "residual_dropout",
        "checkpointing",
    ),
)

__all__ = ["GPT", "METHOD", "GPTCodec", "GPTCodecConfig", "GPTConfig", "GPTPretraining", "adopt"]
