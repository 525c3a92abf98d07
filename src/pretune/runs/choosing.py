"""Questions with choices as predictors are asked them, and what guessing would get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pretune.data.choices import choice_sample, from_table
from pretune.data.samples import Sample
from pretune.data.tables import Table, TableRow
from pretune.errors import UserError


def choice_question(question: Any, text: Sequence[str] = (), choices: Sequence[str] = ()) -> Sample:
    """(question, choices) or (question, choice, choice, …), or a dict as a line of a jsonl file has it.

    `text` and `choices` are the columns of training; a dict that lacks one is read by well-known names.
    """
    if isinstance(question, Mapping):
        columns = tuple(map(str, question))
        there = all(name in columns for name in (*text, *choices))
        table = Table("a question", columns, [TableRow("a question", list(question.values()))])
        asked = from_table(
            table, text=text if there else (), choices=choices if there else (), labelled=False
        )
        return asked.samples[0]
    if isinstance(question, (tuple, list)) and question and isinstance(question[0], str):
        first, *rest = question
        if len(rest) == 1 and isinstance(rest[0], (tuple, list)):
            rest = list(rest[0])
        if len(rest) > 1 and all(isinstance(x, str) for x in rest):
            return choice_sample(first, rest)
    raise UserError(
        'a question is ("What …?", ["one", "two"]), or a dict with question and choices, not '
        f"{question!r:.80}"
    )


def guessing(samples: Sequence[Sample]) -> float:
    """The accuracy that is to be expected of guesses."""
    return sum(1 / (len(sample.parts) - 1) for sample in samples) / len(samples)


def guessing_note(samples: Sequence[Sample]) -> str:
    return f"Guessing would be right in {guessing(samples):.1%} of {len(samples):,} questions.".replace(
        "%", " %"
    )
