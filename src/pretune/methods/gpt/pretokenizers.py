"""Pretokenizers: text -> the words that byte-pair merges are made in, each character with its origin.

"original" is the release's way: ftfy, a rewriting of punctuation, spaCy's English tokenizer, lower case.
"hf" is what transformers reads its `openai-gpt` with. "builtin" needs no other package and suits every
language. The three give different words, so a codec says which one it was learned with.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, Final, Literal, NamedTuple, Protocol

from pretune.data.aligned import Aligned
from pretune.data.samples import Span
from pretune.data.segment import SURROGATES, Segmenter, segmenter
from pretune.data.vocab import counted
from pretune.errors import UsageError
from pretune.methods.gpt.aligning import aligned

Name = Literal["builtin", "original", "hf"]

LINE_BREAK: Final = "\n"  # a word of its own; none at either end of a text

# Runs between spaces, and white space that may hold a line break: all but a single blank.
RUNS_AND_BREAKS: Final = re.compile(r"\S{1,1000}|\s{2,}|[^\S ]")
LINES: Final = re.compile(r"\n\s*|[^\n]+")


class Word(NamedTuple):
    """What merges are made in: its characters, and where in its stretch each of them starts and ends."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]


class Pretokenizer(Protocol):
    """A text is cleaned as a whole and falls into stretches; a stretch has the same words in every text."""

    described: str  # for the user
    version: str  # changes when the words may
    stretches: re.Pattern[str]
    recurring: bool  # whether stretches are short, so that the same come again

    def cleaned(self, text: str) -> str: ...

    def cleaned_aligned(self, text: str) -> Aligned:
        """The same, where every character still knows its origin."""
        ...

    def words(self, stretch: str) -> list[Word]: ...


class Builtin:
    """The words of a segmenter of `pretune.data.segment`; line breaks are words too."""

    def __init__(self, segment: Segmenter, lowercase: bool) -> None:
        self._segment, self._lowercase = segment, lowercase
        self.described = segment.described + (" in lower case" if lowercase else "")
        self.version = f"{segment.name} {segment.version}"
        self.recurring = segment.by_run
        self.stretches = RUNS_AND_BREAKS if segment.by_run else LINES

    def cleaned(self, text: str) -> str:
        return SURROGATES.sub("\ufffd", text).strip()

    def cleaned_aligned(self, text: str) -> Aligned:
        return Aligned.of(SURROGATES.sub("\ufffd", text)).strip()

    def words(self, stretch: str) -> list[Word]:
        if stretch.isspace():
            return [_line_break(len(stretch))] if "\n" in stretch else []
        words = (word for span in self._segment(stretch) for word in _without_spaces(stretch, span))
        return [_word(stretch, *span, lower=self._lowercase) for span in words]


class Original:
    """The words of OpenAI's release: ftfy's repairs, some signs set apart, spaCy's English tokenizer."""

    recurring = True
    stretches = re.compile(r"\S+|\n")

    def __init__(self) -> None:
        try:
            import ftfy
            import spacy
        except ImportError as error:
            raise UsageError(
                f"pretokenizer 'original' needs ftfy and spaCy (no {error.name} here): "
                "pip install 'pretune[gpt]', or ask for 'hf' or 'builtin', whose words are others"
            ) from None
        self._fix: Any = ftfy.fix_text
        self._tokenizer: Any = spacy.blank("en").tokenizer
        self.version = f"ftfy {version('ftfy')}, spaCy {version('spacy')}"
        self.described = f"the words of the release (by {self.version})"

    def cleaned(self, text: str) -> str:
        fixed = "".join(fixed for _, fixed in self._fixed(text))
        for old, new in ALIKE:
            fixed = fixed.replace(old, new)
        return BLANKS.sub(" ", BREAKS.sub(" \n ", APART.sub(r" \g<0> ", fixed))).strip()

    def cleaned_aligned(self, text: str) -> Aligned:
        found = self._fixed_aligned(text)
        for old, new in ALIKE:
            found = found.replace(old, new)
        found = found.sub(APART, _apart)
        found = found.sub(BREAKS, lambda match: [(" \n ", match.start(), match.end())])
        return found.sub(BLANKS, lambda match: [(" ", match.start(), match.end())]).strip()

    def words(self, stretch: str) -> list[Word]:
        if stretch == LINE_BREAK:
            return [_line_break(1)]
        return [
            _word(stretch, word.idx, word.idx + len(word.text), lower=True)
            for word in self._tokenizer(stretch)
        ]

    def _fixed(self, text: str) -> Iterator[tuple[str, str]]:
        """Line by line, as ftfy goes through a text; once it has seen "<", it leaves entities alone."""
        if SOUND.fullmatch(text):
            yield text, text
            return
        entities: bool | str = "auto"
        for line in SEGMENTS.findall(text):
            if "<" in line:
                entities = False
            yield line, self._fix(line, unescape_html=entities)

    def _fixed_aligned(self, text: str) -> Aligned:
        if SOUND.fullmatch(text):
            return Aligned.of(text)
        lines, starts, ends, at = [], array("i"), array("i"), 0
        for line, better in self._fixed(text):
            found = aligned(line, better)
            lines.append(better)
            starts.extend(at + place for place in found.starts)
            ends.extend(at + place for place in found.ends)
            at += len(line)
        return Aligned("".join(lines), starts, ends)


# `text_standardize` of the release. Its pattern is no raw string, so its `\\+` is another plus: a backslash
# is not set apart.
ALIKE: Final = (("—", "-"), ("–", "-"), ("―", "-"), ("…", "..."), ("´", "'"))
APART: Final = re.compile(r"""([-~!";?+,)(/*\[\]}{|_])\1*""")
BREAKS: Final = re.compile(r"(?<!\s)\s*\n\s*")
BLANKS: Final = re.compile(r"[^\S\n]{2,}|[^\S\n ]")  # all that is not one space already
SOUND: Final = re.compile(r"[\t\n -%'-~]*")  # ASCII without entities and control characters: nothing to fix
SEGMENTS: Final = re.compile(r"[^\n]{0,999999}\n|[^\n]{1,1000000}")


def _apart(match: re.Match[str]) -> list[tuple[str, int, int]]:
    start, end = match.span()
    return [(" ", start, start), (match.group(), start, end), (" ", end, end)]


PLAIN: Final = re.compile("[A-Za-z0-9]+|.")  # what the words below come to in ASCII


class HuggingFace:
    """The words of transformers 5: BERT's normalizer in lower case, accents off, and every sign alone."""

    recurring = True
    stretches = re.compile("[^ \t\n\r\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")

    def __init__(self) -> None:
        from tokenizers import normalizers, pre_tokenizers

        self._normalize = normalizers.BertNormalizer(lowercase=True).normalize_str
        self._split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
        self.version = "1"
        self.described = "the words of transformers 5"

    def cleaned(self, text: str) -> str:
        return SURROGATES.sub("\ufffd", text)

    def cleaned_aligned(self, text: str) -> Aligned:
        return Aligned.of(self.cleaned(text))

    def words(self, stretch: str) -> list[Word]:
        if stretch.isascii() and stretch.isprintable():
            return [_word(stretch, *match.span(), lower=True) for match in PLAIN.finditer(stretch)]
        read = self._normalized(stretch)
        return [
            Word(word, read.starts[start:end], read.ends[start:end])
            for word, (start, end) in self._split(read.text)
        ]

    def _normalized(self, stretch: str) -> Aligned:
        whole, characters = self._normalize(stretch), list(map(self._normalize, stretch))
        if whole != "".join(characters):  # marks that change places
            return aligned(stretch, whole)
        places = array("i", (at for at, character in enumerate(characters) for _ in character))
        return Aligned(whole, places, array("i", (at + 1 for at in places)))


def _line_break(size: int) -> Word:
    return Word(LINE_BREAK, (0,), (size,))


def _without_spaces(stretch: str, span: Span) -> Iterable[tuple[int, int]]:
    """Words of a segmenter that lets spaces stand in them fall apart there: merges files cannot hold them."""
    return (
        (span.start + match.start(), span.start + match.end())
        for match in re.finditer(r"\S+", stretch[span.start : span.end])
    )


def _word(stretch: str, start: int, end: int, lower: bool) -> Word:
    text = stretch[start:end]
    if not lower:
        return Word(text, range(start, end), range(start + 1, end + 1))
    small = text.lower()
    if len(small) == len(text):
        return Word(small, range(start, end), range(start + 1, end + 1))
    origin = [start + at for at, character in enumerate(text) for _ in character.lower()]  # İ becomes two
    return Word(small, origin, [at + 1 for at in origin])


@cache
def original() -> Original:
    """One for the process: spaCy remembers what it has read."""
    return Original()


def pretokenizer(name: Name, language: str, segment: str | None, lowercase: bool) -> Pretokenizer:
    """The one of that name; the last two are for the builtin one."""
    if name == "original":
        return original()
    if name == "hf":
        return HuggingFace()
    return Builtin(segmenter(language, segment), lowercase)


def counted_words(split: Pretokenizer, texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs, line breaks aside; stretches that recur are split once."""
    stretches = (split.stretches.findall(split.cleaned(text)) for text in texts)
    if split.recurring:
        words: Counter[str] = Counter()
        for stretch, count in counted(stretches).items():
            for word in split.words(stretch):
                words[word.text] += count
    else:
        words = counted([w.text for stretch in some for w in split.words(stretch)] for some in stretches)
    words.pop(LINE_BREAK, None)
    return words
