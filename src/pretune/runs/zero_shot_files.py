"""Files for questions without training: what is read for each kind, and how well it was answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pretune.data.choices import ANSWERS, read_choices
from pretune.data.columns import known
from pretune.data.readers import read_samples, read_table
from pretune.data.samples import Sample
from pretune.data.tables import KNOWN_LABELS
from pretune.errors import UserError
from pretune.metrics.bootstrap import interval, interval_of
from pretune.metrics.classification import accuracy, by_label, confusion, matthews
from pretune.runs.predictor import Evaluation
from pretune.runs.zero_shot import SENTIMENTS, Threshold, ZeroShot
from pretune.tasks.base import Answer

Kind = Literal["acceptability", "sentiment", "choice", "cloze"]
METRICS: Final[dict[str, Callable[[Sequence[Any], Sequence[Any]], float]]] = {
    "matthews": matthews,
    "accuracy": accuracy,
}


@dataclass(frozen=True)
class Asking:
    """What is asked of every row of a file."""

    kind: Kind
    text: tuple[str, ...] = ()  # columns; guessed where none is named
    choices: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    format: str | None = None
    encoding: str = "utf-8"
    words: dict[str, str] = field(default_factory=lambda: dict(SENTIMENTS))  # label -> word
    append: str = "very"
    blank: str = "_"
    fit: Path | None = None  # labelled texts to fit a threshold of acceptability on


def read(asking: Asking, file: Path) -> tuple[list[Sample], bool, list[str]]:
    """Samples of a file, whether they have golds, and notes. A column that is known for labels is read so."""
    chooses = asking.kind in ("choice", "cloze")
    asked = [*asking.text, *asking.choices, *asking.label]
    table = read_table(file, asked, asking.format, asking.encoding, labelled=False)
    names = ANSWERS if chooses else KNOWN_LABELS
    labelled = bool(asking.label or known(table, names, ()))
    columns: dict[str, Any] = {
        "text": asking.text,
        "label": asking.label,
        "format": asking.format,
        "encoding": asking.encoding,
        "labelled": labelled,
    }
    if chooses:
        questions = read_choices(file, choices=asking.choices, **columns)
        return questions.samples, labelled, questions.notes
    found = read_samples(file, kind="one", **columns)
    strange = sorted({sample.gold for sample in found.samples} - asking.words.keys()) if labelled else []
    if asking.kind == "sentiment" and strange:
        raise UserError(
            f"{file}: label {strange[0]!r} has no word; give each label one, such as --word {strange[0]}=WORD"
        )
    return found.samples, labelled, found.notes


def ask(model: ZeroShot, asking: Asking, samples: Sequence[Sample]) -> tuple[list[Answer], list[str]]:
    """The answers, and what the user should know of them."""
    if asking.kind == "choice":
        return model.choices(samples), []
    if asking.kind == "cloze":
        return model.cloze(samples, asking.blank), []
    if asking.kind == "sentiment":
        return model.sentiment(samples, asking.words, asking.append), []
    if asking.fit is None:
        return model.acceptability(samples), ["scores alone: labels need a threshold, see --fit"]
    known_texts, labelled, notes = read(asking, asking.fit)
    if not labelled:
        raise UserError(f"{asking.fit}: has no column of labels to fit a threshold on; name it with --label")
    scores = [float(answer.value or 0.0) for answer in model.acceptability(known_texts)]
    threshold = Threshold.fitted(scores, [sample.gold for sample in known_texts])
    said = (
        f"{threshold.above} from a mean log-probability of {threshold.value:.4f} on, {threshold.below} below"
    )
    return model.acceptability(samples, threshold), [*notes, said]


def evaluated(
    asking: Asking, samples: Sequence[Sample], answers: Sequence[Answer], seed: int = 0
) -> Evaluation:
    """Scores of answers whose golds are known, with 95 % bootstrap intervals."""
    golds: list[Any] = [sample.gold for sample in samples]
    said: list[Any] = [answer.choice if answer.label is None else answer.label for answer in answers]
    names = ["accuracy"] if asking.kind != "acceptability" else ["matthews", "accuracy"]
    scores = {name: METRICS[name](golds, said) for name in names}
    right = [gold == one for gold, one in zip(golds, said, strict=True)]
    intervals = {
        name: interval(right, seed=seed)
        if name == "accuracy"
        else interval_of(METRICS[name], golds, [said], seed=seed)
        for name in names
    }
    if asking.kind in ("choice", "cloze"):
        return Evaluation(len(samples), scores, intervals, None, {}, [])
    labels, counts = confusion(golds, said)
    return Evaluation(len(samples), scores, intervals, (labels, counts.tolist()), by_label(golds, said), [])
