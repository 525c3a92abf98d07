"""WordPiece: text -> words -> pieces of a vocabulary, as Google's release cuts them and as transformers does.

`tokenizers` does the work where it gives what Google's code gives, which is everywhere but for some rare
scripts; those are read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Literal
from unicodedata import category, normalize

from pretune.data.segment import SURROGATES

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Style = Literal["google", "hf"]
Pieces = tuple[list[int], list[tuple[int, int]]]

UNKNOWN: Final = "[UNK]"
INSIDE: Final = "##"  # what a piece that does not begin a word is written with
LONGEST_WORD: Final = {"google": 200, "hf": 100}  # characters; longer ones are unknown as a whole
RUN: Final = re.compile(r"[^ \t\n\r]+")  # what no word goes beyond
MOST_REMEMBERED: Final = 100_000  # runs whose pieces are kept at hand
SHORT: Final = 40  # characters; longer runs will hardly come again

# What is not in these blocks the two read differently: their Unicode tables are of different years, private
# characters are dropped by one alone, and a sigma that ends a word is small in its own way.
ALIKE: Final = "\0-\u03a2\u03a4-\u0600\u2000-\u2e42\u3000-\ua7ca\uac00-\ud7ff\uf900-\uffff"
DIFFERENT: Final = re.compile(f"[^{ALIKE}]")

IDEOGRAPHS: Final = re.compile(
    "[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b73f"
    "\U0002b740-\U0002b81f\U0002b820-\U0002ceaf\U0002f800-\U0002fa1f]"
)
SIGNS: Final = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


class WordPiece:
    """Cuts texts into pieces of `ids`, each with the characters that it stands for."""

    def __init__(self, ids: dict[str, int], style: Style, lowercase: bool, strip_accents: bool) -> None:
        self.ids, self.style = ids, style
        self.lowercase, self.strip_accents = lowercase, strip_accents
        self.longest = LONGEST_WORD[style]
        self.rust = self._build()
        self._known: dict[str, Pieces] = {}  # of short runs

    def _build(self) -> Tokenizer:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

        tokenizer = Tokenizer(
            models.WordPiece(self.ids, unk_token=UNKNOWN, max_input_chars_per_word=self.longest)
        )
        tokenizer.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=True,
            strip_accents=self.strip_accents,
            lowercase=self.lowercase,
        )
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return tokenizer

    def words(self, run: str) -> list[str]:
        """What pieces are looked for in, in order."""
        if self._needs_python(run):
            return [word for word, _ in self._words(run)]
        tokenizer: Any = self.rust
        clean = tokenizer.normalizer.normalize_str(_storable(run))
        return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(clean)]

    def ids_of(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text."""
        runs = [RUN.findall(text) for text in texts]
        known = self._read(chain.from_iterable(runs))
        return [[i for run in some for i in known[run][0]] for some in runs]

    def pieces(self, texts: Sequence[str]) -> list[Pieces]:
        """The ids of each text, and what characters of it each stands for."""
        runs = [[(run.group(), run.start()) for run in RUN.finditer(text)] for text in texts]
        known = self._read(run for some in runs for run, _ in some)
        return [
            (
                [i for run, _ in some for i in known[run][0]],
                [(at + start, at + end) for run, at in some for start, end in known[run][1]],
            )
            for some in runs
        ]

    def _read(self, runs: Iterable[str]) -> dict[str, Pieces]:
        """The pieces of these runs, each of which is read alone, since no word goes beyond one."""
        distinct = dict.fromkeys(runs)
        if len(self._known) + len(distinct) > MOST_REMEMBERED:
            self._known = {}
        missing = [run for run in distinct if run not in self._known]
        quick = [run for run in missing if not self._needs_python(run)]
        read = self.rust.encode_batch(list(map(_storable, quick)), add_special_tokens=False)
        found = {run: (one.ids, one.offsets) for run, one in zip(quick, read, strict=True)}
        found |= {run: self._pieces(run) for run in missing if run not in found}
        known = {run: found.get(run) or self._known[run] for run in distinct}
        self._known |= {run: pieces for run, pieces in found.items() if len(run) <= SHORT}
        return known

    def _needs_python(self, run: str) -> bool:
        return self.style == "google" and not run.isascii() and DIFFERENT.search(run) is not None

    def _pieces(self, run: str) -> Pieces:
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        for word, places in self._words(run):
            start = 0
            for number, end in self._cut(word) or [(self.ids[UNKNOWN], len(word))]:
                ids.append(number)
                spans.append((places[start], places[end - 1] + 1))
                start = end
        return ids, spans

    def _cut(self, word: str) -> list[tuple[int, int]]:
        """Id and end of each piece, the longest that fits from left to right; none for an unknown word."""
        pieces: list[tuple[int, int]] = []
        start = 0
        while start < len(word) <= self.longest:
            mark = INSIDE if start else ""
            ends = (end for end in range(len(word), start, -1) if mark + word[start:end] in self.ids)
            end = next(ends, None)
            if end is None:
                return []
            pieces.append((self.ids[mark + word[start:end]], end))
            start = end
        return pieces

    def _words(self, text: str) -> Iterator[tuple[str, list[int]]]:
        """The words by Google's rules, each with the place of each of its characters in the text."""
        kept, places = _cleaned(text)
        for run in re.finditer(r"\S+", kept):
            word, at = run.group(), places[run.start() : run.end()]
            if self.lowercase:
                at = [place for x, place in zip(word, at, strict=True) for _ in x.lower()]
                word = word.lower()
            if self.strip_accents:
                at = [place for x, place in zip(word, at, strict=True) for _ in normalize("NFD", x)]
                word = normalize("NFD", word)
                at = [place for x, place in zip(word, at, strict=True) if category(x) != "Mn"]
                word = "".join(x for x in word if category(x) != "Mn")
            yield from _split(word, at)


def _cleaned(text: str) -> tuple[str, list[int]]:
    """Without control characters, with plain spaces, and with spaces around ideographs."""
    kept: list[str] = []
    places: list[int] = []
    for place, x in enumerate(text):
        kind = category(x)
        if x in " \t\n\r" or kind == "Zs":
            x = " "
        elif x == "\ufffd" or kind in ("Cc", "Cf"):
            continue
        elif IDEOGRAPHS.match(x):
            x = f" {x} "
        kept.append(x)
        places += [place] * len(x)
    return "".join(kept), places


def _split(word: str, places: list[int]) -> Iterator[tuple[str, list[int]]]:
    """Signs alone, and what stands between them."""
    start = 0
    for i, x in enumerate(word):
        if x in SIGNS or category(x).startswith("P"):
            if start < i:
                yield word[start:i], places[start:i]
            yield x, places[i : i + 1]
            start = i + 1
    if start < len(word):
        yield word[start:], places[start:]


def _storable(text: str) -> str:
    """Half characters, which `tokenizers` cannot store, as ones that it leaves out."""
    return text if text.isascii() else SURROGATES.sub("\ufffd", text)
