"""Tags of words: the schemes that mark spans, the spans they mark, and how many were found.

A scheme writes a span as tags such as `B-PER I-PER`: a letter, a hyphen, what the span is. `O` is outside.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretune.errors import UserError
from pretune.metrics.classification import LabelScores, by_label

Scheme = Literal["plain", "iob1", "iob2", "bioes", "bmes", "bilou"]
Tags = Sequence[str]

OUTSIDE: Final = "O"
LETTERS: Final[dict[Scheme, str]] = {
    "iob1": "BI",  # B only where a span follows another of its kind
    "iob2": "BI",  # B at every beginning; BIO
    "bioes": "BIES",  # E at ends, S for spans of one word; IOBES
    "bmes": "BMES",  # M for I
    "bilou": "BILU",  # L for E, U for S
}
SAME: Final = {"M": "I", "L": "E", "U": "S"}
OTHERS: Final[dict[Scheme, dict[str, str]]] = {
    "bmes": {"I": "M"},
    "bilou": {"E": "L", "S": "U"},
}
WHOLE: Final = {  # letters of a span that is written as its scheme has it
    "iob2": re.compile("BI*"),
    "bioes": re.compile("S|BI*E"),
    "bmes": re.compile("S|BI*E"),
    "bilou": re.compile("S|BI*E"),
}


class Chunk(NamedTuple):
    """A span of words, end exclusive."""

    start: int
    end: int
    kind: str


def scheme_of(sequences: Iterable[Tags]) -> Scheme:
    """The scheme of these tags; "plain" where they mark no spans, as parts of speech do not.

    Between IOB1 and IOB2 the beginnings of spans decide that only one of them allows, since both kinds stand
    in real files, one of them by mistake.
    """
    letters: set[str] = set()
    inside = begun = 0  # beginnings that only IOB1, and that only IOB2 has
    for tags in sequences:
        before = (OUTSIDE, "")
        for tag in tags:
            letter, dash, kind = tag.partition("-")
            if tag != OUTSIDE and (not dash or not kind or letter not in set("BIEMSLU")):
                return "plain"
            if before[0] == OUTSIDE or before[1] != kind:
                inside += letter == "I"
                begun += letter == "B"
            before = letter, kind
            letters.add(letter)
    letters.discard(OUTSIDE)
    if letters and letters <= set("BI"):
        return "iob1" if inside and inside >= begun else "iob2"
    longer: tuple[Scheme, ...] = ("bioes", "bmes", "bilou")
    fitting = [name for name in longer if letters <= set(LETTERS[name])]
    return fitting[0] if letters and fitting else "plain"


def parsed(tag: str, scheme: Scheme) -> tuple[str, str]:
    """(letter as in BIOES, kind) of a tag."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    letter, dash, kind = tag.partition("-")
    if not dash or not kind or letter not in set(LETTERS[scheme]):
        possible = ", ".join(f"{x}-…" for x in LETTERS[scheme])
        raise UserError(f"the tag {tag!r} is not of the scheme {scheme}, which has {OUTSIDE}, {possible}")
    return SAME.get(letter, letter), kind


def chunks(tags: Tags, scheme: Scheme, strict: bool = False) -> list[Chunk]:
    """The spans that tags mark.

    As conlleval (Tjong Kim Sang & De Meulder 2003) reads them: a span goes on while its kind does, up to a
    letter that begins or after one that ends, and may begin with any. `strict` leaves out those that are not
    written as the scheme has it, such as `I-PER` after `O` in iob2.
    """
    read = [parsed(tag, scheme) for tag in tags]
    found: list[Chunk] = []
    begun, previous = -1, (OUTSIDE, "")
    for i, (letter, kind) in enumerate([*read, (OUTSIDE, "")]):
        goes_on = begun >= 0 and letter in "IE" and kind == previous[1] and previous[0] not in "ES"
        if not goes_on:
            if begun >= 0:
                found.append(Chunk(begun, i, previous[1]))
            begun = -1 if letter == OUTSIDE else i
        previous = letter, kind
    if not strict:
        return found
    letters = "".join(letter for letter, _ in read)
    follows = {(before.end, before.kind) for before in found}
    return [chunk for chunk in found if _whole(letters[chunk.start : chunk.end], chunk, scheme, follows)]


def _whole(letters: str, chunk: Chunk, scheme: Scheme, follows: set[tuple[int, str]]) -> bool:
    if scheme == "iob1":  # B where, and only where, a span of the same kind has just ended
        return letters.startswith("B") == ((chunk.start, chunk.kind) in follows)
    return WHOLE[scheme].fullmatch(letters) is not None


def written(spans: Iterable[Chunk], words: int, scheme: Scheme) -> list[str]:
    """The tags that mark these spans, which do not overlap, in a scheme."""
    tags, before = [OUTSIDE] * words, Chunk(0, 0, "")
    for span in sorted(spans):
        start, end, kind = span
        letters = ["B", *"I" * (end - start - 1)]
        if scheme == "iob1":
            letters[0] = "B" if (before.end, before.kind) == (start, kind) else "I"
        elif scheme != "iob2":
            letters = ["S"] if end - start == 1 else [*letters[:-1], "E"]
        tags[start:end] = [f"{OTHERS.get(scheme, {}).get(letter, letter)}-{kind}" for letter in letters]
        before = span
    return tags


def converted(tags: Tags, of: Scheme, to: Scheme) -> list[str]:
    """Tags of one scheme as another writes the same spans; of the same one, those not well written mended."""
    return written(chunks(tags, of), len(tags), to)


def tags_of(kinds: Iterable[str], scheme: Scheme) -> tuple[str, ...]:
    """Every tag that a scheme may need for spans of these kinds."""
    return (OUTSIDE, *(f"{letter}-{kind}" for kind in kinds for letter in LETTERS[scheme]))


def may_follow(before: str | None, after: str | None, scheme: Scheme) -> bool:
    """Whether a well written sentence may have these tags in a row; None is before and behind all words."""
    (first, kind), (second, next_kind) = (parsed(tag or OUTSIDE, scheme) for tag in (before, after))
    same = first in "BI" and kind == next_kind
    if scheme == "iob1":
        return second != "B" or same
    if scheme == "iob2":
        return second != "I" or same
    return (second in "IE" and same) if first in "BI" else second not in "IE"


def tallies(golds: Sequence[Tags], answers: Sequence[Tags], scheme: Scheme) -> NDArray[np.int64]:
    """What scores are made of, per sentence, to be added up: (sentences, 8).

    Words right, words; spans right, said, true; the same three of strict spans. Spans are 0 where tags are
    plain.
    """
    if len(golds) != len(answers) or not len(golds):
        raise UserError(f"cannot score {len(answers)} answers against {len(golds)} golds")
    rows = np.zeros((len(golds), 8), dtype=np.int64)
    for row, gold, answer in zip(rows, golds, answers, strict=True):
        if len(gold) != len(answer):
            raise UserError(f"cannot score {len(answer)} tags against {len(gold)}: one a word is needed")
        row[:2] = sum(a == b for a, b in zip(gold, answer, strict=True)), len(gold)
        if scheme != "plain":
            for at, strict in ((2, False), (5, True)):
                true, said = set(chunks(gold, scheme, strict)), set(chunks(answer, scheme, strict))
                row[at : at + 3] = len(true & said), len(said), len(true)
    return rows


def scores_of(total: Sequence[int] | NDArray[np.int64], scheme: Scheme) -> dict[str, float]:
    """Scores from tallies added up: (8,). 0 where there was nothing to divide by."""
    words_right, words, right, said, true, strict_right, strict_said, strict_true = map(int, total)
    accuracy = {"accuracy": share(words_right, words)}
    if scheme == "plain":
        return accuracy
    return {
        "span_f1": share(2 * right, said + true),
        "span_precision": share(right, said),
        "span_recall": share(right, true),
        "strict_f1": share(2 * strict_right, strict_said + strict_true),
        **accuracy,
    }


def by_kind(golds: Sequence[Tags], answers: Sequence[Tags], scheme: Scheme) -> dict[str, LabelScores]:
    """How well spans of each kind are found; where tags are plain, words of each tag."""
    if scheme == "plain":
        flat = [tag for tags in golds for tag in tags], [tag for tags in answers for tag in tags]
        return by_label(*flat) if flat[0] else {}
    right, said, true = Counter[str](), Counter[str](), Counter[str]()
    for gold, answer in zip(golds, answers, strict=True):
        own, theirs = set(chunks(gold, scheme)), set(chunks(answer, scheme))
        right.update(chunk.kind for chunk in own & theirs)
        said.update(chunk.kind for chunk in theirs)
        true.update(chunk.kind for chunk in own)
    return {
        kind: LabelScores(
            share(right[kind], said[kind]),
            share(right[kind], true[kind]),
            share(2 * right[kind], said[kind] + true[kind]),
            true[kind],
        )
        for kind in sorted({*said, *true})
    }


def share(part: int, whole: int) -> float:
    """0 of nothing."""
    return part / whole if whole else 0.0
