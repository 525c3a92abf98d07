"""How ELMo learns from raw text: the next word both ways, over streams of sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from numpy.typing import NDArray
from torch import Tensor

from pretune.data.corpus import Corpus, derived, token_file
from pretune.data.rows import Codec
from pretune.data.spelling import END, START
from pretune.data.token_file import TokenFile
from pretune.data.vocab import Vocab
from pretune.encoder import Encoder
from pretune.errors import UsageError, UserError, choose
from pretune.methods.elmo.encoder import ELMo
from pretune.methods.elmo.tokens import UNKNOWN, ElmoCodec
from pretune.methods.raw_text import budget, summary, token_cache
from pretune.recipes import limits
from pretune.tasks.both_ways import BothWays
from pretune.tasks.next_token import stream_scores
from pretune.tensors.streams import Limited
from pretune.tensors.two_ways import WAYS, TwoWaySource
from pretune.training.loop import Fitting, fit
from pretune.training.lr_find import FoundRates, find_rates
from pretune.training.model import Model
from pretune.training.optimizers import Adagrad, AdamW, Optimizer
from pretune.training.schedules import Constant, Schedule, WarmupLinear
from pretune.training.sources import own_rank, own_world
from pretune.training.stage import Group, Stage, stage_numbered

Documents = Callable[[], Iterable[str]]
Algorithm = Literal["adagrad", "adamw"]
FEWEST_STREAMS = 8  # small texts get no fewer than this for the sake of more steps


@dataclass(frozen=True)
class ElmoPretraining:
    """Section 3.4 of Peters et al. (2018), with the constants of the release's `bin/train_elmo.py`.

    Departures: state begins at zero with each pass and in a share of the windows, and the length of
    training is counted in passes and steps, not in a number of tokens that one has to know.
    """

    epochs: int = 10
    """Passes over the text."""
    max_steps: int | None = None
    """Most windows read in those passes; fewer or shorter epochs then, and a schedule that ends there."""
    optimizer: Algorithm = "adagrad"
    """adagrad as published. adamw learns faster from texts that take hours rather than weeks."""
    lr: float | None = None
    """Rate; None: 0.2 for adagrad, constant; 2e-3 at the peak for adamw, up and down in a line."""
    streams: int = 128
    """Streams of sentences that are read side by side, each way and in each process."""
    least_steps: int = 100
    """Streams are halved, down to 8, while a pass has fewer steps than this: for small texts."""
    window: int = 20
    """Words of each stream a step: the reach of the gradient (unroll_steps)."""
    restarts: float = 0.1
    """Share of the windows whose state begins at zero, drawn anew for each. The release has none: its state
    is never reset, and such a model may be lost where a text begins at zero, as by default texts do here."""
    candidates: int | None = 8192
    """Words that a training step compares its targets with; None: all, exactly. Evaluation compares all."""
    dropout: float = 0.1
    """Before the softmax; that of the LSTMs is the encoder's."""
    clip: float = 10.0
    """Largest norm of the gradient of the loss times `window`: the release's all_clip_norm_val."""

    def __post_init__(self) -> None:
        if self.optimizer not in get_args(Algorithm):
            raise choose("pretraining.optimizer", self.optimizer, get_args(Algorithm))
        for name in ("epochs", "max_steps", "streams", "least_steps", "window", "candidates"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"pretraining.{name} is {value}; give 1 or more")
        limits.check(self, "pretraining")

    def run(
        self, encoder: Encoder, codec: Codec, corpus: Documents, held_out: Documents | None, fitting: Fitting
    ) -> dict[str, float]:
        """Train `encoder` in place; the weights with the best perplexity on `held_out` are kept.

        Returns that perplexity, over both directions and all words, its loss in nats and its tokens; without
        `held_out` the last epoch's, named `train_…`, which is of the drawn words alone and so far too good.
        """
        with self._learning(encoder, codec) as (learner, words, vocab), token_cache(fitting.folder) as cache:
            source = self.source(learner, words, vocab, corpus, cache, fitting.seed)
            check = self._held_out(learner, words, vocab, held_out, cache) if held_out else None
            return self._fit(learner, source, check, fitting)

    def find_rates(
        self, encoder: Encoder, codec: Codec, corpus: Documents, fitting: Fitting, stage: int = -1
    ) -> FoundRates:
        """What `training.lr_find` says of the one stage that there is."""
        with self._learning(encoder, codec) as (learner, words, vocab), token_cache(None) as cache:
            chosen = stage_numbered([self.stage(learner, 1)], stage)
            source = self.source(learner, words, vocab, corpus, cache, fitting.seed)
            return find_rates(self._model(learner), chosen, source, fitting)

    @contextmanager
    def _learning(self, encoder: Encoder, codec: Codec) -> Iterator[tuple[ELMo, ElmoCodec, Vocab]]:
        if not isinstance(encoder, ELMo) or not isinstance(codec, ElmoCodec) or codec.vocab is None:
            raise UsageError(
                "this pretraining is for ELMo with a vocabulary to predict; choose the method elmo"
            )
        encoder.purpose("language_model")
        try:
            yield encoder, codec, codec.vocab
        finally:
            encoder.purpose("task")

    def _model(self, encoder: ELMo) -> Model:
        return Model(encoder, BothWays(self.candidates, self.dropout).head(encoder))

    def stage(self, encoder: ELMo, epochs: int) -> Stage:
        """Everything at one rate.

        The release multiplies the loss by the window, which Adagrad notices because its sum of squares
        begins at 1. Here the loss stays a mean per word, and that sum and the clip are divided instead:
        the same steps.
        """
        optimizer: Optimizer = Adagrad(1 / self.window**2)
        schedule: Schedule = Constant()
        lr = 0.2 if self.lr is None else self.lr
        if self.optimizer == "adamw":
            optimizer, schedule = AdamW(0.9, 0.99), WarmupLinear(0.05)
            lr = 2e-3 if self.lr is None else self.lr
        group = Group("language model", tuple(encoder.groups()), lr)
        return Stage("all", (group,), epochs, schedule, optimizer, self.clip / self.window)

    def _fit(
        self, encoder: ELMo, source: TwoWaySource, check: TwoWaySource | None, fitting: Fitting
    ) -> dict[str, float]:
        epochs, steps = budget(self.epochs, source.steps(0), self.max_steps)
        model = self._model(encoder)

        def validate(model: Model) -> dict[str, float]:
            assert check is not None
            return stream_scores(model, model.head, check)

        fitted = fit(
            model,
            [self.stage(encoder, epochs)],
            Limited(source, steps) if self.max_steps else source,
            fitting,
            validate if check else None,
            "perplexity",
            higher_is_better=False,
        )
        return summary(fitted)

    def source(
        self, encoder: ELMo, codec: ElmoCodec, vocab: Vocab, corpus: Documents, cache: Path, seed: int
    ) -> TwoWaySource:
        """The streams of a corpus, shuffled."""
        settings = {"seed": seed, "restarts": self.restarts, "rank": own_rank(), "world": own_world()}
        return self._streams(encoder, codec, vocab, corpus, cache, **settings)

    def _held_out(
        self, encoder: ELMo, codec: ElmoCodec, vocab: Vocab, held_out: Documents, cache: Path
    ) -> TwoWaySource:
        return self._streams(encoder, codec, vocab, held_out, cache, shuffle=False, whole=True)

    def _streams(
        self, encoder: ELMo, codec: ElmoCodec, vocab: Vocab, corpus: Documents, cache: Path, **settings: Any
    ) -> TwoWaySource:
        tokens, words = tokens_of(corpus, codec, vocab, cache)
        streams, world = self.streams, settings.get("world", 1)
        targets = len(tokens.ids) + len(tokens)
        while streams > FEWEST_STREAMS and targets < streams * world * self.window * self.least_steps:
            streams = max(FEWEST_STREAMS, streams // 2)
        spell = codec.spell

        def characters(ids: NDArray[Any]) -> Tensor:
            assert spell is not None
            return spell([words[i] for i in ids.tolist()])

        return TwoWaySource(
            tokens.ids,
            tokens.starts,
            len(vocab),
            (vocab.ids[START], vocab.ids[END], vocab.ids[UNKNOWN]),
            characters if spell is not None else None,
            WAYS[: encoder.ways],
            streams,
            self.window,
            **settings,
        )


PRETRAINING = ElmoPretraining()
# One pass over the text of the task, appendix A.1. The release goes on with sums of squares, which published
# weights come without; Adam does without them.
ADAPTATION = ElmoPretraining(epochs=1, optimizer="adamw", lr=1e-3)


def tokens_of(
    corpus: Documents, codec: ElmoCodec, vocab: Vocab, cache: Path
) -> tuple[TokenFile, tuple[str, ...]]:
    """A sentence an entry, and the words behind the ids: the vocabulary's, then all others of the corpus.

    The others can only be read; they are kept in memory, about 100 bytes each.
    """
    whole = Corpus.around(corpus)
    name = blake2b(f"{codec.fingerprint()} {whole.fingerprint()}".encode(), digest_size=16).hexdigest()
    lines = derived(
        whole, lambda stream: (line for text in stream for line in codec.sentences(text)), "sentences"
    )
    known = cache / f"words-{name}.txt"
    ids = dict(vocab.ids)
    if known.is_file():
        ids = dict(Vocab.load(known).ids)

    def encode(texts: list[str]) -> list[list[int]]:
        return [[ids.setdefault(word, len(ids)) for word in codec.words(text)] for text in texts]

    tokens = token_file(lines, encode, codec.fingerprint(), cache)
    if not known.is_file():
        if len(tokens.ids) and int(tokens.ids.max()) >= len(ids):  # a run was killed between the two files
            for line in lines():
                encode([line])
        Vocab(ids).save(known)
    return tokens, tuple(ids)


def adopt(old_encoder: Encoder, old_codec: Codec, new_encoder: Encoder, new_codec: Codec) -> None:
    """All layers as they were; the softmax by its words, those that are new as the old unknown word.

    A model that came without a softmax begins with a fresh one.
    """
    if not isinstance(old_encoder, ELMo) or not isinstance(new_encoder, ELMo):
        raise UsageError("only one ELMo can take over the weights of another")
    assert isinstance(old_codec, ElmoCodec) and isinstance(new_codec, ElmoCodec)
    kept = {
        name: x
        for name, x in old_encoder.state_dict().items()
        if name.partition(".")[0] in ("characters", "rnns")
    }
    for name, x in kept.items():
        if name not in new_encoder.state_dict() or new_encoder.state_dict()[name].shape != x.shape:
            raise UserError(f"the encoders differ in {name}; only one of the same size can be taken over")
    new_encoder.load_state_dict(kept, strict=False)
    theirs = old_codec.vocab.ids if old_codec.vocab else {}
    if not theirs or new_codec.vocab is None:
        return
    at = torch.tensor([theirs.get(word, theirs[UNKNOWN]) for word in new_codec.vocab.words])  # (V,)
    pairs = [(old_encoder.softmax_weight, new_encoder.softmax_weight)]
    pairs += [(old_encoder.softmax_bias, new_encoder.softmax_bias)]
    if old_encoder.words is not None and new_encoder.words is not None and not old_encoder.config.tied:
        pairs.append((old_encoder.words.weight, new_encoder.words.weight))
    with torch.no_grad():
        for old, new in pairs:
            if old is not None and new is not None:
                new.copy_(old[at])
