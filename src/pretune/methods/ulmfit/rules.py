"""Text rules: rewriting steps that keep characters aligned, and what a profile of them is made of."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from pretune.data.aligned import Aligned, Pieces, Rewrite, rewritten

Rules = Literal["v2", "v1", "v07", "plain"]

UNKNOWN, PAD, START, END, FIELD = "xxunk", "xxpad", "xxbos", "xxeos", "xxfld"
REPEAT, REPEAT_WORD, UPPER, CAPITAL = "xxrep", "xxwrep", "xxup", "xxmaj"
SPECIALS: Final = (
    UNKNOWN,
    PAD,
    START,
    END,
    FIELD,
    REPEAT,
    REPEAT_WORD,
    UPPER,
    CAPITAL,
)  # ids 0 to 8, v2's order; all profiles speak with these names, whatever a generation called them

ENTITY = re.compile(
    r"&(?:#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)"
)  # what html.unescape looks at


class Step(Protocol):
    """One rewriting of a whole text, without and with its alignment."""

    def plain(self, text: str) -> str: ...

    def aligned(self, text: Aligned) -> Aligned: ...


@dataclass(frozen=True)
class Replaced:
    """Every `old` by `new`, as str.replace."""

    old: str
    new: str

    def plain(self, text: str) -> str:
        return text.replace(self.old, self.new)

    def aligned(self, text: Aligned) -> Aligned:
        return text.replace(self.old, self.new)


@dataclass(frozen=True)
class Rewritten:
    """Every match of a pattern by the pieces of a function."""

    pattern: re.Pattern[str]
    rewrite: Rewrite

    def plain(self, text: str) -> str:
        return rewritten(text, self.pattern, self.rewrite)

    def aligned(self, text: Aligned) -> Aligned:
        return text.sub(self.pattern, self.rewrite)


@dataclass(frozen=True)
class Put:
    """Every match by a text in which {} is the match: quicker than a function."""

    pattern: re.Pattern[str]
    text: str

    def plain(self, text: str) -> str:
        return self.pattern.sub(self.text.replace("{}", r"\g<0>"), text)

    def aligned(self, text: Aligned) -> Aligned:
        return text.sub(self.pattern, lambda match: [(self.text.replace("{}", match.group()), *match.span())])


class Unescaped:
    """html.unescape."""

    def plain(self, text: str) -> str:
        return html.unescape(text)

    def aligned(self, text: Aligned) -> Aligned:
        return text.sub(ENTITY, lambda match: [(html.unescape(match.group()), *match.span())])


class Stripped:
    """str.strip."""

    def plain(self, text: str) -> str:
        return text.strip()

    def aligned(self, text: Aligned) -> Aligned:
        return text.strip()


@dataclass(frozen=True)
class Profile:
    """What one generation of fastai does to a text before and after it is split into words."""

    name: Rules
    steps: tuple[Step, ...]
    marker: Callable[[str], str | None]
    """xxup, xxmaj or nothing, to stand before a run between spaces or before a word."""
    marks_words: bool
    """Words are split as they came, then marked and lowered; else runs are, before they are split."""
    lower: Callable[[str], str] = str.lower
    bars: bool = False
    """Spaces inside a token become ▁."""
    opening: tuple[str, ...] = (START,)
    """What every text starts with."""
    marks_fields: bool = False
    """xxfld k stands before the only part of a text too."""
    whole: frozenset[str] = frozenset(SPECIALS)
    """Runs that are one token, whatever splits the others."""

    def cleaned(self, text: str) -> str:
        """The text after all steps, which look across spaces."""
        for step in self.steps:
            text = step.plain(text)
        return text

    def cleaned_aligned(self, text: str) -> Aligned:
        """As `cleaned`; every character knows what it came from."""
        aligned = Aligned.of(text)
        for step in self.steps:
            aligned = step.aligned(aligned)
        return aligned


def repeat(match: re.Match[str]) -> Pieces:
    """xxrep n c in the place of n times the character c."""
    return [(f" {REPEAT} {len(match.group())} {match.group(1)} ", *match.span())]
