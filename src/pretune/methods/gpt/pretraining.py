"""How GPT learns from raw text: the next token of random stretches of documents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from pretune.data.corpus import Documents, token_file
from pretune.data.rows import Codec
from pretune.encoder import Encoder
from pretune.errors import UsageError, choose
from pretune.methods.gpt.encoder import GPT
from pretune.methods.gpt.language import MARKS, PlainText
from pretune.methods.gpt.tokens import GPTCodec
from pretune.methods.raw_text import budget, summary, token_cache
from pretune.recipes import limits
from pretune.tasks.next_token import stream_scores
from pretune.tensors.streams import Limited
from pretune.tensors.windows import RandomWindows, ScoredWindows
from pretune.training.loop import Fitting, fit
from pretune.training.lr_find import FoundRates, find_rates
from pretune.training.model import Model
from pretune.training.optimizers import AdamW, Optimizer
from pretune.training.published_optimizers import OpenAIAdam
from pretune.training.schedules import OpenAIWarmup, Schedule, WarmupCosine
from pretune.training.sources import own_rank, own_world
from pretune.training.stage import Group, Stage, stage_numbered

Algorithm = Literal["openai_adam", "adamw"]
ScheduleName = Literal["cosine", "cosine_after_warmup"]

LR, WIDTH = 2.5e-4, 768  # the paper's peak rate and the width that it is for
HIGHEST_LR = 2e-3
FEWEST_SEQUENCES = 8  # small corpora get no fewer than this in a batch for the sake of more steps


@dataclass(frozen=True)
class GPTPretraining:
    """Section 4.1 of Radford et al. (2018), whose code was never released, on any text.

    Batches are random stretches of documents, see `RandomWindows`. Departures: passes, steps and warm-up are
    those of hours rather than weeks (`epochs`, `warmup_share`, `least_steps`), and narrow networks learn
    faster (`lr`). With `epochs=100` on 7,000 books at the published width all is as published. Dropout is
    the encoder's.
    """

    epochs: int = 10
    """Passes over the corpus; the paper's are 100."""
    max_steps: int | None = None
    """Most steps in those passes; fewer or shorter epochs then, and a schedule that ends there."""
    sequences: int = 64
    """Stretches of `encoder.context` tokens in a batch, of each process; more where some are shorter."""
    least_steps: int = 100
    """They are halved, down to 8, while an epoch has fewer steps than this: for small corpora."""
    across: bool = False
    """Stretches go on from document to document, in the order of the corpus, as if it were one text: for
    files whose documents are short pieces of one text, such as paragraphs. Nothing marks the borders. The
    held-out text is scored document by document all the same."""
    lr: float | None = None
    """Peak rate; None: 2.5e-4, the paper's, at its width of 768, and in inverse proportion to narrower ones
    (Yang et al. 2021), up to 2e-3."""
    warmup_steps: int = 2000
    """Steps in which the rate climbs to it in a line, from 0."""
    warmup_share: float = 0.1
    """The climb is no longer than this share of all steps."""
    schedule: ScheduleName = "cosine"
    """cosine is the release's, half a wave over the whole run, of which the climb cuts off the beginning;
    cosine_after_warmup has its half wave between the end of the climb and that of the run."""
    optimizer: Algorithm = "openai_adam"
    """The release's Adam, or today's AdamW, where epsilon and decay are not corrected for the start."""
    beta1: float = 0.9
    """Adam's first decay."""
    beta2: float = 0.999
    """Adam's second decay."""
    eps: float = 1e-8
    """Adam's epsilon."""
    weight_decay: float = 0.01
    """Decoupled, of all matrices, embeddings among them; none for biases and norms."""
    clip: float | None = 1.0
    """Largest gradient norm, as the release's for tasks; the paper names none for pretraining."""
    candidates: int | None = None
    """Words that a training step's softmax compares with beside its targets; None: all. Narrow networks spend
    most of a step there. Evaluation compares all."""
    overlap: float = 0.5
    """Share of a window of held-out text that is only read, so that each token scored has so much before it,
    but where its document begins; 0: windows end to end, in half the time, at a higher perplexity."""

    def __post_init__(self) -> None:
        for name, choices in (("optimizer", Algorithm), ("schedule", ScheduleName)):
            if getattr(self, name) not in get_args(choices):
                raise choose(f"pretraining.{name}", getattr(self, name), get_args(choices))
        for name in ("epochs", "max_steps", "sequences", "least_steps", "candidates"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"pretraining.{name} is {value}; give 1 or more")
        if self.warmup_steps < 0:
            raise UsageError(f"pretraining.warmup_steps is {self.warmup_steps}; give 0 or more")
        for name, most in (("warmup_share", 1), ("overlap", 0.99)):
            if not 0 <= getattr(self, name) <= most:
                value = getattr(self, name)
                raise UsageError(f"pretraining.{name} is {value}; it must be between 0 and {most}")
        limits.check(self, "pretraining")

    def run(
        self,
        encoder: Encoder,
        codec: Codec,
        corpus: Documents,
        held_out: Documents | None,
        fitting: Fitting,
    ) -> dict[str, float]:
        """Train `encoder` in place; the weights with the best perplexity on `held_out` are kept.

        Returns that perplexity, of tokens and so not comparable between vocabularies, its loss in nats and
        its tokens; without `held_out` what the last epoch reported while training, named `train_…`.
        """
        with self._learning(encoder, codec) as (learner, words), token_cache(fitting.folder) as cache:
            source = self._source(learner, words, corpus, cache, fitting.seed)
            check = self._held_out(learner, words, held_out, cache, source.rows) if held_out else None
            return self._fit(learner, source, check, fitting)

    def find_rates(
        self, encoder: Encoder, codec: Codec, corpus: Documents, fitting: Fitting, stage: int = -1
    ) -> FoundRates:
        """What `training.lr_find` says of the one stage that there is."""
        with self._learning(encoder, codec) as (learner, words), token_cache(None) as cache:
            source = self._source(learner, words, corpus, cache, fitting.seed)
            chosen = stage_numbered([self.stage(learner, 1, source.steps(0))], stage)
            return find_rates(self._model(learner), chosen, source, fitting)

    @contextmanager
    def _learning(self, encoder: Encoder, codec: Codec) -> Iterator[tuple[GPT, GPTCodec]]:
        """Both; the vectors of marks, which no text has, are afterwards what they were, free of decay."""
        if not isinstance(encoder, GPT) or not isinstance(codec, GPTCodec):
            raise UsageError("this pretraining is for GPT only; choose the method gpt")
        marks = encoder.tokens.weight[-MARKS:].detach().clone()
        encoder.purpose("language_model")
        try:
            yield encoder, codec
        finally:
            encoder.purpose("task")
            with torch.no_grad():
                encoder.tokens.weight[-MARKS:] = marks

    def _model(self, encoder: GPT) -> Model:
        return Model(encoder, PlainText(candidates=self.candidates).head(encoder))

    def stage(self, encoder: GPT, epochs: int, steps: int) -> Stage:
        """Everything at one rate; `steps` are those of all epochs together."""
        lr = min(HIGHEST_LR, LR * max(1.0, WIDTH / encoder.width)) if self.lr is None else self.lr
        updates = min(self.warmup_steps, int(self.warmup_share * steps))
        schedules: dict[str, Schedule] = {
            "cosine": OpenAIWarmup("cosine", updates=updates),
            "cosine_after_warmup": WarmupCosine(updates=updates),
        }
        adam = OpenAIAdam if self.optimizer == "openai_adam" else AdamW
        optimizer: Optimizer = adam(self.beta1, self.beta2, self.eps)
        modules = tuple(encoder.groups())
        group = Group("language model", modules, lr, self.weight_decay, decay_all=False)
        return Stage("all", (group,), epochs, schedules[self.schedule], optimizer, self.clip)

    def _fit(
        self, encoder: GPT, source: RandomWindows, check: ScoredWindows | None, fitting: Fitting
    ) -> dict[str, float]:
        epochs, steps = budget(self.epochs, source.steps(0), self.max_steps)
        model = self._model(encoder)

        def validate(model: Model) -> dict[str, float]:
            assert check is not None
            return stream_scores(model, model.head, check)

        fitted = fit(
            model,
            [self.stage(encoder, epochs, epochs * -(-steps // fitting.accumulate))],
            Limited(source, steps, carries=False) if self.max_steps else source,
            fitting,
            validate if check else None,
            "perplexity",
            higher_is_better=False,
        )
        return summary(fitted)

    def _source(
        self, encoder: GPT, codec: GPTCodec, corpus: Documents, cache: Path, seed: int
    ) -> RandomWindows:
        tokens = token_file(corpus, codec.ids, codec.fingerprint(), cache)
        sequences, world, context = self.sequences, own_world(), encoder.config.context
        while sequences > FEWEST_SEQUENCES and len(tokens.ids) < (
            sequences * world * context * self.least_steps
        ):
            sequences = max(FEWEST_SEQUENCES, sequences // 2)
        starts = tokens.starts[[0, -1]] if self.across else tokens.starts
        return RandomWindows(
            tokens.ids, starts, context, sequences, seed, codec.pad_id, rank=own_rank(), world=world
        )

    def _held_out(
        self, encoder: GPT, codec: GPTCodec, held_out: Documents, cache: Path, rows: int
    ) -> ScoredWindows:
        tokens = token_file(held_out, codec.ids, codec.fingerprint(), cache)
        context = encoder.config.context
        overlap = min(context - 1, int(self.overlap * context))
        return ScoredWindows(np.asarray(tokens.ids), tokens.starts, context, rows, overlap, codec.pad_id)


PRETRAINING = GPTPretraining()
ADAPTATION = GPTPretraining(epochs=3)  # on the target's own text, a stage that the paper has not
