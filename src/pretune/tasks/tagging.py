"""Tagging: one tag for each word of a text: parts of speech, names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import fsum
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from pretune.data.rows import Codec, Row
from pretune.data.samples import Sample, Span
from pretune.data.segment import Segmenter, guess_language, segmenter
from pretune.encoder import Encoded, Encoder
from pretune.errors import UsageError, UserError, choose
from pretune.layers.crf import CRF, marginals, viterbi
from pretune.metrics.classification import LabelScores
from pretune.metrics.tagging import (
    OUTSIDE,
    Scheme,
    by_kind,
    chunks,
    converted,
    may_follow,
    parsed,
    scheme_of,
    scores_of,
    tags_of,
    tallies,
)
from pretune.tasks.base import Answer, Golds, Head, Scores, Task
from pretune.tasks.classification import in_order
from pretune.tasks.words import Token, tokens_read, word_vectors
from pretune.tensors.batch import Batch

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
    """The tags of golds."""
    scheme: Scheme = "plain"
    """How the tags that are learned mark spans; that of golds unless another is chosen. Answers have the tags
    of golds in any case, and the same spans."""
    written: Scheme | None = None
    """How golds mark spans; found in the training samples. None: as `scheme`."""
    crf: bool = False
    """A conditional random field above the linear layer: tags are scored as a sequence. What the scheme
    forbids, such as I-PER after O in iob2, has no probability."""
    constrained: bool = False
    """Without a CRF: of the sequences that the scheme allows, the answer is the likeliest."""
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
        if self.written not in (None, *get_args(Scheme)):
            raise choose("task.written", str(self.written), get_args(Scheme))
        for label in self.labels if self.gold_scheme != "plain" else ():
            parsed(label, self.gold_scheme)
        if self.scheme != "plain" and self.gold_scheme == "plain":
            raise UsageError(f"task.scheme is {self.scheme}, but the tags of the samples mark no spans")
        if self.constrained and self.scheme == "plain":
            raise UsageError(
                "task.constrained is for tags of a scheme, and these mark no spans; leave it out"
            )
        if self.constrained and self.crf:
            raise UsageError("a CRF keeps to the scheme by itself; leave task.constrained out")
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
        scheme = scheme_of(golds)
        return cls(labels, **{"scheme": scheme, "written": scheme, "language": language, **options})

    @property
    def gold_scheme(self) -> Scheme:
        """That of golds, and of the tags of answers."""
        return "plain" if self.scheme == "plain" else self.written or self.scheme

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """Those that are learned, in the order of the scores."""
        if not self._rewrites:
            return self.labels
        kinds = (parsed(label, self.gold_scheme)[1] for label in self.labels if label != OUTSIDE)
        return tags_of(dict.fromkeys(kinds), self.scheme)

    @property
    def _rewrites(self) -> bool:
        """Whether golds are learned in other words: in another scheme, or mended where a scheme is kept."""
        other = self.scheme != self.gold_scheme
        return self.scheme != "plain" and (other or self.crf or self.constrained)

    @cached_property
    def allowed(self) -> tuple[Tensor, Tensor, Tensor]:
        """0 where the scheme lets a tag follow another, begin, end a text; else -inf: (C, C), (C,), (C,)."""
        tags = self.tags
        free = self.scheme == "plain"

        def row(pairs: Sequence[tuple[str | None, str | None]]) -> Tensor:
            good = [free or may_follow(before, after, self.scheme) for before, after in pairs]
            return torch.tensor(good).log()  # (C,)

        transitions = torch.stack([row([(tag, after) for after in tags]) for tag in tags])
        return transitions, row([(None, tag) for tag in tags]), row([(tag, None) for tag in tags])

    @property
    def metric(self) -> str:
        return "accuracy" if self.gold_scheme == "plain" else "span_f1"

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
        """`tokens` (K, 3): row, token and word of each that is read; words are counted through the batch.

        `words` (B,): how many each sample has.
        """
        words = [self.words_of(sample) for sample in samples]
        lengths = torch.tensor([len(spans) for spans in words], dtype=torch.long)
        return {"tokens": tokens_read(words, rows, self.token), "words": lengths}

    def gold(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        """`tags` (M,) of all words of the batch."""
        place, known = {tag: i for i, tag in enumerate(self.tags)}, set(self.labels)
        tags: list[int] = []
        for sample in samples:
            if len(sample.gold) != len(self.words_of(sample)):
                raise UserError(
                    f"sample {sample.key!r} has {len(sample.gold)} tags for "
                    f"{len(self.words_of(sample))} words; give one for each word"
                )
            for tag in sample.gold:
                if tag not in known:
                    raise UserError(
                        f"sample {sample.key!r} has the tag {tag!r}, which the task does not know; "
                        f"it knows {', '.join(self.labels[:20])}"
                    )
            gold = converted(sample.gold, self.gold_scheme, self.scheme) if self._rewrites else sample.gold
            tags += [place[tag] for tag in gold]
        return {"tags": torch.tensor(tags, dtype=torch.long)}

    def head(self, encoder: Encoder) -> TaggingHead:
        return TaggingHead(self, encoder.width)

    def decode(
        self, scores: Scores, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]
    ) -> list[Answer]:
        words = [self.words_of(sample) for sample in samples]
        logits = scores["logits"].detach().double()  # (M, C)
        if not self.crf:
            shares = iter(logits.softmax(-1).tolist())
            return [self.answer_of(spans, [next(shares) for _ in spans]) for spans in words]
        held, mask = by_sample(logits, [len(spans) for spans in words])  # (B, W, C), (B, W)
        moves = [scores[name].detach().double() for name in ("transitions", "begin", "end")]
        tables, paths = marginals(held, mask, *moves), viterbi(held, mask, *moves)
        return [
            self.answer_of(spans, table[: len(spans)].tolist(), path)
            for spans, table, path in zip(words, tables, paths, strict=True)
        ]

    def average(self, answers: Sequence[Sequence[Answer]]) -> list[Answer]:
        """One answer a sample from several models' answers: each word's probabilities averaged."""
        found = []
        for of_sample in zip(*answers, strict=True):
            words = [span for span, _ in of_sample[0].words or ()]
            of_words = zip(*([table for _, table in answer.words or ()] for answer in of_sample), strict=True)
            shares = [[fsum(xs) / len(xs) for xs in zip(*tables, strict=True)] for tables in of_words]
            found.append(self.answer_of(words, shares))
        return found

    def answer_of(
        self, words: Sequence[Span], shares: Sequence[Sequence[float]], path: Sequence[int] | None = None
    ) -> Answer:
        """From how likely each of `tags` is at each word, and which ones are taken, by default the likeliest.

        Where a scheme is kept these are the likeliest together that it allows.
        """
        if path is None and words and (self.crf or self.constrained):
            scores, mask = by_sample(torch.tensor(shares, dtype=torch.double).log(), [len(words)])
            (path,) = viterbi(scores.clamp(min=-1e6), mask, *(x.double() for x in self.allowed))
        if path is None:
            path = [max(range(len(row)), key=row.__getitem__) for row in shares]
        tags = [self.tags[k] for k in path]
        labels = converted(tags, self.scheme, self.gold_scheme) if self._rewrites else tags
        spans = tuple(zip(words, tags, strict=True))
        if self.scheme != "plain":
            spans = tuple(
                (Span(words[start].start, words[end - 1].end), kind)
                for start, end, kind in chunks(tags, self.scheme)
            )
        table = tuple(tuple(row) for row in shares)
        return Answer(labels=tuple(labels), spans=spans, words=tuple(zip(words, table, strict=True)))

    def score(self, golds: Sequence[Any], answers: Sequence[Answer]) -> dict[str, float]:
        """Tags that training never saw count as errors."""
        return self.scores_of(self.tallies(golds, answers).sum(0))

    def tallies(self, golds: Sequence[Any], answers: Sequence[Answer]) -> Tally:
        """Per sample, what `scores_of` makes scores of when added up."""
        return tallies(golds, [answer.labels or () for answer in answers], self.gold_scheme)

    def scores_of(self, total: Tally) -> dict[str, float]:
        return scores_of(total, self.gold_scheme)

    def by_label(self, golds: Sequence[Any], answers: Sequence[Answer]) -> dict[str, LabelScores]:
        """Of each kind of span; of each tag where tags are plain."""
        return by_kind(golds, [answer.labels or () for answer in answers], self.gold_scheme)


class TaggingHead(Head):
    """The top layer at the tokens of each word -> logits (M, C); a CRF adds what transitions score."""

    def __init__(self, task: Tagging, width: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(task.dropout)
        self.linear = nn.Linear(width, len(task.tags))
        self.crf = CRF(len(task.tags), task.allowed) if task.crf else None

    def forward(self, encoded: Encoded, batch: Batch) -> Scores:
        read = word_vectors(encoded.layers[-1], batch.given["tokens"])  # (M, D)
        scores = {"logits": self.linear(self.dropout(read)).float()}  # (M, C)
        if self.crf is not None:
            scores |= zip(("transitions", "begin", "end"), self.crf.moves(), strict=True)
        return scores

    def loss(self, scores: Scores, batch: Batch) -> Tensor:
        tags = batch.gold["tags"]  # (M,)
        if self.crf is None:
            return F.cross_entropy(scores["logits"], tags, reduction="sum")
        lengths = [length for length in batch.given["words"].tolist() if length]
        held, mask = by_sample(scores["logits"], lengths)
        return -self.crf.log_likelihood(held, by_sample(tags, lengths)[0], mask).sum()

    def targets(self, batch: Batch) -> int:
        return len(batch.gold["tags"])


def by_sample(of_words: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """What all words have (M, …), as (B, W, …) with zeros behind each sample's, and the mask (B, W)."""
    held = pad_sequence(list(torch.split(of_words, list(lengths))), batch_first=True)
    counts = torch.tensor(lengths, device=held.device)
    return held, torch.arange(held.shape[1], device=held.device) < counts[:, None]


@lru_cache(maxsize=8)
def _segmenter(language: str, name: str | None) -> Segmenter:
    return segmenter(language, name)
