"""LanguageModel: what a pretrained folder says of text: how likely it is, and what could stand in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isnan, nan
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pretune.data.rows import Row
from pretune.data.samples import Part, Sample
from pretune.data.vocab import Vocab
from pretune.errors import UsageError, UserError, choose
from pretune.methods.elmo import ElmoCodec
from pretune.methods.elmo.tokens import SPECIALS
from pretune.methods.ulmfit import UlmfitCodec
from pretune.methods.ulmfit.rules import SPECIALS as RULES
from pretune.runs.embedder import Embedder
from pretune.runs.folders import read_config
from pretune.runs.generation import Generated, Generating, generate, stream
from pretune.runs.neighbours import Neighbour, neighbours
from pretune.runs.readings import Sentence, part_of
from pretune.runs.run import load_start
from pretune.runs.starts import Start
from pretune.runs.writers import UlmfitWriter, Writer
from pretune.tasks.base import Task
from pretune.tasks.both_ways import BothWays
from pretune.tasks.next_token import NextToken, NextTokenHead, perplexity
from pretune.tensors.batch import Batch, collate
from pretune.tensors.lengths import answer_batches
from pretune.training.devices import find_device
from pretune.training.model import Model

Nats = NDArray[np.float64]
State = Literal["zero", "carry"]
WINDOW = 4096  # texts that are sorted by length together


@dataclass(frozen=True)
class TextScore:
    """Log-probabilities, in nats, of each word of a text, each way; of the marks around it as well."""

    words: tuple[str, ...]
    known: tuple[bool, ...]  # a word outside the vocabulary is scored as the unknown word
    forward: Nats | None  # (T,) of each word given those to its left
    backward: Nats | None  # (T,) given those to its right
    end: float = nan  # of the mark of the end, given all words; NaN where a model predicts none
    start: float = nan  # of the mark of the beginning, given all words from the right

    @property
    def nats(self) -> tuple[float, float]:
        """What the text costs, forward and backward: minus the sum of all that is predicted."""
        return _cost(self.forward, self.end), _cost(self.backward, self.start)

    @property
    def targets(self) -> tuple[int, int]:
        return _count(self.forward, self.end), _count(self.backward, self.start)


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean cost of all targets: words and the marks that end texts."""

    value: float  # over all targets of both ways; of the one way that the model has, where it has one
    forward: float | None
    backward: float | None
    targets: int

    def __float__(self) -> float:
        return self.value


@dataclass(frozen=True)
class Substitute:
    """A word that could stand in a place."""

    word: str
    probability: float  # of all words that could
    forward: float  # its log-probability given the left; NaN where the model does not read that way
    backward: float  # given the right


@dataclass
class LanguageModel:
    """A model that predicts words: a pretrained ELMo with its softmax, or a pretrained ULMFiT.

    lm = LanguageModel.load("models/elmo")
    lm.perplexity(["It was a good film ."]).value
    lm.substitutes("It was a good film .", 3)[0].word
    """

    start: Start
    task: Task
    model: Model

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> LanguageModel:
        """A folder that `pretrain`, `adapt` or `import` left."""
        folder = Path(folder)
        if read_config(folder)["kind"] == "model":
            raise UserError(
                f"{folder} has learned a task and is a language model no more; give the folder it came from"
            )
        start = load_start(folder)
        if isinstance(start, list):
            names = ", ".join(str(folder / one.name) for one in start)
            raise UserError(f"{folder} holds several language models; choose one of {names}")
        task: Task
        encoder: Any = start.encoder
        if isinstance(start.codec, ElmoCodec):
            task = BothWays()
            if getattr(encoder, "softmax_weight", None) is None or start.codec.vocab is None:
                raise UserError(
                    f"{folder} has no softmax, so it predicts no words; import it with --softmax and "
                    f"--vocab, or let it learn one: pretune adapt {folder} CORPUS --out DIR"
                )
        elif getattr(encoder, "embedding_weight", None) is not None:
            task = NextToken()
        else:
            raise UserError(
                f"{folder} holds {start.method.name}, which predicts no words; use elmo or ulmfit"
            )
        model = Model(start.encoder, task.head(start.encoder)).eval().to(find_device(device))
        return cls(start, task, model)

    def score(self, texts: Sequence[Sentence], batch_size: int = 64) -> list[TextScore]:
        """Of each text or list of words, in order; each is read from a state of zeros."""
        if isinstance(texts, str):
            raise UsageError("score takes a list of texts; this is one: write score([text])")
        read = [self._read(text) for text in texts]
        found: dict[int, TextScore] = {}
        for wanted in answer_batches([len(one.rows[0]) for one in read], batch_size):
            some = [read[i] for i in wanted]
            found |= zip(wanted, self._scored(some, None)[0], strict=True)
        return [found[i] for i in range(len(read))]

    def perplexity(
        self, texts: Iterable[Sentence], state: State = "zero", batch_size: int = 64
    ) -> Perplexity:
        """Over both ways and all texts, as the release's `run_test.py` counts; blank texts are left out.

        For ELMo a text is a sentence. "zero" reads each from zeros; "carry", as the release, goes on from
        the sentence before in `batch_size` streams that share the texts: lower, for models that have
        learned so.
        """
        if state not in get_args(State):
            raise choose("state", state, get_args(State))
        nats, targets = [0.0, 0.0], [0, 0]
        kept = (text for text in texts if (text.strip() if isinstance(text, str) else text))
        if state == "carry":
            scores = self._carried(list(kept), batch_size)
        else:
            scores = (s for some in _windows(kept) for s in self.score(some, batch_size))
        for score in scores:
            for way in range(2):
                nats[way] += score.nats[way]
                targets[way] += score.targets[way]
        if not sum(targets):
            raise UserError("there is no text to score: nothing but blank lines")
        each = [perplexity(n, t) if t else None for n, t in zip(nats, targets, strict=True)]
        return Perplexity(perplexity(sum(nats), sum(targets)), each[0], each[1], sum(targets))

    def substitutes(self, text: Sentence, position: int, top: int = 10) -> list[Substitute]:
        """Words that could stand at `position` (from 0) of a text, the likeliest first.

        p(w) ∝ p(w | left) p(w | right), each of its own softmax, over the words of the vocabulary but its
        special ones; one side alone for a model that reads one way. The word that stands there counts too.
        """
        read = self._read(text)
        if not 0 <= position < len(read.words):
            raise UsageError(
                f"position is {position}; the text has {len(read.words)} words: "
                f"{' '.join(map(repr, read.words[:20]))}"
            )
        scores = self._hidden([read], None)[0]
        sides: list[Tensor | None] = [None, None]  # (V,) log-probabilities, forward and backward
        for n, row in enumerate(read.rows):
            places = self._places(len(row), len(read.words), read.ways[n])
            if position in places:
                sides[read.ways[n]] = self._log_softmax(scores["hidden"][n, places.index(position)])
        if all(side is None for side in sides):
            raise UsageError("nothing predicts the last word of a text for a model that reads from the right")
        total = torch.stack([side for side in sides if side is not None]).sum(0)  # (V,)
        vocab = self._vocab()
        total[[vocab.ids[word] for word in (*SPECIALS, *RULES) if word in vocab.ids]] = float("-inf")
        probabilities, ids = total.softmax(0).topk(min(top, len(total)))
        return [
            Substitute(vocab.words[i], p, *(nan if side is None else float(side[i]) for side in sides))
            for p, i in zip(probabilities.tolist(), ids.tolist(), strict=True)
            if p > 0
        ]

    def neighbours(
        self,
        corpus: Iterable[Sentence],
        word: str,
        sentence: Sentence,
        position: int | None = None,
        top: int = 5,
        layer: int = -1,
        same_word: bool = False,
    ) -> list[Neighbour]:
        """See `runs/neighbours.py`; a model without softmax can be asked through `Embedder`."""
        embedder = Embedder.of(self.start)
        return neighbours(embedder, corpus, word, sentence, position, top, layer, same_word)

    def generate(
        self,
        prompt: str = "",
        max_tokens: int = 100,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        count: int = 1,
        seed: int = 0,
        beams: int | None = None,
        length_penalty: float = 0.0,
        stop: bool = True,
        unknown: bool = False,
        avoid: Sequence[str] = (),
    ) -> list[Generated]:
        """Texts that go on from `prompt`, or lead to it if the model reads from the right; see `Generating`.

        The prompt is read once and every token costs one step. Of a ULMFiT.
        """
        how = Generating(
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            count=count,
            seed=seed,
            beams=beams,
            length_penalty=length_penalty,
            stop=stop,
            unknown=unknown,
            avoid=tuple(avoid),
        )
        return generate(self.writer(), prompt, how)

    def stream(self, prompt: str = "", how: Generating = Generating()) -> Iterator[str]:  # noqa: B008, frozen
        """The text of `generate`, piece by piece as it is written."""
        return stream(self.writer(), prompt, how)

    def writer(self) -> Writer:
        """The model as one that writes."""
        if not isinstance(self.start.codec, UlmfitCodec):
            raise UserError(
                f"{self.start.method.name} reads sentences both ways and writes no text; generate with ulmfit"
            )
        return UlmfitWriter(self.model, self.start.codec)

    def words(self, text: Sentence) -> list[str]:
        """What the model takes as the words of a text, which `position` counts."""
        return self._read(text).words

    def _read(self, text: Sentence) -> _Read:
        """Rows in reading order, each with its opening mark, and the words that they predict."""
        sample = Sample("", (Part(text) if isinstance(text, str) else part_of(text),))
        (rows,) = self.task.rows(self.start.codec, [sample])
        if isinstance(self.start.codec, ElmoCodec):
            words = list(rows[0].spelled or ())[1:]
            if not any(of == 0 for of in rows[0].part):
                rows, words = [_first(row) for row in rows], []
            following = self.task.given([sample], [rows])["next"]  # (2, T)
            ways = int(getattr(self.start.encoder, "ways", 2))
            return _Read(rows[:ways], following[:ways], words, list(range(ways)))
        codec: Any = self.start.codec
        backward = codec.config.direction == "backward"
        said = sample.parts[0].text
        return _Read(rows, self.task.gold([sample], [rows])["next"], codec.tokens(said)[1:], [int(backward)])

    def _scored(self, read: Sequence[_Read], carry: Any) -> tuple[list[TextScore], Any]:
        said, after = self._hidden(read, carry)
        rows = iter(said["log_probabilities"].double().numpy())
        return [self._text_score(one, [next(rows) for _ in one.rows]) for one in read], after

    def _text_score(self, one: _Read, nats: list[Nats]) -> TextScore:
        count, vocab = len(one.words), self._vocab()
        sides: list[Nats | None] = [None, None]
        marks = [nan, nan]
        for way, row, said in zip(one.ways, one.rows, nats, strict=True):
            side = np.full(count, nan)
            for t, place in enumerate(self._places(len(row), count, way)):
                if place is None:
                    marks[way] = float(said[t])
                else:
                    side[place] = said[t]
            sides[way] = side
        known = tuple(word in vocab.ids for word in one.words)
        return TextScore(tuple(one.words), known, sides[0], sides[1], marks[0], marks[1])

    def _places(self, length: int, words: int, way: int) -> list[int | None]:
        """Which word each token of a row predicts; None for a mark."""
        if isinstance(self.task, BothWays):
            order: list[int | None] = list(range(words))
            return [*(order[::-1] if way else order), None]
        if way:  # read from the right, its mark of beginning last: the last word is given, not predicted
            return [*range(words - 2, -1, -1), *([None] if words else [])]
        return list(range(words))

    def _hidden(self, read: Sequence[_Read], carry: Any) -> tuple[dict[str, Tensor], Any]:
        """The head's scores: `hidden` (N, T, D) and `log_probabilities` (N, T) of what is next."""
        encoder = self.start.encoder
        encoder.purpose("language_model" if isinstance(self.task, BothWays) else "task")
        batch = self._batch(read).to(next(self.model.parameters()).device)
        try:
            with torch.no_grad():
                output = self.model.eval()(batch, carry)
        finally:
            encoder.purpose("task")
        return {name: x.cpu() for name, x in output.scores.items()}, output.carry

    def _batch(self, read: Sequence[_Read]) -> Batch:
        codec = self.start.codec
        batch = collate([one.rows for one in read], codec.pad_id, spell=getattr(codec, "spell", None))
        width = batch.ids.shape[1]
        following = [F.pad(one.following, (0, width - one.following.shape[1]), value=-100) for one in read]
        batch.given["next"] = torch.cat(following)
        return batch

    def _log_softmax(self, hidden: Tensor) -> Tensor:  # (D,) -> (V,)
        encoder: Any = self.start.encoder
        hidden = hidden.to(next(encoder.parameters()).device)
        with torch.no_grad():
            if isinstance(self.model.head, NextTokenHead):
                logits = self.model.head.logits(hidden)
            else:
                logits = F.linear(hidden, encoder.softmax_weight, encoder.softmax_bias)
            return logits.float().log_softmax(0).cpu()

    def _vocab(self) -> Vocab:
        vocab: Vocab = self.start.codec.vocab  # type: ignore[attr-defined]
        return vocab

    def _carried(self, texts: list[Sentence], streams: int) -> Iterable[TextScore]:
        if not isinstance(self.task, BothWays):
            raise UsageError(
                f"here state carry is for elmo; {self.start.method.name} goes on from text to text in "
                "pretune.runs.stream_perplexity, which `pretune evaluate --state carry` asks"
            )
        streams = max(1, min(streams, len(texts) // 8))
        parts = [texts[s * len(texts) // streams : (s + 1) * len(texts) // streams] for s in range(streams)]
        parts.sort(key=len, reverse=True)  # a stream that has ended leaves the rows before it as they are
        carry = None
        for k in range(len(parts[0]) if texts else 0):
            scores, carry = self._scored([self._read(part[k]) for part in parts if len(part) > k], carry)
            yield from scores


@dataclass(frozen=True)
class _Read:
    """A text as rows, what each token of them is followed by, the words, and each row's way (0, 1)."""

    rows: list[Row]
    following: Tensor  # (rows, T)
    words: list[str]
    ways: list[int]


def _first(row: Row) -> Row:
    spelled = None if row.spelled is None else row.spelled[:1]
    return Row(row.ids[:1], row.segments[:1], row.part[:1], row.chars[:1], spelled)


def _windows(texts: Iterable[Sentence]) -> Iterable[list[Sentence]]:
    stream = iter(texts)
    while some := list(islice(stream, WINDOW)):
        yield some


def _cost(side: Nats | None, mark: float) -> float:
    if side is None:
        return 0.0
    return -float(np.nansum(side)) - (0.0 if isnan(mark) else mark)


def _count(side: Nats | None, mark: float) -> int:
    return 0 if side is None else int((~np.isnan(side)).sum()) + (not isnan(mark))
