"""TF-IDF and a linear model: the baseline without pretraining, saved without pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pretune.config import build, to_dict
from pretune.data.samples import Sample
from pretune.errors import UserError
from pretune.runs.files import write_json
from pretune.runs.folders import CONFIG, FORMAT, WEIGHTS, read_config, write_folder, write_run
from pretune.runs.trained import task_config, task_from
from pretune.tasks.base import Answer, Task
from pretune.tasks.choice import MultipleChoice
from pretune.tasks.classification import Classification

Floats = NDArray[np.float64]
NEVER = -30.0  # the logit of a label that training never showed


@dataclass(frozen=True)
class TfIdfConfig:
    """Sublinear TF-IDF over n-grams; the strength of the penalty is chosen on validation data."""

    units: Literal["words", "characters"] = "words"  # characters where a language writes no spaces
    longest: int | None = None  # longest n-gram; None: 2 words or 3 characters
    compared: bool = True
    """Of two texts u and v also u · v, |u - v| and their cosine: what they share, and what not."""
    strengths: tuple[float, ...] = (10.0, 3.0, 30.0, 1.0, 100.0, 0.3)  # C, the likeliest first: it wins ties


@dataclass
class Fitted:
    """A linear model of TF-IDF features, and its folder."""

    task: Any  # a Classification or MultipleChoice
    config: TfIdfConfig
    strength: float  # the C that won
    vocabulary: list[str]  # n-grams by column
    idf: Floats  # (V,)
    weight: Floats  # (F, K) for F features and K labels
    bias: Floats  # (K,)

    def __post_init__(self) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectorizer = TfidfVectorizer(vocabulary=self.vocabulary, **_options(self.config))
        self._vectorizer.idf_ = self.idf

    @property
    def parameters(self) -> int:
        return self.weight.size + self.bias.size

    def save(self, folder: Path, info: Mapping[str, Any]) -> None:
        """config.json, vocabulary.json, model.safetensors and run.json, atomically."""
        from safetensors.numpy import save_file

        config = {
            "format": FORMAT,
            "kind": "tfidf",
            "method": "tfidf",
            "tfidf": to_dict(self.config),
            "strength": self.strength,
            "task": task_config(self.task),
        }
        tensors = {"idf": self.idf, "weight": self.weight, "bias": self.bias}

        def fill(new: Path) -> None:
            write_json(new / CONFIG, config)
            write_json(new / "vocabulary.json", self.vocabulary)
            save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, new / WEIGHTS)
            write_run(new, info)

        write_folder(folder, fill)


@dataclass
class TfIdf(Fitted):
    """A fitted baseline; answers like every trained model."""

    def answers(self, samples: Sequence[Sample], batch_size: int = 64) -> list[Answer]:
        """One answer a sample, in order; nothing here depends on the batch."""
        if not samples:
            return []
        scores = self._features(samples) @ self.weight + self.bias  # (B, K)
        return [self._answer(row) for row in scores]

    def _features(self, samples: Sequence[Sample]) -> Any:  # -> sparse (B, F)
        width, words = self.weight.shape[0], len(self.vocabulary)
        if width == 4 * words + 1:
            return _features(self._vectorizer, samples, 2, True)
        return _features(self._vectorizer, samples, width // max(1, words), False)

    def _answer(self, row: Floats) -> Answer:
        if self.task.kind == "number":
            return Answer(value=float(row[0]))
        if self.task.kind == "many":
            chances = 1 / (1 + np.exp(-row))
            said = {label: float(p) for label, p in zip(self.task.labels, chances, strict=True)}
            return Answer(
                labels=tuple(label for label, p in said.items() if p > self.task.threshold), scores=said
            )
        chances = np.exp(row - row.max())
        chances /= chances.sum()
        best = self.task.labels[int(chances.argmax())]
        return Answer(best, scores={x: float(p) for x, p in zip(self.task.labels, chances, strict=True)})


class Baseline(Protocol):
    """A fitted baseline of any task."""

    task: Any

    @property
    def parameters(self) -> int: ...

    def answers(self, samples: Sequence[Sample], batch_size: int = 64) -> list[Answer]: ...

    def save(self, folder: Path, info: Mapping[str, Any]) -> None: ...


def load(folder: Path) -> Baseline:
    """The baseline that was saved in `folder`."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from pretune.runs.tfidf_choice import TfIdfChoice

    config = read_config(folder)
    try:
        vocabulary = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder}: its vocabulary or weights cannot be read: {error}") from None
    if {*tensors} != {"idf", "weight", "bias"} or not all(np.isfinite(x).all() for x in tensors.values()):
        raise UserError(f"{folder}: model.safetensors does not hold idf, weight and bias, all finite")
    task, settings = task_from(config["task"]), build(TfIdfConfig, config["tfidf"], "tfidf")
    width, labels = tensors["weight"].shape
    if (
        len(tensors["idf"]) != len(vocabulary)
        or width % len(vocabulary) not in (0, 1 % len(vocabulary))
        or labels != len(tensors["bias"])
    ):
        raise UserError(f"{folder}: model.safetensors and vocabulary.json do not fit each other")
    kind = TfIdfChoice if isinstance(task, MultipleChoice) else TfIdf
    return kind(task, settings, config["strength"], vocabulary, **tensors)


@dataclass(frozen=True)
class Try:
    """One strength, and what the model that learned with it makes of the validation samples."""

    strength: float
    scores: dict[str, float]
    answers: list[Answer]


def fit(
    task: Task,
    train: Sequence[Sample],
    valid: Sequence[Sample],
    config: TfIdfConfig | None = None,
) -> tuple[Baseline, dict[str, float]]:
    """Choose the strength on `valid`, then refit on all labels; returns also the validation scores."""
    config = config or TfIdfConfig()
    best = best_of(task, tried(task, train, valid, config))
    return fit_at(task, [*train, *valid], best.strength, config), best.scores


def tried(task: Task, train: Sequence[Sample], valid: Sequence[Sample], config: TfIdfConfig) -> list[Try]:
    """Every strength, learned on `train`."""
    golds = [sample.gold for sample in valid]
    found = []
    for strength in config.strengths:
        answers = fit_at(task, train, strength, config).answers(valid)
        found.append(Try(strength, task.score(golds, answers), answers))
    return found


def best_of(task: Task, tries: Sequence[Try]) -> Try:
    """The first of equals."""
    sign = 1 if task.higher_is_better else -1
    return max(tries, key=lambda one: sign * one.scores[task.metric])


def fit_at(task: Task, samples: Sequence[Sample], strength: float, config: TfIdfConfig) -> Baseline:
    from pretune.runs.tfidf_choice import fit_at as fit_choice_at

    if isinstance(task, MultipleChoice):
        return fit_choice_at(task, samples, strength, config)
    assert isinstance(task, Classification)
    return _fit_at(task, samples, strength, config)


def _fit_at(task: Classification, samples: Sequence[Sample], strength: float, config: TfIdfConfig) -> TfIdf:
    vectorizer, parts = fitted_vectorizer(config, samples), len(samples[0].parts)
    x = _features(vectorizer, samples, parts, config.compared and parts == 2)  # (B, F)
    weight, bias = _solve(task, x, [s.gold for s in samples], strength)
    vocabulary = vectorizer.get_feature_names_out().tolist()
    return TfIdf(task, config, strength, vocabulary, vectorizer.idf_, weight, bias)


def fitted_vectorizer(config: TfIdfConfig, samples: Sequence[Sample]) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(**_options(config))
    try:
        vectorizer.fit(text for s in samples for text in s.texts)
    except ValueError as error:
        raise UserError(f"tfidf: no word in any of {len(samples)} training texts ({error})") from error
    return vectorizer


def _options(config: TfIdfConfig) -> dict[str, Any]:
    if config.units == "characters":
        return {"analyzer": "char", "ngram_range": (1, config.longest or 3), "sublinear_tf": True}
    pattern = r"(?u)\w+|[^\w\s]"  # words and marks: "!" and "?" say something
    return {"token_pattern": pattern, "ngram_range": (1, config.longest or 2), "sublinear_tf": True}


def _features(
    vectorizer: Any, samples: Sequence[Sample], parts: int, compared: bool
) -> Any:  # -> sparse (B, P·V), or (B, 4V + 1)
    from scipy.sparse import hstack

    found = [vectorizer.transform([s.texts[part] for s in samples]) for part in range(parts)]
    if compared:
        u, v = found
        shared = u.multiply(v)
        found += [shared, abs(u - v), shared.sum(1)]
    return hstack(found, "csr")


def _solve(task: Classification, x: Any, golds: Sequence[Any], strength: float) -> tuple[Floats, Floats]:
    """Features (B, F) -> weight (F, K) and bias (K,)."""
    if task.kind == "number":
        from sklearn.linear_model import Ridge

        ridge = Ridge(alpha=10 / strength).fit(x, np.asarray(golds, dtype=np.float64))
        return ridge.coef_.reshape(-1, 1), np.atleast_1d(np.float64(ridge.intercept_))
    if task.kind == "many":
        columns = [
            _logistic(x, np.array([label in gold for gold in golds]), strength) for label in task.labels
        ]
        return np.stack([w for w, _ in columns], 1), np.array([b for _, b in columns])
    return _multinomial(task, x, np.array([task.labels.index(gold) for gold in golds]), strength)


def _logistic(x: Any, y: NDArray[np.bool_], strength: float) -> tuple[Floats, float]:
    """One label against the rest."""
    from sklearn.linear_model import LogisticRegression

    if y.all() or not y.any():
        return np.zeros(x.shape[1]), -NEVER if y.all() else NEVER
    model = LogisticRegression(C=strength, max_iter=1000).fit(x, y)
    return model.coef_[0], float(model.intercept_[0])


def _multinomial(
    task: Classification, x: Any, y: NDArray[np.int64], strength: float
) -> tuple[Floats, Floats]:
    from sklearn.linear_model import LogisticRegression

    weight, bias = np.zeros((x.shape[1], len(task.labels))), np.full(len(task.labels), NEVER)
    seen = np.unique(y)
    if len(seen) == 1:
        bias[seen] = 0.0
        return weight, bias
    model = LogisticRegression(C=strength, max_iter=1000).fit(x, y)
    if len(seen) == 2:  # scikit-learn keeps one column for two classes
        weight[:, seen[1]], bias[seen] = model.coef_[0], [0.0, model.intercept_[0]]
        return weight, bias
    weight[:, seen], bias[seen] = model.coef_.T, model.intercept_
    return weight, bias


def for_language(language: str, config: TfIdfConfig | None = None) -> TfIdfConfig:
    """Characters where a language writes no spaces between words."""
    config = config or TfIdfConfig()
    return replace(config, units="characters") if language in ("zh", "ja", "th") else config
