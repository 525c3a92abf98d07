"""The profiles: fastai's text rules of versions 2, 1 and 0.7, step by step in their order; and none."""

from __future__ import annotations

import re
from typing import Final

from pretune.data.aligned import Pieces
from pretune.methods.ulmfit.rules import (
    CAPITAL,
    REPEAT_WORD,
    SPECIALS,
    START,
    UNKNOWN,
    UPPER,
    Profile,
    Put,
    Replaced,
    Rewritten,
    Rules,
    Step,
    Stripped,
    Unescaped,
    repeat,
)


def _replaced(*pairs: tuple[str, str]) -> tuple[Step, ...]:
    return tuple(Replaced(old, new) for old, new in pairs)


HTML: Final = _replaced(  # one after the other, as fastai does: `&amp;` becomes `&&`
    ("#39;", "'"),
    ("amp;", "&"),
    ("#146;", "'"),
    ("nbsp;", " "),
    ("#36;", "$"),
    ("\\n", "\n"),
    ("quot;", "'"),
    ("<br />", "\n"),
    ('\\"', '"'),
)
SQUEEZED: Final = Put(re.compile(" {2,}"), " ")
FOUR: Final = Rewritten(re.compile(r"(\S)(\1{3,})"), repeat)
# The text starts after `xxbos `: a space before its first character, which may be white space itself.
LED: Final = Put(re.compile(r"\A"), " ")


# --- version 2 (`defaults.text_proc_rules`) ---------------------------------------------------------------


def _three_words(match: re.Match[str]) -> Pieces:
    word, more, after = match.groups()
    start, end = match.start(1), match.start(3)
    return [
        (f" {REPEAT_WORD} {len(more.split()) + 2} {word} ", start, end),
        (after, end, match.end()),
    ]


ALL_CAPITALS = re.compile(r"[A-Z][^a-z\s]*+")
CAPITALISED = re.compile(r"[A-Z][^A-Z\s]*+")


def marker(run: str) -> str | None:
    """Of a run between spaces; a single letter gets none."""
    if not "A" <= run[0] <= "Z" or len(run) == 1:
        return None
    if ALL_CAPITALS.fullmatch(run):
        return UPPER
    return CAPITAL if CAPITALISED.fullmatch(run) else None


V2: Final = Profile(
    name="v2",
    steps=(
        *HTML,
        *_replaced(("<unk>", UNKNOWN), (" @.@ ", "."), (" @-@ ", "-"), ("...", " …")),
        Unescaped(),
        Rewritten(re.compile(r"(\S)(\1{2,})"), repeat),
        Rewritten(re.compile(r"(?:\s|^)(\w++)\s++((?:\1\s++)+)\1(\s|\W|$)"), _three_words),
        Put(re.compile(r"[/#\\]"), " {} "),
        SQUEEZED,
        Stripped(),
    ),
    marker=marker,
    marks_words=False,
    bars=True,
)


# --- version 1 (`defaults.text_pre_rules`, `text_post_rules`) ---------------------------------------------


def _four_words(match: re.Match[str]) -> Pieces:
    """Its count is of what the repeated part splits into, and signs after the word are repeated with it."""
    word, more = match.groups()
    return [(f" {REPEAT_WORD} {len(more.split()) + 1} {word} ", *match.span())]


FOUR_WORDS: Final = Rewritten(re.compile(r"(\b\w++\W++)(\1{3,})"), _four_words)


def word_marker(word: str) -> str | None:
    """Of a word as it was split, in any script."""
    if len(word) == 1:
        return None
    if word.isupper():
        return UPPER
    return CAPITAL if word[0].isupper() and word[1:].islower() else None


V1: Final = Profile(
    name="v1",
    steps=(
        LED,
        *HTML,
        *_replaced(("<unk>", UNKNOWN), (" @.@ ", "."), (" @-@ ", "-"), (" @,@ ", ","), ("\\", " \\ ")),
        Unescaped(),
        SQUEEZED,
        FOUR,
        FOUR_WORDS,
        Put(re.compile(r"[/#\n]"), " {} "),
        SQUEEZED,
    ),
    marker=word_marker,
    marks_words=True,
)


# --- version 0.7 (`fixup` of the release's scripts, then `Tokenizer.proc_text`) ---------------------------


def _capitals(match: re.Match[str]) -> Pieces:
    """Of three letters at least; signs count as a word of their own (Ⓐ is a capital too)."""
    word = match.group()
    if not word.isupper():
        return [(word, *match.span())]
    return [(f" {UPPER} ", *match.span()), (word, *match.span())]


def unmarked(run: str) -> None:
    """Capitals were marked by a step."""


def lowered_by_word(text: str) -> str:
    """Letters and the rest apart, which tells a final sigma as the release does."""
    return "".join(map(str.lower, re.findall(r"\w+|\W+", text)))


V07: Final = Profile(
    name="v07",
    steps=(
        LED,
        *HTML,
        *_replaced(("<unk>", "u_n"), (" @.@ ", "."), (" @-@ ", "-"), ("\\", " \\ ")),
        Unescaped(),
        SQUEEZED,
        FOUR,
        FOUR_WORDS,
        Rewritten(re.compile(r"\w{3,}|\W{3,}"), _capitals),
        Put(re.compile("[/#]"), " {} "),
        SQUEEZED,
        Put(re.compile(r"<\s*br\s*/?>", re.IGNORECASE), "\n"),
    ),
    marker=unmarked,
    marks_words=False,
    lower=lowered_by_word,
    opening=("\n", START),
    marks_fields=True,
    whole=frozenset((*SPECIALS, "<eos>", "<bos>")),
)


# --- none (salesforce's awd-lstm-lm, tf2-ulmfit), whose models read lines, each as a text of its own --------


def as_it_is(text: str) -> str:
    return text


PLAIN: Final = Profile(
    name="plain",
    steps=(Replaced("<unk>", UNKNOWN), Stripped(), Put(re.compile(r"\s*\n\s*"), f" {START} ")),
    marker=unmarked,
    marks_words=False,
    lower=as_it_is,
)

PROFILES: Final[dict[Rules, Profile]] = {"v2": V2, "v1": V1, "v07": V07, "plain": PLAIN}
