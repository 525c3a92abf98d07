"""Predicates whose roles a saved model is asked for: files read as in training, and questions in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pretune.data.role_questions import role_question
from pretune.data.roles import Roles, is_lines, read_roles
from pretune.data.samples import Sample


def read_predicates(
    file: Path,
    before: Mapping[str, Any],
    *,
    text: Sequence[str],
    label: Sequence[str] = (),
    format: str | None,  # noqa: A002, the option's name
    encoding: str,
    labelled: bool,
) -> Roles:
    """With the columns that training was told of (`before`, from run.json), unless others are given."""
    if not is_lines(file, format):
        text, label = text or before.get("text", ()), label or before.get("label", ())
    return read_roles(file, text=text, label=label, format=format, encoding=encoding, labelled=labelled)


def predicate_question(question: Any) -> Sample:
    """(words, predicate), or a dict as a line of a jsonl file has it."""
    if isinstance(question, (tuple, list)) and len(question) == 2 and not isinstance(question[1], str):
        first = "text" if isinstance(question[0], str) else "words"
        return role_question({first: question[0], "predicate": question[1]})
    return role_question(question)
