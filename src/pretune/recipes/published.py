"""How others taught ULMFiT's classifier: schedules to choose by name, one column of their sources each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ScheduleName = Literal[
    "few_labels", "paper", "script", "fastai1", "fastai2", "fine_tune", "multifit", "transformer"
]
Thaw = Literal["gradual", "chain", "none", "last"]
Slower = Literal["each", "lowest", "below"]
RateSchedule = Literal["slanted_triangular", "one_cycle", "cosine", "constant"]


@dataclass(frozen=True)
class Published:
    """A schedule. Pairs are (stages in which some groups are frozen, the stage in which all move)."""

    rates: tuple[
        float, ...
    ]  # of the head, stage by stage; a single one for as many stages as there are groups
    factor: float  # how much slower lower groups are, as `slower` says
    slower: Slower
    epochs: int  # of the last stage; each stage before it is one
    rate_schedule: RateSchedule
    climb: tuple[float, float]  # share of a stage's steps until the rate is highest
    ratio: tuple[float, float]  # highest rate over first rate
    batch_size: int
    beta1: float = 0.9  # where it does not cycle
    beta2: float = 0.99
    momentum: tuple[float, float] | None = None  # beta1 at both ends of one cycle, and at its peak
    final_ratio: float = 1e5  # highest rate over last rate, of one cycle
    eps: float = 1e-8
    weight_decay: float = 0.01  # decoupled; the script's is in the loss, where Adam makes of it nearly full
    # steps towards zero for every word that the labelled texts lack
    decay_all: bool = True  # False: none for norms and biases
    clip: float | None = None
    thaw: Thaw = "gradual"
    alpha: float = 2.0  # AR, which all of these keep for the classifier
    beta: float = 1.0  # TAR


SCHEDULES: dict[ScheduleName, Published] = {
    # The paper's stages and rates, in batches and passes for hundreds of labels rather than thousands.
    "few_labels": Published(
        rates=(1e-2,), factor=2.6, slower="each", epochs=8,
        rate_schedule="slanted_triangular", climb=(0.1, 0.1), ratio=(32, 32),
        batch_size=32, beta1=0.7, clip=25.0,
    ),
    # Howard & Ruder (2018), sections 3.2, 3.3, 4.1 and 5 (50 epochs); where the text is silent, the script.
    "paper": Published(
        rates=(1e-2,), factor=2.6, slower="each", epochs=50,
        rate_schedule="slanted_triangular", climb=(0.1, 0.1), ratio=(32, 32),
        batch_size=64, beta1=0.7, weight_decay=1e-6, clip=25.0,
    ),
    # Their train_clas.py (fastai 0.7), with the epochs of its manual for IMDb.
    "script": Published(
        rates=(1e-2, 1e-2, 1e-2), factor=2.6, slower="each", epochs=50,
        rate_schedule="slanted_triangular", climb=(1 / 3, 1 / 8), ratio=(8, 8),
        batch_size=32, beta1=0.8, weight_decay=1e-6, clip=25.0,
    ),
    # fastai 1's notebook ULMFit.ipynb, the forward model: 94.96 % on IMDb, 95.4 % with the backward one.
    "fastai1": Published(
        rates=(1e-1, 5e-2, 2.5e-2, 5e-3), factor=2.6**4, slower="lowest", epochs=2,
        rate_schedule="one_cycle", climb=(0.3, 0.3), ratio=(25, 25), final_ratio=25e4,
        batch_size=128, momentum=(0.8, 0.7),
    ),
    # fastai 2's text tutorial: 94.3 % on IMDb with the forward model.
    "fastai2": Published(
        rates=(2e-2, 1e-2, 5e-3, 1e-3), factor=2.6**4, slower="lowest", epochs=2,
        rate_schedule="one_cycle", climb=(0.25, 0.25), ratio=(25, 25),
        batch_size=64, momentum=(0.8, 0.7), eps=1e-5, decay_all=False,
    ),
    # fastai 2's `fine_tune(4, 1e-2)`, as the same tutorial calls it.
    "fine_tune": Published(
        rates=(1e-2, 5e-3), factor=100, slower="lowest", epochs=4,
        rate_schedule="one_cycle", climb=(0.99, 0.3), ratio=(25, 5),
        batch_size=64, momentum=(0.8, 0.7), eps=1e-5, decay_all=False,
    ),
    # MultiFiT's schedule "1cycle" in its paper's configuration (Eisenschlos et al. 2019).
    "multifit": Published(
        rates=(2e-2,), factor=2 * 2.6**4, slower="lowest", epochs=8, thaw="none",
        rate_schedule="one_cycle", climb=(0.3, 0.3), ratio=(25, 25), final_ratio=25e4,
        batch_size=18, momentum=(0.8, 0.7), clip=0.12,
    ),
    # The paper's stages for GPT and BERT: Adam, decay and gradient norm as theirs, rates for small ones;
    # equal ratios, so that a deep one's lower blocks do not stand still; and neither AR nor TAR, for the top
    # layer is normalised: they would only shrink the norm's own weights, and the answers with them.
    "transformer": Published(
        rates=(1e-3,), factor=2.6**4, slower="lowest", epochs=8,
        rate_schedule="slanted_triangular", climb=(0.1, 0.1), ratio=(32, 32),
        batch_size=16, beta2=0.999, decay_all=False, clip=1.0, alpha=0.0, beta=0.0,
    ),
}  # fmt: skip
