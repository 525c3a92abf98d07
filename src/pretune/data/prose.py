"""Documentation strings -> passages of plain prose, in which the names of things are masked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from inspect import cleandoc

MASK = "something"  # an English noun that every vocabulary has: sentences still read as sentences
LONGEST = 60  # words of a passage

RULES, BULLETS = (
    "-=~^*#\"'+",
    "-*+•:0123456789",
)  # what lines may end and begin with: cheaper to ask than a match
UNDERLINE = re.compile(r"\s*([-=~^*#\"'+])\1{2,}\s*$")
ASIDE = re.compile(r"\.\. (note|warning|tip|important|caution|deprecated|attention|hint)::")
NO_PROSE = re.compile(r"(references?|see also|bibliography|citations?)\s*:?$", re.I)
# "x : ndarray, optional", "Args:", "keepdim", "x, y": what heads the description of a parameter
ENTRY = re.compile(r"[^.!?]{0,90}? : |[\w ]+:$|[\w*`.,= -]{0,40}[\w`]$|[\w.]+\(.*\)( -> .*)?$")
# "- ", "1. ", ":param x:", "dim (int, optional):", "keepdim:"
LEAD = re.compile(r"[-*+•]\s|\d+[.)]\s|:\w+ ?[\w ]*: ?|[*`]*\w+[*`]* ?(?:\([^()]*(?:\([^()]*\))?[^()]*\))?: ")

SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z`:*\"(])")
ABBREVIATION = re.compile(
    r"\W*(?:e\.g|i\.e|w\.r\.t|etc|vs|cf|al|figs?|eqs?|resp|approx|sec|ref|no|dr|[a-z])\.", re.I
)
# :func:`name`, ``code``, `name`, *args
QUOTED = re.compile(r"(?::[\w:+-]+:`[^`]*`|``.+?``|`[^`]+`_{0,2})(?:\(\)|s\b)?|(?<!\w)\*{1,2}[\w -]+?\*{1,2}")
CALL = re.compile(r"\b[\w.]+\([^() ][^()]*\)|\b[\w.]+\(\)")
NAME = re.compile(
    r"""
    (?i:\w*(?:torch|numpy|scipy|scikit|sklearn|matplotlib|pyplot|pylab)(?:[\w.-]*\w)?)
    | (?i:np|plt|mpl|ndarrays?|aten)(?:\.\w+)*
    | \.?[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+ # dotted.name
    | \w*[A-Za-z]_\w* | _\w+           # under_scored
    | [A-Za-z]*[a-z][A-Z]\w*            # CamelCase
    | [A-Za-z]+[0-9]\w*                 # float64
    """,
    re.VERBOSE,
)
PIECES = re.compile(r"((?:[^\w.]|\.(?!\w))+)")
HYPHENATED = re.compile(r"(?i)[\w.]*scikits?-\w+")
SHORTHAND = frozenset(("e.g", "i.e", "w.r.t", "a.k.a"))
REPEATED = re.compile(rf"{MASK}(?:[ ,/=-]+(?:and |or )?{MASK})+\b")
ARTICLE = re.compile(rf"\b([Aa])n {MASK}\b")
# "and" and the like: what follows a formula or a listing that was left out
FRAGMENT = re.compile(r"(and|as|but|for|is|or|so|such|than|then|to|where|which|while|with) ")
PLAIN = re.compile(r"[A-Za-z0-9 .,;:!?()'\"/%&+-]*")
FOREIGN = ("//", "::", "( ", " )", "of shape (")  # addresses, literal blocks, gaps, types
WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")


def prose(docstring: str) -> list[str]:
    """The sentences of a documentation string, masked, without code, tables, formulas and references."""
    return [
        sentence
        for block in blocks(docstring)
        for raw in sentences(block)
        if raw.endswith((".", "!", "?")) and is_prose(sentence := masked(raw))
    ]


def packed(kept: Iterable[str]) -> Iterator[str]:
    """Passages of neighbouring sentences: as many as stay within LONGEST words."""
    passage: list[str] = []
    words = 0
    for sentence in kept:
        length = len(sentence.split())
        if passage and words + length > LONGEST:
            yield " ".join(passage)
            passage, words = [], 0
        passage.append(sentence)
        words += length
    if passage:
        yield " ".join(passage)


def blocks(docstring: str) -> Iterator[str]:
    """Paragraphs, list items and descriptions of parameters, each on one line."""
    block: list[str] = []
    at = 0  # the indent of the block's last line
    skipped: int | None = None  # lines deeper than this belong to a directive or a literal block
    code = unread = hanging = ruled = False
    lines = cleandoc(docstring).split("\n")
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        text = line.strip()
        underline, ruled = ruled, below[-1:] in RULES and UNDERLINE.match(below) is not None
        if not text:
            if block:
                yield " ".join(block)
                block = []
            code = False
            continue
        indent = len(line) - len(line.lstrip())
        lead = LEAD.match(text) if text[0] in BULLETS or ": " in text else None
        if block and (
            lead or indent < at or (indent > at and not hanging) or text.startswith((">>>", ".. "))
        ):
            yield " ".join(block)
            block = []
        if skipped is not None and indent > skipped:
            continue
        skipped = None
        code = code or text.startswith(">>>")
        if len(text) < 20 and NO_PROSE.match(text):
            unread = True
        elif ruled:
            unread = False
        elif code or unread or underline:
            pass
        elif text.startswith(".. "):
            skipped = None if ASIDE.match(text) else indent
        elif block or not ENTRY.match(text):
            if not block:
                hanging = lead is not None
                text = text[lead.end() :] if lead else text
            block.append(text)
            at = indent
            skipped = indent if text.endswith("::") else None
    if block:
        yield " ".join(block)


def sentences(block: str) -> Iterator[str]:
    start = 0
    for gap in SENTENCE.finditer(block):
        last = block[block.rfind(" ", start, gap.start()) + 1 : gap.start()]
        if not ABBREVIATION.fullmatch(last):
            yield block[start : gap.start()]
            start = gap.end()
    yield block[start:]


def masked(sentence: str) -> str:
    """Every library's name, everything in backticks and everything that looks like an identifier is MASK."""
    if "`" in sentence or "*" in sentence:
        sentence = QUOTED.sub(MASK, sentence)
    if sentence.count("(") > sentence.count(" ("):
        sentence = CALL.sub(MASK, sentence)
    sentence = " ".join(map(masked_word, sentence.split()))
    if MASK not in sentence:
        return sentence
    sentence = REPEATED.sub(MASK, sentence)
    return ARTICLE.sub(rf"\1 {MASK}", sentence) if f"n {MASK}" in sentence else sentence


@cache
def masked_word(token: str) -> str:
    """The token, its hyphenated or slashed pieces masked one by one, with its punctuation."""
    return "".join(
        MASK if NAME.fullmatch(piece) and piece.lower() not in SHORTHAND else piece
        for piece in PIECES.split(HYPHENATED.sub(MASK, token))
    )


def is_prose(sentence: str) -> bool:
    """Mostly words, and no fragment."""
    if not PLAIN.fullmatch(sentence):
        return False
    tokens = sentence.split()
    return (
        not FRAGMENT.match(sentence)
        and 4 <= len(tokens) <= LONGEST
        and not any(mark in sentence for mark in FOREIGN)
        and sum(map(is_word, tokens)) >= 0.8 * len(tokens)
        and sentence.count(MASK) <= 0.2 * len(tokens)
    )


@cache
def is_word(token: str) -> bool:
    return WORD.fullmatch(token.strip(".,;:!?()\"'")) is not None


def edges(sentence: str) -> tuple[str, str]:
    """Its first and its last eight words, without digits and signs: near copies share one of them."""
    words = WORD.findall(sentence.lower())
    return "^ " + " ".join(words[:8]), " ".join(words[-8:]) + " $"
