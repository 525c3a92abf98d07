"""PretuneClassifier and PretuneTagger: fine-tuning as scikit-learn's estimators."""

# ruff: noqa: N803 - X is scikit-learn's name

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from pretune.config import merge, update
from pretune.data.samples import Part, Sample
from pretune.data.splits import split
from pretune.errors import UsageError, choose
from pretune.interop.estimator_data import (
    InputError,
    classes_as_json,
    classes_from_json,
    label_text,
    labelled,
    sample_of,
    seed_of,
    sentences_of,
    tagged,
    texts_of,
)
from pretune.runs.beginning import check_head, start_of, started_from
from pretune.runs.folders import RUN
from pretune.runs.measure import Measure, fingerprint
from pretune.runs.predictor import Predictor
from pretune.runs.run import finetune, recipe_for, report
from pretune.runs.starts import Start
from pretune.runs.trained import task_class
from pretune.tasks.base import Answer, Task
from pretune.training.loop import Fitting

TABLES = ("recipe", "task", "encoder", "codec", "fitting")  # of settings
OURS = ("seed", "folder", "resume", "quiet", "label")  # settings of fitting that parameters or nobody decides


class _Estimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """What both share."""

    _task = ""

    def __init__(
        self,
        method: str | None = None,
        start: str | Path = "scratch",
        recipe: str | None = None,
        *,
        size: str = "small",
        epochs: int | None = None,
        settings: Mapping[str, Any] | None = None,
        valid_share: float = 0.1,
        language: str | None = None,
        random_state: Any = 0,
        device: str = "auto",
        batch_size: int = 64,
        verbose: bool = False,
    ) -> None:
        """Parameters.

        method: bert, elmo, gpt, ulmfit or wordvectors, for `start` "scratch" (None: ulmfit) or a language of
            starters; else it comes with `start`.
        start: "scratch", a folder, "hf:OWNER/NAME", a starter's name, "en" or "zh".
        recipe: a recipe's name; None is the method's own, from scratch `full`.
        size: of an encoder from scratch.
        epochs: of the recipe; None is its own number.
        settings: tables as of `pretune.compare`, nested or dotted: {"recipe.lr": 0.01, "task.dropout": 0.2}.
        valid_share: of the samples, to choose the best epoch by; 0 keeps the last.
        language: of an encoder from scratch; None is guessed.
        random_state: a whole number, a RandomState, or None for a seed that is drawn.
        batch_size: of answers; it changes none.

        After `fit` there are `classes_`, `predictor_` (a `pretune.Predictor`), `validation_` (scores of the
        weights that were kept) and `history_` (an epoch each).
        """
        self.method = method
        self.start = start
        self.recipe = recipe
        self.size = size
        self.epochs = epochs
        self.settings = settings
        self.valid_share = valid_share
        self.language = language
        self.random_state = random_state
        self.device = device
        self.batch_size = batch_size
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.target_tags.required = True
        return tags

    def save(self, folder: str | Path) -> None:
        """A model folder, as `pretune finetune` leaves one: `predict`, `evaluate` and `load` take it."""
        check_is_fitted(self)
        self.predictor_.model.save(Path(folder), self._run())

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> Self:
        """Any folder of the same task: of `save`, of `pretune finetune`, or the `best` of a comparison."""
        folder = Path(folder)
        predictor = Predictor.load(folder, device)
        path = folder / RUN
        run = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        found = cls(**{**run.get("estimator", {}).get("params", {}), "device": device})
        found._know(predictor, run)
        return found

    def __getstate__(self) -> dict[str, Any]:
        """With the files of the model's folder in the place of the model: no code is pickled."""
        state: dict[str, Any] = dict(super().__getstate__())
        if "predictor_" in state:
            with TemporaryDirectory() as place:
                self.save(Path(place, "model"))
                state["predictor_"] = {
                    str(path.relative_to(place)): path.read_bytes()
                    for path in sorted(Path(place).rglob("*"))
                    if path.is_file()
                }
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        files = state.get("predictor_")
        if files is not None:
            with TemporaryDirectory() as place:
                for name, content in files.items():
                    path = Path(place, name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                state = {**state, "predictor_": Predictor.load(Path(place, "model"), state["device"])}
        super().__setstate__(state)

    def _know(self, predictor: Predictor, run: Mapping[str, Any]) -> None:
        """Take over a model that has been loaded."""
        task = predictor.task
        if task.golds != task_class(self._task).golds or getattr(task, "kind", "one") != "one":
            raise InputError(f"{type(self).__name__} cannot stand for this model: it is of another task")
        known = run.get("estimator", {})
        self.predictor_ = predictor
        self.validation_ = run.get("scores", {})
        self.history_ = run.get("history", [])
        self._run_info = dict(run)
        self.classes_ = (
            classes_from_json(known["classes"]) if "classes" in known else np.array(_labels_of(task))
        )
        for name in ("n_features_in_", "feature_names_in_"):
            if name in known:
                setattr(self, name, np.array(known[name], object) if name[0] == "f" else known[name])

    def _run(self) -> dict[str, Any]:
        """What run.json says: of the training, and of the estimator, so that `load` finds it as it was."""
        params = {name: value for name, value in self.get_params(deep=False).items() if name != "device"}
        params |= {"start": str(self.start), "random_state": self._run_info.get("seed", 0)}
        known: dict[str, Any] = {
            "params": json.loads(json.dumps(params, default=_plain)),
            "classes": classes_as_json(self.classes_),
        }
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self, name):
                known[name] = list(getattr(self, name)) if name[0] == "f" else getattr(self, name)
        return {**self._run_info, "estimator": known}

    def _fit(self, samples: Sequence[Sample], data: Mapping[str, Any]) -> Self:
        """Learn the task of these samples."""
        seed, said = seed_of(self.random_state), self._tables()
        learn, check = list(samples), list[Sample]()
        if self.valid_share:
            learn, check = split(samples, self.valid_share, seed, stratify=self._task == "classification")
        join = "concat" if self._task == "tagging" else "average"
        name = start_of(str(self.start), self.method)
        started = started_from(
            name, join, self.method, self.size, None, self.language, said, learn, seed, lambda *lines: None
        )
        one = started[0] if isinstance(started, list) else started
        asks = task_class(self._task)
        own = one.method.task_options if self._task == "classification" else {}
        task: Task = update(asks.of(samples, str(data["kind"]), **own), said["task"], "task")
        check_head(task, said["task"])
        recipe = recipe_for(one, self.recipe, said["recipe"])
        label = f"{type(self).__name__} {one.method.name}"
        base = Fitting(seed=seed, device=self.device, quiet=not self.verbose, label=label)
        fitting = update(base, said["fitting"], "fitting")
        with Measure() as cost:
            trained, fitted = finetune(started, task, recipe, learn, check, fitting)
        self.predictor_ = Predictor(trained)
        self.validation_ = fitted.best
        self.history_ = fitted.history
        start = name if name == str(self.start) else Path(name).name
        config = {"start": start, "recipe": recipe, "task": task, "fitting": fitting, **_described(one)}
        prints = {
            **data,
            "train": {"samples": len(learn), "fingerprint": fingerprint(learn)},
            "valid": {"samples": len(check), "fingerprint": fingerprint(check)},
        }
        info = {"parameters": trained.parameters, "data": prints, "history": fitted.history}
        self._run_info = report(cost, fitted.best, config, info)
        return self

    def _tables(self) -> dict[str, dict[str, Any]]:
        """`settings` and `epochs`, table by table."""
        found: dict[str, Any] = {table: {} for table in TABLES}
        given = dict(self.settings or {})
        if self.epochs is not None:
            given = {**given, "recipe.epochs": self.epochs}
        for name, value in given.items():
            first, *steps = str(name).split(".")
            if first not in TABLES:
                raise choose("a setting's first word", first, TABLES)
            for step in reversed(steps):
                value = {step: value}
            if not isinstance(value, Mapping):
                raise UsageError(f"settings[{name!r}] is a table of settings; write {name}.NAME")
            found[first] = merge(found[first], value)
        for name in OURS:
            if name in found["fitting"]:
                raise UsageError(
                    f"fitting.{name} is no setting of an estimator; random_state and verbose are"
                )
        return found

    def _answers(self, samples: Sequence[Sample]) -> list[Answer]:
        return self.predictor_.model.answers(samples, self.batch_size) if samples else []


class PretuneClassifier(ClassifierMixin, _Estimator):  # type: ignore[misc]
    """One label for a text, or for several read together, such as a pair.

    X is a list, Series or array of texts, or of pairs (tuples, or columns of a frame); y has a label each.

        model = PretuneClassifier("wordvectors").fit(["loved it", "never again"] * 50, ["good", "bad"] * 50)
        model.predict(["loved every page"])
    """

    _task = "classification"

    def fit(self, X: Any, y: Any) -> Self:
        found, names = texts_of(X)
        samples, classes = labelled(found, y)
        self._fit(samples, {"kind": "one", "text": names or [], "label": [], "label_separator": None})
        self.classes_ = classes
        self.n_features_in_ = len(found[0])
        if names is not None:
            self.feature_names_in_ = np.array(names, object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        return self

    def predict(self, X: Any) -> Any:
        """The likeliest class of each, (n,)."""
        shares = self.predict_proba(X)
        return self.classes_[shares.argmax(1)]

    def predict_proba(self, X: Any) -> Any:
        """How likely each of `classes_` is, (n, classes)."""
        check_is_fitted(self)
        found, names = texts_of(X)
        self._check_columns(len(found[0]) if found else None, names)
        answers = self._answers([sample_of(texts, i) for i, texts in enumerate(found)])
        labels = [label_text(label) for label in self.classes_.tolist()]
        shares = [[answer.scores[label] for label in labels] for answer in answers]
        return np.array(shares, dtype=np.float64).reshape(len(answers), len(labels))

    def predict_log_proba(self, X: Any) -> Any:
        return np.log(self.predict_proba(X))

    def _check_columns(self, width: int | None, names: Sequence[str] | None) -> None:
        wanted = getattr(self, "n_features_in_", None)
        if None not in (width, wanted) and width != wanted:
            raise InputError(
                f"X has {width} features, but {type(self).__name__} is expecting {wanted} features as input "
                "(texts of a sample)"
            )
        before = getattr(self, "feature_names_in_", None)
        if names is not None and before is not None and list(before) != list(names):
            raise InputError(
                "The feature names should match those that were passed during fit: "
                f"{', '.join(before)}, not {', '.join(names)}"
            )


class PretuneTagger(_Estimator):
    """A tag for each word of a sentence.

    X is a list of sentences, each a list of words; y has the list of their tags. `score` is the F1 of spans
    where tags mark some (IOB, BIOES, …), else the accuracy of words.

        tagger = PretuneTagger("wordvectors").fit([["Mary", "sings"]] * 50, [["NOUN", "VERB"]] * 50)
        tagger.predict([["Mary", "sings"]])
    """

    _task = "tagging"

    def fit(self, X: Any, y: Any) -> Self:
        samples = tagged(sentences_of(X), y)
        if not samples:
            raise InputError("X holds no samples; give sentences to learn from")
        self._fit(samples, {"kind": "tags", "layout": "python"})
        self.classes_ = np.array(_labels_of(self.predictor_.task))
        return self

    def predict(self, X: Any) -> list[list[str]]:
        """The tags of each sentence's words."""
        return [list(answer.labels or ()) for answer in self._read(X)]

    def predict_proba(self, X: Any) -> list[Any]:
        """How likely each of `classes_` is at each word: an array (words, classes) for each sentence."""
        width = len(self.classes_) if hasattr(self, "classes_") else 0
        tables = [[shares for _, shares in answer.words or ()] for answer in self._read(X)]
        return [np.array(table, dtype=np.float64).reshape(len(table), width) for table in tables]

    def score(self, X: Any, y: Any) -> float:
        check_is_fitted(self)
        samples = tagged(sentences_of(X), y)
        task = self.predictor_.task
        return float(task.score([sample.gold for sample in samples], self._answers(samples))[task.metric])

    def _read(self, X: Any) -> list[Answer]:
        """A sentence without words has no tags."""
        check_is_fitted(self)
        parts: list[Part] = sentences_of(X)
        asked = iter(self._answers([Sample(f"row:{i}", (p,)) for i, p in enumerate(parts) if p.words]))
        return [next(asked) if part.words else Answer(labels=(), words=()) for part in parts]


def _plain(value: Any) -> Any:
    """What JSON does not know: numbers of numpy as Python's, paths as text."""
    return value.item() if isinstance(value, np.generic) else str(value)


def _labels_of(task: Task) -> Sequence[str]:
    """What probabilities are of: a tagger may learn other tags than it was given, such as bioes."""
    found: Any = getattr(task, "tags", None) or getattr(task, "labels", ())
    return tuple(found)


def _described(start: Start) -> dict[str, Any]:
    return {
        "method": start.method.name,
        "encoder": start.encoder_config,
        "codec": start.codec.describe(),
    }
