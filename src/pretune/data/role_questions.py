"""Predicates as they are asked about, one a line of JSON or one a dict: a sentence, and where it has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from pretune.data.conll import sentence
from pretune.data.files import shown
from pretune.data.jsonlines import json_object
from pretune.data.samples import Part, Sample, Span
from pretune.errors import UserError

NEEDED: Final = (
    'roles are those of a given predicate: {"words": ["Mary", "left"], "predicate": 1}, which is the number '
    'of a word, or {"text": "Mary left", "predicate": [5, 9]}, which is where it begins and ends'
)


def read_role_lines(name: str, lines: Sequence[str], labelled: bool) -> list[Sample]:
    """A sample a line; blank lines are skipped."""
    samples = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        if not line.lstrip().startswith("{"):
            raise UserError(f"{where}: {shown(line.strip())} asks nothing; {NEEDED}")
        samples.append(role_question(json_object(where, line), where, labelled))
    if not samples:
        raise UserError(f"{name}: holds no line; {NEEDED}")
    return samples


def role_question(asked: Any, where: str = "", labelled: bool = False) -> Sample:
    """The sample of one dict.

    `words` are texts; with a `text` they may be [start, end] of each, as answers have them, or left out. The
    `predicate` is [start, end]: characters of the text, or words where only those are given, of which a
    single one may be a number. `labels` are BIO tags, one for each word.
    """
    said = where or "a question"
    if not isinstance(asked, Mapping) or not ({"words", "text"} & asked.keys()) or "predicate" not in asked:
        raise UserError(f"{said}: {shown(_plain(asked))} asks nothing; {NEEDED}")
    part = _part(asked, said)
    mark = _mark(asked, part, said)
    gold = None
    if labelled:
        gold = asked.get("labels")
        if not isinstance(gold, list) or not all(isinstance(tag, str) for tag in gold):
            raise UserError(f"{said}: no labels; give a list with a tag such as B-ARG0 for each word")
        if len(gold) != len(part.words):
            raise UserError(
                f"{said}: {len(gold)} labels for {len(part.words)} words; give words, and a label for each"
            )
        gold = tuple(gold)
    return Sample(where, (part,), gold, (mark,))


def _plain(asked: Any) -> Any:
    return dict(asked) if isinstance(asked, Mapping) else asked


def _part(asked: Mapping[str, Any], said: str) -> Part:
    words, text = asked.get("words"), asked.get("text")
    if text is None:
        if _listed(words) and words and all(isinstance(x, str) and x.strip() for x in words):
            return sentence(words)
        raise UserError(f"{said}: words are {shown(words)}; give a list of texts, none of them blank")
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{said}: the text is {shown(text)}; give the sentence")
    if words is None:
        return Part(text)
    spans = [_span(x) for x in words] if _listed(words) else []
    known = [x for x in spans if x is not None]
    apart = all(one.end <= other.start for one, other in pairwise(known))
    if not known or len(known) != len(spans) or known[-1].end > len(text) or not apart:
        raise UserError(
            f"{said}: words are {shown(words)}; beside a text they are [start, end] of each, in order"
        )
    return Part(text, tuple(known))


def _mark(asked: Mapping[str, Any], part: Part, said: str) -> Span:
    """The characters of the predicate."""
    found, by_words = asked["predicate"], asked.get("text") is None
    if by_words and isinstance(found, int) and not isinstance(found, bool):
        found = [found, found + 1]
    span = _span(found)
    size = len(part.words) if by_words else len(part.text)
    if span is None or span.end > size:
        what = "words, counted from 0" if by_words else "characters of the text"
        raise UserError(
            f"{said}: the predicate is {shown(asked['predicate'])}; give [start, end] of it in {what}, end "
            f"exclusive, at most {size}"
        )
    if by_words:
        return Span(part.words[span.start].start, part.words[span.end - 1].end)
    return span


def _span(value: Any) -> Span | None:
    """[start, end] with at least one place inside."""
    if not _listed(value) or len(value) != 2 or any(type(x) is not int for x in value):
        return None
    return Span(*value) if 0 <= value[0] < value[1] else None


def _listed(value: Any) -> bool:
    return isinstance(value, (list, tuple))
