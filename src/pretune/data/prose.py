"""Documentation strings -> passages of plain prose, in which the names of things are masked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from inspect import cleandoc

MASK = "something"  # an English noun that every vocabulary has: sentences still read as sentences
SHORTEST, LONGEST = 10, 60  # words of a passage

UNDERLINE = re.compile(r"\s*([-=~^*#\"'+])\1{2,}\s*$")
ASIDE = re.compile(r"\.\. (note|warning|tip|important|caution|deprecated|attention|hint)::")
NO_PROSE = re.compile(r"(references?|see also|bibliography|citations?)\s*:?$", re.I)
# "x : ndarray, optional", "Args:", "keepdim", "x, y": what heads the description of a parameter
ENTRY = re.compile(r"[^.!?]{0,90}? : |[\w ]+:$|[\w*`.,= -]{0,40}[\w`]$|[\w.]+\(.*\)( -> .*)?$")
# "- ", "1. ", ":param x:", "dim (int, optional):", "keepdim:"
LEAD = re.compile(r"[-*+•]\s|\d+[.)]\s|:\w+ ?[\w ]*: ?|[*`]*\w+[*`]* ?(?:\([^()]*(?:\([^()]*\))?[^()]*\))?: ")

SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z`:*\"(])")
ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|al|fig|eq|eqs|resp|approx|sec|ref|no|w\.r\.t|dr)\.|\b[A-Z]\.)$", re.I)
QUOTED = re.compile(r"(?::[\w:+-]+:`[^`]*`|``.+?``|`[^`]+`_{0,2})(?:\(\)|s\b)?|(?<!\w)\*{1,2}[\w -]+?\*{1,2}")  # code, *args*
CALL = re.compile(r"\b[\w.]+\([^() ][^()]*\)|\b[\w.]+\(\)")
NAME = re.compile(
    r"""(?x)
    (?i:\w*(?:torch|numpy|scipy|scikit|sklearn|matplotlib|pyplot|pylab)(?:[\w.-]*\w)?)
    | (?i:np|plt|mpl|ndarrays?|aten)(?:\.\w+)*
    | [A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+  # dotted.name
    | \w*[A-Za-z]_\w* | _\w+           # under_scored
    | [A-Za-z]*[a-z][A-Z]\w*            # CamelCase
    """
)
PIECES = re.compile(r"((?:[^\w.]|\.(?!\w))+)")
SHORTHAND = frozenset(("e.g", "i.e", "w.r.t", "a.k.a"))
REPEATED = re.compile(rf"\b{MASK}(?:[ ,/=-]+(?:and |or )?{MASK})+\b")
PLAIN = re.compile(r"[A-Za-z0-9 .,;:!?()'\"/%&+-]*")
FOREIGN = ("//", "::", "( ", " )", "of shape (")  # addresses, literal blocks, gaps, types
WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")


def passages(docstring: str) -> Iterator[str]:
    """Up to 60 words of neighbouring sentences at a time; code, tables, formulas and references are left out."""
    for block in blocks(docstring):
        if "." not in block and "!" not in block and "?" not in block:
            continue
        passage: list[str] = []
        for sentence in [*map(masked, sentences(block)), ""]:
            fits = is_prose(sentence)
            if passage and (not fits or len(" ".join([*passage, sentence]).split()) > LONGEST):
                text = " ".join(passage)
                if len(text.split()) >= SHORTEST:
                    yield text
                passage = []
            if fits:
                passage.append(sentence)


def blocks(docstring: str) -> Iterator[str]:
    """Paragraphs, list items and descriptions of parameters, each on one line."""
    block: list[str] = []
    at = 0  # the indent of the block's last line
    skipped: int | None = None  # lines deeper than this belong to a directive or a literal block
    code = unread = hanging = False
    lines = cleandoc(docstring).split("\n")
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        text = line.strip()
        if not text:
            if block:
                yield " ".join(block)
                block = []
            code = False
            continue
        indent = len(line) - len(line.lstrip())
        lead = LEAD.match(text)
        if block and (lead or indent < at or (indent > at and not hanging) or text.startswith((">>>", ".. "))):
            yield " ".join(block)
            block = []
        if skipped is not None and indent > skipped:
            continue
        skipped = None
        code = code or text.startswith(">>>")
        if NO_PROSE.match(text):
            unread = True
        elif UNDERLINE.match(below):
            unread = False
        elif code or unread or UNDERLINE.match(line):
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
        if not ABBREVIATION.search(block, start, gap.start()):
            yield block[start : gap.start()]
            start = gap.end()
    yield block[start:]


def masked(sentence: str) -> str:
    """Every library's name, everything in backticks and everything that looks like an identifier is MASK."""
    if "`" in sentence or "*" in sentence:
        sentence = QUOTED.sub(MASK, sentence)
    if "(" in sentence:
        sentence = CALL.sub(MASK, sentence)
    sentence = " ".join(map(masked_word, sentence.split()))
    if MASK not in sentence:
        return sentence
    return REPEATED.sub(MASK, sentence).replace(f"an {MASK}", f"a {MASK}").replace(f"An {MASK}", f"A {MASK}")


@cache
def masked_word(token: str) -> str:
    """The token, its hyphenated or slashed pieces masked one by one, with its punctuation."""
    return "".join(
        MASK if NAME.fullmatch(piece) and piece.lower() not in SHORTHAND else piece
        for piece in PIECES.split(token)
    )


def is_prose(sentence: str) -> bool:
    """A whole sentence that is mostly words."""
    if sentence[-1:] not in (".", "!", "?") or not PLAIN.fullmatch(sentence):
        return False
    tokens = sentence.split()
    words = [token for token in tokens if WORD.fullmatch(token.strip(".,;:!?()\"'"))]
    return (
        len(tokens) >= 4
        and not any(mark in sentence for mark in FOREIGN)
        and len(words) >= 0.8 * len(tokens)
        and sum(MASK in token for token in tokens) <= 0.2 * len(tokens)
    )


def openings(passage: str) -> tuple[str, ...]:
    """The first eight words of each sentence without digits and signs: near copies share one of them."""
    return tuple(" ".join(WORD.findall(sentence.lower())[:8]) for sentence in sentences(passage))
