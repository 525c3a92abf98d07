"""TF-IDF for multiple choice: the words of a choice, and those that it shares with its question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pretune.data.samples import Sample
from pretune.runs.tfidf import Fitted, TfIdfConfig, fitted_vectorizer
from pretune.tasks.base import Answer
from pretune.tasks.choice import MultipleChoice, answer_of


@dataclass
class TfIdfChoice(Fitted):
    """A linear score of each choice a of a question q, of [a; q · a; their cosine]; softmax over choices."""

    def answers(self, samples: Sequence[Sample], batch_size: int = 64) -> list[Answer]:
        """One answer a sample, in order; nothing here depends on the batch."""
        if not samples:
            return []
        scores = (features(self._vectorizer, samples) @ self.weight)[:, 0]  # (M,)
        ends = np.cumsum([len(sample.parts) - 1 for sample in samples])
        return [answer_of(_softmax(some)) for some in np.split(scores, ends[:-1])]


def fit_at(
    task: MultipleChoice, samples: Sequence[Sample], strength: float, config: TfIdfConfig
) -> TfIdfChoice:
    """The right choice against each wrong one of its sample: logistic regression on their difference.

    With two choices a sample this is the softmax over them; a constant would cancel, so there is none.
    """
    from scipy.sparse import vstack
    from sklearn.linear_model import LogisticRegression

    vectorizer = fitted_vectorizer(config, samples)
    x = features(vectorizer, samples)  # (M, 2V + 1)
    right, wrong, first = [], [], 0
    for sample in samples:
        others = [first + k for k in range(len(sample.parts) - 1) if k != sample.gold]
        right += [first + sample.gold] * len(others)
        wrong += others
        first += len(sample.parts) - 1
    gaps = x[right] - x[wrong]
    both, sides = vstack([gaps, -gaps], "csr"), np.repeat([1, 0], len(right))
    model = LogisticRegression(C=strength, max_iter=1000, fit_intercept=False).fit(both, sides)
    vocabulary = vectorizer.get_feature_names_out().tolist()
    weight = model.coef_.reshape(-1, 1)
    return TfIdfChoice(task, config, strength, vocabulary, vectorizer.idf_, weight, np.zeros(1))


def features(vectorizer: Any, samples: Sequence[Sample]) -> Any:  # -> sparse (M, 2V + 1), a row a choice
    from scipy.sparse import hstack

    choices = vectorizer.transform([text for sample in samples for text in sample.texts[1:]])
    question = vectorizer.transform([sample.texts[0] for sample in samples])
    asked = question[np.repeat(np.arange(len(samples)), [len(sample.parts) - 1 for sample in samples])]
    shared = asked.multiply(choices)
    return hstack([choices, shared, shared.sum(1)], "csr")


def _softmax(scores: Any) -> list[float]:
    shares = np.exp(scores - scores.max())
    return [float(x) for x in shares / shares.sum()]
