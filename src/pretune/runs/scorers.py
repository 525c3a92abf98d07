"""Scorers: what a kind of language model says of text. Here those that read rows from an end to the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pretune.data.rows import Row
from pretune.data.samples import Part, Sample
from pretune.data.vocab import Vocab
from pretune.errors import UsageError
from pretune.methods.elmo import ElmoCodec
from pretune.methods.elmo.tokens import SPECIALS
from pretune.methods.ulmfit.rules import SPECIALS as RULES
from pretune.runs.readings import Sentence, part_of
from pretune.runs.starts import Start
from pretune.runs.text_scores import Nats, Substitute, TextScore
from pretune.tasks.base import Task
from pretune.tasks.both_ways import BothWays
from pretune.tasks.next_token import NextTokenHead
from pretune.tensors.batch import Batch, collate
from pretune.tensors.lengths import answer_batches
from pretune.training.model import Model


class Scorer(Protocol):
    """A language model of some kind, asked about text."""

    def words(self, text: Sentence) -> list[str]:
        """What the model takes as the words of a text, which positions count."""
        ...

    def score(self, texts: Sequence[Sentence], batch_size: int) -> list[TextScore]:
        """Of each text, in order, each read by itself."""
        ...

    def carried(self, texts: Sequence[Sentence], streams: int) -> Iterable[TextScore]:
        """Of texts that are read on from one another in some streams; in any order."""
        ...

    def substitutes(self, text: Sentence, position: int, top: int) -> list[Substitute]: ...


@dataclass
class RowScorer:
    """ELMo, both ways, and ULMFiT, in its direction: a text is a row for each way, of any length."""

    start: Start
    task: Task
    model: Model

    def words(self, text: Sentence) -> list[str]:
        return self.read(text).words

    def score(self, texts: Sequence[Sentence], batch_size: int) -> list[TextScore]:
        read = [self.read(text) for text in texts]
        found: dict[int, TextScore] = {}
        for wanted in answer_batches([len(one.rows[0]) for one in read], batch_size):
            some = [read[i] for i in wanted]
            found |= zip(wanted, self._scored(some, None)[0], strict=True)
        return [found[i] for i in range(len(read))]

    def carried(self, texts: Sequence[Sentence], streams: int) -> Iterable[TextScore]:
        if not isinstance(self.task, BothWays):
            raise UsageError(
                f"here state carry is for elmo; {self.start.method.name} goes on from text to text in "
                "pretune.runs.stream_perplexity, which `pretune evaluate --state carry` asks"
            )
        streams = max(1, min(streams, len(texts) // 8))
        parts = [texts[s * len(texts) // streams : (s + 1) * len(texts) // streams] for s in range(streams)]
        return (score for _, score in self.in_turn(parts))

    def in_turn(self, parts: Sequence[Sequence[Sentence]]) -> Iterator[tuple[int, TextScore]]:
        """Each part from zero, its texts read on from one another; with the number of the part."""
        order = sorted(range(len(parts)), key=lambda i: -len(parts[i]))
        carry = None  # a part that has ended leaves the rows before it as they are
        for k in range(max(map(len, parts), default=0)):
            going = [i for i in order if len(parts[i]) > k]
            scores, carry = self._scored([self.read(parts[i][k]) for i in going], carry)
            yield from zip(going, scores, strict=True)

    def substitutes(self, text: Sentence, position: int, top: int) -> list[Substitute]:
        read = self.read(text)
        check_position(position, read.words)
        scores = self.hidden([read], None)[0]
        sides: list[Tensor | None] = [None, None]  # (V,) log-probabilities, forward and backward
        for n, row in enumerate(read.rows):
            places = self._places(len(row), len(read.words), read.ways[n])
            if position in places:
                sides[read.ways[n]] = self.log_softmax(scores["hidden"][n, places.index(position)])
        vocab = self._vocab()
        marks = [vocab.ids[word] for word in (*SPECIALS, *RULES) if word in vocab.ids]
        return likeliest(together(sides), sides, marks, vocab.words, top)

    def read(self, text: Sentence) -> RowReading:
        """Rows in reading order, each with its opening mark, and the words that they predict."""
        sample = Sample("", (Part(text) if isinstance(text, str) else part_of(text),))
        (rows,) = self.task.rows(self.start.codec, [sample])
        if isinstance(self.start.codec, ElmoCodec):
            words = list(rows[0].spelled or ())[1:]
            if not any(of == 0 for of in rows[0].part):
                rows, words = [_first(row) for row in rows], []
            following = self.task.given([sample], [rows])["next"]  # (2, T)
            ways = int(getattr(self.start.encoder, "ways", 2))
            return RowReading(rows[:ways], following[:ways], words, list(range(ways)))
        codec: Any = self.start.codec
        backward = codec.config.direction == "backward"
        words = codec.tokens(sample.parts[0].text)[1:]
        return RowReading(rows, self.task.gold([sample], [rows])["next"], words, [int(backward)])

    def hidden(self, read: Sequence[RowReading], carry: Any) -> tuple[dict[str, Tensor], Any]:
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

    def log_softmax(self, hidden: Tensor) -> Tensor:  # (D,) -> (V,)
        encoder: Any = self.start.encoder
        hidden = hidden.to(next(encoder.parameters()).device)
        with torch.no_grad():
            if isinstance(self.model.head, NextTokenHead):
                logits = self.model.head.logits(hidden)
            else:
                logits = F.linear(hidden, encoder.softmax_weight, encoder.softmax_bias)
            return logits.float().log_softmax(0).cpu()

    def _scored(self, read: Sequence[RowReading], carry: Any) -> tuple[list[TextScore], Any]:
        said, after = self.hidden(read, carry)
        rows = iter(said["log_probabilities"].double().numpy())
        return [self._text_score(one, [next(rows) for _ in one.rows]) for one in read], after

    def _text_score(self, one: RowReading, nats: list[Nats]) -> TextScore:
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

    def _batch(self, read: Sequence[RowReading]) -> Batch:
        codec = self.start.codec
        batch = collate([one.rows for one in read], codec.pad_id, spell=getattr(codec, "spell", None))
        width = batch.ids.shape[1]
        following = [F.pad(one.following, (0, width - one.following.shape[1]), value=-100) for one in read]
        batch.given["next"] = torch.cat(following)
        return batch

    def _vocab(self) -> Vocab:
        vocab: Vocab = self.start.codec.vocab  # type: ignore[attr-defined]
        return vocab


@dataclass(frozen=True)
class RowReading:
    """A text as rows, what each token of them is followed by, the words, and each row's way (0, 1)."""

    rows: list[Row]
    following: Tensor  # (rows, T)
    words: list[str]
    ways: list[int]


def check_position(position: int, words: Sequence[str]) -> None:
    """Raise `UsageError` where a text has no word of that number."""
    if not 0 <= position < len(words):
        raise UsageError(
            f"position is {position}; the text has {len(words)} words: {' '.join(map(repr, words[:20]))}"
        )


def likeliest(
    total: Tensor, sides: Sequence[Tensor | None], marks: Sequence[int], words: Sequence[str], top: int
) -> list[Substitute]:
    """The `top` words by `total`, log-probabilities (V,) but for a constant; `marks` are no words.

    `sides`, also (V,), are what the left and the right alone say of each.
    """
    free = total.index_fill(0, torch.tensor(list(marks), dtype=torch.long), float("-inf"))
    probabilities, ids = free.softmax(0).topk(min(top, len(free)))
    return [
        Substitute(words[i], p, *(nan if side is None else float(side[i]) for side in sides))
        for p, i in zip(probabilities.tolist(), ids.tolist(), strict=True)
        if p > 0
    ]


def together(sides: Sequence[Tensor | None]) -> Tensor:
    """p(w | left) p(w | right), as far as a model reads both: (V,) log-probabilities, summed."""
    said = [side for side in sides if side is not None]
    if not said:
        raise UsageError("the model begins to read at this word, so nothing predicts it; choose another")
    return torch.stack(said).sum(0)


def _first(row: Row) -> Row:
    spelled = None if row.spelled is None else row.spelled[:1]
    return Row(row.ids[:1], row.segments[:1], row.part[:1], row.chars[:1], spelled)
