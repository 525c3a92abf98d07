"""Full fine-tuning: everything moves at one rate (GPT, BERT)."""

from __future__ import annotations

from dataclasses import dataclass

from pretune.encoder import Encoder
from pretune.recipes.limits import check
from pretune.recipes.names import all_groups
from pretune.tasks.base import Head, Task
from pretune.tasks.joint import Joint
from pretune.training.optimizers import AdamW
from pretune.training.schedules import WarmupLinear
from pretune.training.stage import Group, Stage


@dataclass(frozen=True)
class Full:
    """Move every weight of encoder and head at one rate, up in a line, then down to zero.

    The recipe of GPT (section 4.1) and BERT (appendix A.3), and the one for training from scratch, where
    freezing anything makes no sense. Related: `Gradual`, which spares the lower layers; `Features`.
    """

    lr: float = 1e-3
    """Peak rate; suits recurrent models. GPT took 6.25e-5, BERT 2e-5 to 5e-5."""
    epochs: int = 10
    """Passes over the data. The papers' 3 are for thousands of samples; a few hundred need more steps."""
    batch_size: int = 32
    """Samples a step, as in both papers."""
    warmup: float = 0.1
    """Share of the steps spent climbing: BERT's 0.1 (GPT 0.002)."""
    weight_decay: float = 0.01
    """Decoupled decay. It reaches every weight; the papers spare biases and norms."""
    clip: float | None = 1.0
    """Largest gradient norm."""
    auxiliary: float = 0.0
    """Weight of next-token prediction on the labelled texts themselves: GPT's lambda, 0.5 there."""
    alpha: float = 0.0
    """Activation regularisation (AR) of the top layer."""
    beta: float = 0.0
    """Temporal activation regularisation (TAR) of the top layer."""

    def __post_init__(self) -> None:
        check(self)

    def task(self, task: Task) -> Task:
        return Joint(task, self.auxiliary) if self.auxiliary else task

    def wrap(self, encoder: Encoder) -> Encoder:
        return encoder

    def stages(self, encoder: Encoder, head: Head) -> list[Stage]:
        modules = [*all_groups(encoder), ("head", head)]
        groups = tuple(Group(name, (module,), self.lr, self.weight_decay) for name, module in modules)
        return [Stage("all", groups, self.epochs, WarmupLinear(self.warmup), AdamW(), self.clip)]
