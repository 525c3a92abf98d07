"""ULMFiT: an AWD-LSTM language model from raw text, tuned to the target's text, then to the task."""

from __future__ import annotations

from pretune.methods.base import Method
from pretune.methods.ulmfit.adopting import adopt
from pretune.methods.ulmfit.both import TwoWayAWDLSTM, beside, built
from pretune.methods.ulmfit.encoder import AWDLSTM, AWDLSTMConfig, Dropouts
from pretune.methods.ulmfit.pretraining import ADAPTATION, PRETRAINING, UlmfitPretraining
from pretune.methods.ulmfit.tokens import UlmfitCodec, UlmfitCodecConfig
from pretune.recipes.gradual import Gradual

ULMFIT = Method(
    name="ulmfit",
    title="ULMFiT (AWD-LSTM)",
    paper="Howard & Ruder 2018, arXiv 1801.06146",
    learn_codec=UlmfitCodec.learn,
    load_codec=UlmfitCodec.load,
    codec_config=UlmfitCodecConfig,
    build=built,
    encoder_config=AWDLSTMConfig,
    sizes={
        "tiny": AWDLSTMConfig(64, 128, 2, task_drop_mult=0.5),
        "small": AWDLSTMConfig(128, 400, task_drop_mult=0.5),
        "medium": AWDLSTMConfig(300, 800, task_drop_mult=0.5),
        "base": AWDLSTMConfig(),
        "multifit": AWDLSTMConfig(400, 1550, 4, cell="qrnn", task_drop_mult=0.5),
    },
    pretraining=PRETRAINING,
    adaptation=ADAPTATION,
    adopt=adopt,
    recipe=Gradual(),
    task_options={"head_kind": "two_layer"},
    beside=beside,
    adjustable=(
        "language_model",
        "task",
        "language_model_drop_mult",
        "task_drop_mult",
        "bptt",
        "gradient_chunks",
        "max_len",
    ),
)

__all__ = [
    "AWDLSTM",
    "ULMFIT",
    "AWDLSTMConfig",
    "Dropouts",
    "TwoWayAWDLSTM",
    "UlmfitCodec",
    "UlmfitCodecConfig",
    "UlmfitPretraining",
    "adopt",
]
