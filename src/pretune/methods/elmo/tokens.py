"""ELMo's codec: words, each spelled in bytes; a vocabulary only for what is predicted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor

from pretune.config import build
from pretune.data.files import read_bytes
from pretune.data.rows import NOTHING, Row
from pretune.data.samples import Part
from pretune.data.segment import guess_language, segmenter
from pretune.data.sentences import sentences
from pretune.data.spelling import END, START, spelled
from pretune.data.vocab import Vocab, write_text
from pretune.errors import UsageError, UserError, choose

UNKNOWN = "<UNK>"
SPECIALS: Final = (START, END, UNKNOWN)  # the first three lines of every vocabulary file
SKIPPED: Final = "!!!MAXTERMID"  # a line of published vocabulary files that is no word

Lines = Literal["sentences", "lines"]
Inputs = Literal["characters", "words"]


@dataclass(frozen=True)
class ElmoCodecConfig:
    """How text becomes words, and words characters."""

    language: str = "en"
    """A code such as en, de, zh; "auto" tells Chinese and Japanese from the rest by their characters."""
    segmenter: str | None = None
    """words, characters, jieba, spaces (text already split), or your own module:function; by default the
    language's own."""
    split: Lines = "sentences"
    """What a sentence of a pretraining text is: found by end marks, or a line each, as published."""
    inputs: Inputs = "characters"
    """What a word is read as: its characters, or an id of the vocabulary (the release's option without
    `char_cnn`); must be what the encoder reads."""
    max_characters: int = 50
    """Bytes of a word that are read, with the two marks around it; the rest is cut off."""
    max_vocab: int = 100_000
    """The most frequent words, which the language model can predict; every word can be read."""
    min_count: int = 3
    """How often a word must occur to be predicted."""

    def __post_init__(self) -> None:
        if self.split not in get_args(Lines):
            raise choose("codec.split", self.split, get_args(Lines))
        if self.inputs not in get_args(Inputs):
            raise choose("codec.inputs", self.inputs, get_args(Inputs))
        if self.max_characters < 3:
            raise UsageError(f"codec.max_characters is {self.max_characters}; a word needs 3 or more")
        if self.max_vocab <= len(SPECIALS) or self.min_count < 1:
            raise UsageError("a codec of ELMo needs max_vocab of 4 or more and min_count of 1 or more")


class ElmoCodec:
    """Texts -> rows of words; `spell` gives their characters. There are no unknown words.

    A row holds the words alone: the encoder adds the marks of sentences. In a pair, `</S> <S>` stands between
    the two. A row's ids are what the language model would have to predict, 0 without a vocabulary.
    """

    pad_id = 0

    def __init__(self, config: ElmoCodecConfig, vocab: Vocab | None = None) -> None:
        if vocab is not None and vocab.words[: len(SPECIALS)] != SPECIALS:
            raise UserError(f"a vocabulary of ELMo begins with {', '.join(SPECIALS)}; this one does not")
        self._segment = segmenter(config.language, config.segmenter)
        self.config = replace(config, segmenter=self._segment.name)
        self.vocab = vocab

    @classmethod
    def learn(cls, corpus: Callable[[], Iterable[str]], config: ElmoCodecConfig) -> ElmoCodec:
        """Count the words of a corpus in one pass."""
        if config.language == "auto":
            beginning = (text[:10_000] for text in islice(corpus(), 200))
            config = replace(config, language=guess_language(beginning))
        empty = cls(config)
        words = (empty.words(text) for text in corpus())
        vocab = Vocab.count(words, SPECIALS, config.max_vocab, config.min_count)
        if len(vocab) == len(SPECIALS):
            raise UserError(
                f"no word of the corpus occurs {config.min_count} times; give more text or lower min_count"
            )
        return cls(config, vocab)

    @property
    def size(self) -> int:
        """Words that can be predicted (V); 0 without a vocabulary."""
        return len(self.vocab) if self.vocab else 0

    @property
    def unknown_id(self) -> int:
        return self.vocab.ids[UNKNOWN] if self.vocab else 0

    @property
    def marks(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """Spelling and id of `<S>` and `</S>`."""
        return (START, self.id_of(START)), (END, self.id_of(END))

    def words(self, text: str) -> list[str]:
        return [text[start:end] for start, end in self._segment(text)]

    def sentences(self, document: str) -> Iterator[str]:
        """Of a pretraining document: what goes between `<S>` and `</S>`."""
        if self.config.split == "sentences":
            return sentences(document)
        return filter(None, map(str.strip, document.split("\n")))

    def encode(self, samples_parts: Sequence[tuple[Part, ...]], unordered: bool = False) -> list[list[Row]]:
        """One row a sample; a text without words is one empty word."""
        return [[self._row(parts)] for parts in samples_parts]

    def _row(self, parts: Sequence[Part]) -> Row:
        spelled: list[str] = []
        row = Row([], [], [], [], spelled)
        for number, part in enumerate(parts):
            if number:
                spelled += (END, START)
                row.part.extend((-1, -1))
                row.chars.extend((NOTHING, NOTHING))
                row.segments.extend((min(number, 1),) * 2)
            spans = part.words or self._segment(part.text)
            spelled += (part.text[start:end] for start, end in spans)
            row.part.extend([number] * len(spans))
            row.chars.extend(spans)
            row.segments.extend([min(number, 1)] * len(spans))
        if not spelled:
            return Row([self.unknown_id], [0], [-1], [NOTHING], [""])
        row.ids.extend(map(self.id_of, spelled))
        return row

    def id_of(self, word: str) -> int:
        """What the language model predicts for `word`."""
        return self.vocab.ids.get(word, self.unknown_id) if self.vocab else 0

    @property
    def spell(self) -> Callable[[Sequence[str]], Tensor] | None:
        """Words -> their characters, (W, C), C = max_characters, as `spelled`; None where ids are read."""
        return self._spell if self.config.inputs == "characters" else None

    def _spell(self, words: Sequence[str]) -> Tensor:
        return torch.from_numpy(spelled(words, self.config.max_characters)).long()

    def describe(self) -> str:
        read = "spelled in UTF-8" if self.config.inputs == "characters" else "read whole"
        known = f"a vocabulary of {self.size:,}" if self.size else "no vocabulary"
        return f"{self._segment.described} ({self.config.language}), {read}; {known}"

    def fingerprint(self) -> str:
        """Names a token file: equal where texts become the same ids."""
        own = self._segment
        words = self.vocab.words if self.vocab else ()
        said = ("elmo", self.config.language, own.name, own.version, self.config.split, words)
        return blake2b(json.dumps(said).encode(), digest_size=16).hexdigest()

    def save(self, folder: Path) -> None:
        """codec.json, and vocab.txt where there is a vocabulary."""
        if self.vocab is not None:
            self.vocab.save(folder / "vocab.txt")
        settings = json.dumps(asdict(self.config), indent=2, ensure_ascii=False)
        write_text(folder / "codec.json", settings + "\n")

    @classmethod
    def load(cls, folder: Path) -> ElmoCodec:
        path = folder / "codec.json"
        try:
            settings: Any = json.loads(path.read_text(encoding="utf-8"))
        except OSError:
            raise UserError(f"{folder}: no codec.json there, so no codec of ELMo") from None
        except ValueError as error:
            raise UserError(f"{path}: not JSON ({error})") from None
        if not isinstance(settings, dict):
            raise UserError(f"{path}: settings of a codec are a table")
        words = folder / "vocab.txt"
        vocab = Vocab.load(words) if words.is_file() else None
        return cls(build(ElmoCodecConfig, settings, str(path)), vocab)


def read_vocabulary(path: Path) -> Vocab:
    """A published vocabulary file, plain or .gz: a word a line, `<S>`, `</S>`, `<UNK>` first, then by falling
    frequency.

    Raises `UserError` where the first lines are others, which would shift every word of the softmax.
    """
    try:
        lines = read_bytes(path).decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a vocabulary file, which is UTF-8 text ({error.reason})") from None
    words = [line.strip() for line in lines[: -1 if lines[-1] == "" else None]]
    words = [word for word in words if word != SKIPPED]
    if tuple(words[: len(SPECIALS)]) != SPECIALS:
        raise UserError(f"{path}: the first three lines are {words[:3]}; they must be {', '.join(SPECIALS)}")
    return Vocab(words)
