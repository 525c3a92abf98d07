"""Predictor: a saved folder that answers; and how well it does so on a labelled file."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretune.data.choices import read_choices
from pretune.data.conll import FORMATS as WORD_FORMATS
from pretune.data.conll import read_conll, sentence
from pretune.data.documents import document, read_documents
from pretune.data.files import suffix
from pretune.data.json_spans import layout_of, read_tagged
from pretune.data.passages import passage_question, read_passages
from pretune.data.readers import LabelKind, read_samples
from pretune.data.samples import Sample, sample
from pretune.errors import UserError
from pretune.metrics.bootstrap import interval, interval_of, interval_of_sums
from pretune.metrics.classification import LabelScores, confusion
from pretune.runs.choosing import choice_question, guessing_note
from pretune.runs.folders import RUN
from pretune.runs.mixes import mix_lines
from pretune.runs.predicates import predicate_question, read_predicates
from pretune.runs.run import load_trained
from pretune.runs.trained import Ensemble, Trained, TrainedModel, mixes_of
from pretune.tasks.base import Answer, Tallied, Task
from pretune.training.devices import find_device

Question = str | tuple[Any, ...] | list[str] | Mapping[str, Any] | Sample
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")


@dataclass
class Predictor:
    """A model that has learned a task.

    predictor = Predictor.load("stars")
    predictor.answer(["I loved it", "Never again"])[0].label
    """

    model: Trained
    text_columns: tuple[str, ...] = ()
    choice_columns: tuple[str, ...] = ()

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> Predictor:
        """What `finetune` or `compare` left in `folder`."""
        folder = Path(folder)
        model = load_trained(folder)
        place = find_device(device)
        for one in model.members.values() if isinstance(model, Ensemble) else [model]:
            if isinstance(one, TrainedModel):
                one.model.to(place)
        before = trained_on(folder)
        return cls(model, tuple(before.get("text", ())), tuple(before.get("choices", ())))

    @property
    def task(self) -> Task:
        return self.model.task

    def answer(self, samples: Question | Sequence[Question], batch_size: int = 64) -> list[Answer]:
        """One answer a sample, in order. A sample is a text, a tuple of texts, a dict as in a jsonl file.

        A single text, dict or `Sample` is taken as a list of one; a tuple of two texts is one pair. For
        tagging a tuple or list of texts is the words of one sentence; for multiple choice a tuple is a
        question and the list of its choices, for span question answering a question and a passage.
        For semantic roles it is words and which of them is the predicate. For coreference a document is a
        text, or a dict with text, words or sentences, or all its words in a list.
        """
        single = isinstance(samples, (str, tuple, Mapping, Sample))
        questions: Sequence[Any] = [samples] if single else samples  # type: ignore[assignment]
        return self.model.answers([self.as_sample(question) for question in questions], batch_size)

    def as_sample(self, question: Any) -> Sample:
        """One question as a sample."""
        if isinstance(question, Sample):
            return question
        if self.task.golds == "choices":
            return choice_question(question, self.text_columns, self.choice_columns)
        if self.task.golds == "clusters":
            return document(question)
        if self.task.golds == "roles":
            return predicate_question(question)
        if self.task.golds == "answers":
            return passage_question(question, self.text_columns)
        if isinstance(question, str):
            return sample(question)
        if self.task.golds == "tags":
            return _sentence(question)
        if isinstance(question, Mapping):
            question = self._columns(question)
        if isinstance(question, (tuple, list)) and question and all(isinstance(x, str) for x in question):
            return sample(*question)
        raise UserError(f"a sample is a text, several texts, or a dict of them, not {question!r:.80}")

    def _columns(self, row: Mapping[str, Any]) -> list[Any]:
        wanted = self.text_columns if all(name in row for name in self.text_columns) else ()
        wanted = wanted or (("text",) if "text" in row else ())
        if not wanted:
            names = ", ".join(self.text_columns or ("text",))
            raise UserError(f"a dict needs the text under {names}; this one has {', '.join(map(str, row))}")
        return [row[name] for name in wanted]


def _sentence(question: Any) -> Sample:
    """Words, or a dict with `words` or a `text`."""
    if isinstance(question, Mapping):
        question = question.get("words", question.get("text"))
    if isinstance(question, str):
        return sample(question)
    if isinstance(question, (tuple, list)) and all(isinstance(x, str) and x.strip() for x in question):
        return Sample("", (sentence(question),))
    raise UserError(f"a sample is a text, words, or a dict with text or words, not {question!r:.80}")


@dataclass(frozen=True)
class Evaluation:
    """How well a model did on labelled samples."""

    samples: int
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]  # 95 % bootstrap
    confusion: tuple[list[str], list[list[int]]] | None  # labels; counts, golds down, answers across
    labels: dict[str, LabelScores]  # in the task's order; none for numbers
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        table = {"labels": self.confusion[0], "counts": self.confusion[1]} if self.confusion else None
        plain = {"samples": self.samples, "scores": self.scores, "intervals": self.intervals}
        labels = {name: found._asdict() for name, found in self.labels.items()}
        return plain | {"confusion": table, "labels": labels}


def evaluate(
    folder: str | Path,
    file: str | Path,
    *,
    text: Sequence[str] = (),
    label: Sequence[str] = (),
    choices: Sequence[str] = (),
    kind: LabelKind | None = None,
    label_separator: str | None = None,
    format: str | None = None,  # noqa: A002, the option's name
    encoding: str = "utf-8",
    batch_size: int = 64,
    device: str = "auto",
    seed: int = 0,
) -> Evaluation:
    """Score the model in `folder` on a labelled file, read with the columns it was trained with."""
    folder, file = Path(folder), Path(file)
    predictor = Predictor.load(folder, device)
    if choices and predictor.task.golds != "choices":
        raise UserError(f"{folder} does not choose; leave --choices out")
    if predictor.task.golds != "labels" and (kind or label_separator):
        does = {
            "tags": "tags words",
            "roles": "labels roles",
            "answers": "finds answers",
            "clusters": "groups mentions",
        }
        what = does.get(predictor.task.golds, "chooses")
        raise UserError(f"{folder} {what}, where there are no kinds and no separators; leave them out")
    if predictor.task.golds == "tags":
        before = trained_on(folder)
        tagged = read_tagged(
            file,
            text=text or _columns_of(before, "text", file, format),
            label=label or _columns_of(before, "label", file, format),
            format=format,
            encoding=encoding,
            scheme=getattr(predictor.task, "gold_scheme", None),
        )
        return evaluation(predictor.model, tagged.samples, tagged.notes, batch_size, seed)
    if predictor.task.golds == "roles":
        reading: Any = {"text": text, "label": label, "format": format, "encoding": encoding}
        roles = read_predicates(file, trained_on(folder), **reading, labelled=True)
        return evaluation(predictor.model, roles.samples, roles.notes, batch_size, seed)
    if predictor.task.golds == "clusters":
        found_in = read_documents(file, text=text, label=label, format=format, encoding=encoding)
        return evaluation(predictor.model, found_in.samples, found_in.notes, batch_size, seed)
    before = trained_on(folder) if _is_table(file, format) else {}
    if predictor.task.golds == "answers":
        read = read_passages(
            file, text=text, label=label, format=format, encoding=encoding, training=False, usual=before
        )
        return evaluation(predictor.model, read.samples, read.notes, batch_size, seed)
    if predictor.task.golds == "choices":
        asked = read_choices(
            file,
            text=text or before.get("text", ()),
            choices=choices or before.get("choices", ()),
            label=label or before.get("label", ()),
            counts_from=before.get("counts_from"),
            format=format,
            encoding=encoding,
        )
        notes = [*asked.notes, guessing_note(asked.samples)]
        return evaluation(predictor.model, asked.samples, notes, batch_size, seed)
    found = read_samples(
        file,
        text=text or before.get("text", ()),
        label=label or before.get("label", ()),
        kind=kind or getattr(predictor.task, "kind", None),
        label_separator=label_separator or before.get("label_separator"),
        format=format,
        encoding=encoding,
    )
    return evaluation(predictor.model, found.samples, found.notes, batch_size, seed)


def evaluation(
    model: Trained,
    samples: Sequence[Sample],
    notes: Sequence[str] = (),
    batch_size: int = 64,
    seed: int = 0,
) -> Evaluation:
    """Score `model` on labelled samples; `seed` draws the bootstrap."""
    answers = model.answers(samples, batch_size)
    golds = [sample.gold for sample in samples]
    said = [answer.label for answer in answers]
    each = model.task.by_label(golds, answers)
    table = None
    notes = [*notes, *mix_lines(mixes_of(model))]
    if all(isinstance(label, str) for label in said):
        labels = tuple(getattr(model.task, "labels", ()))
        names, counts = confusion(golds, [str(label) for label in said], labels)
        table = names, counts.tolist()
    known = getattr(model.task, "labels", ())
    flat = {x for gold in golds for x in ((gold,) if isinstance(gold, str) else gold)} if known else set()
    if unseen := sorted(flat - set(known)):
        what = "tags" if model.task.golds in ("tags", "roles") else "labels"
        notes.append(f"{what} that the model never saw count as errors: {', '.join(unseen[:8])}")
    scores = model.task.score(golds, answers)
    intervals = {name: _interval(model.task, name, golds, answers, seed) for name in scores}
    return Evaluation(len(samples), scores, intervals, table, each, notes)


def _interval(
    task: Task, metric: str, golds: Sequence[Any], answers: Sequence[Answer], seed: int
) -> tuple[float, float]:
    if isinstance(task, Tallied):  # so is what adds up
        figure: Callable[[Any], float] = lambda total: task.scores_of(total)[metric]  # noqa: E731
        return interval_of_sums(figure, task.tallies(golds, answers), seed=seed)
    if metric == "accuracy":  # a mean of examples: a thousand times cheaper
        return interval([gold == answer.said for gold, answer in zip(golds, answers, strict=True)], seed=seed)
    score: Callable[[Sequence[Any], Sequence[Any]], float] = lambda g, a: task.score(g, a)[metric]  # noqa: E731
    return interval_of(score, golds, [answers], seed=seed)


def read_input(
    folder: Path,
    source: str,
    text: Sequence[str],
    format: str | None,  # noqa: A002, the option's name
    encoding: str,
    choices: Sequence[str] = (),
) -> tuple[list[Sample], list[str]]:
    """Unlabelled samples of a file, or of stdin for "-", every one kept in order; and notes."""
    if source == "-":
        with tempfile.TemporaryDirectory() as place:
            usual = "jsonl" if trained_on(folder).get("kind") in ("roles", "qa") else "txt"
            file = Path(place) / f"stdin.{format or usual}"
            file.write_bytes(sys.stdin.buffer.read())
            return read_input(folder, str(file), text, format, encoding, choices)
    file = Path(source)
    if choices and trained_on(folder).get("kind") != "choice":
        raise UserError(f"{folder} does not choose; leave --choices out")
    if trained_on(folder).get("kind") == "roles":
        reading: Any = {"text": text, "format": format, "encoding": encoding}
        roles = read_predicates(file, trained_on(folder), **reading, labelled=False)
        return roles.samples, roles.notes
    if trained_on(folder).get("kind") == "clusters":
        documents = read_documents(file, text=text, format=format, encoding=encoding, labelled=False)
        return documents.samples, documents.notes
    if format in WORD_FORMATS or (format is None and suffix(file)[1:] in WORD_FORMATS):
        columns = text or _columns_of(trained_on(folder), "text", file, format)
        tagged = read_conll(file, text=columns, format=format, encoding=encoding, labelled=False)
        return tagged.samples, tagged.notes
    before = trained_on(folder)
    if before.get("kind") == "choice":
        asked = read_choices(
            file,
            text=text or before.get("text", ()),
            choices=choices or before.get("choices", ()),
            format=format,
            encoding=encoding,
            labelled=False,
        )
        return asked.samples, asked.notes
    if before.get("kind") == "qa":
        read = read_passages(file, text=text, format=format, encoding=encoding, labelled=False, usual=before)
        return read.samples, read.notes
    tagger = before.get("kind") == "tags"
    if not text and _is_table(file, format):
        spans = before.get("layout") == layout_of(file, format) == "jsonl"
        text = before.get("text", ()) if spans or not tagger else ()
    found = read_samples(file, text=text, format=format, encoding=encoding, labelled=False)
    if tagger and not _is_table(file, format):
        hint = "--format conll, or conllu, if it has a word a line"
        return found.samples, [*found.notes, f"{file.name}: read as a text a line; give {hint}"]
    return found.samples, found.notes


def _columns_of(before: Mapping[str, Any], name: str, file: Path, format: str | None) -> Sequence[str]:  # noqa: A002
    """The columns that training took, if this file's are of the same kind; older folders say `universal`."""
    then = before.get("layout") or ("conllu" if before.get("universal") else "conll")
    return before.get(name, ()) if then == layout_of(file, format) else ()


def trained_on(folder: Path) -> dict[str, Any]:
    """What run.json says of the columns that the model learned from; empty where it says nothing."""
    path = folder / RUN
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text("utf-8")).get("data", {})
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise UserError(f"{path}: {error}") from None
    return data if isinstance(data, dict) else {}


def _is_table(file: Path, format: str | None) -> bool:  # noqa: A002
    if format is not None:
        return f".{format}" in TABLES
    return any(ending in TABLES for ending in file.suffixes[-2:])
