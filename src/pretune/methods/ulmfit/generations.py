"""Which generation of files a vocabulary is of, and its special tokens under our names, ids unmoved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pretune.methods.ulmfit.rules import (
    END,
    FIELD,
    PAD,
    REPEAT,
    REPEAT_WORD,
    SPECIALS,
    START,
    UNKNOWN,
    UPPER,
    Rules,
)

Layout = Literal["salesforce", "v07", "v1", "v2"]

# fmt: off
V07: Final[Mapping[str, str]] = {  # of fastai 0.7
    # theirs    ours
    "_unk_":    UNKNOWN,
    "_pad_":    PAD,
    "xbos":     START,
    "xfld":     FIELD,
    "t_up":     UPPER,
    "tk_rep":   REPEAT,
    "tk_wrep":  REPEAT_WORD,
}
OTHERS: Final[Mapping[str, str]] = {  # of SentencePiece and salesforce
    "<unk>":    UNKNOWN,
    "<pad>":    PAD,
    "<s>":      START,
    "</s>":     END,
    "<eos>":    START,  # salesforce: what stands between two lines, so before every text
}
# fmt: on
NEEDED: Final = (UNKNOWN, PAD, START)  # without which no text can be read
MARK: Final = "▁"  # before a piece that begins a word


@dataclass(frozen=True)
class Vocabulary:
    """Words by id. The last `added` have no row in the file: special tokens that it lacks and we need."""

    words: list[str]
    rules: Rules
    added: int
    notes: list[str]


def vocabulary_of(
    words: Sequence[str], layout: Layout, rules: Rules | None = None, pieces: bool = False
) -> Vocabulary:
    """Our names for special tokens, by exchange, so that no id moves and nothing stands there twice."""
    found = generation(words)
    said = rules or found or _rules_of(layout, pieces)
    notes = []
    if rules is None and found is None:
        notes.append(
            f"the vocabulary does not tell by whose rules texts were read; {said} is taken for a file laid "
            "out like this: --rules says otherwise"
        )
    named = _with_pieces_named(words) if pieces else list(words)
    place = {word: number for number, word in reversed(list(enumerate(named)))}
    aliases = V07 if found == "v07" else OTHERS if found is None or pieces else {}
    for theirs, ours in aliases.items():
        if theirs in place and ours not in place:
            number = place.pop(theirs)
            named[number], place[ours] = ours, number
    twice = len(named) - len(set(named)) - max(0, named.count("xxfake") - 1)
    if twice:
        notes.append(f"{twice} words of the vocabulary stand there twice; the first of each counts")
    missing = [token for token in NEEDED if token not in place]
    if missing:
        notes.append(
            f"the vocabulary has no {', '.join(missing)}; added at its end, as the mean of all words"
        )
    return Vocabulary([*named, *missing], said, len(missing), notes)


def generation(words: Sequence[str]) -> Rules | None:
    """By the names of the special tokens, or by their order, in which fastai 1 and 2 differ."""
    place = {word.removeprefix(MARK): number for number, word in reversed(list(enumerate(words)))}
    if {"_unk_", "_pad_"} <= place.keys() or {"t_up", "tk_rep"} <= place.keys():
        return "v07"
    if UPPER not in place or REPEAT not in place:
        return None
    return "v1" if place[UPPER] < place[REPEAT] else "v2"


def _rules_of(layout: Layout, pieces: bool) -> Rules:
    """What a layout makes likely: fastai's own words have its marks among them, and so have its pieces."""
    return "plain" if layout == "salesforce" or pieces else layout


def _with_pieces_named(words: Sequence[str]) -> list[str]:
    """SentencePiece writes xxbos as ▁xxbos. Where a vocabulary has both, as fastai 2's do, texts were read
    as the piece, and the plain one was never seen: they change names. But what is unknown, and padding, is
    the plain one there; without it it is SentencePiece's own <unk>, and ▁xxpad.
    """
    named = list(words)
    place = {word: number for number, word in reversed(list(enumerate(named)))}
    for token in SPECIALS:
        piece = MARK + token
        if piece not in place or (token in place and token in (UNKNOWN, PAD)):
            continue
        if token == UNKNOWN and "<unk>" in place:
            continue
        number = place[piece]
        if token in place:
            named[place[token]] = piece
        named[number] = token
    return named


def fastai_words(words: Sequence[str], pieces: bool = False) -> tuple[list[str], list[int]]:
    """Words as fastai 2 has them, and the ids that they have here: xxunk is its 0, xxpad its 1.

    Special tokens that stand among pieces are called as SentencePiece writes them.
    """
    first = [words.index(token) for token in (UNKNOWN, PAD)]
    order = [*first, *(number for number in range(len(words)) if number not in first)]
    named = [words[number] for number in order]
    if pieces:
        place = {word: number for number, word in reversed(list(enumerate(named)))}
        for token in SPECIALS:
            if token in place and token not in (UNKNOWN, PAD):
                number = place[token]
                if MARK + token in place:
                    named[place[MARK + token]] = token
                named[number] = MARK + token
    return named, order
