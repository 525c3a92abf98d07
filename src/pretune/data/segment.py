"""Segmenters: where the words of a text begin and end, per language, or by the user's own function."""

from __future__ import annotations

import inspect
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Protocol

from pretune.config import module_named
from pretune.data.samples import Span
from pretune.data.words import Words
from pretune.errors import UsageError, UserError, choose

SEGMENTERS: Final = ("words", "spacy", "characters", "jieba", "spaces")
BY_CHARACTER: Final = (
    "zh",
    "ja",
    "yue",
    "wuu",
    "lzh",
)  # languages written without spaces, read by characters
WITHOUT_SPACES: Final = (
    "th",
    "lo",
    "km",
    "my",
    "bo",
    "dz",
)  # written without spaces, and characters say too little

# Chinese and Japanese characters with their signs; kana; Bopomofo; compatibility forms; rare ones.
CJK: Final = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3041-\u30fa\u30fc-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U0001f200-\U0001f2ff\U00020000-\U00032000"
)
KANA: Final = "\u3041-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
SURROGATES: Final = re.compile("[\ud800-\udfff]")


class Segmenter(Protocol):
    """Text -> its words, left to right, without the spaces between them."""

    name: str  # as config and saved folders write it
    described: str  # for the user
    version: str  # changes when the splits may; part of what names a token file
    by_run: bool  # True if a run between spaces is split the same whatever stands around it

    def __call__(self, text: str) -> list[Span]: ...


class Spaces:
    """What stands between white space: for text that has been split into words already."""

    name, version, by_run = "spaces", "1", True
    described = "words between spaces"

    def __call__(self, text: str) -> list[Span]:
        return [Span(*run.span()) for run in re.finditer(r"\S+", text)]


class Characters:
    """Each Chinese or Japanese character alone; letters and digits of other scripts in runs; signs alone."""

    name = "characters"
    described = "single characters"
    version = "1"
    by_run = True
    pattern = re.compile(rf"[{CJK}]|(?:[^\W_{CJK}][\u0300-\u036f]*)+|\S")

    def __call__(self, text: str) -> list[Span]:
        return [Span(*match.span()) for match in self.pattern.finditer(text)]


class Jieba:
    """Chinese words by the dictionary and hidden Markov model of jieba (extra `zh`)."""

    name = "jieba"
    by_run = True

    def __init__(self) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # its own use of pkg_resources
                import jieba
        except ImportError:
            raise UsageError("segmenter 'jieba' needs jieba: pip install 'pretune[zh]'") from None
        jieba.setLogLevel(logging.CRITICAL)  # else it reports on stderr how long its dictionary took
        self.version = f"jieba {jieba.__version__}"
        self.described = f"words by {self.version}"
        self._tokenizer = jieba.Tokenizer()
        self._tokenizer.tmp_dir = _private_cache()  # by default a file in /tmp that anyone may have put there

    def __call__(self, text: str) -> list[Span]:
        return [Span(start, end) for word, start, end in self._tokenizer.tokenize(text) if not word.isspace()]


class SpaCy:
    """spaCy's tokenizer of a language, without any model (extra `spacy`)."""

    name = "spacy"

    def __init__(self, language: str) -> None:
        try:
            import spacy
        except ImportError:
            raise UsageError("segmenter 'spacy' needs spaCy: pip install 'pretune[spacy]'") from None
        try:
            self._tokenizer = spacy.blank(language).tokenizer
        except (ImportError, ValueError) as error:
            said = str(error).split("\n")[0]
            raise UsageError(f"segmenter 'spacy' has no tokenizer for {language!r}: {said}") from None
        self.version = f"spaCy {version('spacy')}"
        self.described = f"words by {self.version}"
        self.by_run = type(self._tokenizer) is spacy.tokenizer.Tokenizer  # some languages have others

    def __call__(self, text: str) -> list[Span]:
        words = self._tokenizer(SURROGATES.sub("\ufffd", text))  # which spaCy cannot store
        return [Span(word.idx, word.idx + len(word)) for word in words if not word.is_space]


class Own:
    """The user's function of a text: it gives words, found from left to right, or (start, end) pairs."""

    by_run = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.described = f"words by {name}"
        self._function = _imported(name)
        self.version = _version(self._function)

    def __call__(self, text: str) -> list[Span]:
        spans: list[Span] = []
        at = 0
        for given in self._function(text):
            if isinstance(given, str):
                word = given.strip()
                span = Span(text.find(word, at), 0)
                span = Span(span.start, span.start + len(word))
                if span.start < 0:
                    raise UserError(
                        f"segmenter {self.name!r} gave {word!r}, which is not in the text from "
                        f"character {at} on ({text[at : at + 30]!r}); give pieces of the text, in order"
                    )
            else:
                span = _given_span(given, at, len(text), self.name)
            if span.start < span.end:
                spans.append(span)
            at = span.end
        return spans


def segmenter(language: str, name: str | None = None) -> Segmenter:
    """The segmenter of that name, or the language's own.

    "words" cuts text with spaces by built-in rules that follow spaCy's; "spacy" is that library;
    "characters" is for Chinese and Japanese; "jieba" knows Chinese words; "spaces" is for text already
    split; "mypackage.tokens:split" is a function of yours.
    """
    if not re.fullmatch(r"[a-z]{2,3}", language):
        raise UsageError(f"language is {language!r}; give a code of two or three letters such as en, de, zh")
    name = name or default_segmenter(language)
    if ":" in name:
        return Own(name)
    if name == "jieba":
        return Jieba()
    if name == "spacy":
        return SpaCy(language)
    if name == "characters":
        return Characters()
    if name == "spaces":
        return Spaces()
    if name == "words":
        return Words(language)
    raise choose("segmenter", name, (*SEGMENTERS, "module:function"))


def default_segmenter(language: str) -> str:
    """The name of the segmenter that a language gets when none is chosen."""
    if language in WITHOUT_SPACES:
        raise UsageError(
            f"language {language!r} is written without spaces and has no built-in segmenter; "
            "give your own function as segmenter=module:function"
        )
    return "characters" if language in BY_CHARACTER else "words"


def guess_language(texts: Iterable[str]) -> str:
    """ "zh" or "ja" where over a fifth of the letters are Chinese or Japanese characters, else "en"."""
    letters = characters = kana = 0
    for text in texts:
        letters += sum(map(str.isalnum, text))
        characters += len(re.findall(f"[{CJK}]", text))
        kana += len(re.findall(f"[{KANA}]", text))
    if characters <= 0.2 * letters:
        return "en"
    return "ja" if kana > 0.1 * characters else "zh"


def _imported(name: str) -> Callable[[str], Sequence[Any]]:
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise UsageError(f"segmenter is {name!r}; write your function as module:function")
    if module.split(".")[0] in sys.stdlib_module_names:  # a saved folder must not reach os.system
        raise UsageError(
            f"segmenter {name!r} is in Python's standard library; put a function of yours in a module"
        )
    try:
        found = module_named(module)
    except ImportError as error:
        raise UsageError(f"segmenter {name!r}: cannot import {module} ({error})") from None
    function = getattr(found, attribute, None)
    if not callable(function):
        raise UsageError(f"segmenter {name!r}: {module} has no function {attribute}")
    return function  # type: ignore[no-any-return]


def _version(function: Callable[..., Any]) -> str:
    """A digest of the file that the function stands in, so that an edit is noticed."""
    try:
        source = Path(inspect.getsourcefile(function) or "").read_bytes()
    except (TypeError, OSError):
        source = repr(getattr(function, "__qualname__", function.__class__)).encode()
    return blake2b(source, digest_size=8).hexdigest()


def _given_span(given: Any, at: int, size: int, name: str) -> Span:
    try:
        start, end = (int(number) for number in given)
    except (TypeError, ValueError):
        raise UserError(
            f"segmenter {name!r} gave {given!r}; it must give words or (start, end) pairs"
        ) from None
    if not at <= start <= end <= size:
        raise UserError(
            f"segmenter {name!r} gave the pair ({start}, {end}) after character {at} of {size}; "
            "its pairs must go from left to right within the text"
        )
    return Span(start, end)


def _private_cache() -> str:
    """A folder of the user's own for jieba's unpacked dictionary."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pretune"
    with suppress(OSError):  # then jieba unpacks its dictionary each time, which takes a second
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return str(folder)
