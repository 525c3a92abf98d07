"""How BERT learns from raw text: masked words, and whether one segment follows the other."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Literal, cast, get_args

from pretune.data.corpus import Documents
from pretune.data.rows import Codec
from pretune.encoder import Encoder
from pretune.errors import UsageError, UserError, choose
from pretune.keys import key
from pretune.methods.bert.encoder import BERT
from pretune.methods.bert.instances import Making
from pretune.methods.bert.reading import (
    AllInstances,
    InstanceSource,
    Leg,
    SentenceFile,
    Split,
    instance_file,
    legs_of,
    marks_of,
)
from pretune.methods.bert.tokens import BERTCodec
from pretune.methods.raw_text import token_cache
from pretune.recipes import limits
from pretune.tasks.masked_words import MaskedWords, MaskedWordsHead, masked_scores
from pretune.tasks.next_token import perplexity
from pretune.training.loop import Fitted, Fitting, fit
from pretune.training.lr_find import FoundRates, find_rates
from pretune.training.model import Model
from pretune.training.optimizers import AdamW, Optimizer
from pretune.training.published_optimizers import BERTAdam
from pretune.training.schedules import BERTLinear, Schedule, WarmupLinear
from pretune.training.sources import own_rank, own_world
from pretune.training.stage import Group, Stage, stage_numbered

Objective = Literal["mlm+nsp", "mlm", "ltr"]
Algorithm = Literal["bert_adam", "adamw"]
ScheduleName = Literal["linear", "linear_after_warmup"]

WIDTH, MOST_TIMES = 768, 10.0  # the published width, and how much more of its rate a narrow network gets
FEWEST_ROWS = 8  # small corpora get no fewer than this in a batch for the sake of more steps


@dataclass(frozen=True)
class BERTPretraining:
    """Appendix A.2 of Devlin et al. (2018), on data made as by its release (`instances.py`).

    Departures: passes, steps and warm-up are those of hours rather than weeks (`epochs`, `warmup_share`,
    `least_steps`), narrow networks learn faster (`lr`), and every pass cuts and masks the text anew
    (`dupe_factor`). With `epochs=40, rows=256, dupe_factor=10` on 3.3 billion words at the published width
    all is as published. Dropout is the encoder's.
    """

    objective: Objective = "mlm+nsp"
    """mlm+nsp: masked words in pairs of segments, and whether the second follows; mlm: masked words in single
    segments of running text ("No NSP", section 5.1); ltr: the next word in those, from left to right ("LTR
    & No NSP"), which needs encoder.causal=true."""
    epochs: int = 10
    """Passes over the corpus, about 40 in the paper; those over longer rows count by their steps."""
    max_steps: int | None = None
    """Most steps in those passes; fewer or shorter epochs then, and a schedule that ends there."""
    rows: int = 64
    """Instances of a batch, of each process; 256 in the paper."""
    least_steps: int = 100
    """They are halved, down to 8, while a pass has fewer steps than this: for small corpora."""
    length: int = 128
    """Tokens of an instance in most of the steps."""
    long_length: int = 512
    """Tokens of an instance in the last steps, which teach the later positions; the encoder's context at
    most."""
    long_share: float = 0.1
    """Share of the steps that are on those; 0: none are."""
    masked: float = 0.15
    """Share of an instance's tokens that are predicted; that share of its length, rounded up, is the most (20
    of 128, 77 of 512)."""
    short: float = 0.1
    """Share of documents that are cut into shorter instances, so that short texts are read as well."""
    whole_words: bool = False
    """Mask words with all their pieces, as the release's later models."""
    dupe_factor: int | None = None
    """In how many ways the text is cut and masked before the same instances come again; 10 in the release.
    None: anew in every pass."""
    split: Split = "sentences"
    """What a sentence is: found by end marks, or a line each, as the release has it."""
    lr: float | None = None
    """Peak rate; None: that of the width."""
    lr_at_768: float = 1e-4
    """Peak rate at the published width, where `lr` says nothing else: the paper's 1e-4; the README has 2e-5
    to go on from published weights. Narrower networks get more, in inverse proportion (Yang et al. 2021), up
    to tenfold."""
    warmup_steps: int = 10_000
    """Steps in which the rate climbs to it in a line, from 0."""
    warmup_share: float = 0.1
    """The climb is no longer than this share of all steps."""
    schedule: ScheduleName = "linear"
    """linear is the release's, whose descent counts from the first step, so that the rate drops at the end of
    the climb; linear_after_warmup falls from there."""
    optimizer: Algorithm = "bert_adam"
    """The release's Adam, which does not correct the bias of its first steps, or AdamW, which does."""
    beta1: float = 0.9
    """Adam's first decay."""
    beta2: float = 0.999
    """Adam's second decay."""
    eps: float = 1e-6
    """Adam's epsilon."""
    weight_decay: float = 0.01
    """Decoupled, of all matrices, embeddings among them; none for biases and norms."""
    clip: float | None = 1.0
    """Largest gradient norm."""

    def __post_init__(self) -> None:
        for name, choices in (
            ("objective", Objective),
            ("optimizer", Algorithm),
            ("schedule", ScheduleName),
            ("split", Split),
        ):
            if getattr(self, name) not in get_args(choices):
                raise choose(f"pretraining.{name}", getattr(self, name), get_args(choices))
        for name in ("epochs", "max_steps", "rows", "least_steps", "dupe_factor"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"pretraining.{name} is {value}; give 1 or more")
        for name in ("warmup_steps", "lr_at_768"):
            if getattr(self, name) < 0:
                raise UsageError(f"pretraining.{name} is {getattr(self, name)}; give 0 or more")
        for name in ("long_share", "masked", "short", "warmup_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"pretraining.{name} is {getattr(self, name)}; it must be between 0 and 1")
        if not self.masked and self.objective != "ltr":
            raise UsageError("pretraining.masked is 0, so that nothing would be predicted; give more")
        for name in ("length", "long_length"):
            if getattr(self, name) < 5:
                raise UsageError(
                    f"pretraining.{name} is {getattr(self, name)}; two segments need 5 tokens or more"
                )
        limits.check(self, "pretraining")

    def run(
        self, encoder: Encoder, codec: Codec, corpus: Documents, held_out: Documents | None, fitting: Fitting
    ) -> dict[str, float]:
        """Train `encoder` in place; the weights with the best perplexity of masked words on `held_out` stay.

        Returns that perplexity, which is of masked pieces and so compares models of one vocabulary alone, its
        loss in nats, the share of them that is guessed, the same of next sentences, and how many were masked.
        Held-out text is read in instances as long as the longest that are trained. Without `held_out`
        what the last epoch reported while training, named `train_…`.
        """
        learner, words = self._checked(encoder, codec)
        with token_cache(fitting.folder) as cache:
            source = self._source(learner, words, corpus, cache, fitting)
            check = self._held_out(words, held_out, cache, source.rows) if held_out else None
            return self._fit(learner, source, check, fitting)

    def find_rates(
        self, encoder: Encoder, codec: Codec, corpus: Documents, fitting: Fitting, stage: int = -1
    ) -> FoundRates:
        """What `training.lr_find` says of the one stage that there is."""
        learner, words = self._checked(encoder, codec)
        with token_cache(None) as cache:
            source = self._source(learner, words, corpus, cache, fitting)
            chosen = stage_numbered([self.stage(learner, 1, source.steps(0))], stage)
            return find_rates(self._model(learner), chosen, source, fitting)

    def _checked(self, encoder: Encoder, codec: Codec) -> tuple[BERT, BERTCodec]:
        if not isinstance(encoder, BERT) or not isinstance(codec, BERTCodec):
            raise UsageError("this pretraining is for BERT only; choose the method bert")
        if encoder.config.causal != (self.objective == "ltr"):
            raise UsageError(
                f"objective is {self.objective}, and encoder.causal is {str(encoder.config.causal).lower()}: "
                "what tells words from those before them must not see those after them. objective=ltr goes "
                "with encoder.causal=true, the others with false"
            )
        for name in ("length", *(["long_length"] if self.long_share else [])):
            said, most = getattr(self, name), encoder.config.context
            if said > most:
                also = " or long_share=0" if name == "long_length" else ""
                raise UsageError(
                    f"pretraining.{name} is {said}, but the encoder reads rows of {most} tokens at most; set "
                    f"pretraining.{name}={most}{also}"
                )
        return encoder, codec

    def _model(self, encoder: BERT) -> Model:
        return Model(encoder, MaskedWords(self.objective == "mlm+nsp").head(encoder))

    def stage(self, encoder: BERT, epochs: int, steps: int) -> Stage:
        """Everything at one rate; `steps` are those of all epochs together."""
        times = min(MOST_TIMES, max(1.0, WIDTH / encoder.width))
        lr = self.lr_at_768 * times if self.lr is None else self.lr
        updates = min(self.warmup_steps, int(self.warmup_share * steps))
        schedules: dict[str, Schedule] = {
            "linear": BERTLinear(updates=updates),
            "linear_after_warmup": WarmupLinear(updates / max(1, steps)),
        }
        adam = BERTAdam if self.optimizer == "bert_adam" else AdamW
        optimizer: Optimizer = adam(self.beta1, self.beta2, self.eps)
        group = Group("language model", tuple(encoder.groups()), lr, self.weight_decay, decay_all=False)
        return Stage("all", (group,), epochs, schedules[self.schedule], optimizer, self.clip)

    def _fit(
        self, encoder: BERT, source: InstanceSource, check: AllInstances | None, fitting: Fitting
    ) -> dict[str, float]:
        model = self._model(encoder)
        head = cast(MaskedWordsHead, model.head)

        def validate(model: Model) -> dict[str, float]:
            assert check is not None
            return masked_scores(model, head, check)

        steps = sum(ceil(leg.steps / fitting.accumulate) for leg in source.legs)
        fitted = fit(
            model,
            [self.stage(encoder, len(source.legs), steps)],
            source,
            fitting,
            validate if check else None,
            "perplexity",
            higher_is_better=False,
        )
        return _summary(fitted)

    def making(self, length: int) -> Making:
        """How instances of that length are made."""
        following = self.objective == "ltr"
        return Making(
            length,
            length - 2 if following else max(1, ceil(self.masked * length)),
            0.0 if following else self.masked,
            self.short,
            self.whole_words,
            self.objective == "mlm+nsp",
        )

    def _source(
        self, encoder: BERT, codec: BERTCodec, corpus: Documents, cache: Path, fitting: Fitting
    ) -> InstanceSource:
        documents = SentenceFile.of(corpus, codec, self.split, cache)
        if self.objective == "mlm+nsp" and documents.sentences == len(documents):
            raise UserError(
                "no document has a second sentence, so that no segment ever follows another; give longer "
                "documents, pretraining.split=lines where lines are sentences, or pretraining.objective=mlm"
            )
        source = InstanceSource(
            documents, marks_of(codec), codec.pad_id, [], self.rows, fitting.seed, own_rank(), own_world()
        )
        source.quiet = fitting.quiet or source.rank > 0
        short, long = self.making(self.length), self.making(self.long_length)
        found = self._instances(source, short)
        while source.rows > FEWEST_ROWS and found < source.rows * source.world * self.least_steps:
            source.rows = max(FEWEST_ROWS, source.rows // 2)
        together = source.rows * source.world
        steps = self.epochs * max(1, found // together)
        steps = min(steps, self.max_steps or steps)
        last = round(steps * self.long_share)
        source.legs = legs_of(steps - last, max(1, found // together), short, self.dupe_factor)
        if last:
            of_pass = max(1, self._instances(source, long) // together)
            source.legs += legs_of(last, of_pass, long, self.dupe_factor)
        source.quiet = True  # those of later passes are made while training shows its own progress
        return source

    def _instances(self, source: InstanceSource, making: Making) -> int:
        """How many there are in a pass."""
        found = len(source.instances(Leg(making, 0, 0)))
        if not found:
            raise UserError("the corpus has no sentence to mask words in; give more text")
        return found

    def _held_out(self, codec: BERTCodec, held_out: Documents, cache: Path, rows: int) -> AllInstances:
        documents = SentenceFile.of(held_out, codec, self.split, cache)
        making = self.making(max(self.length, self.long_length) if self.long_share else self.length)
        seed = key("held out", making)
        found = instance_file(documents, making, marks_of(codec), seed, documents.beside("held out", making))
        return AllInstances(found, codec.pad_id, making.pairs, rows)


def _summary(fitted: Fitted) -> dict[str, float]:
    """The best scores on held-out text, else what the last epoch reported."""
    trained = {"trained_tokens": float(fitted.tokens)}
    if fitted.best:
        return {**fitted.best, **trained}
    last = fitted.history[-1]
    parts = last.get("losses", {})
    loss = float(parts.get("masked_words", last["loss"]))
    found = {"train_loss": loss, "train_perplexity": perplexity(loss, 1)}
    if "next_sentences" in parts:
        found["train_next_loss"] = float(parts["next_sentences"])
    return {**found, **trained}


PRETRAINING = BERTPretraining()
ADAPTATION = BERTPretraining(
    epochs=3, lr=2e-5, long_share=0.0
)  # the README's rate; small models want a higher one
