"""How ULMFiT learns from raw text: next-token prediction over streams, from nothing or from weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from pretune.data.corpus import token_file
from pretune.data.rows import Codec
from pretune.encoder import Encoder
from pretune.errors import UsageError, UserError, choose
from pretune.methods.raw_text import budget, summary, token_cache
from pretune.methods.ulmfit.encoder import AWDLSTM
from pretune.methods.ulmfit.tokens import UlmfitCodec
from pretune.tasks.base import Head
from pretune.tasks.next_token import NextToken, stream_scores
from pretune.tensors.streams import Limited, StreamSource
from pretune.training.loop import Fitting, fit
from pretune.training.model import Model
from pretune.training.optimizers import AdamW
from pretune.training.schedules import OneCycle, Schedule, SlantedTriangular
from pretune.training.sources import own_rank, own_world
from pretune.training.stage import Group, Stage

Corpus = Callable[[], Iterable[str]]

SCHEDULES: dict[str, Schedule] = {"one_cycle": OneCycle(), "slanted_triangular": SlantedTriangular()}
FEWEST_STREAMS = 8  # small corpora get no fewer than this for the sake of more steps
CONTEXT_WINDOWS = 10  # windows a stream is long at least, in evaluation, where every cut costs context


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
    lr: float = 5e-3
    """Peak rate."""
    divisors: tuple[float, ...] = ()
    """Rate of the embedding and of each layer is lr over these, bottom to top; empty: one rate for all.
    The release fine-tunes with (2, 6, 3, 1)."""
    schedule: Literal["one_cycle", "slanted_triangular"] = "one_cycle"
    """One cycle is fastai's; slanted triangles are the paper's (eq. 3)."""
    frozen_epochs: int = 0
    """Passes before that for the embedding and decoder bias alone, in which new words find their place."""
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
    drop_mult: float = 0.2
    """Factor on the encoder's language-model dropouts; the release took 0.5 on 100 million tokens."""
    candidates: int | None = None
    """Words that a training step's softmax compares with, beside the step's own targets: half of them the
    first of the vocabulary, half drawn from the others. None: all words, exactly. Evaluation is exact."""
    alpha: float = 2.0
    """Activation regularisation (AR), section 4.6 of Merity et al. (2017)."""
    beta: float = 1.0
    """Temporal activation regularisation (TAR)."""
    beta1: float = 0.8
    """Adam's first decay, as in the release."""
    beta2: float = 0.99
    """Adam's second decay."""
    weight_decay: float = 0.01
    """Decoupled, as in fastai 2."""
    clip: float | None = 0.25
    """Largest gradient norm."""

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise choose("pretraining.schedule", self.schedule, SCHEDULES)
        for name in ("epochs", "max_steps", "streams", "least_steps", "window", "candidates"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"pretraining.{name} is {value}; give 1 or more")

    def run(
        self, encoder: Encoder, codec: Codec, corpus: Corpus, held_out: Corpus | None, fitting: Fitting
    ) -> dict[str, float]:
        """Train `encoder` in place; the weights with the best perplexity on `held_out` are kept.

        Returns that perplexity, its loss in nats and its tokens; without `held_out` what the last epoch
        reported while training, named `train_…`.
        """
        if not isinstance(encoder, AWDLSTM) or not isinstance(codec, UlmfitCodec):
            raise UsageError("this pretraining is for AWD-LSTM only; choose the method ulmfit")
        encoder.purpose("language_model", self.drop_mult * encoder.config.language_model_drop_mult)
        try:
            with token_cache(fitting.folder) as cache:
                source = self._source(codec, corpus, cache, fitting.seed)
                check = self._held_out(codec, held_out, cache) if held_out else None
                return self._fit(encoder, source, check, fitting)
        finally:
            encoder.purpose("task")

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
        rates = {"schedule": SCHEDULES[self.schedule], "optimizer": AdamW(self.beta1, self.beta2)}
        moved = [(blocks[0], head), *((block,) for block in blocks[1:])]
        groups = [
            Group(name, modules, self.lr / divisor, self.weight_decay)
            for name, modules, divisor in zip(names, moved, divisors, strict=True)
        ]
        all_groups = Stage("all", tuple(groups), epochs, clip=self.clip, **rates)  # type: ignore[arg-type]
        if not self.frozen_epochs:
            return [all_groups]
        first = Group("embedding", moved[0], self.frozen_lr, self.weight_decay)
        alone = Stage("embedding", (first,), self.frozen_epochs, clip=self.clip, **rates)  # type: ignore[arg-type]
        return [alone, all_groups]

    def _fit(
        self, encoder: AWDLSTM, source: StreamSource, check: StreamSource | None, fitting: Fitting
    ) -> dict[str, float]:
        epochs, steps = budget(self.epochs, source.steps(0), self.max_steps)
        head = NextToken(encoder.output_p, self.candidates).head(encoder)
        model = Model(encoder, head, self.alpha, self.beta)

        def validate(model: Model) -> dict[str, float]:
            assert check is not None
            return stream_scores(model, model.head, check)

        fitted = fit(
            model,
            self.stages(encoder, head, epochs),
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
ADAPTATION = UlmfitPretraining(epochs=10, lr=4e-3, frozen_epochs=1, frozen_lr=2e-2, drop_mult=0.5)


def adopt(old_encoder: Encoder, old_codec: Codec, new_encoder: Encoder, new_codec: Codec) -> None:
    """All layers as they were; words by their strings, those that are new as the mean of all old ones.

    Embedding and decoder bias alike, section 3.2's starting point as the release makes it.
    """
    if not isinstance(old_encoder, AWDLSTM) or not isinstance(new_encoder, AWDLSTM):
        raise UsageError("only one AWD-LSTM can take over the weights of another")
    assert isinstance(old_codec, UlmfitCodec) and isinstance(new_codec, UlmfitCodec)
    if old_encoder.layer_widths() != new_encoder.layer_widths():
        raise UserError(
            f"layers of widths {old_encoder.layer_widths()} do not fit an encoder of "
            f"{new_encoder.layer_widths()}"
        )
    theirs = old_codec.vocab.ids
    at = torch.tensor([theirs.get(word, -1) for word in new_codec.vocab.words])  # (V,)
    old, new = old_encoder.embedding, new_encoder.embedding
    with torch.no_grad():
        for known, ours in ((old.weight, new.weight), (old.decoder_bias, new.decoder_bias)):
            ours.copy_(known[at.clamp(min=0)])
            ours[at < 0] = known.mean(0)
    if new.adaptive is not None and old.adaptive is not None:
        new.adaptive.adopt(old.adaptive, at)
    new_encoder.rnns.load_state_dict(old_encoder.rnns.state_dict())
