"""Multiple choice from files: a question, perhaps a context before it, its choices, and which is right."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pretune.data.choice_answers import Choices, numbers_of
from pretune.data.columns import find, known, names
from pretune.data.conll import UNSPACED
from pretune.data.copa import connected, read_copa
from pretune.data.files import listed, shown, suffix
from pretune.data.readers import left_out, read_table, text_of
from pretune.data.samples import Part, Sample, Span
from pretune.data.tables import Table, TableRow
from pretune.errors import UserError

CONTEXTS: Final = ("context", "passage", "article", "premise", "story", "ctx")
QUESTIONS: Final = (
    "question", "stem", "question_stem", "prompt", "query", "startphrase", "goal", "sentence", "text",
)  # fmt: skip
LISTS: Final = ("choices", "options", "endings", "candidates", "answers")
ANSWERS: Final = (
    "answer", "label", "answerkey", "answer_key", "correct", "correct_answer", "gold", "target",
    "answer_index", "answer_idx", "answerrightending",
)  # fmt: skip
ONE_EACH: Final = re.compile(
    r"(?:(choice|option|ending|answer|candidate|sol|randomfifthsentencequiz)[ _-]?(?:\d|[a-h])|[a-h])"
)


@dataclass(frozen=True)
class ChoiceReading:
    """What a file of questions gave."""

    samples: list[Sample]  # parts: question (with its context before it), choices; gold: which, from 0
    text_columns: tuple[str, ...]
    choice_columns: tuple[str, ...]
    label_columns: tuple[str, ...]
    counts_from: int | None  # what the first choice's number is where answers are numbers
    notes: list[str]


@dataclass(frozen=True)
class Columns:
    """Positions in a table."""

    texts: tuple[int, ...]  # contexts, then the question
    choices: tuple[int, ...]  # a list in one, or one each
    answer: int | None


def choice_sample(
    question: str, choices: Sequence[str], gold: int | None = None, context: str = "", key: str = ""
) -> Sample:
    """One question; `gold` counts the choices from 0.

    sample = choice_sample("The sun is responsible for", ["puppies", "plants sprouting"], gold=1)
    """
    text, start = _joined([context, question])
    marks = (Span(start, len(text)),) if start else ()
    return Sample(key, (Part(text), *map(Part, choices)), gold, marks)


def read_choices(
    path: Path,
    *,
    text: Sequence[str] = (),
    choices: Sequence[str] = (),
    label: Sequence[str] = (),
    counts_from: int | None = None,
    format: str | None = None,  # noqa: A002 - the option's name
    encoding: str = "utf-8",
    labelled: bool = True,
) -> ChoiceReading:
    """The questions of a csv, tsv, jsonl or Parquet file; `key` is "file:line".

    Of several `text` columns the last is the question, those before it are its context. `choices` is a column
    with a list, or a column for each; `label` says which is right: a number, a letter, or the choice itself.
    Numbers count from 0, or from 1 where no 0 but the number of the last choice is among them, unless
    `counts_from` says so. Columns that are not named are guessed, and the guess noted. Also read as they are
    published: ARC, OpenBookQA, CommonsenseQA (`question.stem`, `answerKey`), SWAG, HellaSwag, ROCStories,
    CODAH, and COPA as XML or SuperGLUE's jsonl (`pretune.data.copa`).
    """
    if format == "xml" or (format is None and suffix(path) == ".xml"):
        table = read_copa(path, encoding, labelled)
    else:
        table = read_table(path, [*text, *choices, *label], format, encoding, labelled)
    return from_table(
        table, text=text, choices=choices, label=label, counts_from=counts_from, labelled=labelled
    )


def from_table(
    table: Table,
    *,
    text: Sequence[str] = (),
    choices: Sequence[str] = (),
    label: Sequence[str] = (),
    counts_from: int | None = None,
    labelled: bool = True,
) -> ChoiceReading:
    """The questions of a table."""
    table = connected(flattened(table))
    columns, notes = choose_columns(table, text, choices, label, labelled)
    asked = [_joined([text_of(row, c) for c in columns.texts]) for row in table.rows]
    offered = [_choices(table, row, columns.choices) for row in table.rows]
    golds: list[int | None] = [None] * len(asked)
    said = ""
    if columns.answer is not None:
        golds, counts_from, said = numbers_of(table, columns.answer, offered, counts_from)
    blank = [labelled and not question.strip() for question, _ in asked]
    missing = [labelled and gold is None and not b for gold, b in zip(golds, blank, strict=True)]
    samples = [
        Sample(row.where, (Part(question), *map(Part, choice.texts)), gold, _mark(question, start))
        for row, (question, start), choice, gold, b, m in zip(
            table.rows, asked, offered, golds, blank, missing, strict=True
        )
        if not (b or m)
    ]
    if not samples:
        raise UserError(
            f"{table.name}: no row has a question and an answer; choose columns with --text and --label"
        )
    notes += left_out(table, "text", blank) + left_out(table, "answer", missing)
    return ChoiceReading(
        samples,
        tuple(table.columns[c] for c in columns.texts),
        tuple(table.columns[c] for c in columns.choices),
        () if columns.answer is None else (table.columns[columns.answer],),
        counts_from,
        [*table.notes, *notes, *_counted(table.name, samples, said)],
    )


def flattened(table: Table) -> Table:
    """With the `stem` and `choices` of questions that are objects as columns (ARC, OpenBookQA)."""
    place = next((c for c, name in enumerate(table.columns) if name == "question"), None)
    if place is None or not all(isinstance(row.cells[place], dict) for row in table.rows):
        return table
    inner: dict[str, None] = {}
    for row in table.rows:
        inner |= dict.fromkeys(row.cells[place])  # type: ignore[call-overload]
    others = [c for c in range(len(table.columns)) if c != place and table.columns[c] not in inner]
    rows = [
        TableRow(row.where, [*(row.cells[place].get(x) for x in inner), *(row.cells[c] for c in others)])  # type: ignore[attr-defined]
        for row in table.rows
    ]
    return replace(table, columns=(*inner, *(table.columns[c] for c in others)), rows=rows)


def choose_columns(
    table: Table, text: Sequence[str], choices: Sequence[str], label: Sequence[str], labelled: bool
) -> tuple[Columns, list[str]]:
    """Columns as asked for, by well-known name, or by their places in a table without a header."""
    if len(label) > 1:
        raise UserError(f"{table.name}: --label is given twice; one column says which choice is right")
    answer = find(table, label[0], "--label") if labelled and label else None
    offered = tuple(find(table, name, "--choices") for name in choices)
    texts = tuple(find(table, name, "--text") for name in text)
    taken = (*offered, *texts)
    if labelled and answer is None:
        answer = next(iter(known(table, ANSWERS, taken)), None)
    if not offered and not texts and table.columns == tuple(map(str, range(len(table.columns)))):
        found = _by_place(table, answer)
        if found is not None:
            return found, [_guessed(table, found)]
    taken = (*taken, answer) if answer is not None else taken
    offered = offered or known(table, LISTS, taken) or _one_each(table, taken)
    texts = texts or _questions(table, (*taken, *offered))
    for what, columns, option in (("question", texts, "text"), ("choices", offered, "choices")):
        if not columns:
            raise UserError(_lacking(table, f"the {what}", option))
    if labelled and answer is None:
        raise UserError(_lacking(table, "the answers", "label"))
    chosen = Columns(texts, offered, answer)
    asked = text and choices and (label or not labelled)
    return chosen, [] if asked else [_guessed(table, chosen)]


def _questions(table: Table, taken: Sequence[int]) -> tuple[int, ...]:
    """A context and a question, one of them, or the sentences of a story."""
    found = known(table, CONTEXTS, taken) + known(table, QUESTIONS, taken)
    story = [c for c, name in enumerate(table.columns) if re.fullmatch("inputsentence[0-9]", name.casefold())]
    return found or tuple(story)


def _lacking(table: Table, what: str, option: str) -> str:
    there = ", ".join(shown(column) for column in table.columns[:12])
    return f"{table.name}: no column is known to hold {what}; choose with --{option} (columns: {there})"


def _guessed(table: Table, columns: Columns) -> str:
    said = f"question from {names(table, columns.texts)}, choices from {names(table, columns.choices)}"
    if columns.answer is not None:
        said += f", answer from {names(table, (columns.answer,))}"
    return f"{table.name}: {said} (guessed; --text, --choices and --label choose)"


def _one_each(table: Table, taken: Sequence[int]) -> tuple[int, ...]:
    """Columns such as ending0, ending1, … or A, B, …: the first kind of which there are two."""
    kinds: dict[str, list[int]] = {}
    for c, name in enumerate(table.columns):
        match = ONE_EACH.fullmatch(name.casefold())
        if match and c not in taken:
            kinds.setdefault(match[1] or "", []).append(c)
    return next((tuple(found) for found in kinds.values() if len(found) > 1), ())


def _by_place(table: Table, answer: int | None) -> Columns | None:
    """Without a header: …, question, choices, answer, as CODAH has it."""
    last = answer if answer is not None else len(table.columns) - 1
    words = [str(row.cells[last]).strip() for row in table.rows]
    if all(re.fullmatch("[A-H]", word) for word in words):
        count = ord(max(words)) - ord("A") + 1
    elif all(re.fullmatch("[0-9]", word) for word in words) and {"0", "1"} & set(words):
        count = int(max(words)) + ("0" in words)
    else:
        return None
    if count < 2 or last - count < 1:
        return None
    return Columns((last - count - 1,), tuple(range(last - count, last)), last)


def _choices(table: Table, row: TableRow, columns: Sequence[int]) -> Choices:
    """The texts of a row's choices, and their own labels where it has any."""
    if len(columns) > 1:
        texts = [text_of(row, c).strip() for c in columns]
        while texts and not texts[-1]:
            texts.pop()  # rows may have fewer choices than others
        return _checked(row, Choices(tuple(texts)))
    cell = row.cells[columns[0]]
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            cell = json.loads(cell)
        except ValueError as error:
            raise UserError(f"{row.where}: the choices are no JSON list ({error}); correct them") from None
    labels: list[object] = []
    if isinstance(cell, dict) and isinstance(cell.get("text"), list):
        cell, labels = cell["text"], list(cell.get("label") or [])
    elif isinstance(cell, list) and cell and all(isinstance(x, dict) and "text" in x for x in cell):
        labels = [x.get("label") for x in cell]
        cell = [x["text"] for x in cell]
    if not isinstance(cell, list):
        raise UserError(
            f"{row.where}: the choices ({shown(table.columns[columns[0]])}) are no list; write "
            '["one", "two"], or give a column for each with --choices COLUMN --choices COLUMN'
        )
    texts = [text_of(TableRow(row.where, [one]), 0).strip() for one in cell]
    own = tuple(str(x) for x in labels) if len(labels) == len(texts) and None not in labels else ()
    return _checked(row, Choices(tuple(texts), own))


def _checked(row: TableRow, choices: Choices) -> Choices:
    if len(choices.texts) < 2:
        raise UserError(f"{row.where}: {len(choices.texts)} choices; a question needs at least two")
    blank = next((k for k, text in enumerate(choices.texts) if not text), None)
    if blank is not None:
        raise UserError(f"{row.where}: choice {blank} is blank (counted from 0); write it, or leave it out")
    return choices


def _joined(texts: Sequence[str]) -> tuple[str, int]:
    """Context and question as one text, and where the question begins."""
    *before, question = texts
    whole = ""
    for text in filter(None, (text.strip() for text in before)):
        whole += _space(whole, text) + text
    if not question.strip():
        return whole, 0
    whole += _space(whole, question.strip())
    return whole + question.strip(), len(whole)


def _space(before: str, after: str) -> str:
    """Between two texts; none beside Chinese and Japanese characters."""
    return "" if not before or UNSPACED.match(before[-1]) or UNSPACED.match(after[0]) else " "


def _mark(question: str, start: int) -> tuple[Span, ...]:
    return (Span(start, len(question)),) if start else ()


def _counted(name: str, samples: Sequence[Sample], said: str) -> list[str]:
    """How many questions and choices, what answers were taken for, and choices that are the same."""
    counts = Counter(len(sample.parts) - 1 for sample in samples)
    several = " or ".join(map(str, sorted(counts)))
    notes = [f"{name}: {len(samples):,} questions with {several} choices{said}"]
    twice = [s.key for s in samples if len(set(s.texts[1:])) < len(s.parts) - 1]
    if twice:
        count = f"{len(twice)} question{'s have' if len(twice) > 1 else ' has'}"
        notes.append(f"{name}: {count} a choice twice, kept ({listed(twice, 3)})")
    return notes
