"""Tasks that a language model answers without training on them: section 5 of Radford et al. (2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pretune.data.samples import Sample
from pretune.errors import UsageError, UserError
from pretune.runs.language_model import LanguageModel
from pretune.runs.left_to_right import LeftToRight
from pretune.tasks.base import Answer

SENTIMENTS: Final = {"positive": "positive", "negative": "negative"}  # label -> word
Question = tuple[list[int], list[int]]  # what is read, and what is scored after it


@dataclass(frozen=True)
class Threshold:
    """From which score on a text is of one label rather than the other."""

    value: float
    above: str
    below: str

    @classmethod
    def fitted(cls, scores: Sequence[float], golds: Sequence[str]) -> Threshold:
        """The one with the best Matthews correlation on labelled texts, between two of their scores.

        The paper does not say how it chose its own. `above` is the label whose texts score higher on average.
        """
        labels = sorted(set(golds))
        if len(labels) != 2:
            raise UserError(f"a threshold parts two labels; the texts to fit it on have {len(labels)}")
        order = np.argsort(scores, kind="stable")
        said, sorted_golds = np.asarray(scores)[order], np.asarray(golds)[order]
        means = {label: float(said[sorted_golds == label].mean()) for label in labels}
        below, above = sorted(labels, key=lambda label: means[label])
        if said[0] == said[-1]:
            raise UserError("all texts to fit a threshold on score the same; give others")
        best = int(_matthews_of_cuts(sorted_golds == above, said).argmax())
        return cls(float(said[best : best + 2].mean()), above, below)

    def label(self, score: float) -> str:
        return self.above if score >= self.value else self.below


@dataclass
class ZeroShot:
    """A pretrained GPT or forward ULMFiT, asked in four ways; answers are in the order of the samples.

    zero = ZeroShot.load("models/gpt")
    zero.choices([choice_sample("The sun is responsible for", ["puppies", "plants sprouting"])])[0].choice
    """

    model: LeftToRight
    batch_size: int = 32
    _parts: dict[str, list[int]] = field(init=False, default_factory=dict, repr=False)

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto", batch_size: int = 32) -> ZeroShot:
        """A folder that `pretrain`, `adapt` or `import` left."""
        return cls(LanguageModel.load(folder, device).left_to_right(), batch_size)

    def acceptability(self, samples: Sequence[Sample], threshold: Threshold | None = None) -> list[Answer]:
        """`value`: the mean log-probability of a text's tokens, in nats, and by it the label (CoLA)."""
        asked = [(self.model.opening, self._ids(" ".join(sample.texts))) for sample in samples]
        means = self._means(asked, [sample.key for sample in samples])
        labels = [None if threshold is None else threshold.label(mean) for mean in means]
        return [Answer(label=x, value=mean) for x, mean in zip(labels, means, strict=True)]

    def sentiment(
        self, samples: Sequence[Sample], words: Mapping[str, str] = SENTIMENTS, append: str = "very"
    ) -> list[Answer]:
        """`label`: whose word is likeliest after the text and `append`, all other words left out (SST-2).

        `words` has a word for each label; of several tokens the product of theirs counts.
        """
        said = self._words(words)
        before = [
            [*self.model.opening, *self._ids(" ".join(sample.texts)), *self._ids(append)]
            for sample in samples
        ]
        if any(not ids for ids in before):
            raise UserError(
                f"sample {samples[before.index([])].key!r} is blank: there is nothing to go on from"
            )
        if all(len(ids) == 1 for ids in said.values()):
            nats = self.model.following(before, self.batch_size)[:, [ids[0] for ids in said.values()]]
            sums = nats.double().tolist()  # N × labels
        else:
            asked = [(ids, word) for ids in before for word in said.values()]
            flat = [fsum(each) for each in self._nats(asked)]
            sums = [flat[i : i + len(said)] for i in range(0, len(flat), len(said))]
        return [_likeliest_label(list(said), row) for row in sums]

    def choices(self, samples: Sequence[Sample]) -> list[Answer]:
        """`choice`: the one whose tokens have the highest mean log-probability after the question (RACE).

        A sample's parts are the question, its context before it, then the choices, as
        `data.choices.read_choices` gives them; `scores` are the means.
        """
        asked = [
            ([*self.model.opening, *self._ids(sample.texts[0])], self._ids(choice))
            for sample in samples
            for choice in sample.texts[1:]
        ]
        return self._chosen(samples, asked)

    def cloze(self, samples: Sequence[Sample], blank: str = "_") -> list[Answer]:
        """`choice`: the one after which the rest of the sentence is likeliest, token by token on average.

        The first part of a sample has a `blank` where each of the others may stand: a pronoun's place in
        schemas of Winograd's (DPRD). The choice itself is read, not scored, so that rare names lose nothing.
        """
        asked = []
        for sample in samples:
            before, found, rest = sample.texts[0].partition(blank)
            if not found or blank in rest:
                count = sample.texts[0].count(blank)
                raise UserError(
                    f"sample {sample.key!r} has {count} blanks; write {blank} once, where choices may stand"
                )
            for choice in sample.texts[1:]:
                read = [*self.model.opening, *self._ids(before), *self._ids(choice)]
                asked.append((read, self._ids(rest)))
        return self._chosen(samples, asked)

    def _chosen(self, samples: Sequence[Sample], asked: Sequence[Question]) -> list[Answer]:
        keys = [sample.key for sample in samples for _ in sample.texts[1:]]
        means = iter(self._means(asked, keys))
        answers = []
        for sample in samples:
            own = [next(means) for _ in sample.texts[1:]]
            best = max(range(len(own)), key=own.__getitem__)
            answers.append(Answer(choice=best, scores={str(k): mean for k, mean in enumerate(own)}))
        return answers

    def _means(self, asked: Sequence[Question], keys: Sequence[str]) -> list[float]:
        """Mean log-probability of what is scored of each question."""
        found = []
        for key, each in zip(keys, self._nats(asked), strict=True):
            if not each:
                raise UserError(
                    f"sample {key!r} has no token that could be scored: nothing but blank, or one token "
                    "with none before it"
                )
            found.append(fsum(each) / len(each))
        return found

    def _nats(self, asked: Sequence[Question]) -> list[list[float]]:
        """Log-probability of each token that is scored; of long texts the beginning is not read."""
        reach = self.model.reach
        texts = [
            [*read, *scored] if reach is None else [*read, *scored][-max(reach, len(scored)) - 1 :]
            for read, scored in asked
        ]
        said = self.model.nats(texts, self.batch_size)
        return [
            [float(x) for x in nats[len(nats) - len(scored) :] if not np.isnan(x)]
            for nats, (_, scored) in zip(said, asked, strict=True)
        ]

    def _words(self, words: Mapping[str, str]) -> dict[str, list[int]]:
        if len(words) < 2:
            raise UsageError("give words of two labels or more, such as positive=positive negative=negative")
        said = {label: self._ids(word) for label, word in words.items()}
        for label, ids in said.items():
            if not ids or self.model.unknown_id in ids:
                raise UsageError(
                    f"the model does not know the word {words[label]!r} of {label!r}; choose another"
                )
        return said

    def _ids(self, text: str) -> list[int]:
        """Of a part of a text; parts come again, as questions do with each choice."""
        if text not in self._parts:
            if len(self._parts) > 10_000:
                self._parts.clear()
            self._parts[text] = self.model.ids(text)
        return self._parts[text]


def _matthews_of_cuts(high: NDArray[np.bool_], said: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of cuts after each of n sorted texts but the last, (n - 1,); none between two that score the same."""
    n = len(high)
    low_below, high_below = (~high).cumsum()[:-1], high.cumsum()[:-1]
    below = np.arange(1, n)
    agreement = n * (low_below + high.sum() - high_below) - below * (~high).sum() - (n - below) * high.sum()
    spread = (n * n - below**2 - (n - below) ** 2) * (n * n - high.sum() ** 2 - (~high).sum() ** 2)
    return np.where(np.diff(said) > 0, agreement / np.sqrt(spread.astype(float)), -np.inf)


def _likeliest_label(labels: Sequence[str], nats: Sequence[float]) -> Answer:
    """Probabilities among these labels alone."""
    shares = np.exp(np.asarray(nats) - max(nats))
    shares /= shares.sum()
    return Answer(label=labels[int(shares.argmax())], scores=dict(zip(labels, shares.tolist(), strict=True)))
