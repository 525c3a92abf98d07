"""X and y as scikit-learn's users have them -> texts, sentences, classes; each mistake says its row."""

# ruff: noqa: N803 - X is scikit-learn's name

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from pretune.data.conll import sentence
from pretune.data.files import shown
from pretune.data.frames import Frame
from pretune.data.samples import Part, Sample
from pretune.errors import UserError


class InputError(UserError, ValueError):
    """X, y or a parameter that will not do: scikit-learn expects a ValueError."""


def texts_of(X: Any) -> tuple[list[tuple[str, ...]], list[str] | None]:
    """(the texts of each sample, names of columns); a sample is a text, or a pair as tuple, list or row."""
    if isinstance(X, Frame):
        columns = [list(X.iloc[:, i]) for i in range(X.shape[1])]
        names = [str(name) for name in X.columns]
        rows: list[Any] = list(zip(*columns, strict=True)) if columns else [()] * X.shape[0]
    else:
        rows, names = _items(X, "X", "a list, Series or array of texts, or of pairs of texts"), None
    found = [_texts(row, i) for i, row in enumerate(rows)]
    widths = {len(texts) for texts in found}
    if 0 in widths or getattr(X, "shape", (0, 1))[1:] == (0,):
        raise InputError(f"X has 0 feature(s) (shape=({len(rows)}, 0)) while a minimum of 1 is required.")
    if len(widths) > 1:
        odd = next(i for i, texts in enumerate(found) if len(texts) != len(found[0]))
        raise InputError(f"X: row 0 has {_count(found[0])}, row {odd} has {_count(found[odd])}")
    return found, names


def sentences_of(X: Any) -> list[Part]:
    """Each sentence's words."""
    parts = []
    for i, words in enumerate(_items(X, "X", "a list of sentences, each a list of words")):
        if isinstance(words, str) or not isinstance(words, Iterable):
            raise InputError(f"X: row {i} is {_kind(words)}; give the list of its words")
        listed = list(words)
        wrong = next((w for w in listed if not isinstance(w, str) or not w.strip()), None)
        if wrong is not None:
            raise InputError(f"X: row {i} has the word {shown(wrong)}; each must be a text that is not blank")
        parts.append(sentence([str(word) for word in listed]))
    return parts


def labelled(X: Sequence[tuple[str, ...]], y: Any) -> tuple[list[Sample], Any]:
    """Samples whose golds are the labels as text, and the distinct labels, sorted, as they came."""
    labels = _labels(y, len(X))
    try:
        classes = np.unique(labels)
    except TypeError:
        kinds = sorted({type(label).__name__ for label in labels.tolist()})
        raise InputError(f"y mixes labels of type {' and '.join(kinds)}; let all be of one") from None
    if len(classes) < 2:
        raise InputError(
            f"y has only one class, {shown(str(classes[0]))}, in {len(X)} sample(s); give two or more"
        )
    golds = [label_text(label) for label in labels.tolist()]
    return [sample_of(texts, i, gold) for i, (texts, gold) in enumerate(zip(X, golds, strict=True))], classes


def tagged(X: Sequence[Part], y: Any) -> list[Sample]:
    """Samples whose golds are the tags of their words."""
    golds = _items(y, "y", "a list of tags for each sentence")
    _check_length(len(X), len(golds))
    samples = []
    for i, (part, tags) in enumerate(zip(X, golds, strict=True)):
        if isinstance(tags, str) or not isinstance(tags, Iterable):
            raise InputError(f"y: row {i} is {_kind(tags)}; give the list of its tags")
        gold = tuple(tags)
        wrong = next((tag for tag in gold if not isinstance(tag, str) or not tag.strip()), None)
        if wrong is not None:
            raise InputError(f"y: row {i} has the tag {shown(wrong)}; each must be a text that is not blank")
        if len(gold) != len(part.words) or not gold:
            raise InputError(
                f"row {i} has {len(part.words)} words and {len(gold)} tags; give one word or more, and a tag "
                "for each"
            )
        samples.append(Sample(f"row:{i}", (part,), tuple(map(str, gold))))
    return samples


def sample_of(texts: Sequence[str], row: int, gold: str | None = None) -> Sample:
    return Sample(f"row:{row}", tuple(map(Part, texts)), gold)


def label_text(label: Any) -> str:
    """A label as models write it."""
    return str(label)


def classes_as_json(classes: Any) -> dict[str, Any]:
    """What run.json keeps of labels, so that they come back as they were."""
    return {"values": classes.tolist(), "dtype": classes.dtype.str}


def classes_from_json(found: Mapping[str, Any]) -> Any:
    return np.array(found["values"], dtype=np.dtype(found["dtype"]))


def seed_of(random_state: Any) -> int:
    """A whole number as it is; else one that is drawn."""
    if isinstance(random_state, (int, np.integer)):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def _items(values: Any, name: str, wanted: str) -> list[Any]:
    if hasattr(values, "tocsr") or hasattr(values, "toarray"):
        raise InputError(f"{name} is a sparse matrix, and sparse input is not supported; give {wanted}")
    scalar = getattr(values, "ndim", 1) == 0 or not isinstance(values, Iterable)
    if scalar or isinstance(values, (str, bytes, Mapping)):
        raise InputError(f"{name} is {_kind(values)}; give {wanted}")
    return list(values)


def _texts(row: Any, i: int) -> tuple[str, ...]:
    cells = (row,) if isinstance(row, str) or not isinstance(row, (tuple, list, np.ndarray)) else tuple(row)
    for cell in cells:
        if not isinstance(cell, str):
            raise InputError(f"X: row {i} holds {_kind(cell)}, {shown(cell)}, where a text is needed")
    return tuple(map(str, cells))


def _labels(y: Any, rows: int) -> Any:
    """y as one dimension of labels of one kind, none missing."""
    if y is None:
        raise InputError("requires y to be passed, but the target y is None")
    labels = column_or_1d(np.asarray(y), warn=True)
    _check_length(rows, len(labels))
    if not rows:
        raise InputError("X holds no samples, 0 sample(s); give texts to learn from")
    for i, label in enumerate(labels.tolist()):
        if label is None or (isinstance(label, float) and not np.isfinite(label)):
            raise InputError(
                f"y: row {i} is {label}; every text needs a label (Input y contains NaN or infinity)"
            )
    check_classification_targets(labels)
    return labels


def _check_length(rows: int, golds: int) -> None:
    if rows != golds:
        raise InputError(f"X has {rows} samples and y has {golds}; give a gold for each")


def _count(texts: Sequence[str]) -> str:
    return f"{len(texts)} text{'s' * (len(texts) != 1)}"


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"
