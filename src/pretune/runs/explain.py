"""Explainer: which words of a text speak for a trained model's answer, and which against it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pretune.data.samples import Sample, Span
from pretune.errors import UsageError, UserError, choose
from pretune.runs.attributions import Attributed, Explaining, Way, attributed
from pretune.runs.predictor import Predictor, Question
from pretune.runs.trained import Ensemble, TrainedModel
from pretune.tasks.base import Answer
from pretune.tasks.classification import Classification


@dataclass(frozen=True)
class Token:
    """A stretch of a text and what it adds to the score."""

    part: int  # which text of the sample, 0 unless there are several
    start: int
    end: int  # characters of that text
    text: str
    score: float

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Explanation:
    """Scores of the words of one sample. What no word covers, such as spaces, has none."""

    key: str
    texts: tuple[str, ...]
    tokens: tuple[Token, ...]  # in the order of the texts
    label: str | None  # whose log-odds the scores add to; None: they add to the number that is predicted
    score: float  # those log-odds, ln p/(1-p), or that number; the mean of them where several models answer
    baseline: float | None  # the score without words, which integrated gradients start from
    answer: Answer
    method: Way

    @property
    def probability(self) -> float | None:
        """Of the label."""
        return None if self.label is None else self.answer.scores[self.label]

    @property
    def gap(self) -> float | None:
        """How far the tokens' scores are from adding up to the score less the baseline: 0 if exact."""
        if self.baseline is None:
            return None
        return sum(token.score for token in self.tokens) - (self.score - self.baseline)

    def strongest(self, most: int = 10) -> list[Token]:
        """The tokens that matter most, either way."""
        return sorted(self.tokens, key=lambda token: -abs(token.score))[:most]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; characters are counted from 0, `end` is exclusive."""
        return {
            "key": self.key,
            "texts": list(self.texts),
            "label": self.label,
            "probability": self.probability,
            "answer": self.answer.to_dict(),
            "method": self.method,
            "score": self.score,
            "baseline": self.baseline,
            "tokens": [token.to_dict() for token in self.tokens],
        }


@dataclass
class Explainer:
    """A trained model that gives reasons.

        explainer = Explainer.load("stars")
        explainer.explain("A dull plot, but well played.").strongest(3)

    Several models that answer together are explained one by one and their scores averaged.
    """

    predictor: Predictor
    how: Explaining = field(default_factory=Explaining)

    @classmethod
    def load(cls, folder: str | Path, how: Explaining = Explaining(), device: str = "auto") -> Explainer:  # noqa: B008, frozen
        """What `finetune` or `compare` left in `folder`."""
        predictor = Predictor.load(folder, device)
        if not isinstance(predictor.model, (TrainedModel, Ensemble)):
            raise UserError(f"{folder} is no network that reads word by word, so there is nothing to explain")
        if not isinstance(predictor.task, Classification):
            raise UserError(f"{folder} answers with more than a label or a number, which cannot be explained")
        return cls(predictor, how)

    @property
    def task(self) -> Classification:
        assert isinstance(self.predictor.task, Classification)
        return self.predictor.task

    def explain(self, question: Question, label: str | None = None) -> Explanation:
        """Why this answer; or, with `label`, what speaks for that one."""
        return next(self.explain_all([question], label))

    def explain_all(self, questions: Iterable[Question], label: str | None = None) -> Iterator[Explanation]:
        """One after another, in order."""
        if label is not None and self.task.kind == "number":
            raise UsageError(f"the label to explain is {label!r}, but this model answers with numbers")
        if label is not None and label not in self.task.labels:
            raise choose("the label to explain", label, self.task.labels)
        for question in questions:
            yield self._explained(self.predictor.as_sample(question), label)

    def _explained(self, sample: Sample, label: str | None) -> Explanation:
        (answer,) = self.predictor.model.answers([sample])
        if label is None and self.task.kind != "number":
            label = answer.label or max(answer.scores, key=answer.scores.__getitem__)
        found = [attributed(member, sample, label, self.how) for member in self._members()]
        whole = found[0] if len(found) == 1 else average(found)
        tokens = tuple(
            Token(part, start, end, sample.texts[part][start:end], score)
            for (part, (start, end)), score in whole.units.items()
        )
        shown = sample.key, sample.texts, tokens
        return Explanation(*shown, label, whole.score, whole.baseline, answer, self.how.method)

    def _members(self) -> list[TrainedModel]:
        model = self.predictor.model
        if isinstance(model, Ensemble):
            return list(model.members.values())
        assert isinstance(model, TrainedModel)
        return [model]


def average(found: Sequence[Attributed]) -> Attributed:
    """The mean of several models on the same characters: stretches that share some become one."""
    pieces = sorted({unit for one in found for unit in one.units})
    joined: list[tuple[int, Span]] = []
    for part, span in pieces:
        if joined and joined[-1][0] == part and span.start < joined[-1][1].end:
            last = joined[-1][1]
            joined[-1] = part, Span(last.start, max(last.end, span.end))
        else:
            joined.append((part, span))
    units = dict.fromkeys(joined, 0.0)
    for one in found:
        place = iter(joined)
        here = next(place, None)
        for (part, span), score in one.units.items():  # in order, as `joined` is
            while here is not None and (here[0] != part or here[1].end <= span.start):
                here = next(place)
            assert here is not None
            units[here] += score / len(found)
    baselines = [one.baseline for one in found if one.baseline is not None]
    baseline = sum(baselines) / len(baselines) if baselines else None
    return replace(
        found[0], score=sum(one.score for one in found) / len(found), baseline=baseline, units=units
    )
