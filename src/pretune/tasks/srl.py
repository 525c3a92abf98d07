"""Semantic role labelling: who did what to whom? The arguments of a predicate that is given."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretune.data.rows import Codec, Row
from pretune.data.samples import Sample, Span
from pretune.data.segment import Segmenter, guess_language, segmenter
from pretune.encoder import Encoded, Encoder
from pretune.errors import UsageError, UserError, choose
from pretune.layers.crf import viterbi
from pretune.layers.highway_lstm import HighwayLSTM, steps_of
from pretune.metrics.classification import LabelScores
from pretune.metrics.roles import VERB, by_role, scores_of, tallies
from pretune.metrics.tagging import chunks, parsed
from pretune.tasks.base import Answer, Golds, Head, Scores, Task
from pretune.tasks.classification import in_order
from pretune.tasks.words import Token, tokens_read, word_vectors
from pretune.tensors.batch import Batch
from pretune.tensors.lengths import answer_batches

Tally = Any  # an array, one row a sample
DECODED = 64  # predicates whose roles are decoded at once


@dataclass(frozen=True)
class SemanticRoles(Task):
    """Which words are the arguments of this predicate, in which roles?

    A sample is one predicate: a sentence, and in `marks` where in it the predicate stands. Golds are BIO
    tags, one for each of the sample's words, such as `B-ARG0`; the predicate's own is `B-V`. The encoder
    reads the sentence alone; an embedding that says of each word whether it is the predicate stands beside
    the word's vector (He et al. 2017, section 2; Shi & Lin 2019). Over both stands a deep highway LSTM, or
    without one a hidden layer that sees the predicate's vector too. Of all tags the best sequence is taken in
    which I-X follows B-X or I-X alone. The score is the F1 of arguments, as CoNLL-2005's scorer counts them.

        task = SemanticRoles.of(train)

    Files are read by `pretune.data.roles.read_roles`; `role_question` in `pretune.data.role_questions` makes
    a sample.
    """

    golds: ClassVar[Golds] = "roles"

    labels: tuple[str, ...] = ()
    """The tags in the order of the scores."""
    token: Token = "last"
    """Which of a word's tokens is read: first, last, or the mean of all."""
    indicator: int = 100
    """Width of the embedding that marks the predicate."""
    highway_layers: int = 0
    """Of the LSTM over the encoder; the papers took 8 over features. 0: a hidden layer instead."""
    highway_width: int = 300
    """Units of each layer of the LSTM."""
    recurrent_dropout: float = 0.1
    """On the states of the LSTM, one mask for all steps."""
    hidden: int = 300
    """Units of the hidden layer, where there is no LSTM."""
    dropout: float = 0.1
    """On the words' vectors."""
    language: str = "en"
    """Of the texts, to find words by; guessed from the training samples."""
    segmenter: str | None = None
    """How words of unsplit texts are found: words, characters, jieba, spaces, or your own module:function;
    none: the language's own."""

    def __post_init__(self) -> None:
        if self.token not in get_args(Token):
            raise choose("task.token", self.token, get_args(Token))
        for name, least in (("indicator", 1), ("highway_layers", 0), ("highway_width", 1), ("hidden", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"task.{name} is {getattr(self, name)}; it must be at least {least}")
        for name in ("dropout", "recurrent_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"task.{name} is {getattr(self, name)}; it must be from 0 to below 1")
        for label in self.labels:
            parsed(label, "iob2")

    @classmethod
    def of(cls, samples: Sequence[Sample], kind: str = "roles", **options: Any) -> SemanticRoles:
        """The task that these training samples ask: their tags, the language."""
        if kind != "roles":
            raise UsageError(f"--kind is {kind}, which is for classification; srl has roles")
        labels = in_order({tag for sample in samples for tag in sample.gold or ()})
        if not any(label.startswith("B-") and label != f"B-{VERB}" for label in labels):
            raise UserError("no predicate of the training samples has an argument; there is nothing to learn")
        language = guess_language(text for sample in samples[:2000] for text in sample.texts)
        return cls(labels, **{"language": language, **options})

    @property
    def metric(self) -> str:
        return "argument_f1"

    def words_of(self, sample: Sample) -> tuple[Span, ...]:
        """As the sample came, else as the segmenter finds them."""
        if len(sample.parts) != 1 or len(sample.marks) != 1:
            raise UserError(
                f"sample {sample.key!r} has {len(sample.parts)} texts and {len(sample.marks)} predicates; "
                "roles are those of one predicate in one sentence"
            )
        part = sample.parts[0]
        return part.words or tuple(_segmenter(self.language, self.segmenter)(part.text))

    def predicate_of(self, sample: Sample, words: Sequence[Span]) -> list[bool]:
        """Whether each word shares a character with the predicate."""
        mark = sample.marks[0]
        found = [word.start < mark.end and mark.start < word.end for word in words]
        if not any(found):
            raise UserError(
                f"sample {sample.key!r}: no word stands at characters {mark.start} to {mark.end}, where its "
                "predicate should be"
            )
        return found

    def rows(self, codec: Codec, samples: Sequence[Sample]) -> list[list[Row]]:
        """Codecs that read words read those whose roles are asked."""
        return codec.encode([(replace(s.parts[0], words=self.words_of(s)),) for s in samples])

    def given(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        """`tokens` (K, 3): row, token and word of each that is read, of the batch's M words; `predicate`
        (M,): 1 at the words of it; `words` (B,): how many each sample has."""
        words = [self.words_of(sample) for sample in samples]
        marked = [
            x for sample, own in zip(samples, words, strict=True) for x in self.predicate_of(sample, own)
        ]
        return {
            "tokens": tokens_read(words, rows, self.token),
            "predicate": torch.tensor(marked, dtype=torch.long),
            "words": torch.tensor([len(own) for own in words]),
        }

    def gold(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        """`tags` (M,) of all words of the batch."""
        place = {label: i for i, label in enumerate(self.labels)}
        tags: list[int] = []
        for sample in samples:
            words = len(self.words_of(sample))
            if len(sample.gold) != words:
                raise UserError(
                    f"sample {sample.key!r} has {len(sample.gold)} tags for {words} words; give one for each"
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

    def head(self, encoder: Encoder) -> RolesHead:
        return RolesHead(self, encoder.width)

    def decode(
        self, scores: Scores, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]
    ) -> list[Answer]:
        words = [self.words_of(sample) for sample in samples]
        nats = scores["logits"].detach().double().log_softmax(-1)  # (M, C)
        return self.answers_of(words, torch.split(nats, [len(own) for own in words]))

    def average(self, answers: Sequence[Sequence[Answer]]) -> list[Answer]:
        """One answer a sample from several models' answers: each word's probabilities averaged."""
        words, nats = [], []
        for of_sample in zip(*answers, strict=True):
            words.append([span for span, _ in of_sample[0].words or ()])
            shares = torch.tensor([[list(table) for _, table in one.words or ()] for one in of_sample])
            nats.append(shares.double().mean(0).log().clamp(min=-1e4))  # (W, C)
        return self.answers_of(words, nats)

    def answers_of(self, words: Sequence[Sequence[Span]], nats: Sequence[Tensor]) -> list[Answer]:
        """From the logs of the probabilities of each sample's words, (W, C)."""
        best: list[list[int]] = [[] for _ in nats]
        for some in answer_batches([len(x) for x in nats], DECODED):  # of like length: little is padded
            lengths = torch.tensor([len(nats[i]) for i in some])
            scores = nn.utils.rnn.pad_sequence([nats[i] for i in some], batch_first=True)  # (B, T, C)
            mask = torch.arange(scores.shape[1]) < lengths[:, None]  # (B, T)
            for i, path in zip(some, viterbi(scores, mask, *bio_moves(self.labels)), strict=True):
                best[i] = path
        found = zip(words, (x.exp() for x in nats), best, strict=True)
        return [self._answer(own, table, [self.labels[i] for i in path]) for own, table, path in found]

    def _answer(self, words: Sequence[Span], shares: Tensor, tags: Sequence[str]) -> Answer:
        spans = tuple(
            (Span(words[start].start, words[end - 1].end), role)
            for start, end, role in chunks(tags, "iob2")
            if role != VERB
        )
        table = (array("f", row) for row in shares.tolist())  # a quarter of a tuple's memory
        return Answer(labels=tuple(tags), spans=spans, words=tuple(zip(words, table, strict=True)))

    def score(self, golds: Sequence[Any], answers: Sequence[Answer]) -> dict[str, float]:
        """Roles that training never saw count as errors."""
        return self.scores_of(self.tallies(golds, answers).sum(0))

    def tallies(self, golds: Sequence[Any], answers: Sequence[Answer]) -> Tally:
        """Per sample, what `scores_of` makes scores of when added up."""
        return tallies(golds, [answer.labels or () for answer in answers])

    def scores_of(self, total: Tally) -> dict[str, float]:
        return scores_of(total)

    def by_label(self, golds: Sequence[Any], answers: Sequence[Answer]) -> dict[str, LabelScores]:
        """Of each role."""
        return by_role(golds, [answer.labels or () for answer in answers])


class RolesHead(Head):
    """[word; indicator] -> highway LSTM -> logits (M, C); without one [word; predicate; indicator] -> hidden
    layer -> logits, as Shi & Lin (2019) end. A linear layer alone could not tell two predicates of a sentence
    apart."""

    def __init__(self, task: SemanticRoles, width: int) -> None:
        super().__init__()
        self.indicator = nn.Embedding(2, task.indicator)
        self.dropout = nn.Dropout(task.dropout)
        self.lstm: HighwayLSTM | None = None
        wide = width + task.indicator
        if task.highway_layers:
            self.lstm = HighwayLSTM(wide, task.highway_width, task.highway_layers, task.recurrent_dropout)
            self.linear = nn.Linear(task.highway_width, len(task.labels))
        else:
            self.hidden = nn.Linear(width + wide, task.hidden)
            self.linear = nn.Linear(task.hidden, len(task.labels))

    def forward(self, encoded: Encoded, batch: Batch) -> Scores:
        predicate, counts = batch.given["predicate"], batch.given["words"]  # (M,), (B,)
        words = self.dropout(word_vectors(encoded.layers[-1], batch.given["tokens"]))  # (M, D)
        marks = self.indicator(predicate)  # (M, I)
        if self.lstm is None:
            sample = torch.repeat_interleave(counts)  # (M,)
            asked = predicate.to(words.dtype)[:, None]  # (M, 1)
            totals = words.new_zeros(len(counts), words.shape[1]).index_add(
                0, sample, words * asked
            )  # (B, D)
            among = words.new_zeros(len(counts), 1).index_add(0, sample, asked)  # (B, 1)
            read = torch.cat((words, (totals / among)[sample], marks), 1)  # (M, 2D + I)
            read = F.relu(self.hidden(read))  # (M, H)
        else:
            steps, places = steps_of(counts)
            read = self.lstm(torch.cat((words, marks), 1).index_select(0, places), steps)  # (M, H) packed
            read = torch.empty_like(read).index_copy(0, places, read)  # (M, H) as words stand
        return {"logits": self.linear(read).float()}  # (M, C)

    def loss(self, scores: Scores, batch: Batch) -> Tensor:
        return F.cross_entropy(scores["logits"], batch.gold["tags"], reduction="sum")

    def targets(self, batch: Batch) -> int:
        return len(batch.gold["tags"])


@lru_cache(maxsize=8)
def bio_moves(labels: tuple[str, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """What `viterbi` takes beside scores, -inf where forbidden: I-X follows B-X or I-X alone."""
    transitions, begin = torch.zeros(len(labels), len(labels)), torch.zeros(len(labels))
    for to, label in enumerate(labels):
        if label.startswith("I-"):
            begin[to] = -inf
            for before, other in enumerate(labels):
                if other[2:] != label[2:]:
                    transitions[before, to] = -inf
    return transitions.double(), begin.double(), torch.zeros(len(labels), dtype=torch.float64)


@lru_cache(maxsize=8)
def _segmenter(language: str, name: str | None) -> Segmenter:
    return segmenter(language, name)
