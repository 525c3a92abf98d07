"""Text -> ids of whole words, for word vectors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from pretune.data.rows import NOTHING, Row
from pretune.data.samples import Part
from pretune.data.segment import guess_language, segmenter
from pretune.data.vocab import Vocab, write_text
from pretune.errors import UsageError, UserError

UNKNOWN = 0  # padding, and every word without a vector
RESERVED = ("<unk>",)


@dataclass(frozen=True)
class WordCodecConfig:
    """Settings of `WordCodec`."""

    language: str = "en"
    """A code such as en, de, zh, or "auto"; decides the segmentation where none is named."""
    segmenter: str | None = None
    """`words`, `characters`, `jieba`, or your own `module:function`."""
    lowercase: bool = True
    """Look words up in lower case, as GloVe's 6B vectors want it."""
    max_vocab: int = 60_000
    """Most words learned from a corpus."""
    min_count: int = 2
    """Rarer words of a corpus stay unknown."""

    def __post_init__(self) -> None:
        if self.max_vocab < 2 or self.min_count < 1:
            raise UsageError("a codec of words needs max_vocab of 2 or more and min_count of 1 or more")


class WordCodec:
    """Words and their ids; id 0 is both padding and the unknown word, which no mean counts."""

    pad_id = UNKNOWN

    def __init__(self, vocab: Vocab, config: WordCodecConfig) -> None:
        self.vocab, self.config = vocab, config
        self._segment = segmenter(config.language, config.segmenter)

    @classmethod
    def of_words(cls, words: Iterable[str], config: WordCodecConfig) -> WordCodec:
        """A codec of these words, ids from 1 in their order."""
        return cls(Vocab([*RESERVED, *words]), config)

    @classmethod
    def learn(cls, corpus: Callable[[], Iterable[str]], config: WordCodecConfig) -> WordCodec:
        """The most frequent words of a corpus; a language "auto" is told from its beginning."""
        if config.language == "auto":
            config = replace(config, language=guess_language(islice(corpus(), 1000)))
        empty = cls(Vocab(list(RESERVED)), config)
        tokens = (list(empty.words(text)) for text in corpus())
        return cls(Vocab.count(tokens, RESERVED, config.max_vocab, config.min_count), config)

    @classmethod
    def load(cls, folder: Path) -> WordCodec:
        path = folder / "codec.json"
        try:
            config = WordCodecConfig(**json.loads(path.read_text("utf-8")))
        except (OSError, TypeError, ValueError) as error:
            raise UserError(f"{path}: holds no settings of word vectors ({error})") from None
        return cls(Vocab.load(folder / "vocab.txt"), config)

    def save(self, folder: Path) -> None:
        write_text(folder / "codec.json", json.dumps(asdict(self.config), indent=2) + "\n")
        self.vocab.save(folder / "vocab.txt")

    @property
    def size(self) -> int:
        return len(self.vocab)

    def describe(self) -> str:
        case = "lower case" if self.config.lowercase else "their own case"
        return f"{self.size:,} words in {case}, text cut by {self._segment.described}"

    def words(self, text: str) -> Iterator[str]:
        """The words of a text, as they are looked up."""
        return (self._fold(text[span.start : span.end]) for span in self._segment(text))

    def encode(self, samples_parts: Sequence[tuple[Part, ...]], unordered: bool = False) -> list[list[Row]]:
        """One row a sample, its parts one after another; a text without words is one unknown word."""
        return [[self._row(parts)] for parts in samples_parts]

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of whole documents."""
        return [[self._id(word) for word in self.words(text)] for text in texts]

    def fingerprint(self) -> str:
        """Names a token file: equal where `ids` gives the same for every text."""
        own = self._segment
        said = [own.name, own.version, self.config.lowercase, self.vocab.words]
        return blake2b(json.dumps(said).encode(), digest_size=16).hexdigest()

    def _row(self, parts: Sequence[Part]) -> Row:
        row = Row([], [], [], [])
        for number, part in enumerate(parts):
            for span in part.words or self._segment(part.text):
                row.ids.append(self._id(self._fold(part.text[span.start : span.end])))
                row.segments.append(min(number, 1))
                row.part.append(number)
                row.chars.append(span)
        return row if row.ids else Row([UNKNOWN], [0], [-1], [NOTHING])

    def _fold(self, word: str) -> str:
        return word.lower() if self.config.lowercase else word

    def _id(self, word: str) -> int:
        return self.vocab.ids.get(word, UNKNOWN)


def learn_codec(corpus: Callable[[], Iterable[str]], config: WordCodecConfig | None = None) -> WordCodec:
    """What `Method` wants: documents and settings -> codec."""
    return WordCodec.learn(corpus, config or WordCodecConfig())
