"""PretuneClassifier and PretuneTagger keep scikit-learn's contract, and answer as the models inside do."""

# ruff: noqa: N803 - X is scikit-learn's name

from __future__ import annotations

import json
import pickle
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator
from sklearn.utils.validation import validate_data

import pretune
import tiny
from pretune.errors import UserError
from pretune.interop.estimators import PretuneClassifier, PretuneTagger
from pretune.runs.starts import save_start

SAMPLES = tiny.labelled(32)
X = [sample.texts[0] for sample in SAMPLES]
Y = [sample.gold for sample in SAMPLES]
SENTENCES = [["Mary", "sees", "John"], ["John", "sleeps"], ["dogs", "see", "Mary"]] * 6
TAGS = [["B-PER", "O", "B-PER"], ["B-PER", "O"], ["O", "O", "B-PER"]] * 6
SETTINGS = {"codec.min_count": 1, "encoder": {"width": 8}, "recipe": {"lr": 0.05, "batch_size": 4}}


def classifier(**changes: Any) -> PretuneClassifier:
    options: dict[str, Any] = {"settings": SETTINGS, "epochs": 10, "device": "cpu"}
    return PretuneClassifier("wordvectors", **{**options, **changes})


def tagger(**changes: Any) -> PretuneTagger:
    options: dict[str, Any] = {"settings": SETTINGS, "epochs": 20, "device": "cpu", "valid_share": 0.2}
    return PretuneTagger("wordvectors", **{**options, **changes})


@pytest.fixture(scope="module")
def fitted() -> PretuneClassifier:
    return classifier().fit(X, Y)


def test_it_learns_and_says_so_as_scikit_learn_does(fitted: PretuneClassifier) -> None:
    assert is_classifier(fitted) and list(fitted.classes_) == ["no", "yes"] and fitted.n_features_in_ == 1
    shares = fitted.predict_proba(X)
    assert shares.shape == (32, 2) and np.allclose(shares.sum(1), 1)
    assert list(fitted.predict(X)) == list(fitted.classes_[shares.argmax(1)])
    assert fitted.score(X, Y) == np.mean(fitted.predict(X) == np.array(Y)) > 0.9
    assert np.allclose(np.exp(fitted.predict_log_proba(X)), shares)
    assert set(fitted.validation_) == {"accuracy", "macro_f1"} and len(fitted.history_) == 10
    assert [a.label for a in fitted.predictor_.answer(X)] == list(fitted.predict(X))
    assert fitted.predict([]).shape == (0,)


def test_it_answers_as_finetune_with_the_same_settings(fitted: PretuneClassifier, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from pretune.cli import app

    pd.DataFrame({"text": X, "label": Y}).to_csv(tmp_path / "a.csv", index=False)
    command = ["finetune", "classification", str(tmp_path / "a.csv"), "--method", "wordvectors", "--out"]
    more = [
        "codec.min_count=1",
        "encoder.width=8",
        "recipe.lr=0.05",
        "recipe.batch_size=4",
        "recipe.epochs=10",
        "--device",
        "cpu",
    ]
    said = CliRunner().invoke(app, [*command, str(tmp_path / "m"), *more])
    assert said.exit_code == 0, said.output
    theirs = pretune.Predictor.load(tmp_path / "m").answer(X)
    assert [list(a.scores.values()) for a in theirs] == fitted.predict_proba(X).tolist()
    loaded = PretuneClassifier.load(tmp_path / "m", "cpu")
    assert list(loaded.classes_) == ["no", "yes"] and list(loaded.predict(X)) == list(fitted.predict(X))


def test_labels_come_back_as_they_were(tmp_path: Path) -> None:
    numbers = np.array([{"yes": 10, "no": -2}[gold] for gold in Y])
    for y, kind in ((numbers, np.int64), (numbers > 0, np.bool_), (pd.Series(Y, dtype="category"), object)):
        model = classifier(epochs=1).fit(X, y)
        model.save(tmp_path / "m")
        loaded = PretuneClassifier.load(tmp_path / "m")
        assert model.classes_.dtype.type is np.dtype(kind).type, kind
        assert loaded.classes_.dtype == model.classes_.dtype
        assert loaded.predict(X).tolist() == model.predict(X).tolist()
        assert set(model.predict(X).tolist()) <= set(y.tolist())


def test_pairs_come_as_tuples_or_as_columns() -> None:
    first, second = [x.split()[0] for x in X], [" ".join(x.split()[1:]) for x in X]
    frame = pd.DataFrame({"a": first, "b": second})
    of_tuples = classifier(epochs=1).fit(list(zip(first, second, strict=True)), Y)
    of_frame = classifier(epochs=1).fit(frame, Y)
    assert of_frame.n_features_in_ == 2 and list(of_frame.feature_names_in_) == ["a", "b"]
    shares = of_frame.predict_proba(frame)
    assert np.array_equal(shares, of_tuples.predict_proba(frame.to_numpy()))
    assert np.array_equal(shares[:3], of_frame.predict_proba(frame[:3]))
    with pytest.raises(ValueError, match="X has 1 features, but PretuneClassifier is expecting 2"):
        of_tuples.predict(X)
    with pytest.raises(ValueError, match=r"feature names should match.*a, b, not b, a"):
        of_frame.predict(frame[["b", "a"]])


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ("one text", ["a"], "X is a str; give a list"),
        ([["a"], ["a", "b"]], ["u", "v"], "row 0 has 1 text, row 1 has 2 texts"),
        (["a", None], ["u", "v"], "X: row 1 holds a NoneType"),
        (["a", "b"], ["u"], "X has 2 samples and y has 1"),
        (["a", "b"], ["u", None], "y: row 1 is None"),
        (["a", "b"], [0.5, 1.5], "continuous"),
        (["a", "b"], ["u", "u"], "only one class, 'u'"),
        (["a", "b"], None, "requires y to be passed"),
        ([], [], "X holds no samples"),
        (np.zeros((2, 0)), ["u", "v"], r"0 feature\(s\)"),
        (["a", "b"], [[0, 1], [1, 0]], "1d array"),
    ],
)
def test_bad_input_is_a_value_error_that_names_the_row(x: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classifier().fit(x, y)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": {"recepi.lr": 1}}, "did you mean 'recipe'"),
        ({"settings": {"recipe": 3}}, "is a table of settings"),
        ({"settings": {"fitting.seed": 3}}, "random_state"),
        ({"settings": {"recipe.rate": 3}}, "recipe.rate does not exist"),
        ({"method": "elmoo"}, "did you mean 'elmo'"),
        ({"start": "no/such/folder", "settings": None}, "no such model folder"),
        ({"recipe": "fulll"}, "did you mean 'full'"),
        ({"valid_share": 1.5}, "held-out fraction is 1.5"),
    ],
)
def test_bad_settings_are_said_when_fitting(changes: dict[str, Any], message: str) -> None:
    model = classifier(**{key: value for key, value in changes.items() if key != "method"})
    model.set_params(**changes)
    with pytest.raises(UserError, match=message):
        model.fit(X, Y)


def test_a_clone_is_fresh_and_the_seed_decides(fitted: PretuneClassifier) -> None:
    again = clone(fitted)
    assert again.get_params() == fitted.get_params() and not hasattr(again, "classes_")
    with pytest.raises(NotFittedError):
        again.predict(X)
    assert np.array_equal(again.fit(X, Y).predict_proba(X), fitted.predict_proba(X))
    other = clone(fitted).set_params(random_state=np.random.RandomState(3)).fit(X, Y)
    assert not np.array_equal(other.predict_proba(X), fitted.predict_proba(X))


def test_a_pickle_holds_the_files_of_the_folder_and_no_code(
    fitted: PretuneClassifier, tmp_path: Path
) -> None:
    state = fitted.__getstate__()["predictor_"]
    assert {"model/config.json", "model/model.safetensors", "model/run.json"} <= set(state)
    modules = set()

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            modules.add(module.split(".")[0])
            return super().find_class(module, name)

    loaded = Unpickler(BytesIO(pickle.dumps(fitted))).load()
    assert modules <= {"pretune", "numpy", "builtins"}
    assert np.array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    assert pickle.loads(pickle.dumps(loaded)).get_params() == fitted.get_params()
    assert pickle.loads(pickle.dumps(classifier())).get_params() == classifier().get_params()


def test_a_saved_folder_is_a_models_folder(fitted: PretuneClassifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "m")
    answers = pretune.Predictor.load(tmp_path / "m").answer(X)
    assert [answer.label for answer in answers] == list(fitted.predict(X))
    run = json.loads((tmp_path / "m" / "run.json").read_text())
    assert run["scores"] == fitted.validation_ and run["estimator"]["params"]["epochs"] == 10
    loaded = PretuneClassifier.load(tmp_path / "m", "cpu")
    assert loaded.get_params() == {**fitted.get_params(), "settings": SETTINGS}
    assert np.array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    with pytest.raises(ValueError, match="of another task"):
        PretuneTagger.load(tmp_path / "m")


def test_numbers_of_numpy_are_settings_as_others(tmp_path: Path) -> None:
    made = classifier(epochs=np.int64(1), settings={"recipe.lr": np.float32(0.5)}).fit(X, Y)
    made.save(tmp_path / "m")
    loaded = PretuneClassifier.load(tmp_path / "m", "cpu")
    assert loaded.epochs == 1 and loaded.settings == {"recipe.lr": 0.5}
    loaded.fit(X, Y)


def test_it_works_in_pipelines_searches_and_cross_validation() -> None:
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    line = make_pipeline(lower, classifier()).fit([x.upper() for x in X], Y)
    assert line.score([x.upper() for x in X], Y) > 0.9
    assert len(cross_val_score(classifier(), X, Y, cv=2)) == 2
    grid = {"settings": [{**SETTINGS, "recipe.lr": lr} for lr in (1e-6, 0.05)], "epochs": [6]}
    found = GridSearchCV(classifier(), grid, cv=2).fit(X, Y)
    assert found.best_params_["settings"]["recipe.lr"] == 0.05 and found.best_score_ > 0.6


@pytest.mark.parametrize("method", ["ulmfit", "elmo"])
def test_it_starts_from_a_folder(method: str, tmp_path: Path) -> None:
    save_start(tiny.start(method), tmp_path / "start", {})
    model = PretuneClassifier(start=tmp_path / "start", epochs=1, valid_share=0, device="cpu").fit(X, Y)
    assert model.predictor_.model.start.method.name == method and model.validation_ == {}
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), model.predict_proba(X))
    with pytest.raises(UserError, match=f"--method is bert, but .* holds {method}"):
        PretuneClassifier("bert", start=tmp_path / "start").fit(X, Y)


def test_tags_of_words(tmp_path: Path) -> None:
    model = tagger().fit(SENTENCES, TAGS)
    assert model.predict(SENTENCES[:3]) == TAGS[:3] and model.score(SENTENCES, TAGS) == 1
    assert next(iter(model.validation_)) == "span_f1" and list(model.classes_) == ["B-PER", "O"]
    tables = model.predict_proba([*SENTENCES[:2], []])
    assert [table.shape for table in tables] == [(3, 2), (2, 2), (0, 2)]
    assert model.classes_[tables[0].argmax(1)].tolist() == TAGS[0] and model.predict([[]]) == [[]]
    half = [["O"] * len(tags) if i % 3 else tags for i, tags in enumerate(TAGS)]
    assert model.score(SENTENCES, half) == pytest.approx(2 * 12 / (12 + 24))  # 12 of 24 spans said are right
    model.save(tmp_path / "m")
    for again in (PretuneTagger.load(tmp_path / "m"), pickle.loads(pickle.dumps(model))):
        assert again.predict(SENTENCES) == TAGS
    assert len(cross_val_score(tagger(epochs=1), SENTENCES, TAGS, cv=2)) == 2
    assert clone(model).get_params() == model.get_params()


def test_plain_tags_are_scored_by_accuracy() -> None:
    plain = [[tag[0] for tag in tags] for tags in TAGS]
    model = tagger(epochs=1).fit(SENTENCES, plain)
    said = [
        a == b
        for x, y in zip(model.predict(SENTENCES), plain, strict=True)
        for a, b in zip(x, y, strict=True)
    ]
    assert model.score(SENTENCES, plain) == pytest.approx(np.mean(said))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (["a text"], [["O"]], "X: row 0 is a str; give the list of its words"),
        ([["a", " "]], [["O", "O"]], "X: row 0 has the word ' '"),
        ([["a", "b"]], [["O"]], "row 0 has 2 words and 1 tags"),
        ([["a"]], [[1]], "y: row 0 has the tag '1'"),
        ([["a"]], [], "X has 1 samples and y has 0"),
        ([], [], "X holds no samples"),
    ],
)
def test_bad_sentences_are_value_errors(x: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tagger().fit(x, y)


class OfNumbers(PretuneClassifier):
    """A column of numbers as a column of words, for checks whose X is numbers."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string = True, False
        return tags

    def fit(self, X: Any, y: Any) -> OfNumbers:
        if y is not None:
            validate_data(self, X, y, multi_output=True)
        super().fit(self._words(X, True), y)
        return self

    def predict_proba(self, X: Any) -> Any:
        if hasattr(self, "classes_"):
            X = self._words(X, False)
        return super().predict_proba(X)

    def _words(self, X: Any, reset: bool) -> Any:
        values = validate_data(self, X, reset=reset)
        words = [[f"x{j}is{round(2 * x)}" for j, x in enumerate(row)] for row in values]
        names = getattr(self, "feature_names_in_", None)
        return np.array(words, object) if names is None else pd.DataFrame(words, columns=names)


@pytest.mark.parametrize("model", [classifier(), tagger()], ids=["classifier", "tagger"])
def test_check_estimator_asks_nothing_of_texts_beside_a_clone(model: Any) -> None:
    found = check_estimator(model, on_skip=None)
    assert [(one["check_name"], one["status"]) for one in found] == [("check_estimator_cloneable", "passed")]


@pytest.mark.slow
def test_every_check_passes_where_numbers_stand_for_words() -> None:
    """As `check_estimator` runs them; docs/python.md says which."""
    model = OfNumbers("wordvectors", settings=SETTINGS, epochs=4, device="cpu", valid_share=0)
    said = {}
    for estimator, check in estimator_checks_generator(model):
        name = getattr(check, "func", check).__name__
        try:
            check(estimator)
            said[name] = "passed"
        except SkipTest as reason:
            said[name] = f"skipped: {reason}"
        except Exception as error:
            said[name] = f"{type(error).__name__}: {error}"
    others = {name: what for name, what in said.items() if what != "passed"}
    assert others == {
        "check_array_api_input": "skipped: SCIPY_ARRAY_API is not set: not checking array_api input"
    }
    assert len(said) > 40
