"""Spans of texts in JSON lines -> words with tags: annotation tools' files, CLUENER's, `predict`'s own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from pretune.data.conll import Tagged, notes_of, read_conll
from pretune.data.files import check_exists, listed, shown, suffix
from pretune.data.jsonlines import json_object
from pretune.data.samples import Part, Sample, Span
from pretune.data.segment import guess_language, segmenter
from pretune.data.tables import numbered, whole
from pretune.errors import UsageError, UserError
from pretune.metrics.tagging import LETTERS, Scheme, converted, scheme_of

JSON: Final = (".jsonl", ".ndjson", ".json")
KNOWN: Final = (".conllu", ".csv", ".parquet")
TEXTS: Final = ("text", "sentence")
SPANS: Final = ("spans", "entities", "label", "labels")
KINDS: Final = ("label", "type", "kind")  # keys of a span that is an object

Found = tuple[int, int, str]  # characters, end exclusive, and what they are


def read_tagged(
    path: Path,
    *,
    text: Sequence[str] = (),
    label: Sequence[str] = (),
    format: str | None = None,  # noqa: A002 - the option's name
    encoding: str = "utf-8",
    labelled: bool = True,
    scheme: Scheme | None = None,
) -> Tagged:
    """A file of tagged words, or of texts with spans where its name ends in .jsonl, .ndjson or .json.

    `scheme` is that of the golds which these are to be compared with: spans are written in it.
    """
    if layout_of(path, format) == "jsonl":
        found = read_spans(path, text=text, label=label, encoding=encoding)
    else:
        found = read_conll(path, text=text, label=label, format=format, encoding=encoding, labelled=labelled)
    return found if scheme is None or not labelled else in_scheme(path.name, found, scheme)


def in_scheme(name: str, found: Tagged, scheme: Scheme) -> Tagged:
    """The same spans, rewritten where the file has surely another scheme: JSON has none, so is taken as iob2.

    Tags of a word a line stay as they are where both schemes have the same letters, as iob1 and iob2 do.
    """
    golds = [sample.gold for sample in found.samples if sample.gold is not None]
    own: Scheme = "iob2" if found.layout == "jsonl" else scheme_of(golds)
    if "plain" in (own, scheme) or own == scheme:
        return found
    letters = {tag[0] for gold in golds for tag in gold if "-" in tag}
    alike = len(LETTERS[own]) == len(LETTERS[scheme]) and letters <= set(LETTERS[scheme])
    if alike and found.layout != "jsonl":
        return found
    samples = [
        sample if sample.gold is None else replace(sample, gold=tuple(converted(sample.gold, own, scheme)))
        for sample in found.samples
    ]
    note = f"{name}: spans are of the scheme {own}; they are compared in {scheme}, as learned"
    return replace(found, samples=samples, notes=[*found.notes, note])


def layout_of(path: Path, format: str | None) -> str:  # noqa: A002
    """conll, conllu, jsonl or that of another table: as asked for, or by the name's ending."""
    ending = suffix(path)
    return format or ("jsonl" if ending in JSON else ending[1:] if ending in KNOWN else "conll")


def read_spans(
    path: Path, *, text: Sequence[str] = (), label: Sequence[str] = (), encoding: str = "utf-8"
) -> Tagged:
    """Texts as words with tags of iob2; `key` is "file:line".

    `text` and `label` name the keys of the text and of its spans, by default the first of `TEXTS` and `SPANS`
    that the first line has. Spans are [start, end, kind] or objects with start, end and one of `KINDS`, ends
    exclusive; or, as CLUENER has them, {kind: {mention: [[first, last], …]}} with the last character
    included. Words are those of the texts' language, cut where a span begins or ends within one. Of spans
    that overlap the longest is kept, which is noted.
    """
    check_exists(path)
    objects = [
        (f"{path.name}:{line}", json_object(f"{path.name}:{line}", said))
        for line, said in numbered(whole(path, encoding))
        if said.strip()
    ]
    if not objects:
        raise UserError(f'{path.name}: holds no line such as {{"text": "…", "spans": [[0, 4, "PER"]]}}')
    text_key = _key(objects[0], text, TEXTS, "text")
    spans_key = _key(objects[0], label, SPANS, "label")
    texts = [_text(where, record, text_key) for where, record in objects]
    cut = segmenter(guess_language(texts[:2000]), None)
    samples: list[Sample] = []
    dropped: list[Found] = []
    for (where, record), said in zip(objects, texts, strict=True):
        found = sorted(_spans(where, record.get(spans_key), said), key=lambda x: (x[0] - x[1], x))
        kept: list[Found] = []
        for one in dict.fromkeys(found):
            free = all(one[1] <= other[0] or other[1] <= one[0] for other in kept)
            (kept if free else dropped).append(one)
        samples.append(_sample(where, said, sorted(kept), cut))
    notes = notes_of(path.name, samples)
    if dropped:
        notes.append(
            f"{path.name}: spans that overlap longer ones are left out ({len(dropped)}): a word has one tag"
        )
    return Tagged(samples, "jsonl", text_key, spans_key, notes)


def _key(
    first: tuple[str, Mapping[str, Any]], asked: Sequence[str], usual: Sequence[str], option: str
) -> str:
    where, record = first
    if len(asked) > 1:
        raise UsageError(f"--{option} names {len(asked)} keys; a text and its spans have one each")
    possible = [name for name in (asked or usual) if name in record]
    if not possible:
        wanted = f"no key {shown(asked[0])}" if asked else f"none of the keys {', '.join(usual)}"
        raise UserError(f"{where}: {wanted}, only {listed([*record])}; name the right one with --{option}")
    return possible[0]


def _text(where: str, record: Mapping[str, Any], key: str) -> str:
    text = record.get(key)
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{where}: {shown(key)} is {shown(text)}; a text is needed")
    return text


def _spans(where: str, said: Any, text: str) -> Iterator[Found]:
    """Each checked against the text."""
    if isinstance(said, Mapping):
        read = list(_by_kind(where, said, text))
    elif isinstance(said, list):
        read = [_listed(where, one) for one in said]
    else:
        raise UserError(
            f'{where}: {shown(said)} where spans are needed, such as [[0, 4, "PER"]], or [] for none'
        )
    for start, end, kind in read:
        if not all(type(x) is int for x in (start, end)) or not 0 <= start < end <= len(text):
            raise UserError(
                f"{where}: the span {start}–{end} does not lie in its text of {len(text)} characters"
            )
        if not isinstance(kind, str) or not kind.strip():
            raise UserError(f"{where}: the span {start}–{end} is of kind {shown(kind)}; a name is needed")
        if not text[start:end].strip():
            raise UserError(f"{where}: the span {start}–{end} is of white space alone")
        yield start, end, kind.strip()


def _by_kind(where: str, said: Mapping[str, Any], text: str) -> Iterator[tuple[Any, Any, Any]]:
    """CLUENER's, whose mentions say whether the last character is meant as it is read."""
    for kind, mentions in said.items():
        for mention, places in mentions.items() if isinstance(mentions, Mapping) else [("", None)]:
            for place in places if isinstance(places, list) else [None]:
                if not isinstance(place, list) or [type(x) for x in place] != [int, int]:
                    raise UserError(
                        f'{where}: {shown(kind)} is not as {{"{kind}": {{"…": [[first, last]]}}}}'
                    )
                first, last = place
                if text[first : last + 1] != mention:
                    raise UserError(
                        f"{where}: characters {first} to {last} are {shown(text[first : last + 1])}, "
                        f"not {shown(mention)}"
                    )
                yield first, last + 1, kind


def _listed(where: str, one: Any) -> tuple[Any, Any, Any]:
    if isinstance(one, list) and len(one) == 3:
        return one[0], one[1], one[2]
    if isinstance(one, Mapping) and {"start", "end"} <= one.keys():
        kind = next((one[key] for key in KINDS if key in one), None)
        return one["start"], one["end"], kind
    raise UserError(f"{where}: {shown(one)} is no span; write [start, end, kind], the end exclusive")


def _sample(where: str, text: str, spans: Sequence[Found], cut: Callable[[str], Sequence[Span]]) -> Sample:
    """Words, cut where spans end, and their tags."""
    ends = sorted({x for start, end, _ in spans for x in (start, end)})
    words = [piece for word in cut(text) for piece in _pieces(text, word, ends)]
    tags = ["O"] * len(words)
    for start, end, kind in spans:
        inside = [i for i, word in enumerate(words) if start <= word.start and word.end <= end]
        for i in inside:
            tags[i] = f"{'I' if i > inside[0] else 'B'}-{kind}"
    return Sample(where, (Part(text, tuple(words)),), tuple(tags))


def _pieces(text: str, word: Span, ends: Sequence[int]) -> list[Span]:
    places = [word.start, *(x for x in ends if word.start < x < word.end), word.end]
    return [Span(a, b) for a, b in pairwise(places) if text[a:b].strip()]
