"""Embedder: vectors of sentences, from any model folder, in batches that leave no trace in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretune.data.rows import Codec
from pretune.data.sentences import sentences as split_sentences
from pretune.encoder import Encoded, Encoder
from pretune.errors import UsageError, UserError, choose
from pretune.layers.packing import Precision
from pretune.layers.scalar_mix import ScalarMix
from pretune.methods.elmo import ELMo, ELMoConfig
from pretune.recipes.frozen import FrozenFeatures
from pretune.runs.folders import read_config
from pretune.runs.readings import Reading, Sentence
from pretune.runs.run import load_start
from pretune.runs.starts import Start, for_task
from pretune.runs.token_vectors import use_token_vectors
from pretune.runs.trained import load_model
from pretune.runs.warm_text import WARM_TEXTS
from pretune.tensors.batch import Batch, collate
from pretune.tensors.lengths import answer_batches
from pretune.training.devices import find_device

Array = NDArray[np.float32]
Vectors = Array | list[Array]  # a list where the layers differ in width
Layers = Literal["all", "top", "average", "mix", "concat4", "summary"]
State = Literal["zero", "warm", "carry"]
Align = Literal["words"]

WINDOW = 4096  # sentences that are sorted by length together,
WINDOW_BYTES = 128 << 20  # or fewer, where their vectors are more than this
CONCATENATED = 4  # layers of "concat4"


class Embedded(NamedTuple):
    """A sentence's vectors and what each stands for."""

    words: list[str]
    vectors: Vectors


@dataclass
class Embedder:
    """An encoder that reads sentences.

        embedder = Embedder.load("models/elmo")
        embedder.embed(["I ate a sandwich.", ["You", "did", "?"]], layers="average")[0]  # (T, D)

    `state` says where a recurrent encoder begins each sentence. "zero": at zeros, so that the vectors of a
    sentence depend on nothing else. "warm": at the state after a fixed text, the same for every sentence, so
    that they depend on nothing else either. "carry": where the sentence before it ended, row by row, as the
    original ELMo does.
    """

    start: Start
    mix: ScalarMix
    mixing: str  # where the mix comes from, for the user
    state: State = "zero"
    align: Align | None = None
    warm: Any = None  # the state after the fixed text, of one row

    @classmethod
    def load(
        cls,
        folder: str | Path,
        state: State = "zero",
        device: str = "auto",
        align: Align | None = None,
        *,
        warm_text: str | None = None,
        token_vectors: str | Path | None = None,
        vocabulary: str | Path | None = None,
        precision: str = "float32",
    ) -> Embedder:
        """A folder that `pretrain`, `adapt`, `import` or `finetune` left.

        `align="words"` gives one vector a word where the codec's tokens are something else: the mean of those
        that cover it. `warm_text` takes the place of the built-in text of `state="warm"`. `token_vectors`
        is a file of ELMo's vectors of words without context (`runs/token_vectors.py`), to be used for the
        words that it has; `vocabulary` names them where the file does not. `precision` is of the weights of
        ELMo's LSTMs: float32, or float16 or int8, which are quicker and less exact.
        """
        for name, said, possible in (("state", state, State), ("align", align or "words", Align)):
            if said not in get_args(possible):
                raise choose(name, said, get_args(possible))
        if warm_text is not None and state != "warm":
            raise UsageError(f"a warm text is for state warm; state is {state}")
        start, encoder = _loaded(Path(folder))
        mix, mixing = _mix_of(encoder)
        start.encoder.purpose("task")
        start.encoder.to(find_device(device)).eval()
        _set_precision(start.encoder, precision)
        embedder = cls(start, mix.cpu().eval(), mixing, state, align)
        if token_vectors is not None:
            use_token_vectors(start, Path(token_vectors), None if vocabulary is None else Path(vocabulary))
        elif vocabulary is not None:
            raise UsageError("vocabulary names the words of a file of token vectors; give that as well")
        if state == "warm":
            embedder.warm = embedder.after(warm_text)
        return embedder

    @classmethod
    def of(cls, start: Start) -> Embedder:
        """Around an encoder at hand, with the uniform mix and from a state of zeros."""
        return cls(start, *_mix_of(start.encoder))

    @property
    def encoder(self) -> Encoder:
        return self.start.encoder

    @property
    def codec(self) -> Codec:
        return self.start.codec

    def embed(
        self,
        sentences: Sequence[Sentence],
        layers: Layers = "all",
        batch_size: int = 32,
        batch_tokens: int | None = None,
    ) -> list[Vectors]:
        """Of each sentence, in order: (L, T, D) for "all", or L × (T, D_l) where widths differ; (T, D) for
        "top", "average" and "mix"; (T, 4D) for "concat4", the top one first, which BERT's paper found best
        (table 7); (S,) for "summary". Special tokens have no vectors; neither has an empty sentence.

        "average" and "mix" are over the layers as wide as the top one. A batch is `batch_size` sentences, or
        as many as have `batch_tokens` tokens together.
        """
        if isinstance(sentences, str):
            raise UsageError("embed takes a list of sentences; this is one text: write embed([text])")
        return [found.vectors for found in self.stream(sentences, layers, batch_size, batch_tokens)]

    def stream(
        self,
        sentences: Iterable[Sentence],
        layers: Layers = "all",
        batch_size: int = 32,
        batch_tokens: int | None = None,
    ) -> Iterator[Embedded]:
        """As `embed`, for any number of sentences: some thousands are read, sorted by length, and given back
        in their order before the next are.
        """
        if layers not in get_args(Layers):
            raise choose("layers", layers, get_args(Layers))
        if layers == "concat4":
            self.shape(0, layers)
        if batch_size < 1 or (batch_tokens is not None and batch_tokens < 1):
            raise UsageError("a batch needs at least 1 sentence, or 1 token")
        if self.state == "carry" and batch_tokens is not None:
            raise UsageError("state=carry carries from row to row of like batches; give batch_size instead")
        readings = (self._reading(sentence, number) for number, sentence in enumerate(sentences, 1))
        if self.state == "carry":
            yield from self._in_order(readings, layers, batch_size)
            return
        for window in self._windows(readings, layers):
            found: dict[int, Embedded] = {}
            for wanted in _batches([len(r.row) for r in window], batch_size, batch_tokens):
                some = [window[i] for i in wanted]
                found |= zip(wanted, self._embedded(some, layers, self._begin(len(some)))[0], strict=True)
            yield from (found[i] for i in range(len(window)))

    def step(
        self, sentences: Sequence[Sentence], layers: Layers = "all", carry: Any = None
    ) -> tuple[list[Vectors], Any]:
        """One batch of sentences as they stand, from the state `carry` (None: zeros): their vectors, and the
        state after them, which is None for encoders that keep none.
        """
        readings = [self._reading(sentence, number) for number, sentence in enumerate(sentences, 1)]
        found, carry = self._embedded(readings, layers, carry)
        return [one.vectors for one in found], carry

    def outputs(
        self, sentences: Sequence[Sentence], sequence_len: Sequence[int] | None = None, batch_size: int = 32
    ) -> dict[str, NDArray[Any]]:
        """What TF-Hub's `google/elmo` returned, by its names, for b sentences of at most T words.

        `word_emb` (b, T, D), `lstm_outputs1`, `lstm_outputs2`, ... (b, T, 2D), `elmo` (b, T, 2D) their mix,
        `default` (b, 2D) its mean over the words of each sentence, `sequence_len` (b,); zero at padding. As
        there, a text is split at single spaces and nowhere else; lists of words that are padded with "" need
        their `sequence_len`.
        """
        config = self.start.encoder_config
        if not isinstance(config, ELMoConfig):
            raise UsageError(f"the outputs of TF-Hub are ELMo's; this folder holds {self.start.method.name}")
        words = [[w for w in s.split(" ") if w] if isinstance(s, str) else list(s) for s in sentences]
        if sequence_len is not None:
            words = [some[:length] for some, length in zip(words, sequence_len, strict=True)]
        lengths = [len(some) for some in words]
        L, T = config.layers + 1, max(lengths, default=0)
        layers = np.zeros((L, len(words), T, self.encoder.width), np.float32)  # (L, b, T, 2D)
        elmo = np.zeros(layers.shape[1:], np.float32)
        for b, found in enumerate(self.stream(words, "all", batch_size)):
            own = np.asarray(found.vectors)  # (L, T', 2D)
            layers[:, b, : lengths[b]] = own
            elmo[b, : lengths[b]] = self._mixed([torch.from_numpy(h) for h in own]).numpy()
        named: dict[str, NDArray[Any]] = {"word_emb": layers[0, :, :, : config.projection_dim].copy()}
        named |= {f"lstm_outputs{number}": layers[number] for number in range(1, L)}
        counted = np.maximum(lengths, 1).astype(np.float32)[:, None]
        default = elmo.sum(1) / counted
        return named | {"elmo": elmo, "default": default, "sequence_len": np.array(lengths, np.int32)}

    def after(self, text: str | None = None) -> Any:
        """The state of one row after the sentences of `text`, or of the built-in one, read from zero."""
        language = getattr(getattr(self.codec, "config", None), "language", "en")
        text = WARM_TEXTS.get(language, WARM_TEXTS["en"]) if text is None else text
        if not text.strip():
            raise UsageError("the warm text is blank")
        carry = None
        for sentence in split_sentences(text):
            _, carry = self._embedded([self._reading(sentence)], "top", carry)
            self._check_carried(carry, 1)
        return carry

    def shape(self, words: int, layers: Layers) -> tuple[int, ...]:
        """Of the vectors of a sentence of so many words; raises `UsageError` where layers differ in width."""
        widths, width = self.encoder.layer_widths(), self.encoder.width
        if layers == "summary":
            return (self.encoder.summary_width,)
        if layers == "concat4":
            if widths[-CONCATENATED:] != (width,) * CONCATENATED:
                raise UsageError(
                    f"layers concat4 wants {CONCATENATED} layers of one width; {self.start.method.name} has "
                    f"{', '.join(map(str, widths))}"
                )
            return words, CONCATENATED * width
        if layers != "all":
            return words, width
        if len(set(widths)) > 1:
            raise UsageError(
                f"the layers of {self.start.method.name} are {', '.join(map(str, widths))} wide and make no "
                "one array; choose layers top, average, mix or summary"
            )
        return len(widths), words, width

    def words(self, sentence: Sentence, number: int = 1) -> list[str]:
        """What the vectors of a sentence will stand for, one each; `number` is for messages."""
        return self._reading(sentence, number).words

    def _reading(self, sentence: Sentence, number: int = 1) -> Reading:
        return Reading.of(self.codec, sentence, self.align is not None, f"sentence {number}")

    def _windows(self, readings: Iterable[Reading], layers: Layers) -> Iterator[list[Reading]]:
        widths = self.encoder.layer_widths()
        each = 4 * (sum(widths) if layers in ("all", "concat4") else self.encoder.width)  # bytes a word
        held: list[Reading] = []
        size = 0
        for reading in readings:
            held.append(reading)
            size += 4 * self.encoder.summary_width if layers == "summary" else each * len(reading.words)
            if len(held) == WINDOW or size > WINDOW_BYTES:
                yield held
                held, size = [], 0
        if held:
            yield held

    def _in_order(self, readings: Iterator[Reading], layers: Layers, batch_size: int) -> Iterator[Embedded]:
        carry = None
        while some := list(islice(readings, batch_size)):
            found, carry = self._embedded(some, layers, carry)
            self._check_carried(carry, len(some))
            yield from found

    def _begin(self, rows: int) -> Any:
        return None if self.warm is None else _repeated(self.warm, rows)

    def _check_carried(self, carry: Any, rows: int) -> None:
        if carry is None:
            name = self.start.method.name
            one = f"{name} gives a state after batches of one sentence only; give them one by one, or"
            raise UsageError(
                f"state is {self.state}: {one if rows > 1 else f'{name} keeps no state;'} choose state zero"
            )

    def _embedded(
        self, readings: Sequence[Reading], layers: Layers, carry: Any
    ) -> tuple[list[Embedded], Any]:
        self.encoder.purpose("task")
        batch = self._batch(readings, hide=layers != "summary")
        with torch.no_grad():
            encoded = self.encoder(batch.to(next(self.encoder.parameters()).device), carry)
            return list(self._taken(encoded, readings, layers)), encoded.carry

    def _batch(self, readings: Sequence[Reading], hide: bool) -> Batch:
        """The rows as a batch; an empty sentence of a spelling codec is no word at all, but for summaries."""
        batch = collate(
            [[r.row] for r in readings], self.codec.pad_id, spell=getattr(self.codec, "spell", None)
        )
        if hide and batch.words is not None:
            empty = [n for n, r in enumerate(readings) if not r.words]
            batch.mask[empty] = False
        return batch

    def _taken(self, encoded: Encoded, readings: Sequence[Reading], layers: Layers) -> Iterator[Embedded]:
        if layers == "summary":
            summaries = encoded.summary.float().cpu().numpy()  # (N, S)
            yield from (Embedded(r.words, s.copy()) for r, s in zip(readings, summaries, strict=True))
            return
        tensors = [h.cpu() for h in (encoded.layers[-1:] if layers == "top" else encoded.layers)]
        for n, reading in enumerate(readings):
            own = [reading.of_words(h[n]) for h in tensors]  # L × (T, D_l)
            yield Embedded(reading.words, self._combined(own, layers))

    def _combined(self, own: list[Tensor], layers: Layers) -> Vectors:
        """L × (T, D_l) of one sentence -> what was asked for."""
        alike = [h for h in own if h.shape == own[-1].shape]
        if layers == "all":
            one_width = len(alike) == len(own) and len(set(self.encoder.layer_widths())) == 1
            return torch.stack(own).numpy() if one_width else [h.clone().numpy() for h in own]
        if layers == "average":
            return torch.stack(alike).mean(0).numpy()
        if layers == "concat4":
            return torch.cat(own[: -CONCATENATED - 1 : -1], -1).numpy()  # (T, 4D)
        if layers == "mix":
            return self._mixed(alike[-self.mix.layers :]).numpy()
        return own[-1].clone().numpy()

    def _mixed(self, own: Sequence[Tensor]) -> Tensor:
        """L × (T, D) of one sentence -> (T, D); a layer norm, which is over a batch, is over it alone."""
        if not len(own[0]):
            return own[0]
        with torch.no_grad():
            mixed: Tensor = self.mix([h[None] for h in own], torch.ones(1, len(own[0]), dtype=torch.bool))[0]
        return mixed


def _loaded(folder: Path) -> tuple[Start, Encoder]:
    """A folder's encoder for tasks, and the same as the folder's recipe wrapped it."""
    config = read_config(folder)
    if config["kind"] == "model":
        trained = load_model(folder, config)
        return trained.start, trained.model.encoder
    start = load_start(folder)
    if isinstance(start, list):
        names = ", ".join(str(folder / one.name) for one in start)
        raise UserError(f"{folder} holds several models; embed with one of them: {names}")
    start = for_task(start)
    return start, start.encoder


def _mix_of(encoder: Encoder) -> tuple[ScalarMix, str]:
    if isinstance(encoder, FrozenFeatures) and encoder.mixes():
        mix, learned = next(iter(encoder.mixes().values())), encoder.learned()[0]
        which = "the first of two mixes" if len(encoder.mixes()) > 1 else "the mix"
        shares = ", ".join(f"{share:.3f}" for share in learned.weights)
        return mix, f"{which} learned with the task: layers at {shares}, gamma {learned.gamma:.3f}"
    count = sum(width == encoder.width for width in encoder.layer_widths())
    said = (
        f"this folder has learned no mix of layers; the mix is the mean of {count} layer{'s' * (count != 1)}"
    )
    return ScalarMix(count, frozen=True), said


def _set_precision(encoder: Encoder, precision: str) -> None:
    if precision not in get_args(Precision):
        raise choose("precision", precision, get_args(Precision))
    if isinstance(encoder, ELMo):
        encoder.precision = precision  # type: ignore[assignment]
    elif precision != "float32":
        raise UsageError(f"precision is {precision}, which only ELMo can read with; use float32")


def _repeated(carry: Any, rows: int) -> Any:
    """The state of one row for many: rows are the last dimension but one of each tensor."""
    if isinstance(carry, Tensor):
        return carry.repeat_interleave(rows, dim=-2)
    return tuple(_repeated(part, rows) for part in carry)


def _batches(lengths: Sequence[int], batch_size: int, tokens: int | None) -> Iterator[list[int]]:
    """Indices, longest first: `batch_size` in each, or as many as have `tokens` together."""
    if tokens is None:
        yield from answer_batches(lengths, batch_size)
        return
    held: list[int] = []
    size = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if held and size + lengths[i] > tokens:
            yield held
            held, size = [], 0
        held.append(i)
        size += lengths[i]
    if held:
        yield held
