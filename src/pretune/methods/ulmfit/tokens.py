"""ULMFiT's codec: fastai's text rules, a segmenter, a counted vocabulary; tokens keep their characters."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from pretune.config import build
from pretune.data.rows import NOTHING, Codec, Row
from pretune.data.samples import Part
from pretune.data.segment import WITHOUT_SPACES, Segmenter, Spaces, guess_language, segmenter
from pretune.data.vocab import Vocab, counted, write_text
from pretune.errors import UsageError, UserError, choose
from pretune.methods.ulmfit import pieces as subwords
from pretune.methods.ulmfit.pieces import PieceSegmenter
from pretune.methods.ulmfit.profiles import PROFILES
from pretune.methods.ulmfit.rules import FIELD, PAD, SPECIALS, START, UNKNOWN, Rules
from pretune.methods.ulmfit.splitter import Splitter
from pretune.methods.ulmfit.undoing import undone, undone_pieces

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Direction = Literal["forward", "backward"]

MOST_WORDS: Final = 60_000
LEAST_COUNT: Final = 3
PIECES_FILE: Final = "tokenizer.json"


@dataclass(frozen=True)
class UlmfitCodecConfig:
    """How text becomes ids."""

    language: str = "en"
    """A code such as en, de, zh; "auto" tells Chinese and Japanese from the rest by their characters."""
    segmenter: str | None = None
    """words, pieces, spacy, characters, jieba, spaces, or your own module:function; by default the
    language's own. Pieces are learned from the corpus and suit every language."""
    max_vocab: int | None = None
    """The most frequent words that are kept, special tokens included; None: 60,000 words, 30,000 pieces."""
    min_count: int | None = None
    """How often a word must occur to be kept; None: 3 times. Pieces are not counted."""
    direction: Direction = "forward"
    """backward reads every text from right to left."""
    rules: Rules = "v2"
    """Whose text rules come first: fastai's of version 2, 1 or 0.7, for weights of that time; plain:
    nobody's, text keeps its capitals, and every line begins like a text."""
    mark_fields: bool = False
    """Whether `xxfld 1` stands before a text of one part too, as in MultiFiT; under v07 it always does."""

    def __post_init__(self) -> None:
        if self.direction not in get_args(Direction):
            raise choose("direction", self.direction, get_args(Direction))
        if self.rules not in PROFILES:
            raise choose("rules", self.rules, PROFILES)
        if self.max_vocab is not None and self.max_vocab <= len(SPECIALS):
            raise UsageError(
                f"max_vocab is {self.max_vocab}; {len(SPECIALS)} go to special tokens, so give more"
            )
        if self.min_count is not None and self.min_count < 1:
            raise UsageError(f"min_count is {self.min_count}; it must be at least 1")
        if self.min_count is not None and self.segmenter == subwords.NAME:
            raise UsageError("min_count is for words; pieces are not counted: set max_vocab alone")


class UlmfitCodec:
    """Texts -> rows of ids: xxbos, then the tokens of each part, after `xxfld k` where there are several.

    A text becomes the same ids alone and in any batch. Words that a data set came with (`Part.words`) are
    not looked at: tokens and words meet in their characters. A pair is one row, in its own order.
    `pieces` come with segmenter "pieces", and only with that.
    """

    def __init__(self, config: UlmfitCodecConfig, vocab: Vocab, pieces: Tokenizer | None = None) -> None:
        missing = [token for token in (UNKNOWN, PAD, START) if token not in vocab]
        if missing:
            raise UserError(f"the vocabulary lacks the special tokens {', '.join(missing)}")
        self._rules = PROFILES[config.rules]
        self._splitter = Splitter(self._rules, _segmenter(config, pieces))
        self.config = replace(config, segmenter=self._splitter.segmenter.name)
        self.pieces = pieces
        self.vocab = vocab
        self.unknown_id = vocab.ids[UNKNOWN]
        # A text that says xxpad must not look like padding.
        self._ids = {**vocab.ids, PAD: self.unknown_id}

    @classmethod
    def learn(cls, corpus: Callable[[], Iterable[str]], config: UlmfitCodecConfig) -> UlmfitCodec:
        """Count the words of a corpus in one pass, or learn pieces of them."""
        if config.language == "auto":
            beginning = (text[:10_000] for text in islice(corpus(), 200))
            config = replace(config, language=guess_language(beginning))
        if config.segmenter == subwords.NAME:
            return cls._learn_pieces(corpus, config)
        splitter = Splitter(PROFILES[config.rules], _segmenter(config, None))
        tokens = (splitter.tokens(text) for text in corpus())
        least = config.min_count or LEAST_COUNT
        vocab = Vocab.count(tokens, SPECIALS, config.max_vocab or MOST_WORDS, least)
        if len(vocab) == len(SPECIALS):
            raise UserError(f"no word of the corpus occurs {least} times; give more text or lower min_count")
        return cls(config, vocab)

    @classmethod
    def _learn_pieces(cls, corpus: Callable[[], Iterable[str]], config: UlmfitCodecConfig) -> UlmfitCodec:
        runs = Splitter(PROFILES[config.rules], Spaces())  # marks and runs, as the pieces will meet them
        counts: Counter[str] = counted(runs.tokens(text) for text in corpus())
        kept = {run: n for run, n in counts.items() if run not in SPECIALS and not run.isspace()}
        most = (config.max_vocab or subwords.MOST_PIECES) - len(SPECIALS)
        pieces = subwords.learn_pieces(kept, most, config.language)
        return cls(config, Vocab([*SPECIALS, *PieceSegmenter(pieces).words()]), pieces)

    @property
    def pad_id(self) -> int:
        return self.vocab.ids[PAD]

    @property
    def size(self) -> int:
        return len(self.vocab)

    def tokens(self, *texts: str) -> list[str]:
        """What the codec reads, as words, from left to right; those outside the vocabulary too."""
        tokens = list(self._rules.opening)
        for number, text in enumerate(texts, 1):
            tokens += self._field(number) if self._marks(texts) else []
            tokens += self._splitter.tokens(text)
        return tokens

    def _marks(self, texts: Sequence[str]) -> bool:
        return len(texts) > 1 or self._rules.marks_fields or self.config.mark_fields

    def _field(self, number: int) -> list[str]:
        return [FIELD, *self._splitter.tokens(str(number))]

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of documents, each after xxbos, left to right whatever the direction; for token files."""
        ids, unknown = self._ids, self.unknown_id
        return [[ids.get(token, unknown) for token in self.tokens(text)] for text in texts]

    def encode(self, samples_parts: Sequence[tuple[Part, ...]], unordered: bool = False) -> list[list[Row]]:
        """One row a sample, also if `unordered`: the paper reads a pair once."""
        return [[self._row([part.text for part in parts])] for parts in samples_parts]

    def _row(self, texts: Sequence[str]) -> Row:
        tokens = list(self._rules.opening)
        chars, part, segments = [NOTHING] * len(tokens), [-1] * len(tokens), [0] * len(tokens)
        for number, text in enumerate(texts):
            words, spans = self._splitter.aligned(text)
            if self._marks(texts):
                field = self._field(number + 1)
                tokens += field
                chars += [NOTHING] * len(field)
                part += [-1] * len(field)
                segments += [min(number, 1)] * len(field)
            tokens += words
            chars += spans
            part += [number] * len(words)
            segments += [min(number, 1)] * len(words)
        row = Row([self._ids.get(token, self.unknown_id) for token in tokens], segments, part, chars)
        return row.reversed() if self.config.direction == "backward" else row

    def rows_from(self, other: Codec, rows: Sequence[Sequence[Row]]) -> list[list[Row]] | None:
        """The rows that this codec makes of the texts of which `other` made `rows`; None if others.

        A backward model's rows are its forward sister's turned round: both read one tokenisation.
        """
        if not isinstance(other, UlmfitCodec) or other.fingerprint() != self.fingerprint():
            return None
        if other.config.direction == self.config.direction:
            return [list(of_sample) for of_sample in rows]
        return [[row.reversed() for row in of_sample] for of_sample in rows]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids in reading order, as a reader would write it; words it does not know stay xxunk."""
        words = (self.vocab.words[number] for number in ids)
        return undone(words) if self.pieces is None else undone_pieces(words)

    def with_vocab(self, vocab: Vocab) -> UlmfitCodec:
        """The same rules with other ids."""
        return UlmfitCodec(self.config, vocab, self.pieces)

    def describe(self) -> str:
        backward = ", read from right to left" if self.config.direction == "backward" else ""
        described = self._splitter.segmenter.described
        language = self.config.language
        rules = self.config.rules
        after = "without text rules" if rules == "plain" else f"after fastai's {rules} rules"
        return f"{described} ({language}) {after}, {self.size:,} ids{backward}"

    def fingerprint(self) -> str:
        """Names a token file: equal where `ids` gives the same for every text, whatever the direction."""
        own, config = self._splitter.segmenter, self.config
        said: list[Any] = [config.rules, config.language, own.name, own.version, self.vocab.words]
        said += [config.mark_fields] if config.mark_fields else []
        return blake2b(json.dumps(said).encode(), digest_size=16).hexdigest()

    def save(self, folder: Path) -> None:
        """codec.json and vocab.txt; pieces are in tokenizer.json."""
        self.vocab.save(folder / "vocab.txt")
        if self.pieces is not None:
            write_text(folder / PIECES_FILE, self.pieces.to_str(pretty=True) + "\n")
        settings = {**asdict(self.config), "segmenter_version": self._splitter.segmenter.version}
        write_text(folder / "codec.json", json.dumps(settings, indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, folder: Path) -> UlmfitCodec:
        """Raises UserError where the segmenter that the codec was saved with is not installed."""
        path = folder / "codec.json"
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
        except OSError:
            raise UserError(f"{folder}: no codec.json there, so no codec of ULMFiT") from None
        except ValueError as error:
            raise UserError(f"{path}: not JSON ({error})") from None
        if not isinstance(settings, dict) or "rules" not in settings:
            raise UserError(f'{path}: "rules" is missing, so no codec of ULMFiT')
        version = settings.pop("segmenter_version", None)
        config = build(UlmfitCodecConfig, settings, str(path))
        pieces = subwords.load_tokenizer(folder / PIECES_FILE) if config.segmenter == subwords.NAME else None
        try:
            codec = cls(config, Vocab.load(folder / "vocab.txt"), pieces)
        except UsageError as error:
            raise UserError(f"{path}: {error}") from None
        now = codec._splitter.segmenter.version
        if version not in (None, now):
            warnings.warn(
                f"{path}: saved with version {version!r} of segmenter {config.segmenter!r}, read with "
                f"{now!r}; some words may be split differently",
                stacklevel=2,
            )
        return codec


def _segmenter(config: UlmfitCodecConfig, pieces: Tokenizer | None) -> Segmenter | PieceSegmenter:
    if config.segmenter != subwords.NAME:
        if pieces is not None:
            raise UsageError(f"pieces were given, but segmenter is {config.segmenter!r}; set it to 'pieces'")
        if config.segmenter is None and config.language in WITHOUT_SPACES:
            raise UsageError(
                f"language {config.language!r} is written without spaces; set segmenter to pieces, which are "
                "learned from the corpus, or to your own module:function"
            )
        return segmenter(config.language, config.segmenter)
    if pieces is None:
        raise UsageError("segmenter 'pieces' needs the pieces themselves beside a vocabulary")
    return PieceSegmenter(pieces)
