"""How ULMFiT learns from raw text: next-token prediction over streams, from nothing or from weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Literal, get_args

from pretune.data.corpus import token_file
from pretune.data.rows import Codec
from pretune.encoder import Encoder
from pretune.errors import UsageError, choose
from pretune.methods.raw_text import budget, summary, token_cache
from pretune.methods.ulmfit.encoder import AWDLSTM
from pretune.methods.ulmfit.tokens import UlmfitCodec
from pretune.recipes import limits
from pretune.tasks.base import Head
from pretune.tasks.next_token import NextToken, stream_scores
from pretune.tensors.streams import Limited, StreamSource
from pretune.training.averaging import ASGD, NTASGD
from pretune.training.loop import Fitting, fit
from pretune.training.lr_find import FoundRates, find_rates
from pretune.training.model import Model
from pretune.training.optimizers import SGD, AdamW, Optimizer
from pretune.training.schedules import Constant, MomentumCycle, OneCycle, Schedule, SlantedTriangular
from pretune.training.sources import own_rank, own_world
from pretune.training.stage import Group, Stage, stage_numbered

Corpus = Callable[[], Iterable[str]]

Algorithm = Literal["adamw", "nt_asgd", "asgd", "sgd"]
ScheduleName = Literal["one_cycle", "slanted_triangular", "constant"]

SCHEDULES: dict[str, Schedule] = {
    "one_cycle": OneCycle(),
    "slanted_triangular": SlantedTriangular(),
    "constant": Constant(),
}
PRETRAINING_LR, ADAPTATION_LR = 5e-3, 4e-3  # of Adam: MultiFiT's, the paper's
FEWEST_STREAMS = 8  # small corpora get no fewer than this for the sake of more steps
CONTEXT_WINDOWS = 10  # windows a stream is long at least, in evaluation, where every cut costs context


@dataclass(frozen=True)
class AveragedSGD:
    """How AWD-LSTM itself was trained: `main.py` of its release."""

    lr: float = 30.0
    """Rate; the release's for Penn Treebank and WikiText-2."""
    weight_decay: float = 1.2e-6
    """Of all weights."""
    non_monotone: int = 5
    """The held-out loss falls no longer once it is worse than the best but for so many last epochs."""

    def __post_init__(self) -> None:
        limits.check(self, "pretraining.sgd")


@dataclass(frozen=True)
class UlmfitPretraining:
    """Section 3.1 of Howard & Ruder (2018) from raw text; section 3.2 on the target's own.

    Defaults suit hours rather than weeks: one cycle and little dropout. `PRETRAINING` and `ADAPTATION`
    are the two settings in use.
    """

    epochs: int = 10
    """Passes over the corpus with everything trained."""
    max_steps: int | None = None
    """Most windows read in those passes; fewer or shorter epochs then, and a schedule that ends there."""
    optimizer: Algorithm = "adamw"
    """adamw, or as AWD-LSTM itself was trained: nt_asgd is plain sgd which, once the held-out loss falls no
    longer, goes on with the mean of its weights; asgd takes that mean from the start and ends where nt_asgd
    would begin it, which is the release's second run. The three have their rate and decay in `sgd`."""
    sgd: AveragedSGD = AveragedSGD()
    """Of optimizers other than adamw."""
    lr: float = PRETRAINING_LR
    """Peak rate of adamw."""
    divisors: tuple[float, ...] = ()
    """Rate of the embedding and of each layer is lr over these, bottom to top; empty: one rate for all.
    The release fine-tunes with (2, 6, 3, 1)."""
    schedule: ScheduleName | None = None
    """One cycle is fastai's, slanted triangles are the paper's (eq. 3). None: one_cycle for adamw, constant
    for the others."""
    frozen_epochs: int = 0
    """Passes before that for the embedding and decoder bias alone, in which new words find their place;
    always by adamw."""
    frozen_lr: float = 2e-2
    """Peak rate of those passes."""
    streams: int = 64
    """Parallel streams of text, of each process: rows of a batch."""
    least_steps: int = 30
    """Streams are halved, down to 8, while an epoch has fewer steps than this: for small corpora."""
    window: int = 70
    """Tokens of each stream a step: the reach of the gradient (bptt)."""
    variable_windows: bool = False
    """Windows of varying length around that (Merity et al. 2017, section 4.1)."""
    rescale_rate: bool = False
    """With varying windows: the rate of a step is in proportion to its window's length, as there."""
    restarts: float = 0.0
    """Share of the windows whose state begins at zero, as texts of a task do, drawn anew for each; published
    training begins so at the start of an epoch alone."""
    drop_mult: float = 0.2
    """Factor on the encoder's language-model dropouts; the release took 0.5 on 100 million tokens."""
    candidates: int | None = None
    """Words that a training step's softmax compares with, beside the step's own targets: half of them the
    first of the vocabulary, half drawn from the others. None: all words, exactly. Evaluation is exact. An
    encoder with `cutoffs` has an adaptive softmax, which draws nothing."""
    alpha: float = 2.0
    """Activation regularisation (AR), section 4.6 of Merity et al. (2017)."""
    beta: float = 1.0
    """Temporal activation regularisation (TAR)."""
    beta1: float = 0.8
    """Adam's first decay, as in the release."""
    beta1_at_peak: float | None = None
    """The same where the rate of one cycle is highest: it falls while the rate rises, and comes back, as
    fastai's `moms`. None: 0.1 less than beta1; as other schedules have it, beta1 throughout."""
    beta2: float = 0.99
    """Adam's second decay."""
    eps: float = 1e-8
    """Adam's epsilon, PyTorch's as in the release; fastai 2 has 1e-5, with which few steps get less far."""
    weight_decay: float = 0.01
    """Adam's, decoupled and not for the decoder's bias, as in fastai 2."""
    clip: float | None = 0.25
    """Largest gradient norm."""

    def __post_init__(self) -> None:
        if self.optimizer not in get_args(Algorithm):
            raise choose("pretraining.optimizer", self.optimizer, get_args(Algorithm))
        if self.schedule is not None and self.schedule not in SCHEDULES:
            raise choose("pretraining.schedule", self.schedule, SCHEDULES)
        for name in ("epochs", "max_steps", "streams", "least_steps", "window", "candidates"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"pretraining.{name} is {value}; give 1 or more")
        limits.check(self, "pretraining")
        if any(not 0 < divisor < inf for divisor in self.divisors):
            raise UsageError(f"pretraining.divisors is {list(self.divisors)}; give numbers above 0")
        if self.rescale_rate and not self.variable_windows:
            raise UsageError(
                "pretraining.rescale_rate is for windows of varying length; add variable_windows"
            )
        if self.beta1_at_peak is not None and not self._cycles:
            raise UsageError("pretraining.beta1_at_peak is for adamw in one cycle; leave it out")
        if self.optimizer == "adamw" and self.sgd != AveragedSGD():
            raise UsageError("pretraining.sgd is for sgd, nt_asgd and asgd; choose the optimizer as well")
        if self.optimizer != "adamw" and self.lr not in (PRETRAINING_LR, ADAPTATION_LR):
            raise UsageError(f"pretraining.lr is adamw's; the rate of {self.optimizer} is pretraining.sgd.lr")

    @property
    def _schedule(self) -> ScheduleName:
        return self.schedule or ("one_cycle" if self.optimizer == "adamw" else "constant")

    @property
    def _cycles(self) -> bool:
        return self.optimizer == "adamw" and self._schedule == "one_cycle"

    def run(
        self, encoder: Encoder, codec: Codec, corpus: Corpus, held_out: Corpus | None, fitting: Fitting
    ) -> dict[str, float]:
        """Train `encoder` in place; the weights with the best perplexity on `held_out` are kept.

        Returns that perplexity, its loss in nats and its tokens; without `held_out` what the last epoch
        reported while training, named `train_…`.
        """
        if self.optimizer == "nt_asgd" and held_out is None:
            raise UsageError("nt_asgd looks at held-out loss; hold some text out, or take asgd or sgd")
        with self._learning(encoder, codec) as (learner, words), token_cache(fitting.folder) as cache:
            source = self._source(words, corpus, cache, fitting.seed)
            check = self._held_out(words, held_out, cache) if held_out else None
            return self._fit(learner, source, check, fitting)

    def find_rates(
        self, encoder: Encoder, codec: Codec, corpus: Corpus, fitting: Fitting, stage: int = -1
    ) -> FoundRates:
        """What `training.lr_find` says of the stage with that number, by default the one that moves all."""
        with self._learning(encoder, codec) as (learner, words), token_cache(None) as cache:
            model = self._model(learner)
            source = self._source(words, corpus, cache, fitting.seed)
            chosen = stage_numbered(self.stages(learner, model.head, 1), stage)
            return find_rates(model, chosen, source, fitting)

    @contextmanager
    def _learning(self, encoder: Encoder, codec: Codec) -> Iterator[tuple[AWDLSTM, UlmfitCodec]]:
        """Both, with the dropouts of these settings for the time being."""
        if getattr(getattr(encoder, "config", None), "directions", "one") == "both":
            raise UsageError(
                "encoder.directions=both is for tasks; a language model reads one way: --direction both "
                "trains two"
            )
        if not isinstance(encoder, AWDLSTM) or not isinstance(codec, UlmfitCodec):
            raise UsageError("this pretraining is for AWD-LSTM only; choose the method ulmfit")
        encoder.purpose("language_model", self.drop_mult * encoder.config.language_model_drop_mult)
        try:
            yield encoder, codec
        finally:
            encoder.purpose("task")

    def _model(self, encoder: AWDLSTM) -> Model:
        head = NextToken(encoder.output_p, self.candidates).head(encoder)
        return Model(encoder, head, self.alpha, self.beta)

    def stages(self, encoder: AWDLSTM, head: Head, epochs: int) -> list[Stage]:
        """The embedding alone where asked for, then all; the head moves with the embedding it is tied to."""
        blocks = encoder.groups()
        names = ["embedding", *(f"rnn {layer}" for layer in range(len(blocks) - 1))]
        divisors = self.divisors or (1.0,) * len(blocks)
        if len(divisors) != len(blocks):
            raise UsageError(
                f"pretraining.divisors has {len(divisors)} numbers, the encoder {len(blocks)} groups: "
                + ", ".join(names)
            )
        moved = [(blocks[0], head), *((block,) for block in blocks[1:])]
        if self.optimizer == "adamw":
            base, decay = self.lr, self.weight_decay
        else:
            base, decay = self.sgd.lr, self.sgd.weight_decay
        groups = [
            Group(name, modules, base / divisor, decay, decay_all=self.optimizer != "adamw")
            for name, modules, divisor in zip(names, moved, divisors, strict=True)
        ]
        window = self.window if self.rescale_rate else None
        shared: dict[str, Any] = {"clip": self.clip, "window": window}
        whole = Stage(
            "all",
            tuple(groups),
            epochs,
            SCHEDULES[self._schedule],
            self._optimizer(),
            momentum=self._momentum() if self._cycles else None,
            **shared,
        )
        if not self.frozen_epochs:
            return [whole]
        first = Group("embedding", moved[0], self.frozen_lr, self.weight_decay, decay_all=False)
        schedule = SCHEDULES[self._schedule if self.optimizer == "adamw" else "one_cycle"]
        cycle = self._momentum() if isinstance(schedule, OneCycle) else None
        alone = Stage(
            "embedding", (first,), self.frozen_epochs, schedule, self._adam(), momentum=cycle, **shared
        )
        return [alone, whole]

    def _optimizer(self) -> Optimizer:
        found: dict[str, Optimizer] = {
            "adamw": self._adam(),
            "nt_asgd": NTASGD(self.sgd.non_monotone),
            "asgd": ASGD(self.sgd.non_monotone),
            "sgd": SGD(),
        }
        return found[self.optimizer]

    def _adam(self) -> AdamW:
        return AdamW(self.beta1, self.beta2, self.eps)

    def _momentum(self) -> MomentumCycle:
        low = self.beta1 - 0.1 if self.beta1_at_peak is None else self.beta1_at_peak
        return MomentumCycle(self.beta1, max(0.0, low))

    def _fit(
        self, encoder: AWDLSTM, source: StreamSource, check: StreamSource | None, fitting: Fitting
    ) -> dict[str, float]:
        epochs, steps = budget(self.epochs, source.steps(0), self.max_steps)
        model = self._model(encoder)

        def validate(model: Model) -> dict[str, float]:
            assert check is not None
            return stream_scores(model, model.head, check)

        fitted = fit(
            model,
            self.stages(encoder, model.head, epochs),
            Limited(source, steps) if self.max_steps else source,
            fitting,
            validate if check else None,
            "perplexity",
            higher_is_better=False,
        )
        return summary(fitted)

    def _source(self, codec: UlmfitCodec, corpus: Corpus, cache: Path, seed: int) -> StreamSource:
        tokens = token_file(corpus, codec.ids, codec.fingerprint(), cache)
        streams, world = self.streams, own_world()
        while streams > FEWEST_STREAMS and len(tokens.ids) < streams * world * self.window * self.least_steps:
            streams = max(FEWEST_STREAMS, streams // 2)
        return StreamSource(
            tokens.ids,
            tokens.starts,
            streams,
            self.window,
            seed,
            codec.config.direction,
            variable=self.variable_windows,
            restarts=self.restarts,
            rank=own_rank(),
            world=world,
        )

    def _held_out(self, codec: UlmfitCodec, held_out: Corpus, cache: Path) -> StreamSource:
        tokens = token_file(held_out, codec.ids, codec.fingerprint(), cache)
        streams = max(1, min(self.streams, len(tokens.ids) // (CONTEXT_WINDOWS * self.window)))
        return StreamSource(
            tokens.ids,
            tokens.starts,
            streams,
            self.window,
            direction=codec.config.direction,
            shuffle=False,
            whole=True,
            pad_id=codec.pad_id,
        )


PRETRAINING = UlmfitPretraining(candidates=4096)  # the release drew 15 000 negatives of 238 000 words
ADAPTATION = UlmfitPretraining(epochs=10, lr=ADAPTATION_LR, frozen_epochs=1, frozen_lr=2e-2, drop_mult=0.5)
