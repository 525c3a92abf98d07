"""Tagging: one tag for each word of a text: parts of speech, names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import fsum
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretune.data.alignment import nearest_token, tokens_of
from pretune.data.rows import Codec, Row
from pretune.data.samples import Sample, Span
from pretune.data.segment import Segmenter, guess_language, segmenter
from pretune.encoder import Encoded, Encoder
from pretune.errors import UsageError, UserError, choose
from pretune.metrics.classification import LabelScores
from pretune.metrics.tagging import Scheme, by_kind, chunks, parsed, scheme_of, scores_of, tallies
from pretune.tasks.base import Answer, Golds, Head, Scores, Task
from pretune.tasks.classification import in_order
from pretune.tensors.batch import Batch

Token = Literal["first", "last", "mean"]
Tally = Any  # an array, one row a sample


@dataclass(frozen=True)
class Tagging(Task):
    """Which tag has each word?

    Golds are a tuple of tags, one for each of the sample's words (`Part.words`). A text that came unsplit is
    split by `segmenter`. Tokens and words meet in their characters, so any codec will do: a word is read off
    the tokens that share a character with it, or the token before it where none does.

    Tags of a scheme (IOB1, IOB2, BIOES, BMES, BILOU) mark spans: answers then have those spans, and models
    are chosen by their F1; else answers have each word with its tag, and models are chosen by accuracy.

        task = Tagging.of(train)
    """

    golds: ClassVar[Golds] = "tags"

    labels: tuple[str, ...] = ()
    """The tags in the order of the scores."""
    scheme: Scheme = "plain"
    """How tags mark spans; found in the training samples."""
    token: Token = "last"
    """Which of a word's tokens is read, in the order in which the row has them: the last one has seen all of
    the word; BERT takes the first; or the mean of all."""
    dropout: float = 0.1
    """Before the linear layer."""
    language: str = "en"
    """Of the texts, to find words by; guessed from the training samples."""
    segmenter: str | None = None
    """How words of unsplit texts are found: words, characters, jieba, spaces, or your own module:function;
    none: the language's own."""

    def __post_init__(self) -> None:
        if self.token not in get_args(Token):
            raise choose("task.token", self.token, get_args(Token))
        if self.scheme not in get_args(Scheme):
            raise choose("task.scheme", self.scheme, get_args(Scheme))
        for label in self.labels if self.scheme != "plain" else ():
            parsed(label, self.scheme)
        if not 0 <= self.dropout < 1:
            raise UsageError(f"task.dropout is {self.dropout}; it must be from 0 to below 1")

    @classmethod
    def of(cls, samples: Sequence[Sample], kind: str = "tags", **options: Any) -> Tagging:
        """The task that these training samples ask: their tags, the scheme of those, the language."""
        if kind != "tags":
            raise UsageError(f"--kind is {kind}, which is for classification; tagging has tags")
        golds = [sample.gold for sample in samples if sample.gold is not None]
        labels = in_order({tag for gold in golds for tag in gold})
        if len(labels) < 2:
            raise UserError(
                f"all words of the training samples have the tag {labels}; at least two are needed"
            )
        language = guess_language(text for sample in samples[:2000] for text in sample.texts)
        return cls(labels, **{"scheme": scheme_of(golds), "language": language, **options})

    @property
    def metric(self) -> str:
        return "accuracy" if self.scheme == "plain" else "span_f1"

    def words_of(self, sample: Sample) -> tuple[Span, ...]:
        """As the sample came, else as the segmenter finds them."""
        if len(sample.parts) != 1:
            raise UserError(
                f"sample {sample.key!r} has {len(sample.parts)} texts; tagging reads one at a time"
            )
        part = sample.parts[0]
        return part.words or tuple(_segmenter(self.language, self.segmenter)(part.text))

    def rows(self, codec: Codec, samples: Sequence[Sample]) -> list[list[Row]]:
        """Codecs that read words read those that are to be tagged."""
        return codec.encode([(replace(s.parts[0], words=self.words_of(s)),) for s in samples])

    def given(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        """`tokens` (K, 3): row, token and word of each that is read; words are counted through the batch."""
        read: list[tuple[int, int, int]] = []
        row = word = 0
        for sample, of_sample in zip(samples, rows, strict=True):
            for place, tokens in self._read(self.words_of(sample), of_sample):
                read += [(row + place, token, word) for token in tokens]
                word += 1
            row += len(of_sample)
        return {"tokens": torch.tensor(read, dtype=torch.long).view(-1, 3)}

    def _read(self, words: Sequence[Span], rows: Sequence[Row]) -> Iterator[tuple[int, list[int]]]:
        """Of each word the row that it is read in and the tokens that are read."""
        found = [tokens_of(row, 0, words) for row in rows]
        for w, span in enumerate(words):
            place = next((k for k, of_row in enumerate(found) if of_row[w]), 0)
            tokens = found[place][w] or [nearest_token(rows[place], 0, span)]
            yield place, {"first": tokens[:1], "last": tokens[-1:], "mean": tokens}[self.token]

    def gold(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        """`tags` (M,) of all words of the batch."""
        place = {label: i for i, label in enumerate(self.labels)}
        tags: list[int] = []
        for sample in samples:
            if len(sample.gold) != len(self.words_of(sample)):
                raise UserError(
                    f"sample {sample.key!r} has {len(sample.gold)} tags for "
                    f"{len(self.words_of(sample))} words; give one for each word"
                )
            for tag in sample.gold:
                if tag not in place:
                    known = ", ".join(self.labels[:20])
                    raise UserError(
                        f"sample {sample.key!r} has the tag {tag!r}, which the task does not know; "
                        f"it knows {known}"
                    )
                tags.append(place[tag])
        return {"tags": torch.tensor(tags, dtype=torch.long)}

    def head(self, encoder: Encoder) -> TaggingHead:
        return TaggingHead(self, encoder.width)

    def decode(
        self, scores: Scores, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]
    ) -> list[Answer]:
        shares = iter(scores["logits"].detach().double().softmax(-1).tolist())  # M × (C,)
        return [self._answer(self.words_of(sample), shares) for sample in samples]

    def average(self, answers: Sequence[Sequence[Answer]]) -> list[Answer]:
        """One answer a sample from several models' answers: each word's probabilities averaged."""
        found = []
        for of_sample in zip(*answers, strict=True):
            words = [span for span, _ in of_sample[0].words or ()]
            of_words = zip(*([table for _, table in answer.words or ()] for answer in of_sample), strict=True)
            shares = ([fsum(xs) / len(xs) for xs in zip(*tables, strict=True)] for tables in of_words)
            found.append(self._answer(words, shares))
        return found

    def _answer(self, words: Sequence[Span], shares: Iterator[list[float]]) -> Answer:
        """Takes one list of probabilities for each word."""
        table = [tuple(next(shares)) for _ in words]
        tags = tuple(self.labels[max(range(len(row)), key=row.__getitem__)] for row in table)
        spans: tuple[tuple[Span, str], ...]
        if self.scheme == "plain":
            spans = tuple(zip(words, tags, strict=True))
        else:
            spans = tuple(
                (Span(words[start].start, words[end - 1].end), kind)
                for start, end, kind in chunks(tags, self.scheme)
            )
        return Answer(labels=tags, spans=spans, words=tuple(zip(words, table, strict=True)))

    def score(self, golds: Sequence[Any], answers: Sequence[Answer]) -> dict[str, float]:
        """Tags that training never saw count as errors."""
        return self.scores_of(self.tallies(golds, answers).sum(0))

    def tallies(self, golds: Sequence[Any], answers: Sequence[Answer]) -> Tally:
        """Per sample, what `scores_of` makes scores of when added up."""
        return tallies(golds, [answer.labels or () for answer in answers], self.scheme)

    def scores_of(self, total: Tally) -> dict[str, float]:
        return scores_of(total, self.scheme)

    def by_label(self, golds: Sequence[Any], answers: Sequence[Answer]) -> dict[str, LabelScores]:
        """Of each kind of span; of each tag where tags are plain."""
        return by_kind(golds, [answer.labels or () for answer in answers], self.scheme)


class TaggingHead(Head):
    """The top layer at the tokens of each word -> logits (M, C)."""

    def __init__(self, task: Tagging, width: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(task.dropout)
        self.linear = nn.Linear(width, len(task.labels))

    def forward(self, encoded: Encoded, batch: Batch) -> Scores:
        row, token, word = batch.given["tokens"].unbind(1)  # (K,) each
        read = encoded.layers[-1][row, token].float()  # (K, D)
        words = int(word[-1]) + 1 if len(word) else 0  # M
        if words != len(word):
            counts = torch.bincount(word, minlength=words)  # (M,)
            read = read.new_zeros(words, read.shape[1]).index_add(0, word, read) / counts[:, None]  # (M, D)
        return {"logits": self.linear(self.dropout(read)).float()}  # (M, C)

    def loss(self, scores: Scores, batch: Batch) -> Tensor:
        return F.cross_entropy(scores["logits"], batch.gold["tags"], reduction="sum")

    def targets(self, batch: Batch) -> int:
        return len(batch.gold["tags"])


@lru_cache(maxsize=8)
def _segmenter(language: str, name: str | None) -> Segmenter:
    return segmenter(language, name)
