"""GPT's codec: words of a pretokenizer, byte-pair merges in them, and the paper's templates of rows."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from pretune.config import build
from pretune.data.rows import NOTHING, Row
from pretune.data.samples import Part, Span
from pretune.data.segment import guess_language
from pretune.data.vocab import Vocab, write_text
from pretune.errors import UsageError, UserError
from pretune.methods.gpt import files
from pretune.methods.gpt.bpe import BPE, END, Pair, learned
from pretune.methods.gpt.pretokenizers import Name, Pretokenizer, counted_words, pretokenizer
from pretune.methods.gpt.tokens_config import GPTCodecConfig

__all__ = ["CLASSIFY", "DELIMITER", "SPECIALS", "START", "GPTCodec", "GPTCodecConfig"]

START, DELIMITER, CLASSIFY = "_start_", "_delimiter_", "_classify_"
SPECIALS: Final = (START, DELIMITER, CLASSIFY)  # always the last three ids

ANY_LENGTH: Final = 2**31  # ids: more than any text has
KEPT: Final = 2**17  # distinct stretches of text whose pieces are remembered,
LONGEST_KEPT: Final = 40  # if no longer than this


class Read(NamedTuple):
    """The ids of a stretch of text, and the first and last character that each stands for."""

    ids: tuple[int, ...]
    firsts: tuple[int, ...]
    lasts: tuple[int, ...]


class GPTCodec:
    """Texts -> rows of ids: `_start_`, the pieces of a part, `_delimiter_` before the next, `_classify_`.

    A row has at most `context` ids, because the encoder has no more positions: what is longer is cut,
    however long the document, and only the marks are sure to stay. A text becomes the same ids alone and in
    any batch. Words that a data set came with (`Part.words`) are not looked at: tokens and words meet in
    their characters. `vocab` ends with the three marks. Case and spaces are lost, and accents where the
    pretokenizer drops them: `decode` gives what was read.
    """

    pad_id = 0  # as published: <unk>, which the mask hides

    def __init__(self, config: GPTCodecConfig, vocab: Vocab | Sequence[str], merges: Sequence[Pair]) -> None:
        vocab = vocab if isinstance(vocab, Vocab) else Vocab(vocab)
        if vocab.words[-3:] != SPECIALS:
            raise UserError(f"a vocabulary of GPT ends with {', '.join(SPECIALS)}; this one does not")
        self.config, self.vocab = config, vocab
        self.pieces = BPE(vocab, merges)
        self.merges = self.pieces.merges
        self.unknown_id = self.pieces.unknown_id
        self.start_id, self.delimiter_id, self.classify_id = (vocab.ids[special] for special in SPECIALS)
        self.pretokenizer = _pretokenizer(config)
        self._kept: dict[str, Read] = {}
        self._ids = _Kept(self._new_ids)

    @classmethod
    def learn(cls, corpus: Callable[[], Iterable[str]], config: GPTCodecConfig) -> GPTCodec:
        """Count the words of a corpus in one pass and learn merges; the same corpus gives the same codec."""
        if config.language == "auto":
            beginning = (text[:10_000] for text in islice(corpus(), 200))
            config = replace(config, language=guess_language(beginning))
        split = _pretokenizer(config)
        vocab, merges = learned(counted_words(split, corpus()), config.merges, config.min_count)
        if len(vocab) == 2:  # <unk> and the line break
            raise UserError(
                f"no character of the corpus occurs {config.min_count} times; give more text or lower "
                "min_count"
            )
        return cls(config, [*vocab, *SPECIALS], merges)

    @classmethod
    def read(cls, folder: Path, pretokenizer: Name, context: int = 512) -> GPTCodec:
        """Published vocabulary files: `encoder_bpe_40000.json` with `vocab_40000.bpe`, `vocab.json` with
        `merges.txt`, or `tokenizer.json`. They do not say which words they were learned in, so you do.
        """
        vocab, merges = files.read(folder)
        missing = [special for special in SPECIALS if special not in vocab]
        if missing and len(missing) < len(SPECIALS):
            raise UserError(f"{folder}: its vocabulary has some of {', '.join(SPECIALS)}, not all three")
        config = GPTCodecConfig(pretokenizer=pretokenizer, merges=len(merges), context=context)
        try:
            return cls(config, [*vocab, *missing], merges)
        except UsageError:
            raise
        except UserError as error:
            raise UserError(f"{folder}: {error}") from None

    @property
    def size(self) -> int:
        return len(self.vocab)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of documents, without marks and of any length; for token files."""
        find, cleaned = self.pretokenizer.stretches.findall, self.pretokenizer.cleaned
        ids = self._ids
        return [list(chain.from_iterable(map(ids.__getitem__, find(cleaned(text))))) for text in texts]

    def _new_ids(self, stretch: str) -> tuple[int, ...]:
        words = self.pretokenizer.words(stretch)
        return tuple(number for word in words for number in self.pieces.ids(word.text))

    def tokens(self, text: str) -> list[str]:
        """The pieces of a text as they stand in the vocabulary; `<unk>` where a character is in none."""
        return [self.vocab.words[number] for number in self.ids([text])[0]]

    def encode(self, samples_parts: Sequence[tuple[Part, ...]], unordered: bool = False) -> list[list[Row]]:
        """One row a sample; of a pair, if `unordered`, one in each order, as for the paper's similarity."""
        rows = []
        for parts in samples_parts:
            read = [self._aligned(part.text) for part in parts]
            order = list(range(len(parts)))
            both = unordered and len(parts) == 2
            rows.append([self._row(read, order), *([self._row(read, order[::-1])] if both else [])])
        return rows

    def _row(self, read: Sequence[tuple[list[int], list[Span]]], order: Sequence[int]) -> Row:
        row = Row([], [], [], [])
        rooms = _rooms([len(found) for found, _ in read], self.config)
        for place, number in enumerate(order):
            self._mark(row, self.delimiter_id if place else self.start_id)
            found, spans = read[number]
            left = len(found) - rooms[number] if self.config.keep == "tail" else 0
            kept = slice(max(0, left), max(0, left) + rooms[number])
            row.ids.extend(found[kept])
            row.chars.extend(spans[kept])
            row.part.extend([number] * (len(row.ids) - len(row.part)))
        self._mark(row, self.classify_id)
        if not row.ids:  # no marks and no word: there must be something to read
            row.ids.append(self.unknown_id)
            row.chars.append(NOTHING)
            row.part.append(-1)
        row.segments.extend([0] * len(row.ids))
        return row

    def _mark(self, row: Row, number: int) -> None:
        if self.config.marks:
            row.ids.append(number)
            row.chars.append(NOTHING)
            row.part.append(-1)

    def _aligned(self, text: str) -> tuple[list[int], list[Span]]:
        """The ids of a text and the characters that each stands for."""
        cleaned = self.pretokenizer.cleaned_aligned(text)
        ids: list[int] = []
        firsts: list[int] = []
        lasts: list[int] = []
        for match in self.pretokenizer.stretches.finditer(cleaned.text):
            at, read = match.start(), self._read(match.group())
            if len(read.ids) == 1:  # mostly
                ids.append(read.ids[0])
                firsts.append(at + read.firsts[0])
                lasts.append(at + read.lasts[0])
                continue
            ids += read.ids
            firsts += [at + first for first in read.firsts]
            lasts += [at + last for last in read.lasts]
        return ids, cleaned.spans(firsts, lasts)

    def _read(self, stretch: str) -> Read:
        found = self._kept.get(stretch)
        if found is None:
            pieces = list(self._pieces(stretch))
            found = Read(*zip(*pieces, strict=True)) if pieces else Read((), (), ())
            if len(stretch) <= LONGEST_KEPT:
                if len(self._kept) >= KEPT:
                    self._kept.clear()
                self._kept[stretch] = found
        return found

    def _pieces(self, stretch: str) -> Iterator[tuple[int, int, int]]:
        for word in self.pretokenizer.words(stretch):
            at, last = 0, len(word.text) - 1
            for number in self.pieces.ids(word.text):
                end = at + self.pieces.lengths[number]
                first = word.starts[min(at, last)]
                yield number, first, max(first, word.ends[min(end - 1, last)] - 1)
                at = end

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, words with a space between them, line breaks as they were; marks give nothing."""
        marks = {self.start_id, self.delimiter_id, self.classify_id}
        pieces = (self.vocab.words[number] for number in ids if number not in marks)
        text = "".join(piece.removesuffix(END) + " " * piece.endswith(END) for piece in pieces)
        return re.sub(" *\n *", "\n", text).strip()

    def unlimited(self) -> GPTCodec:
        """The same, its rows as long as their texts."""
        return GPTCodec(replace(self.config, context=ANY_LENGTH), self.vocab, self.merges)

    def describe(self) -> str:
        return (
            f"{len(self.merges):,} byte-pair merges in {self.pretokenizer.described} "
            f"({self.config.language}), {self.size:,} ids, rows of at most {self.config.context}"
        )

    def fingerprint(self) -> str:
        """Names a token file: equal where `ids` gives the same for every text."""
        config = self.config
        said: list[Any] = ["gpt", config.pretokenizer, self.pretokenizer.version, config.language]
        said += [config.lowercase, self.vocab.words, self.merges]
        return blake2b(json.dumps(said).encode(), digest_size=16).hexdigest()

    def save(self, folder: Path) -> None:
        """codec.json, vocab.txt and merges.txt."""
        self.vocab.save(folder / "vocab.txt")
        write_text(folder / "merges.txt", files.merges_text(self.merges))
        settings = {**asdict(self.config), "pretokenizer_version": self.pretokenizer.version}
        write_text(folder / "codec.json", json.dumps(settings, indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, folder: Path) -> GPTCodec:
        """Raises UserError where the pretokenizer that the codec was saved with is not installed."""
        path = folder / "codec.json"
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
        except OSError:
            raise UserError(f"{folder}: no codec.json there, so no codec of GPT") from None
        except ValueError as error:
            raise UserError(f"{path}: not JSON ({error})") from None
        if not isinstance(settings, dict) or "pretokenizer" not in settings:
            raise UserError(f'{path}: "pretokenizer" is missing, so no codec of GPT')
        version = settings.pop("pretokenizer_version", None)
        config = build(GPTCodecConfig, settings, str(path))
        vocab, merges = Vocab.load(folder / "vocab.txt"), files.read_merges(folder / "merges.txt")
        try:
            codec = cls(config, vocab, merges)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        now = codec.pretokenizer.version
        if version not in (None, now):
            warnings.warn(
                f"{path}: saved with {version}, read with {now}; some words may be split differently",
                stacklevel=2,
            )
        return codec


class _Kept(dict[str, tuple[int, ...]]):
    """Stretches that were read before; the others are read when they are asked for."""

    def __init__(self, read: Callable[[str], tuple[int, ...]]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, stretch: str) -> tuple[int, ...]:
        found = self._read(stretch)
        if len(stretch) <= LONGEST_KEPT:
            if len(self) >= KEPT:
                self.clear()
            self[stretch] = found
        return found


def _pretokenizer(config: GPTCodecConfig) -> Pretokenizer:
    return pretokenizer(config.pretokenizer, config.language, config.segmenter, config.lowercase)


def _rooms(lengths: Sequence[int], config: GPTCodecConfig) -> list[int]:
    """How many ids each part keeps; the marks take one more than there are parts.

    "each" is the release's rule for two parts, context // 2 - 2, and its like for other numbers.
    """
    count, context = len(lengths), config.context
    if context // count < 3:
        raise UserError(
            f"a sample has {count} parts, and codec.context is {context}: there is no room for them"
        )
    if config.cut == "each":
        return [context // count - 2 * config.marks] * count
    room, rooms = context - (count + 1) * config.marks, [0] * count
    for left, number in zip(range(count, 0, -1), sorted(range(count), key=lambda n: lengths[n]), strict=True):
        rooms[number] = min(lengths[number], room // left)
        room -= rooms[number]
    return rooms
