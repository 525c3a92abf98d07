"""Span question answering: which words of a passage answer a question, if any do?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import fsum
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pretune.data.alignment import tokens_of
from pretune.data.rows import Codec, Row
from pretune.data.samples import Sample, Span
from pretune.data.segment import guess_language
from pretune.data.span_answers import SpanAnswer
from pretune.encoder import Encoder
from pretune.errors import UsageError, UserError, choose
from pretune.layers.biattention import LOW
from pretune.metrics.span_qa import Scorer, best_of, best_threshold, cmrc, squad
from pretune.tasks.base import Answer, Golds, Scores, Task
from pretune.tasks.passages import PASSAGE, Windows, candidates
from pretune.tasks.span_decoding import Guess, best_spans
from pretune.tasks.span_head import SpanHead

Reader = Literal["linear", "bidaf"]


@dataclass(frozen=True)
class SpanQA(Task):
    """Which words of the passage answer the question?

    A sample's parts are question and passage; its gold is a tuple of `SpanAnswer`s, all of them right, and
    empty where the passage has no answer. Every token of the passage has a score as the first and as the
    last of the answer; the softmax over each is over all tokens of all windows of a sample, so that windows
    compare (the shared normalisation of Clark & Gardner 2018, section 4), and the loss is the mean of both.
    BERT's script has a softmax a window, marks and question among its tokens, and teaches windows without the
    answer to point at [CLS]. Where several tokens are right, such as one in two windows or of two golds,
    their probabilities add up. Models are chosen by F1.

        task = SpanQA.of(train)

    An answer has its `text`, its characters in `spans`, and the `guesses` that come next. Files are read by
    `pretune.data.passages.read_passages`, and `pretune.data.span_answers.question_sample` makes a sample.
    """

    golds: ClassVar[Golds] = "answers"

    model: Reader = "linear"
    """linear: question and passage are read as a pair, and a linear layer gives the scores, as in BERT;
    bidaf: each is read alone, and a task model lets them attend to one another (Clark & Gardner 2018, which
    Peters et al. 2018 added ELMo to): for the recipe features."""
    no_answer: bool = False
    """Whether a passage may lack an answer; found in the training samples."""
    null_threshold: float | None = None
    """Nothing is answered where no answer's score exceeds the best answer's by more. None: found on the
    validation samples after training, as SQuAD 2.0's script does; without any it is 0."""
    max_length: int = 384
    """Tokens of a row, where an encoder has a limit (its own may be lower): longer passages are cut into
    windows."""
    stride: int = 128
    """Tokens from one window to the next; at most half a window."""
    max_question: int = 64
    """Tokens of a question that are read where rows are limited, at most half the row."""
    max_answer: int = 30
    """Most tokens of an answer."""
    tokens_at_once: int = 1 << 14
    """Tokens of windows that are read at once, padding included, which bounds the memory. A batch that learns
    from more does so in parts whose gradients add up; all windows of one question stay together. A question
    with more is answered in parts whose scores are put together."""
    n_best: int = 20
    """How many guesses are kept, and share the probability."""
    hidden: int | None = None
    """Of bidaf: units a direction of its GRUs; None: 90."""
    dropout: float = 0.1
    """Before the linear layer; in bidaf before and after each GRU, where 0.2 was published."""
    language: str = "en"
    """By whose rules answers are compared: zh and ja as CMRC 2018's script does, others as SQuAD's; guessed
    from the training samples."""

    def __post_init__(self) -> None:
        if self.model not in get_args(Reader):
            raise choose("task.model", self.model, get_args(Reader))
        if not 0 <= self.dropout < 1:
            raise UsageError(f"task.dropout is {self.dropout}; it must be from 0 to below 1")
        for name in ("stride", "max_question", "max_answer", "n_best", "hidden", "tokens_at_once"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"task.{name} is {getattr(self, name)}; it must be at least 1")
        if self.hidden is not None and self.model != "bidaf":
            raise UsageError("task.hidden is for task.model=bidaf; leave it out, or choose that")
        if self.null_threshold is not None and not self.no_answer:
            raise UsageError(
                "task.null_threshold is for questions without answer, and training has none; leave it out"
            )
        if self.max_length < 8:
            raise UsageError(f"task.max_length is {self.max_length}; a row needs 8 tokens or more")

    @classmethod
    def of(cls, samples: Sequence[Sample], kind: str = "qa", **options: Any) -> SpanQA:
        """The task that these training samples ask."""
        if kind != "qa":
            raise UsageError(f"--kind is {kind}, which is for classification; here answers are asked for")
        golds = [checked(sample).gold for sample in samples if sample.gold is not None]
        if not any(golds):
            raise UserError("no sample has an answer, so there is nothing to train on")
        language = guess_language(sample.parts[PASSAGE].text for sample in samples[:2000])
        return cls(**{"no_answer": () in golds, "language": language, **options})

    @property
    def metric(self) -> str:
        return "f1"

    @property
    def windows(self) -> Windows:
        return Windows(self.max_length, self.stride, self.max_question)

    def rows(self, codec: Codec, samples: Sequence[Sample]) -> list[list[Row]]:
        for sample in samples:
            checked(sample)
        return self.windows.rows(codec, samples, apart=self.model == "bidaf")

    def given(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        """`passage` (N, T): what the answer is of; `asks` (N,): rows of a question alone."""
        flat = [row for of_sample in rows for row in of_sample]
        passage = torch.zeros(len(flat), max(map(len, flat)), dtype=torch.bool)
        for n, row in enumerate(flat):
            passage[n, candidates(row)] = True
        asks = [self.model == "bidaf" and k == 0 for of_sample in rows for k in range(len(of_sample))]
        return {"passage": passage, "asks": torch.tensor(asks)}

    def gold(self, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        """`starts` and `ends` (N, T): tokens that begin and end an answer; `none` (B,): there is none."""
        flat = [row for of_sample in rows for row in of_sample]
        starts = torch.zeros(len(flat), max(map(len, flat)), dtype=torch.bool)
        ends, n = torch.zeros_like(starts), 0
        for sample, of_sample in zip(samples, rows, strict=True):
            for answer in checked(sample).gold:
                for k, first, last in _ends(of_sample, answer):
                    starts[n + k, first] = ends[n + k, last] = True
            n += len(of_sample)
        return {
            "starts": starts,
            "ends": ends,
            "none": torch.tensor([sample.gold == () for sample in samples]),
        }

    def head(self, encoder: Encoder) -> SpanHead:
        hidden = (self.hidden or 90) if self.model == "bidaf" else None
        return SpanHead(encoder.width, encoder.summary_width, hidden, self.dropout, self.no_answer)

    def pieces(self, rows: Sequence[Row]) -> list[list[Row]]:
        """Some windows at a time; each time with the question where that is a row of its own."""
        asks = list(rows[: self.model == "bidaf"])
        windows = rows[len(asks) :]
        room = max(1, self.tokens_at_once // max(map(len, rows)) - len(asks))
        return [[*asks, *windows[k : k + room]] for k in range(0, len(windows), room)]

    def together(self, scores: Sequence[Scores], pieces: Sequence[Sequence[Row]]) -> Scores:
        """Tokens of one window after another; no answer as it scores in the window that has most of one."""
        longest = max(len(row) for piece in pieces for row in piece)  # T
        found = {}
        for name in ("start", "end"):
            each = [F.pad(x[name], (0, longest - x[name].shape[1]), value=LOW) for x in scores]
            found[name] = torch.cat([each[0], *(x[self.model == "bidaf" :] for x in each[1:])])  # (N, T)
        if self.no_answer:
            found["null"] = torch.stack([x["null"] for x in scores]).amin(0)  # (1,)
        return found

    def decode(
        self, scores: Scores, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]
    ) -> list[Answer]:
        start, end = (scores[name].detach().double().numpy() for name in ("start", "end"))
        null = scores["null"].detach().double().tolist() if self.no_answer else [None] * len(samples)
        found, n = [], 0
        for sample, of_sample, none in zip(samples, rows, null, strict=True):
            own = slice(n, n + len(of_sample))
            n += len(of_sample)
            windows = [
                (row, s, e)
                for row, s, e in zip(of_sample, start[own], end[own], strict=True)
                if PASSAGE in row.part
            ]
            guesses = best_spans(windows, self.windows.step, self.max_answer, self.n_best)
            found.append(self.answer_of(sample.parts[PASSAGE].text, guesses, none))
        return found

    def answer_of(self, passage: str, guesses: Sequence[Guess], none: float | None) -> Answer:
        """Of spans with their scores, best first, and the score of there being no answer."""
        if not guesses:
            return Answer(text="", spans=())
        difference = 0.0 if none is None else none - guesses[0].score
        logits = np.array([guess.score for guess in guesses] + ([] if none is None else [none]))
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        kept = tuple(
            (x.span, passage[slice(*x.span)], float(p)) for x, p in zip(guesses, shares, strict=False)
        )
        return self._said(kept, None if none is None else (float(shares[-1]), difference))

    def _said(self, guesses: tuple[tuple[Span, str, float], ...], none: tuple[float, float] | None) -> Answer:
        """`none`: how likely no answer is, and by how much its score exceeds the best answer's."""
        scores = {"answer": guesses[0][2]}
        if none is not None:
            scores |= {"no_answer": none[0], "difference": none[1]}
            if none[1] > (self.null_threshold or 0.0):
                return Answer(text="", spans=(), guesses=guesses, scores=scores)
        span, text, _ = guesses[0]
        return Answer(text=text, spans=((span, "answer"),), guesses=guesses, scores=scores)

    def average(self, answers: Sequence[Sequence[Answer]]) -> list[Answer]:
        """One answer a sample from several models' answers: probabilities and differences averaged."""
        return [self._averaged(of_sample) for of_sample in zip(*answers, strict=True)]

    def _averaged(self, answers: Sequence[Answer]) -> Answer:
        table: dict[tuple[Span, str], list[float]] = {}
        for answer in answers:
            for span, text, share in answer.guesses or ():
                table.setdefault((span, text), []).append(share)
        ranked = sorted(table.items(), key=lambda item: (-fsum(item[1]), item[0]))[: self.n_best]
        if not ranked:
            return Answer(text="", spans=())
        kept = tuple((span, text, fsum(shares) / len(answers)) for (span, text), shares in ranked)
        if not self.no_answer:
            return self._said(kept, None)
        share, difference = (
            fsum(a.scores.get(name, 0.0) for a in answers) / len(answers)
            for name in ("no_answer", "difference")
        )
        return self._said(kept, (share, difference))

    def tuned(self, golds: Sequence[Any], answers: Sequence[Answer]) -> SpanQA:
        """With the threshold that is best for F1 on these answers, unless it was given."""
        if not self.no_answer or self.null_threshold is not None:
            return self
        differences, f1, answerable = [], [], []
        for gold, answer in zip(golds, answers, strict=True):
            if answer.guesses:
                differences.append(answer.scores["difference"])
                f1.append(best_of([x.text for x in gold], answer.guesses[0][1], self.scorer)[1])
                answerable.append(bool(gold))
        if not differences:
            return self
        return replace(self, null_threshold=best_threshold(differences, f1, answerable))

    @property
    def scorer(self) -> Scorer:
        """EM and F1 as its language wants them."""
        return cmrc if self.language in ("zh", "ja") else squad

    def score(self, golds: Sequence[Any], answers: Sequence[Answer]) -> dict[str, float]:
        return self.scores_of(self.tallies(golds, answers).sum(0))

    def tallies(self, golds: Sequence[Any], answers: Sequence[Answer]) -> Any:
        """Per sample EM, F1 and 1, in all and of those with and without an answer: (B, 9)."""
        table = np.zeros((len(answers), 9))
        for b, (gold, answer) in enumerate(zip(golds, answers, strict=True)):
            found = *best_of([x.text for x in gold], answer.text or "", self.scorer), 1.0
            table[b, :3] = found
            table[b, 3:6] = found if gold else 0.0
            table[b, 6:] = 0.0 if gold else found
        return table

    def scores_of(self, total: Any) -> dict[str, float]:
        exact, f1, count, *rest = (float(x) for x in total)
        scores = {"f1": f1 / max(1.0, count), "exact_match": exact / max(1.0, count)}
        if self.no_answer:
            scores["f1_with_answer"] = rest[1] / max(1.0, rest[2])
            scores["exact_match_with_answer"] = rest[0] / max(1.0, rest[2])
            scores["accuracy_without_answer"] = rest[3] / max(1.0, rest[5])
        return scores


def _ends(rows: Sequence[Row], answer: SpanAnswer) -> list[tuple[int, int, int]]:
    """Window, first and last token of an answer: in each window that has all of it, else the most."""
    if answer.span is None:
        return []
    found = []
    for k, row in enumerate(rows):
        (tokens,) = tokens_of(row, PASSAGE, [answer.span])
        tokens.sort(key=lambda t: (row.chars[t], t))
        found.append((k, tokens))
    most = max(len(tokens) for _, tokens in found)
    return [(k, tokens[0], tokens[-1]) for k, tokens in found if most and len(tokens) == most]


def checked(sample: Sample) -> Sample:
    """With a question, a passage, and a gold of `SpanAnswer`s where there is one."""
    if len(sample.parts) != 2:
        raise UserError(
            f"sample {sample.key!r} has {len(sample.parts)} text{'s' * (len(sample.parts) != 1)}; a question "
            "and a passage are needed"
        )
    gold = sample.gold
    if gold is None or (isinstance(gold, tuple) and all(isinstance(one, SpanAnswer) for one in gold)):
        return sample
    raise UserError(f"sample {sample.key!r} has the answers {gold!r:.60}; give a tuple of SpanAnswers")
