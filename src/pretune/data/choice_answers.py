"""Answer cells of multiple choice -> the number of the choice: written as number, letter, label or text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from pretune.data.files import shown
from pretune.data.golds import NO_CONSENSUS, word_of
from pretune.data.tables import Table, TableRow
from pretune.errors import UserError

BLANK: Final = (NO_CONSENSUS, "-1")  # what test files without answers have in their place


@dataclass(frozen=True)
class Choices:
    """What is offered."""

    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()  # of a file that gives them, such as A, B, C


Way = Callable[[str, Choices], int | None]  # a cell -> which choice; None: none


def numbers_of(
    table: Table, column: int, offered: Sequence[Choices], counts_from: int | None
) -> tuple[list[int | None], int | None, str]:
    """Which choice each row has, counted from 0; what files count from; and how answers were written.

    One way holds for the whole file: the choices' own labels, their texts, letters, or numbers. Whole numbers
    in JSON are numbers. None stands for rows without answer.
    """
    words = [word_of(row, row.cells[column]) for row in table.rows]
    words = [None if word is None or word.strip() in BLANK else word.strip() for word in words]
    asked = [(word, choices) for word, choices in zip(words, offered, strict=True) if word is not None]
    first = _first(asked) if counts_from is None else counts_from
    ways: dict[str, Way] = {
        "labels of the choices": _by_label,
        "the text of a choice": _by_text,
        "letters": _by_letter,
        f"numbers counted from {first}": lambda word, choices: _by_number(word, choices, first),
    }
    if any(isinstance(row.cells[column], int) for row in table.rows):
        ways = dict([ways.popitem()])
    fits = {name: sum(way(*one) is not None for one in asked) for name, way in ways.items()}
    said = max(fits, key=fits.__getitem__)
    found = [
        None if word is None else _placed(row, ways[said], word, choices)
        for row, word, choices in zip(table.rows, words, offered, strict=True)
    ]
    return found, first if said.startswith("numbers") else None, f"; answers are {said}" if asked else ""


def _placed(row: TableRow, way: Way, word: str, choices: Choices) -> int:
    place = way(word, choices)
    if place is None:
        raise UserError(
            f"{row.where}: the answer {shown(word)} is none of {len(choices.texts)} choices; give the number "
            "of one (counted from 0), its letter, or its text"
        )
    return place


def _first(asked: Sequence[tuple[str, Choices]]) -> int:
    """1 where no answer is 0 and some answer has the number of the last choice, else 0."""
    numbers = [(int(word), len(choices.texts)) for word, choices in asked if re.fullmatch("[0-9]{1,3}", word)]
    zero = any(number == 0 for number, _ in numbers)
    return int(not zero and any(number == count for number, count in numbers))


def _by_label(word: str, choices: Choices) -> int | None:
    return choices.labels.index(word) if word in choices.labels else None


def _by_text(word: str, choices: Choices) -> int | None:
    return choices.texts.index(word) if word in choices.texts else None


def _by_letter(word: str, choices: Choices) -> int | None:
    place = ord(word.upper()) - ord("A") if re.fullmatch("[A-Za-z]", word) else -1
    return place if 0 <= place < len(choices.texts) else None


def _by_number(word: str, choices: Choices, first: int) -> int | None:
    place = int(word) - first if re.fullmatch("[0-9]{1,3}", word) else -1
    return place if 0 <= place < len(choices.texts) else None
