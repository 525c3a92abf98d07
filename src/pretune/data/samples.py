"""What a data set is made of: samples, their parts, and spans of characters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class Span(NamedTuple):
    """Characters of one part, end exclusive. The only coordinate that pretune uses."""

    start: int
    end: int


@dataclass(frozen=True)
class Part:
    """One text of a sample; `words` are given only if the data set came split into words."""

    text: str
    words: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One question to a task: parts such as (text,), (premise, hypothesis), (question, passage)."""

    key: str
    parts: tuple[Part, ...]
    gold: Any = None  # the task's own answer type; None when predicting
    marks: tuple[Span, ...] = ()  # what is pointed at: a predicate, a pronoun; in the first part as a rule

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(part.text for part in self.parts)


def sample(*texts: str, key: str = "", gold: Any = None) -> Sample:
    """A sample of plain texts, for Python users and tests."""
    return Sample(key, tuple(Part(text) for text in texts), gold)
