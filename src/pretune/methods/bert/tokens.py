"""BERT's codec: [CLS] text [SEP], or [CLS] text [SEP] other text [SEP], in pieces of words."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Final, get_args

from pretune.config import build
from pretune.data.rows import NOTHING, Row
from pretune.data.samples import Part, Span
from pretune.data.segment import CJK, guess_language
from pretune.data.vocab import Vocab, counted, write_text
from pretune.errors import UsageError, UserError, choose
from pretune.methods.bert.learning import learn_pieces
from pretune.methods.bert.wordpiece import INSIDE, RUN, UNKNOWN, Pieces, Style, WordPiece

PAD, CLASSIFY, SEPARATOR, MASK = "[PAD]", "[CLS]", "[SEP]", "[MASK]"
SPECIALS: Final = (PAD, UNKNOWN, CLASSIFY, SEPARATOR, MASK)  # the first ids of a learned vocabulary
NO_WORD: Final = re.compile(r"\[.*\]|<.*>")  # entries of published vocabularies that no text gives
ANY_LENGTH: Final = 2**31  # tokens: more than any text has
CASED: Final = 0.01  # share of entries with capitals from which on a vocabulary is one of cased text


@dataclass(frozen=True)
class BERTCodecConfig:
    """How text becomes ids."""

    language: str = "en"
    """A code such as en, de, zh; "auto" tells Chinese and Japanese from the rest by their characters. Every
    language is cut the same way, Chinese into characters."""
    lowercase: bool = True
    """Whether text is read in small letters and without accents ("uncased")."""
    style: Style = "google"
    """google: as the release, which reads words of up to 200 characters; hf: as transformers, which reads 100
    and drops private and unassigned characters."""
    strip_accents: bool | None = None
    """Whether accents go; None: where text is read in small letters, as published."""
    vocab_size: int = 30_000
    """Most pieces that are learned from a corpus, special tokens included."""
    context: int = 512
    """Tokens of a row, special ones included; longer texts are cut at their end, the longer of a pair
    first."""

    def __post_init__(self) -> None:
        if self.style not in get_args(Style):
            raise choose("codec.style", self.style, get_args(Style))
        if self.vocab_size <= len(SPECIALS) + 1:
            raise UsageError(
                f"codec.vocab_size is {self.vocab_size}; {len(SPECIALS)} go to special tokens, so give more"
            )
        if self.context < 8:
            raise UsageError(f"codec.context is {self.context}; a pair of texts needs 8 tokens or more")


class BERTCodec:
    """Texts -> rows of ids. Special tokens never come from a text: `[MASK]` in one is read as three words.

    Words that a data set came with (`Part.words`) are not looked at: tokens and words meet in their
    characters. A pair is one row, in its own order.
    """

    def __init__(self, config: BERTCodecConfig, vocab: Vocab | Sequence[str]) -> None:
        self.vocab = vocab if isinstance(vocab, Vocab) else Vocab(vocab)
        missing = [token for token in SPECIALS if token not in self.vocab]
        if missing:
            raise UserError(f"the vocabulary lacks the special tokens {', '.join(missing)}")
        if config.lowercase and is_cased(self.vocab.words):
            raise UsageError(
                "the vocabulary has capital letters, which text read in small letters never has; set "
                "codec.lowercase=false"
            )
        self.config = config
        accents = config.lowercase if config.strip_accents is None else config.strip_accents
        self._pieces = WordPiece(self.vocab.ids, config.style, config.lowercase, accents)
        self.pad_id, self.unknown_id, self.cls_id, self.sep_id, self.mask_id = (
            self.vocab.ids[token] for token in SPECIALS
        )

    @classmethod
    def learn(cls, corpus: Callable[[], Iterable[str]], config: BERTCodecConfig) -> BERTCodec:
        """Pieces of the words of a corpus, counted in one pass."""
        if config.language == "auto":
            beginning = (text[:10_000] for text in islice(corpus(), 200))
            config = replace(config, language=guess_language(beginning))
        empty = cls(config, SPECIALS)
        counts: Counter[str] = Counter()
        for run, n in counted(RUN.findall(text) for text in corpus()).items():
            for word in empty.words(run):
                counts[word] += n
        kept = {word: n for word, n in counts.items() if len(word) <= empty._pieces.longest}
        if not kept:
            raise UserError("the corpus has no words to learn a vocabulary from; give more text")
        return cls(config, [*SPECIALS, *learn_pieces(kept, config.vocab_size - len(SPECIALS))])

    @property
    def size(self) -> int:
        return len(self.vocab)

    def words(self, text: str) -> list[str]:
        """What is cut into pieces: cleaned, without white space, signs and ideographs alone."""
        return self._pieces.words(text)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts without any special tokens; for token files."""
        return self._pieces.ids_of(texts)

    def encode(self, samples_parts: Sequence[tuple[Part, ...]], unordered: bool = False) -> list[list[Row]]:
        """One row a sample, also if `unordered`: the paper reads a pair once."""
        read = iter(self._pieces.pieces([part.text for parts in samples_parts for part in parts]))
        return [[self._row(list(islice(read, len(parts))))] for parts in samples_parts]

    def _row(self, pieces: Sequence[Pieces]) -> Row:
        room = self.config.context - 1 - len(pieces)
        row = Row([self.cls_id], [0], [-1], [NOTHING])
        for number, most in enumerate(kept_lengths([len(ids) for ids, _ in pieces], room)):
            ids, spans = pieces[number]
            row.ids.extend([*ids[:most], self.sep_id])
            row.segments.extend([min(number, 1)] * (most + 1))
            row.part.extend([number] * most + [-1])
            row.chars.extend([*(Span(*span) for span in spans[:most]), NOTHING])
        return row

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, as a reader would write it, without special tokens other than [UNK] and [MASK]."""
        silent = {self.pad_id, self.cls_id, self.sep_id}
        pieces = [self.vocab.words[number] for number in ids if number not in silent]
        text = " ".join(pieces).replace(f" {INSIDE}", "")
        return re.sub(rf" (?=[.,!?;:%)\]}}])|(?<=[(\[{{]) |(?<=[{CJK}]) (?=[{CJK}])", "", text)

    def with_vocab(self, vocab: Vocab | Sequence[str]) -> BERTCodec:
        """The same rules with other ids."""
        return BERTCodec(self.config, vocab)

    def unlimited(self) -> BERTCodec:
        """The same, its rows as long as their texts."""
        return BERTCodec(replace(self.config, context=ANY_LENGTH), self.vocab)

    def describe(self) -> str:
        case = "small letters" if self.config.lowercase else "letters as they are"
        whose = {"google": "Google", "hf": "transformers"}[self.config.style]
        return f"WordPiece as {whose} cuts it, {case} ({self.config.language}), {self.size:,} ids"

    def fingerprint(self) -> str:
        """Names a token file: equal where `ids` gives the same for every text."""
        pieces = self._pieces
        said = ["bert", pieces.style, pieces.lowercase, pieces.strip_accents, self.vocab.words]
        return blake2b(json.dumps(said).encode(), digest_size=16).hexdigest()

    def save(self, folder: Path) -> None:
        """codec.json, and vocab.txt as published: a piece a line."""
        write_text(folder / "vocab.txt", "".join(f"{word}\n" for word in self.vocab.words))
        settings = json.dumps(asdict(self.config), indent=2, ensure_ascii=False)
        write_text(folder / "codec.json", settings + "\n")

    @classmethod
    def load(cls, folder: Path) -> BERTCodec:
        path = folder / "codec.json"
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
        except OSError:
            raise UserError(f"{folder}: no codec.json there, so no codec of BERT") from None
        except ValueError as error:
            raise UserError(f"{path}: not JSON ({error})") from None
        if not isinstance(settings, dict) or "style" not in settings:
            raise UserError(f'{path}: "style" is missing, so no codec of BERT')
        config = build(BERTCodecConfig, settings, str(path))
        try:
            return cls(config, read_vocab(folder / "vocab.txt"))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    @classmethod
    def published(cls, path: Path, config: BERTCodecConfig) -> BERTCodec:
        """A published `vocab.txt`, its case checked against `config`."""
        words = read_vocab(path)
        validate_case(words, config.lowercase, str(path))
        return cls(config, words)


def kept_lengths(lengths: Sequence[int], room: int) -> list[int]:
    """What is left of texts so long once the longest, the last of equals, has lost tokens until all fit."""
    level, left = room, room
    for n, length in enumerate(sorted(lengths)):
        level = left // (len(lengths) - n)
        if length > level:
            break
        left -= length
    else:
        return list(lengths)
    kept = [min(length, level) for length in lengths]
    for n, length in enumerate(lengths):
        if length > level and sum(kept) < room:
            kept[n] += 1
    return kept


def read_vocab(path: Path) -> list[str]:
    """A `vocab.txt`: a piece a line, whose number, from 0, is its id."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise UserError(f"{path}: no vocabulary there ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a vocabulary file, which is UTF-8 text") from None
    return [line.strip(" \t\r") for line in text.removesuffix("\n").split("\n")]


def is_cased(words: Sequence[str]) -> bool:
    """Whether a vocabulary has pieces with capital letters, beside a few odd ones."""
    capital = sum(word != word.lower() for word in words if not NO_WORD.fullmatch(word))
    return capital > CASED * len(words)


def validate_case(words: Sequence[str], lowercase: bool, where: str) -> None:
    """Raise UsageError where text would be read in another case than a published vocabulary was made for."""
    if lowercase == is_cased(words):
        has, want = ("capital", "false") if lowercase else ("no capital", "true")
        raise UsageError(f"{where} has {has} letters; read text accordingly: set codec.lowercase={want}")
