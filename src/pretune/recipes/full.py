"""Full fine-tuning: everything moves from the start (GPT, BERT), and what was found to steady it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pretune.encoder import Encoder
from pretune.errors import UsageError, choose
from pretune.recipes.drawn_anew import draw_anew
from pretune.recipes.limits import check
from pretune.recipes.names import all_groups
from pretune.tasks.base import Head, Task
from pretune.tasks.joint import Joint
from pretune.training.optimizers import AdamW, Optimizer
from pretune.training.published_optimizers import BERTAdam, OpenAIAdam
from pretune.training.schedules import (
    BERTLinear,
    Constant,
    OpenAIWarmup,
    Schedule,
    WarmupCosine,
    WarmupLinear,
)
from pretune.training.stage import Group, Stage

Algorithm = Literal["adamw", "openai", "bert"]
RateSchedule = Literal[
    "warmup_linear",
    "warmup_cosine",
    "openai_linear",
    "openai_cosine",
    "openai_constant",
    "bert_linear",
    "constant",
]
CHOICES = {"optimizer": get_args(Algorithm), "rate_schedule": get_args(RateSchedule)}


@dataclass(frozen=True)
class Full:
    """Move every weight of encoder and head, by rates that go up in a line, then down to zero.

    The recipe of GPT (section 4.1) and BERT (appendix A.3), and the one for training from scratch, where
    freezing anything makes no sense. Related: `Gradual`, which spares the lower layers; `Features`.

        Full()                    # recurrent models, and anything from scratch
        GPT_RECIPE, BERT_RECIPE   # as published: `pretune.recipes.published_full`
        Full(n_transfer=3)        # embeddings and three blocks are pretrained, the rest is not
    """

    lr: float = 1e-3
    """Peak rate; suits recurrent models. GPT took 6.25e-5, BERT 2e-5 to 5e-5."""
    epochs: int = 10
    """Passes over the data. The papers' 3 are for thousands of samples; a few hundred need more steps."""
    least_steps: int = 0
    """More passes where those have fewer steps: few samples want as many as many do (Mosbach et al. 2021,
    section 7; Zhang et al. 2021, section 6)."""
    batch_size: int = 32
    """Samples a step, as in both papers."""
    rate_schedule: RateSchedule = "warmup_linear"
    """warmup_linear, warmup_cosine: down from the end of the climb; openai_…, bert_linear: as in their
    releases, down from the very first step (`pretune.training.schedules`); constant."""
    warmup: float = 0.1
    """Share of the steps spent climbing: BERT's 0.1 (GPT 0.002)."""
    optimizer: Algorithm = "adamw"
    """adamw, or the Adam of either release: openai, bert (`pretune.training.published_optimizers`)."""
    bias_correction: bool | None = None
    """Whether the moments are corrected for their start at zero. none: but for bert's, which few samples
    suffer from (Zhang et al. 2021, section 4; Mosbach et al. 2021, section 7)."""
    weight_decay: float = 0.01
    """Decoupled decay."""
    decay_all: bool | None = None
    """Whether norms and biases decay too. none: with adamw, but not with openai or bert, as in the papers."""
    layer_decay: float = 1.0
    """The rate of each group over that of the one above it, the head's being `lr` (Howard & Ruder 2018,
    section 3.2, with 1 / 2.6; Zhang et al. 2021, section 7, for BERT)."""
    reinitialize_top: int = 0
    """So many blocks at the top are drawn anew, with what reads them, such as BERT's pooler: they know more
    of pretraining than of language (Zhang et al. 2021, section 5)."""
    n_transfer: int | None = None
    """Keep embeddings and so many blocks above them, the rest drawn anew: the layer transfer of Radford et
    al. (2018), section 5, figure 2. none: keep all; -1: keep nothing."""
    clip: float | None = 1.0
    """Largest gradient norm."""
    auxiliary: float = 0.0
    """Weight of predicting the labelled texts themselves beside their labels: GPT's lambda, 0.5 there. BERT
    predicts masked words, in a second reading of each batch."""
    alpha: float = 0.0
    """Activation regularisation (AR) of the top layer."""
    beta: float = 0.0
    """Temporal activation regularisation (TAR) of the top layer."""

    def __post_init__(self) -> None:
        for name, possible in CHOICES.items():
            if getattr(self, name) not in possible:
                raise choose(f"recipe.{name}", str(getattr(self, name)), possible)
        check(self)
        if self.reinitialize_top and self.n_transfer is not None:
            raise UsageError(
                "recipe.reinitialize_top and recipe.n_transfer both say which blocks are drawn anew; leave "
                "one out"
            )

    def task(self, task: Task) -> Task:
        return Joint(task, self.auxiliary) if self.auxiliary else task

    def wrap(self, encoder: Encoder) -> Encoder:
        """The encoder itself, some of its blocks drawn anew in place."""
        blocks = len(encoder.groups()) - 1
        for name, said in (("reinitialize_top", self.reinitialize_top), ("n_transfer", self.n_transfer)):
            if said is not None and said > blocks:
                raise UsageError(
                    f"recipe.{name} is {said}, and {type(encoder).__name__} has {blocks} blocks above its "
                    "embeddings; choose no more than that"
                )
        kept = blocks - self.reinitialize_top if self.n_transfer is None else self.n_transfer
        draw_anew(encoder, 1 + kept)
        return encoder

    def stages(self, encoder: Encoder, head: Head) -> list[Stage]:
        modules = [("head", head), *reversed(all_groups(encoder))]
        decay_all = self.optimizer != "bert" if self.decay_all is None else self.decay_all
        groups = [
            Group(name, (module,), self.lr * self.layer_decay**depth, self.weight_decay, decay_all)
            for depth, (name, module) in enumerate(modules)
        ]
        return [
            Stage(
                "all",
                tuple(reversed(groups)),
                self.epochs,
                self._schedule(),
                self._optimizer(),
                self.clip,
                least_steps=self.least_steps,
            )
        ]

    def _schedule(self) -> Schedule:
        schedules: dict[RateSchedule, Schedule] = {
            "warmup_linear": WarmupLinear(self.warmup),
            "warmup_cosine": WarmupCosine(self.warmup),
            "openai_linear": OpenAIWarmup("linear", self.warmup),
            "openai_cosine": OpenAIWarmup("cosine", self.warmup),
            "openai_constant": OpenAIWarmup("constant", self.warmup),
            "bert_linear": BERTLinear(self.warmup),
            "constant": Constant(),
        }
        return schedules[self.rate_schedule]

    def _optimizer(self) -> Optimizer:
        corrected = self.optimizer != "bert" if self.bias_correction is None else self.bias_correction
        if self.optimizer == "openai":
            return OpenAIAdam(decay_vectors=bool(self.decay_all), bias_correction=corrected)
        if self.optimizer == "bert":
            return BERTAdam(bias_correction=corrected)
        return AdamW() if corrected else BERTAdam(eps=AdamW.eps)
