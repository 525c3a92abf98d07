"""ULMFiT's codec: fastai's text rules, a segmenter, a counted vocabulary; tokens keep their characters."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Final, Literal, NamedTuple, get_args

from pretune.config import build
from pretune.data.rows import NOTHING, Row
from pretune.data.samples import Part, Span
from pretune.data.segment import Segmenter, guess_language, segmenter
from pretune.data.vocab import Vocab, write_text
from pretune.errors import UsageError, UserError, choose
from pretune.methods.ulmfit import rules
from pretune.methods.ulmfit.rules import FIELD, PAD, REPEAT, REPEAT_WORD, SPECIALS, START, UNKNOWN

Direction = Literal["forward", "backward"]
Rules = Literal["v2", "v1", "v07"]

# Runs between spaces, and spaces that are tokens, as in spaCy: all but a single blank.
PIECE: Final = re.compile(r"\S+|\s{2,}|[^\S ]")
RUN: Final = re.compile(r"\S+")
AFTER: Final = {REPEAT: ("[0-9]+", "."), REPEAT_WORD: ("[0-9]+",)}
KEPT: Final = 2**17  # distinct pieces whose tokens are remembered,
MOST_KEPT: Final = (40, 8)  # if it has at most so many characters and tokens


@dataclass(frozen=True)
class UlmfitCodecConfig:
    """How text becomes ids."""

    language: str = "en"
    """A code such as en, de, zh; "auto" tells Chinese and Japanese from the rest by their characters."""
    segmenter: str | None = None
    """words, characters, jieba, or your own module:function; by default the language's own."""
    max_vocab: int = 60_000
    """The most frequent words that are kept, special tokens included."""
    min_count: int = 3
    """How often a word must occur to be kept."""
    direction: Direction = "forward"
    """backward reads every text from right to left."""
    rules: Rules = "v2"
    """Whose text rules come first: fastai's of version 2, 1 or 0.7, for weights of that time."""

    def __post_init__(self) -> None:
        if self.rules not in get_args(Rules):
            raise choose("rules", self.rules, get_args(Rules))
        if self.direction not in get_args(Direction):
            raise choose("direction", self.direction, get_args(Direction))
        if self.max_vocab <= len(SPECIALS):
            raise UsageError(
                f"max_vocab is {self.max_vocab}; {len(SPECIALS)} go to special tokens, so give more"
            )
        if self.min_count < 1:
            raise UsageError(f"min_count is {self.min_count}; it must be at least 1")


class Piece(NamedTuple):
    """The tokens of a stretch of text, and the characters of the stretch that each covers."""

    tokens: tuple[str, ...]
    places: tuple[tuple[int, int], ...]


class Splitter:
    """Text -> tokens by rules and segmenter, with (`aligned`) or without (`tokens`) their characters."""

    def __init__(self, language: str, name: str | None) -> None:
        self.segmenter: Segmenter = segmenter(language, name)
        self._kept: dict[str, Piece] = {}

    def tokens(self, text: str) -> list[str]:
        text = rules.cleaned(text)
        if not self.segmenter.by_run:
            return list(self._whole(text).tokens)
        tokens: list[str] = []
        kept = self._kept
        for piece in PIECE.findall(text):
            found = kept.get(piece)
            tokens += found[0] if found else self._piece(piece).tokens
        return tokens

    def aligned(self, text: str) -> tuple[list[str], list[Span]]:
        """The same tokens, and the characters of `text` that each stands for.

        xxup and xxmaj stand for the token after them; xxrep, xxwrep, their number for all that is repeated.
        """
        cleaned = rules.cleaned_aligned(text)
        tokens: list[str] = []
        firsts: list[int] = []
        lasts: list[int] = []
        for at, piece in self._pieces(cleaned.text):
            tokens += piece.tokens
            for start, end in piece.places:
                firsts.append(at + start)
                lasts.append(at + end - 1)
        return tokens, cleaned.spans(firsts, lasts)

    def _pieces(self, text: str) -> Iterator[tuple[int, Piece]]:
        if not self.segmenter.by_run:
            yield 0, self._whole(text)
            return
        for match in PIECE.finditer(text):
            yield match.start(), self._piece(match.group())

    def _piece(self, text: str) -> Piece:
        found = self._kept.get(text)
        if found is None:
            found = self._space(text) if text[0].isspace() else self._run(text)
            if len(text) <= MOST_KEPT[0] and len(found.tokens) <= MOST_KEPT[1]:
                if len(self._kept) >= KEPT:
                    self._kept.clear()
                self._kept[text] = found
        return found

    def _space(self, text: str) -> Piece:
        skipped = int(len(text) > 1 and text[0] == " ")
        return Piece((text[skipped:].replace(" ", "▁"),), ((skipped, len(text)),))

    def _run(self, text: str) -> Piece:
        if text in SPECIALS:
            return Piece((text,), ((0, len(text)),))
        lowered, origin = _lowered(text)
        spans = self.segmenter(lowered)
        tokens = [lowered[start:end] for start, end in spans]
        places = [(origin[start], origin[end - 1] + 1) for start, end in spans]
        mark = rules.marker(text)
        if mark and tokens:
            tokens.insert(0, mark)
            places.insert(0, places[0])
        return Piece(tuple(tokens), tuple(places))

    def _whole(self, text: str) -> Piece:
        """For segmenters that look across spaces: they see whole stretches between special tokens."""
        lowered, origin = _lowered(text)
        runs = list(zip(RUN.finditer(text), RUN.finditer(lowered), strict=True))
        marks = {low.start(): mark for run, low in runs if (mark := rules.marker(run.group()))}
        tokens: list[str] = []
        places: list[tuple[int, int]] = []

        def add(token: str, start: int, end: int) -> None:
            tokens.append(token.replace(" ", "▁"))
            places.append((origin[start], origin[end - 1] + 1))

        def stretch(first: int, last: int) -> None:
            at = first
            for start, end in [*self.segmenter(lowered[first:last]), Span(last - first, last - first)]:
                start, end = first + start, first + end
                for space in PIECE.finditer(lowered, at, start):
                    if space.group()[0].isspace():
                        piece = self._space(space.group())
                        add(piece.tokens[0], space.start() + piece.places[0][0], space.end())
                mark = next((marks[place] for place in range(start, end) if place in marks), None)
                if mark:
                    add(mark, start, end)
                if start < end:
                    add(lowered[start:end], start, end)
                at = end

        at = 0
        protected: list[str] = []  # what must follow so that it is a token too, as the number in `xxrep 3 !`
        for run, low in runs:
            follows = bool(protected) and re.fullmatch(protected.pop(0), run.group()) is not None
            if run.group() in SPECIALS or follows:
                stretch(at, low.start())
                add(low.group(), *low.span())
                at = low.end()
            if not follows:
                protected = list(AFTER.get(run.group(), ()))
        stretch(at, len(lowered))
        return Piece(tuple(tokens), tuple(places))


def _lowered(text: str) -> tuple[str, Sequence[int]]:
    """Lower case, and which character of `text` each comes from (one capital, İ, becomes two characters)."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered, range(len(text))
    return lowered, [place for place, character in enumerate(text) for _ in character.lower()]


class UlmfitCodec:
    """Texts -> rows of ids: xxbos, then the tokens of each part, after `xxfld k` where there are several.

    A text becomes the same ids alone and in any batch. Words that a data set came with (`Part.words`) are
    not looked at: tokens and words meet in their characters. A pair is one row, in its own order.
    """

    def __init__(self, config: UlmfitCodecConfig, vocab: Vocab) -> None:
        missing = [token for token in (UNKNOWN, PAD, START) if token not in vocab]
        if missing:
            raise UserError(f"the vocabulary lacks the special tokens {', '.join(missing)}")
        self._splitter = Splitter(config.language, config.segmenter)
        self.config = replace(config, segmenter=self._splitter.segmenter.name)
        self.vocab = vocab
        self.unknown_id = vocab.ids[UNKNOWN]
        # A text that says xxpad must not look like padding.
        self._ids = {**vocab.ids, PAD: self.unknown_id}

    @classmethod
    def learn(cls, corpus: Callable[[], Iterable[str]], config: UlmfitCodecConfig) -> UlmfitCodec:
        """Count the words of a corpus in one pass."""
        if config.language == "auto":
            beginning = (text[:10_000] for text in islice(corpus(), 200))
            config = replace(config, language=guess_language(beginning))
        splitter = Splitter(config.language, config.segmenter)
        tokens = (splitter.tokens(text) for text in corpus())
        vocab = Vocab.count(tokens, SPECIALS, config.max_vocab, config.min_count)
        if len(vocab) == len(SPECIALS):
            raise UserError(
                f"no word of the corpus occurs {config.min_count} times; give more text or lower min_count"
            )
        return cls(config, vocab)

    @property
    def pad_id(self) -> int:
        return self.vocab.ids[PAD]

    @property
    def size(self) -> int:
        return len(self.vocab)

    def tokens(self, *texts: str) -> list[str]:
        """What the codec reads, as words, from left to right; those outside the vocabulary too."""
        tokens = [START]
        for number, text in enumerate(texts, 1):
            tokens += [FIELD, str(number)] if len(texts) > 1 else []
            tokens += self._splitter.tokens(text)
        return tokens

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of documents, each after xxbos, left to right whatever the direction; for token files."""
        ids, unknown = self._ids, self.unknown_id
        return [[ids.get(token, unknown) for token in self.tokens(text)] for text in texts]

    def encode(self, samples_parts: Sequence[tuple[Part, ...]], unordered: bool = False) -> list[list[Row]]:
        """One row a sample, also if `unordered`: the paper reads a pair once."""
        return [[self._row([part.text for part in parts])] for parts in samples_parts]

    def _row(self, texts: Sequence[str]) -> Row:
        tokens, chars, part, segments = [START], [NOTHING], [-1], [0]
        for number, text in enumerate(texts):
            words, spans = self._splitter.aligned(text)
            if len(texts) > 1:
                tokens += [FIELD, str(number + 1)]
                chars += [NOTHING] * 2
                part += [-1] * 2
                segments += [min(number, 1)] * 2
            tokens += words
            chars += spans
            part += [number] * len(words)
            segments += [min(number, 1)] * len(words)
        row = Row([self._ids.get(token, self.unknown_id) for token in tokens], segments, part, chars)
        return row.reversed() if self.config.direction == "backward" else row

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids in reading order, as a reader would write it; words it does not know stay xxunk."""
        return rules.undone(self.vocab.words[number] for number in ids)

    def with_vocab(self, vocab: Vocab) -> UlmfitCodec:
        """The same rules with other ids."""
        return UlmfitCodec(self.config, vocab)

    def describe(self) -> str:
        backward = ", read from right to left" if self.config.direction == "backward" else ""
        described = self._splitter.segmenter.described
        language = self.config.language
        return f"{described} ({language}) after fastai's {self.config.rules} rules, {self.size:,} ids{backward}"

    def fingerprint(self) -> str:
        """Names a token file: equal where `ids` gives the same for every text, whatever the direction."""
        own = self._splitter.segmenter
        said = (self.config.rules, self.config.language, own.name, own.version, self.vocab.words)
        return blake2b(json.dumps(said).encode(), digest_size=16).hexdigest()

    def save(self, folder: Path) -> None:
        """codec.json and vocab.txt."""
        self.vocab.save(folder / "vocab.txt")
        settings = asdict(self.config)
        write_text(folder / "codec.json", json.dumps(settings, indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, folder: Path) -> UlmfitCodec:
        path = folder / "codec.json"
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
        except OSError:
            raise UserError(f"{folder}: no codec.json there, so no codec of ULMFiT") from None
        except ValueError as error:
            raise UserError(f"{path}: not JSON ({error})") from None
        if not isinstance(settings, dict) or "rules" not in settings:
            raise UserError(f'{path}: "rules" is missing, so no codec of ULMFiT')
        return cls(build(UlmfitCodecConfig, settings, str(path)), Vocab.load(folder / "vocab.txt"))
