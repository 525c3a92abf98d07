"""Settings of GPT's codec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pretune.errors import UsageError, choose
from pretune.methods.gpt.pretokenizers import Name

Keep = Literal["head", "tail"]
Cut = Literal["each", "longest"]


@dataclass(frozen=True)
class GPTCodecConfig:
    """How text becomes ids, and how the parts of a sample become a row."""

    language: str = "en"
    """A code such as en, de, zh; "auto" tells Chinese and Japanese from the rest by their characters."""
    pretokenizer: Name = "builtin"
    """What words merges are made in: builtin, for every language; original, the release's way for English
    (ftfy and spaCy, extra `gpt`); hf, as transformers 5. Weights need the one that they were trained with."""
    segmenter: str | None = None
    """Of the builtin pretokenizer: words, characters, jieba, spacy, spaces, or your own module:function; by
    default the language's own."""
    lowercase: bool = True
    """Of the builtin pretokenizer; the other two always read lower case."""
    merges: int = 40_000
    """How many merges are learned, at most: as many pieces beside the characters."""
    min_count: int = 2
    """How often a character must occur in the corpus to be read, and a pair of pieces to be merged."""
    context: int = 512
    """The most ids of a row, as many as the encoder has positions; longer texts are cut."""
    cut: Cut = "each"
    """Where several parts are too long: each is cut to its share, as published, or the longest first."""
    keep: Keep = "head"
    """Which end of a part is kept where it is cut: its beginning, as published, or its end."""
    marks: bool = True
    """Whether `_start_`, `_delimiter_` and `_classify_` stand around texts, as published; classifiers that
    transformers trained read texts alone, one after the other (encoder.summary=last)."""

    def __post_init__(self) -> None:
        for name, said, possible in (
            ("pretokenizer", self.pretokenizer, get_args(Name)),
            ("cut", self.cut, get_args(Cut)),
            ("keep", self.keep, get_args(Keep)),
        ):
            if said not in possible:
                raise choose(f"codec.{name}", said, possible)
        for name, least in (("merges", 0), ("min_count", 1), ("context", 8)):
            if getattr(self, name) < least:
                raise UsageError(f"codec.{name} is {getattr(self, name)}; it must be at least {least}")
        if self.pretokenizer != "builtin" and (self.segmenter is not None or not self.lowercase):
            raise UsageError(
                "codec.segmenter and codec.lowercase are for the builtin pretokenizer; "
                f"{self.pretokenizer!r} has words of its own, in lower case"
            )
        if self.pretokenizer == "original" and self.language not in ("en", "auto"):
            raise UsageError(
                f"pretokenizer 'original' reads English, not {self.language!r}; choose builtin or hf"
            )
