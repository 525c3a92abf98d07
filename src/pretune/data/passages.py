"""Questions on passages from files: SQuAD's layout (CMRC 2018, XQuAD), JSON lines, tables such as SubjQA."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from pretune.data.columns import find, known, names
from pretune.data.files import listed, read_text, shown, suffix
from pretune.data.readers import FORMATS as TABLE_FORMATS
from pretune.data.readers import read_table, text_of
from pretune.data.samples import Part, Sample
from pretune.data.span_answers import SpanAnswer, placed, within_words
from pretune.data.tables import Table, TableRow
from pretune.errors import UserError, choose

FORMATS: Final = ("squad", *(name for name in TABLE_FORMATS if name not in ("txt", "label-first")))
QUESTIONS: Final = ("question", "query")
PASSAGES: Final = ("passage", "context", "paragraph", "review", "document", "article", "text")
ANSWERS: Final = ("answers", "answer", "human_ans_spans")
STARTS: Final = ("answer_start", "answer_starts", "start", "human_ans_indices")
IMPOSSIBLE: Final = "is_impossible"
NO_ANSWER: Final = "ANSWERNOTFOUND"  # SubjQA's, as an answer and at the end of every review


@dataclass(frozen=True)
class PassageReading:
    """What a file of questions gave."""

    samples: list[Sample]  # parts: question, passage; gold: SpanAnswers, none where there is no answer
    text_columns: tuple[str, ...]  # of a table: question, passage
    label_columns: tuple[str, ...]
    notes: list[str]


class _Asked(NamedTuple):
    key: str
    question: str
    passage: str
    answers: list[tuple[str, int | None]] | None  # None: the file does not say


def read_passages(
    path: Path,
    *,
    text: Sequence[str] = (),
    label: Sequence[str] = (),
    format: str | None = None,  # noqa: A002 - the option's name
    encoding: str = "utf-8",
    labelled: bool = True,
    training: bool = True,
    usual: Mapping[str, Sequence[str]] | None = None,
) -> PassageReading:
    """The questions of a file; `key` is "file:id", or "file:line".

    A .json file with a list `data` has SQuAD's layout, 1.1 or 2.0; others are tables: `text` names the
    columns of question and passage, `label` that of the answers and perhaps that of where they start. An
    answer may be a text, an object with `text` and `start` or `answer_start`, a list of either, or
    `{"text": […], "answer_start": […]}`; an empty list says that the passage has no answer. An answer that
    does not stand where the file says is looked for near by. Questions of which no answer is found are left
    out when `training`, and noted; else they keep their texts, which is what scores compare. Rows of a table
    with the same question and passage are one question with several answers. `usual` are the columns of
    training, for a table that has them.
    """
    if format is not None and format not in FORMATS:
        raise choose("--format", format, FORMATS)
    document = _squad(path, encoding) if format in (None, "squad") and suffix(path) == ".json" else None
    if format == "squad" and document is None:
        document = _squad(path, encoding, must=True)
    if document is not None:
        if text or label:
            raise UserError(f"{path.name} has SQuAD's layout, without columns; leave --text and --label out")
        return _finished(path.name, list(_of_squad(path.name, document)), (), (), [], labelled, training)
    if format is None and suffix(path) == ".txt":
        raise UserError(
            f"{path.name}: a question needs a passage; give jsonl with question and passage, a table, or "
            "json in SQuAD's layout"
        )
    table = read_table(path, [*text, *label], format, encoding, labelled)
    text, label = text or _there(table, usual, "text"), label or _there(table, usual, "label")
    return from_table(table, text=text, label=label, labelled=labelled, training=training)


def from_table(
    table: Table,
    *,
    text: Sequence[str] = (),
    label: Sequence[str] = (),
    labelled: bool = True,
    training: bool = True,
) -> PassageReading:
    """The questions of a table."""
    if len(text) not in (0, 2):
        raise UserError(f"{table.name}: give --text twice, for the question and for the passage")
    texts = tuple(find(table, name, "--text") for name in text)
    texts = texts or tuple(c for kind in (QUESTIONS, PASSAGES) for c in known(table, kind, ())[:1])
    if len(texts) != 2:
        there = ", ".join(shown(name) for name in table.columns[:12])
        raise UserError(
            f"{table.name}: no two columns are known to hold question and passage; give --text QUESTION "
            f"--text PASSAGE (columns: {there})"
        )
    columns = _answer_columns(table, label, texts) if labelled else ()
    mark = "human_ans_spans" in table.columns
    impossible = table.columns.index(IMPOSSIBLE) if IMPOSSIBLE in table.columns else None
    asked = []
    for row in table.rows:
        question, passage = (text_of(row, c) for c in texts)
        passage = passage.removesuffix(NO_ANSWER).rstrip() if mark else passage
        answers = None
        if columns:
            start = row.cells[columns[1]] if len(columns) > 1 else None
            none = impossible is not None and row.cells[impossible] in (True, "True", "true")
            answers = [] if none else _answers(row.where, row.cells[columns[0]], start)
        asked.append(_Asked(row.where, question, passage, answers))
    notes = list(table.notes)
    if not text or (labelled and not label):
        said = f"question from {names(table, texts[:1])}, passage from {names(table, texts[1:])}"
        said += f", answers from {names(table, columns)}" if columns else ""
        notes.append(f"{table.name}: {said} (guessed; --text, --text and --label choose)")
    if labelled:
        asked = _merged(asked)
    text_columns, label_columns = (tuple(table.columns[c] for c in some) for some in (texts, columns))
    return _finished(table.name, asked, text_columns, label_columns, notes, labelled, training)


def passage_question(question: Any, text: Sequence[str] = ()) -> Sample:
    """(question, passage), or a dict as a line of a jsonl file has it; `text` are the columns of training."""
    if isinstance(question, Mapping):
        columns = tuple(map(str, question))
        table = Table("a question", columns, [TableRow("a question", list(question.values()))])
        there = len(text) == 2 and all(name in columns for name in text)
        return replace(from_table(table, text=text if there else (), labelled=False).samples[0], key="")
    if (
        isinstance(question, (tuple, list))
        and len(question) == 2
        and all(isinstance(x, str) for x in question)
    ):
        return Sample("", tuple(map(Part, question)))
    raise UserError(f'a question is ("Who …?", "passage"), or a dict with both, not {question!r:.80}')


def _there(table: Table, usual: Mapping[str, Sequence[str]] | None, name: str) -> Sequence[str]:
    """The columns of the training file where this one has them."""
    columns = (usual or {}).get(name, ())
    return columns if all(column in table.columns for column in columns) else ()


def _answer_columns(table: Table, label: Sequence[str], taken: Sequence[int]) -> tuple[int, ...]:
    """Where the answers are, and perhaps where it is said where they start."""
    if len(label) > 2:
        raise UserError(f"{table.name}: --label is given {len(label)} times; answers and starts are two")
    columns = tuple(find(table, name, "--label") for name in label)
    columns = columns or known(table, ANSWERS, taken)[:1]
    if not columns:
        raise UserError(f"{table.name}: no column is known to hold the answers; choose with --label")
    return columns if len(columns) > 1 else columns + known(table, STARTS, (*taken, *columns))[:1]


def _answers(where: str, cell: Any, start: Any) -> list[tuple[str, int | None]] | None:
    """The texts of a cell with their starts; None where there is nothing."""
    if isinstance(cell, str) and cell.lstrip().startswith(("[", "{")):
        with suppress(ValueError):  # a text may begin so too
            cell = json.loads(cell)
    if isinstance(start, str) and start.lstrip().startswith("["):
        with suppress(ValueError):
            start = json.loads(start)
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    if cell == NO_ANSWER:
        return []
    if isinstance(cell, Mapping):
        own = next((cell[name] for name in ("answer_start", "start") if name in cell), start)
        if not isinstance(cell.get("text"), (list, str)):
            raise UserError(f'{where}: an answer has no text; write {{"text": …, "start": …}}')
        return _answers(where, cell["text"], own)
    if isinstance(cell, str):
        return [(cell, _number(where, start))]
    if not isinstance(cell, list):
        raise UserError(f"{where}: the answers are {shown(cell)}; write a list of texts, or of objects")
    if isinstance(start, list) and len(start) != len(cell):
        raise UserError(f"{where}: {len(cell)} answers have {len(start)} starts; give one for each")
    starts = start if isinstance(start, list) else [None] * len(cell)
    found = [_answers(where, one, at) for one, at in zip(cell, starts, strict=True)]
    return [answer for some in found for answer in some or []]


def _number(where: str, start: Any) -> int | None:
    """A number of characters; of "(25, 47)" the first. Some files write -1 for what they do not know."""
    if start in (None, "", -1, "-1"):
        return None
    if isinstance(start, list) and len(start) == 1:
        (start,) = start
    match = re.fullmatch(r"\s*[(\[]?\s*(\d+)\s*(?:,.*)?", str(start))
    if match is None or isinstance(start, bool):
        raise UserError(f"{where}: an answer starts at {shown(start)}; give the number of a character")
    return int(match[1])


def _squad(path: Path, encoding: str, must: bool = False) -> list[Any] | None:
    """What `data` holds of a file in SQuAD's layout; None where it has another one."""
    text = read_text(path, encoding)
    try:
        whole = json.loads(text)
    except ValueError as error:
        if must:
            raise UserError(f"{path.name}: not valid JSON ({error}); write it again") from None
        return None
    data = whole.get("data") if isinstance(whole, dict) else None
    if not isinstance(data, list) and must:
        raise UserError(f"{path.name}: has no list `data`, so not SQuAD's layout; leave --format squad out")
    return data if isinstance(data, list) else None


def _of_squad(name: str, data: Sequence[Any]) -> Iterator[_Asked]:
    place = name
    try:
        for article in data:
            for paragraph in article["paragraphs"]:
                for qa in paragraph["qas"]:
                    place = f"{name}:{qa['id']}"
                    answers = qa.get("answers")
                    none = bool(qa.get(IMPOSSIBLE)) or answers == []
                    read = [] if none else _answers(place, answers, None)
                    if not isinstance(qa["question"], str) or not isinstance(paragraph["context"], str):
                        raise TypeError("question and context are texts")
                    yield _Asked(place, qa["question"], paragraph["context"], read)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{place}: SQuAD's layout is broken at or after this question ({error!r:.60}); articles have "
            "paragraphs, paragraphs context and qas, a question has question, id and answers"
        ) from None


def _merged(asked: Sequence[_Asked]) -> list[_Asked]:
    """What several people answered to the same question as one; an answer counts for more than none."""
    found: dict[tuple[str, str], _Asked] = {}
    for one in asked:
        pair = one.question, one.passage
        before = found.get(pair)
        if before is None or before.answers is None:
            found[pair] = one if before is None else before._replace(answers=one.answers)
        elif one.answers:
            new = [answer for answer in one.answers if answer not in before.answers]
            found[pair] = before._replace(answers=[*before.answers, *new])
    return list(found.values())


def _finished(
    name: str,
    asked: Sequence[_Asked],
    text: tuple[str, ...],
    label: tuple[str, ...],
    notes: list[str],
    labelled: bool,
    training: bool,
) -> PassageReading:
    """Samples, and what is to be said of rows that cannot be used."""
    samples: list[Sample] = []
    lost: list[str] = []
    bare: list[str] = []
    inside: list[str] = []
    moved = 0
    for one in asked:
        gold: tuple[SpanAnswer, ...] | None = None
        if not labelled:
            pass
        elif one.answers is None or not (one.question.strip() and one.passage.strip()):
            bare.append(one.key)
            continue
        else:
            gold = tuple(placed(one.passage, *answer) for answer in one.answers)
            given = list(zip(gold, one.answers, strict=True))
            moved += sum(new.span is not None and at not in (None, new.span.start) for new, (_, at) in given)
            sought = [new.span for new, (_, at) in given if new.span is not None and at != new.span.start]
            inside += [one.key for span in sought if within_words(one.passage, span)]
            if gold and all(answer.span is None for answer in gold):
                lost.append(one.key)
                if training:
                    continue
        samples.append(Sample(one.key, (Part(one.question), Part(one.passage)), gold))
    if not samples:
        raise UserError(f"{name}: no question has an answer that stands in its passage; check the columns")
    if bare:
        notes.append(
            f"{name}: {_count(bare)} without question, passage or answer left out ({listed(bare, 3)})"
        )
    if lost:
        what = "left out" if training else "kept, to be compared with by text"
        notes.append(f"{name}: {_count(lost)} whose answer is not in the passage {what} ({listed(lost, 3)})")
    if moved:
        notes.append(f"{name}: {moved} answer{'s' * (moved > 1)} found near where the file says")
    if inside:
        count = f"{len(inside)} answer{'s' * (len(inside) > 1)}"
        notes.append(f"{name}: {count} found only within longer words; check them ({listed(inside, 3)})")
    if labelled:
        none = sum(sample.gold == () for sample in samples)
        notes.append(f"{name}: {len(samples):,} questions" + (f", {none:,} without answer" if none else ""))
    return PassageReading(samples, text, label, notes)


def _count(rows: Sequence[str]) -> str:
    return f"{len(rows)} question{'s' * (len(rows) > 1)}"
