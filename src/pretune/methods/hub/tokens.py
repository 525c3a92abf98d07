"""A guest's codec: the fast tokenizer that it came with, its templates and its limit."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

from tokenizers import Encoding, Tokenizer

from pretune.config import build
from pretune.data.rows import NOTHING, Row
from pretune.data.samples import Part, Span
from pretune.data.vocab import write_text
from pretune.errors import UsageError, UserError, choose

Side = Literal["right", "left"]
FILE, SETTINGS = "tokenizer.json", "codec.json"
KIND: Final = "guest"
HALVES = re.compile("[\ud800-\udfff]")  # of surrogate pairs, which the tokenizers refuse


@dataclass(frozen=True)
class HubCodecConfig:
    """What surrounds the tokenizer itself; all of it is read from the guest's folder."""

    name: str = ""
    """The tokenizer's class in transformers, for people."""
    context: int | None = None
    """Most tokens of a row, special ones included; longer texts are cut as transformers does. None: no
    limit."""
    cut: Side = "right"
    """From which end of a text too long tokens are taken."""
    pad_id: int = 0
    """What fills rows up; it is never looked at."""
    end_id: int | None = None
    """Stands between two texts where the template puts nothing there, and for a text without tokens."""
    token_types: bool = False
    """Whether rows say which side of a pair a token belongs to."""
    language: str = "en"
    """By whose words vectors are aligned, where a vector a word is asked for."""
    segmenter: str = "pieces"
    """That tokens are pieces of words."""

    def __post_init__(self) -> None:
        if self.cut not in get_args(Side):
            raise choose("codec.cut", self.cut, get_args(Side))
        if self.segmenter != "pieces":
            raise UsageError(f"codec.segmenter is {self.segmenter!r}; a guest reads pieces")
        if self.context is not None and self.context < 4:
            raise UsageError(f"codec.context is {self.context}; it must be at least 4")


@dataclass
class HubCodec:
    """Texts -> rows by a tokenizer of the library tokenizers, as transformers would make them.

    Special tokens stand where the tokenizer's template puts them, and what a text spells like one is one,
    as in transformers. Pairs are one row. Decoders of GPT-2's kind have no template: there `end_id` stands
    between two texts, which would else run into one another.
    """

    config: HubCodecConfig
    tokenizer: Tokenizer = field(repr=False)

    def __post_init__(self) -> None:
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        if self.config.context is not None:
            self.tokenizer.enable_truncation(
                self.config.context - self._joint(), strategy="longest_first", direction=self.config.cut
            )

    def _joint(self) -> int:
        """1 where two texts need a token between them: the template has no more for a pair than for one."""
        added = self.tokenizer.num_special_tokens_to_add
        return int(self.config.end_id is not None and added(is_pair=True) == added(is_pair=False))

    @property
    def pad_id(self) -> int:
        return self.config.pad_id

    @property
    def size(self) -> int:
        return self.tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, samples_parts: Sequence[tuple[Part, ...]], unordered: bool = False) -> list[list[Row]]:
        """One row a sample, also if `unordered`: a pair is read once, as the guest has learned it."""
        texts = [_texts(parts) for parts in samples_parts]
        found = self.tokenizer.encode_batch([text if len(text) > 1 else text[0] for text in texts])
        return [[self._row(text, encoding)] for text, encoding in zip(texts, found, strict=True)]

    def _row(self, texts: tuple[str, ...], encoding: Encoding) -> Row:
        sides = encoding.sequence_ids
        row = Row(
            ids=list(encoding.ids),
            segments=list(encoding.type_ids) if self.config.token_types else [0] * len(sides),
            part=[-1 if side is None else side for side in sides],
            chars=[
                NOTHING if side is None else _trimmed(texts[side], *span)
                for side, span in zip(sides, encoding.offsets, strict=True)
            ],
        )
        if len(texts) > 1 and self._joint():
            self._insert(row, row.part.index(1) if 1 in row.part else len(row))
        if not len(row):
            self._insert(row, 0)
        return row

    def _insert(self, row: Row, at: int) -> None:
        """A token that stands for no text."""
        row.ids.insert(at, self.config.pad_id if self.config.end_id is None else self.config.end_id)
        row.segments.insert(at, 0)
        row.part.insert(at, -1)
        row.chars.insert(at, NOTHING)

    def unlimited(self) -> HubCodec:
        """The same, its rows as long as their texts."""
        return HubCodec(replace(self.config, context=None), Tokenizer.from_str(self.tokenizer.to_str()))

    def describe(self) -> str:
        limit = "any length" if self.config.context is None else f"up to {self.config.context:,} tokens"
        return f"the guest's own tokenizer ({self.config.name}), {self.size:,} ids, {limit}"

    def save(self, folder: Path) -> None:
        """tokenizer.json and codec.json."""
        write_text(folder / FILE, self.tokenizer.to_str(pretty=True) + "\n")
        settings = {"codec": KIND, **asdict(self.config)}
        write_text(folder / SETTINGS, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, folder: Path) -> HubCodec:
        path = folder / SETTINGS
        try:
            settings: Any = json.loads(path.read_text(encoding="utf-8"))
        except OSError:
            raise UserError(f"{folder}: no {SETTINGS} there, so no codec of a guest") from None
        except ValueError as error:
            raise UserError(f"{path}: not JSON ({error})") from None
        if not isinstance(settings, dict) or settings.pop("codec", None) != KIND:
            raise UserError(f"{path}: not the codec of a guest")
        return cls(build(HubCodecConfig, settings, str(path)), read_tokenizer(folder / FILE))


def read_tokenizer(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{path}: no tokenizer of the library tokenizers ({error})") from None


def _texts(parts: tuple[Part, ...]) -> tuple[str, ...]:
    if len(parts) > 2:
        raise UsageError(f"a guest reads one text or a pair; this sample has {len(parts)} texts")
    return tuple(HALVES.sub("\ufffd", part.text) for part in parts)


def _trimmed(text: str, start: int, end: int) -> Span:
    """Without the white space that some tokenizers count to a token."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return Span(start, end)
