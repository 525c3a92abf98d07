"""The text rules of fastai v2 (`defaults.text_proc_rules`), with or without alignment, and their undoing."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Final

from pretune.data.aligned import Aligned, Pieces, rewritten
from pretune.data.segment import CJK

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
)  # ids 0 to 8, v2's order

LITERALS: Final = (  # one after the other, as fastai does: `&amp;` becomes `&&`
    ("#39;", "'"),
    ("amp;", "&"),
    ("#146;", "'"),
    ("nbsp;", " "),
    ("#36;", "$"),
    ("\\n", "\n"),
    ("quot;", "'"),
    ("<br />", "\n"),
    ('\\"', '"'),
    ("<unk>", UNKNOWN),
    (" @.@ ", "."),
    (" @-@ ", "-"),
    ("...", " …"),
)
ENTITY = re.compile(
    r"&(?:#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)"
)  # what html.unescape looks at
REPEATED = re.compile(r"(\S)(\1{2,})")
REPEATED_WORD = re.compile(r"(?:\s|^)(\w++)\s++((?:\1\s++)+)\1(\s|\W|$)")
SIGNS = re.compile(r"([/#\\])")
SPACES = re.compile(" {2,}")
ALL_CAPITALS = re.compile(r"[A-Z][^a-z\s]*+")
CAPITALISED = re.compile(r"[A-Z][^A-Z\s]*+")
MOST_REPEATS: Final = 1000  # what undo writes out for one marker, which a language model may have made up


def cleaned(text: str) -> str:
    """Rules 1 to 5, which look across spaces, and the last one's strip."""
    for old, new in LITERALS:
        text = text.replace(old, new)
    text = html.unescape(text)
    text = rewritten(text, REPEATED, _repeat)
    text = rewritten(text, REPEATED_WORD, _repeat_word)
    return SPACES.sub(" ", SIGNS.sub(r" \1 ", text)).strip()


def cleaned_aligned(text: str) -> Aligned:
    """As `cleaned`; every character knows what it came from."""
    aligned = Aligned.of(text)
    for old, new in LITERALS:
        aligned = aligned.replace(old, new)
    aligned = aligned.sub(ENTITY, lambda match: [(html.unescape(match.group()), *match.span())])
    aligned = aligned.sub(REPEATED, _repeat).sub(REPEATED_WORD, _repeat_word)
    aligned = aligned.sub(SIGNS, lambda match: [(f" {match.group()} ", *match.span())])
    return aligned.sub(SPACES, lambda match: [(" ", *match.span())]).strip()


def _repeat(match: re.Match[str]) -> Pieces:
    return [(f" {REPEAT} {len(match.group())} {match.group(1)} ", *match.span())]


def _repeat_word(match: re.Match[str]) -> Pieces:
    word, more, after = match.groups()
    start, end = match.start(1), match.start(3)
    return [
        (f" {REPEAT_WORD} {len(more.split()) + 2} {word} ", start, end),
        (after, end, match.end()),
    ]


def marker(run: str) -> str | None:
    """What stands before a run between spaces: xxup, xxmaj or nothing. A single letter gets none."""
    if not "A" <= run[0] <= "Z" or len(run) == 1:
        return None
    if ALL_CAPITALS.fullmatch(run):
        return UPPER
    return CAPITAL if CAPITALISED.fullmatch(run) else None


_NO_SPACE_BEFORE = re.compile(
    r"(?:[,;:!?.%…)\]}»”’，。！？、；：）》」』】]|n['’]t|['’](?:s|re|ve|ll|d|m)|\s.*)", re.DOTALL
)
_NO_SPACE_AFTER = re.compile(r"(?:[(\[{$£€«“‘#（《「『【]|.*\s)", re.DOTALL)
_WIDE = re.compile(rf"[{CJK}\u3000-\u303f\uff00-\uffef]")


def undone(tokens: Iterable[str]) -> str:
    """Readable text of tokens: marks are carried out once and forgotten, spaces are put where text has them.

    (fastai's decoder goes on repeating after the first xxrep or xxwrep.)
    """
    words: list[str] = []
    kind, times, case = "", 1, ""
    stream = iter(tokens)
    for token in stream:
        if token in (START, END, PAD):
            continue
        if token == FIELD:
            next(stream, None)  # its number
        elif token in (REPEAT, REPEAT_WORD):
            count = next(stream, "")
            kind, times = token, min(int(count), MOST_REPEATS) if re.fullmatch("[0-9]{1,9}", count) else 1
        elif token in (UPPER, CAPITAL):
            case = token
        else:
            word = token.replace("▁", " ")
            word = word.upper() if case == UPPER else word[:1].upper() + word[1:] if case else word
            words += [word] * times if kind == REPEAT_WORD else [word * times]
            kind, times, case = "", 1, ""
    return _spaced(words)


def _spaced(words: Iterable[str]) -> str:
    parts: list[str] = []
    last, quoted = "", False  # between a quotation mark that opens and one that closes
    for word in filter(None, words):
        closing, opened = word == '"' and quoted, last == '"' and quoted
        joined = closing or opened or _NO_SPACE_BEFORE.fullmatch(word) or _NO_SPACE_AFTER.fullmatch(last)
        wide = last and _WIDE.match(last[-1]) and _WIDE.match(word[0])
        parts.append(word if not parts or joined or wide else f" {word}")
        quoted ^= word == '"'
        last = word
    return "".join(parts)
