"""The rules undone: readable text of tokens, whatever profile made them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from pretune.data.segment import CJK
from pretune.methods.ulmfit.rules import (
    CAPITAL,
    END,
    FIELD,
    PAD,
    REPEAT,
    REPEAT_WORD,
    SPECIALS,
    START,
    UNKNOWN,
    UPPER,
)

MOST_REPEATS: Final = 1000  # what is written out for one marker, which a language model may have made up

_NO_SPACE_BEFORE = re.compile(
    r"(?:[,;:!?.%…)\]}»”’，。！？、；：）》」』】]+|n['’]t|['’](?:s|re|ve|ll|d|m)|\s.*)", re.DOTALL
)
_NO_SPACE_AFTER = re.compile(r"(?:[(\[{$£€«“‘#（《「『【]|.*\s)", re.DOTALL)
_WIDE = re.compile(rf"[{CJK}\u3000-\u303f\uff00-\uffef]")


class Word(NamedTuple):
    text: str
    repeated: bool = False  # characters that one xxrep stood for


def undone(tokens: Iterable[str]) -> str:
    """Readable text of words: marks are carried out once and forgotten, spaces are put where text has them.

    (fastai's decoder goes on repeating after the first xxrep or xxwrep.)
    """
    parts: list[str] = []
    last, quoted = "", False  # between a quotation mark that opens and one that closes
    for word, _ in _carried_out(tokens):
        closing, opened = word == '"' and quoted, last == '"' and quoted
        joined = closing or opened or _NO_SPACE_BEFORE.fullmatch(word) or _NO_SPACE_AFTER.fullmatch(last)
        parts.append(word if not parts or joined or _wide(last, word) else f" {word}")
        quoted ^= word == '"'
        last = word
    return "".join(parts)


def undone_pieces(pieces: Iterable[str]) -> str:
    """The same of pieces, whose ▁ say where spaces were; only around xxrep had the rules put more of them."""
    marked = {UNKNOWN: UNKNOWN, **{mark: f"▁{mark}▁" for mark in SPECIALS if mark != UNKNOWN}}
    runs = "".join(marked.get(piece, piece) for piece in pieces).replace("▁", " ").split()
    parts: list[str] = []
    last = Word("")
    for word in _carried_out(runs):
        rewritten = word.repeated or last.repeated
        joined = rewritten and (_NO_SPACE_BEFORE.match(word.text) or _wide(last.text, word.text))
        parts.append(word.text if not parts or joined else f" {word.text}")
        last = word
    return "".join(parts)


def _carried_out(tokens: Iterable[str]) -> Iterator[Word]:
    kind, times, case = "", 1, ""
    stream = iter(tokens)
    held = ""  # a line's end, which version 0.7 puts before xxbos
    for token in stream:
        if held and token != START:
            yield Word(held)
        held = ""
        if token in (START, END, PAD):
            continue
        if token == FIELD:
            next(stream, None)  # its number
        elif token in (REPEAT, REPEAT_WORD):
            count = next(stream, "")
            kind, times = token, min(int(count), MOST_REPEATS) if re.fullmatch("[0-9]{1,9}", count) else 1
        elif token in (UPPER, CAPITAL):
            case = token
        elif token == "\n" and not kind:
            held, case = token, ""
        elif token:
            word = token.replace("▁", " ")
            word = word.upper() if case == UPPER else word[:1].upper() + word[1:] if case else word
            if kind == REPEAT_WORD:
                yield from [Word(word)] * times
            else:
                yield Word(word * times, kind == REPEAT)
            kind, times, case = "", 1, ""
    if held:
        yield Word(held)


def _wide(last: str, word: str) -> bool:
    return bool(last and _WIDE.match(last[-1]) and _WIDE.match(word[0]))
