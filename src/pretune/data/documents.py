"""Documents whose mentions are grouped: CoNLL 2012's columns, LitBank's, JSON lines -> samples, and back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pretune.data.conll import sentence
from pretune.data.files import check_exists, listed, read_text, shown, suffix
from pretune.data.jsonlines import json_object
from pretune.data.samples import Part, Sample, Span
from pretune.errors import UsageError, UserError, choose

Clusters = tuple[tuple[Span, ...], ...]  # in the order of their first mentions, each in the order of the text

FORMATS: Final = ("conll", "jsonl", "txt")
LINES: Final = (".jsonl", ".ndjson", ".json")
TABLES: Final = (".csv", ".tsv", ".parquet", ".conllu")
BEGIN: Final = re.compile(r"#begin document \(?(.*?)\)?(?:; *part *([0-9]+))?\s*")
BRACKET: Final = re.compile(r"(\()?([^()|\s]+)(\))?")  # (3 opens a mention of cluster 3, 3) closes it
WORD: Final = 3  # the column of the word


@dataclass(frozen=True)
class Documents:
    """What a file or folder gave."""

    samples: list[Sample]  # gold: clusters of spans, None if unlabelled; marks: its sentences where known
    notes: list[str]  # for the user


def read_documents(
    path: Path,
    *,
    text: Sequence[str] = (),
    label: Sequence[str] = (),
    format: str | None = None,  # noqa: A002 - the option's name
    encoding: str = "utf-8",
    labelled: bool = True,
) -> Documents:
    """The documents of a file, or of all files of a folder.

    `conll` has a word a line, its document, part, number and form in the first four columns, brackets such as
    `(3|(7)` or `3)` in the last; a blank line between sentences; `#begin document (name); part 000` first.
    The key is "document/part". `jsonl` has a document a line: {"text", "clusters": [[[start, end], …], …]} in
    characters; {"words", "clusters"} in words, end exclusive; or {"sentences", "clusters"} as e2e-coref
    writes it, lists of words, the last word of a mention included. `txt`, unlabelled, is one document.
    `text` and `label`, which name columns elsewhere, must be empty.
    """
    if text or label:
        raise UsageError("--text and --label name columns; documents have theirs, so leave them out")
    if format is not None and format not in FORMATS:
        raise choose("--format", format, FORMATS)
    check_exists(path)
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    if path.is_dir() and format is None:
        files = [x for x in files if suffix(x) in (".conll", *LINES) or suffix(x).endswith("_conll")]
    found: list[Sample] = []
    for file in files:
        found += _read(file, format, encoding, labelled)
    if not found:
        raise UserError(f"{path}: holds no document; give files in CoNLL's columns (.conll) or JSON lines")
    return Documents(found, _notes(path.name, found) if labelled else [])


def _read(file: Path, format: str | None, encoding: str, labelled: bool) -> Iterator[Sample]:  # noqa: A002
    ending = suffix(file)
    if format is None and ending in TABLES:
        raise UserError(
            f"{file.name}: documents are read from CoNLL's columns or JSON lines; convert the file, or give "
            "--format conll or jsonl if it is one"
        )
    kind = format or {".txt": "txt"}.get(ending, "jsonl" if ending in LINES else "conll")
    text = read_text(file, encoding)
    if kind == "txt":
        if labelled:
            raise UserError(f"{file.name}: a text alone has no clusters; give CoNLL's columns or JSON lines")
        return iter([Sample(file.name, (Part(text),))] if text.strip() else [])
    if kind == "jsonl":
        return _json_lines(file.name, text, labelled)
    return _columns(file.name, text, labelled)


class _Reading:
    """A document of CoNLL's columns as it is read."""

    def __init__(self, where: str, key: str) -> None:
        self.where, self.key = where, key
        self.sentences: list[list[str]] = [[]]
        self.words = 0
        self.open: dict[str, list[tuple[int, str]]] = {}  # of each cluster, where mentions began
        self.clusters: dict[str, list[tuple[int, int]]] = {}

    def add(self, where: str, word: str, cell: str, labelled: bool) -> None:
        self.sentences[-1].append(word)
        for piece in cell.split("|") if labelled and cell not in ("", "-", "_", "*") else ():
            found = BRACKET.fullmatch(piece)
            if found is None or not (found[1] or found[3]):
                raise UserError(
                    f"{where}: {shown(cell)} in the last column; a mention's brackets are (3, 3) or (3), "
                    "several with | between them, and - where there are none"
                )
            if found[1]:
                self.open.setdefault(found[2], []).append((self.words, where))
            if found[3]:
                if not self.open.get(found[2]):
                    raise UserError(f"{where}: {found[2]}) closes a mention that nothing has opened")
                start, _ = self.open[found[2]].pop()  # of nested ones the inner
                self.clusters.setdefault(found[2], []).append((start, self.words + 1))
        self.words += 1

    def sample(self, labelled: bool) -> Sample:
        for name, begun in self.open.items():
            if begun:
                raise UserError(f"{begun[-1][1]}: ({name} opens a mention that nothing closes")
        return _sample(self.key, self.sentences, list(self.clusters.values()) if labelled else None)


def _columns(name: str, text: str, labelled: bool) -> Iterator[Sample]:
    reading: _Reading | None = None
    for number, line in enumerate(text.split("\n"), 1):
        line, where = line.rstrip("\r"), f"{name}:{number}"
        if line.startswith("#"):
            if reading is not None and reading.words:
                yield reading.sample(labelled)
            begun = BEGIN.fullmatch(line)
            reading = _Reading(where, f"{begun[1]}/{int(begun[2] or 0)}") if begun else None
        elif not line.strip():
            if reading is not None and reading.sentences[-1]:
                reading.sentences.append([])
        else:
            fields = line.split("\t") if "\t" in line else line.split()
            if len(fields) < WORD + 1 + labelled or not fields[WORD].strip():
                raise UserError(
                    f"{where}: {shown(line)}; document, part, number, word and, last, brackets are needed"
                )
            reading = reading or _Reading(where, f"{fields[0]}/{fields[1]}")
            reading.add(where, fields[WORD].strip(), fields[-1].strip(), labelled)
    if reading is not None and reading.words:
        yield reading.sample(labelled)


def _sample(
    key: str, sentences: Sequence[Sequence[str]], clusters: Sequence[Sequence[tuple[int, int]]] | None
) -> Sample:
    """A document of words; mentions count words, end exclusive."""
    part = sentence([word for words in sentences for word in words])
    marks, at = [], 0
    for words in sentences:
        if words:
            marks.append(Span(part.words[at].start, part.words[at + len(words) - 1].end))
            at += len(words)
    gold = None
    if clusters is not None:
        spans = [[Span(part.words[a].start, part.words[b - 1].end) for a, b in x] for x in clusters]
        gold = in_order(spans)
    return Sample(key, (part,), gold, tuple(marks))


def in_order(clusters: Sequence[Sequence[Span]]) -> Clusters:
    """Clusters by their first mentions, mentions by their places, none twice in a cluster."""
    return tuple(sorted(tuple(sorted(set(cluster))) for cluster in clusters if cluster))


def document(question: object, where: str = "the document", labelled: bool = False) -> Sample:
    """A text, a list of words, or a dict as a line of JSON lines has it, as a sample.

    Raises `UserError`, beginning with `where`.
    """
    if isinstance(question, str):
        return Sample("", (Part(question),))
    if isinstance(question, (list, tuple)):
        question = {"words": question}
    if not isinstance(question, dict):
        raise UserError(f"{where}: a document is a text, words, or a dict with one of them")
    key = str(question.get("key", question.get("doc_key", "")))
    text, words, several = (question.get(name) for name in ("text", "words", "sentences"))
    if sum(x is not None for x in (text, words, several)) != 1:
        raise UserError(f'{where}: give one of "text", "words" and "sentences"')
    clusters = _pairs(where, question.get("clusters"), inclusive=several is not None) if labelled else None
    if text is not None:
        if not isinstance(text, str):
            raise UserError(f'{where}: "text" is {shown(text)}; it must be a string')
        _check(where, clusters, len(text), "characters")
        spans = None if clusters is None else in_order([[Span(*x) for x in some] for some in clusters])
        return Sample(key, (Part(text),), spans)
    sentences = [words] if several is None else several
    if not isinstance(sentences, (list, tuple)) or not all(map(_is_words, sentences)):
        raise UserError(f'{where}: "words" is a list of words, "sentences" a list of such lists')
    _check(where, clusters, sum(map(len, sentences)), "words")
    found = _sample(key, sentences, clusters)
    return found if several is not None else Sample(key, found.parts, found.gold)  # sentences are not known


def _is_words(x: object) -> bool:
    return isinstance(x, (list, tuple)) and all(isinstance(word, str) and word.strip() for word in x)


def _pairs(where: str, clusters: object, inclusive: bool) -> list[list[tuple[int, int]]]:
    wrong = UserError(f'{where}: "clusters" is a list of lists of [start, end], such as [[[0, 4], [9, 12]]]')
    if not isinstance(clusters, (list, tuple)):
        raise wrong
    found: list[list[tuple[int, int]]] = []
    for cluster in clusters:
        if not isinstance(cluster, (list, tuple)):
            raise wrong
        found.append([])
        for mention in cluster:
            if not isinstance(mention, (list, tuple)) or [type(x) for x in mention] != [int, int]:
                raise wrong
            found[-1].append((mention[0], mention[1] + inclusive))
    return found


def _check(where: str, clusters: Sequence[Sequence[tuple[int, int]]] | None, length: int, unit: str) -> None:
    for start, end in (mention for cluster in clusters or () for mention in cluster):
        if not 0 <= start < end <= length:
            raise UserError(
                f"{where}: a mention from {start} to {end} (exclusive) in a text of {length} {unit}"
            )


def _json_lines(name: str, text: str, labelled: bool) -> Iterator[Sample]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{name}:{number}"
            found = document(json_object(where, line), where, labelled)
            yield found if found.key else Sample(where, found.parts, found.gold, found.marks)


def write_documents(documents: Sequence[tuple[Sample, Sequence[Span], Clusters]]) -> str:
    """CoNLL's columns of documents, each with its words and its clusters.

    A mention takes the words that it shares characters with. Sentences are the sample's marks.
    """
    blocks = []
    for number, (sample, words, clusters) in enumerate(documents):
        name, _, part = sample.key.rpartition("/")
        name, part = (name, part) if name and part.isdecimal() else (sample.key or str(number), "0")
        name = re.sub(r"[\s()]", "_", name)
        cells = _cells(words, clusters)
        ends = {mark.end for mark in sample.marks}
        lines = [f"#begin document ({name}); part {int(part):03d}\n"]
        at = 0
        for span, cell in zip(words, cells, strict=True):
            form = re.sub(r"\s", "_", sample.parts[0].text[span.start : span.end])
            lines.append(f"{name}\t{part}\t{at}\t{form}\t{cell}\n")
            at += 1
            if span.end in ends:
                lines.append("\n")
                at = 0
        blocks.append("".join([*lines, "" if lines[-1] == "\n" else "\n", "#end document\n"]))
    return "".join(blocks)


def _cells(words: Sequence[Span], clusters: Clusters) -> list[str]:
    """Of each word the brackets of its mentions, longer ones outside."""
    opened: list[list[tuple[int, str]]] = [[] for _ in words]
    closed: list[list[tuple[int, str]]] = [[] for _ in words]
    for number, cluster in enumerate(clusters):
        for mention in cluster:
            own = [w for w, x in enumerate(words) if x.start < mention.end and x.end > mention.start]
            if len(own) == 1:
                opened[own[0]].append((1, f"({number})"))
            elif own:
                opened[own[0]].append((-len(own), f"({number}"))
                closed[own[-1]].append((len(own), f"{number})"))
    both = zip(opened, closed, strict=True)
    return ["|".join(x for _, x in [*sorted(begun), *sorted(ended)]) or "-" for begun, ended in both]


def _notes(name: str, samples: Sequence[Sample]) -> list[str]:
    clusters = [cluster for sample in samples for cluster in sample.gold]
    alone = sum(len(cluster) == 1 for cluster in clusters)
    said = f"{len(samples):,} document{'s' * (len(samples) > 1)}, {sum(map(len, clusters)):,} mentions in "
    notes = [f"{name}: {said}{len(clusters):,} clusters, {alone:,} of one mention"]
    twice = [x.key for x in samples if len({m for c in x.gold for m in c}) < sum(map(len, x.gold))]
    if twice:
        notes.append(
            f"{name}: of mentions that stand in several clusters only the first is kept ({listed(twice, 3)})"
        )
    return notes
