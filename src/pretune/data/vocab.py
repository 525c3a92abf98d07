"""Vocab: words and their ids, counted from a stream and kept as a text file."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from pretune.errors import UserError

MOST_COUNTED: Final = 5_000_000  # distinct words held while counting; about 600 MB


class Vocab:
    """Words in the order of their ids. Where a word stands twice (published lists), the first counts."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(words)
        self.ids: dict[str, int] = {}
        for number, word in enumerate(self.words):
            self.ids.setdefault(word, number)

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self.ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocab) and self.words == other.words

    def __hash__(self) -> int:
        return hash(self.words)

    def __repr__(self) -> str:
        return f"Vocab({len(self):,} words)"

    @classmethod
    def count(
        cls,
        tokens: Iterable[Sequence[str]],
        specials: Sequence[str] = (),
        max_size: int = 60_000,
        min_count: int = 1,
        most_counted: int = MOST_COUNTED,
    ) -> Vocab:
        """The specials, then words by falling count, equal counts by alphabet, at most `max_size` in all.
        Nothing is added to round the size up (fastai appends 1 to 8 `xxfake`, for which no text exists).
        """
        counts = counted(tokens, most_counted)
        for special in specials:
            counts.pop(special, None)
        frequent = [(-number, word) for word, number in counts.items() if number >= min_count]
        words = [*specials, *(word for _, word in sorted(frequent))][: max(max_size, len(specials))]
        return cls(dict.fromkeys(words))

    def save(self, path: Path) -> None:
        """One word a line; a word that would not survive that is written as a JSON string."""
        write_text(path, "".join(f"{_line(word)}\n" for word in self.words))

    @classmethod
    def load(cls, path: Path) -> Vocab:
        try:
            lines = path.read_bytes().decode().split("\n")
        except OSError as error:
            raise UserError(f"{path}: no vocabulary there ({error.strerror})") from None
        except UnicodeDecodeError:
            raise UserError(f"{path}: not a vocabulary file, which is UTF-8 text") from None
        if lines[-1] == "":
            lines.pop()
        return cls(_word(line, path, number) for number, line in enumerate(lines, 1))


def counted(tokens: Iterable[Sequence[str]], most: int = MOST_COUNTED) -> Counter[str]:
    """How often each word occurs. Over `most` distinct words the rarest go, first those seen once, then
    twice, until half that many are left: memory stays flat, and the same stream gives the same counts.
    """
    counts: Counter[str] = Counter()
    for some in tokens:
        counts.update(some)
        if len(counts) > most:
            rarest = 0
            while len(counts) > most // 2:
                rarest += 1
                counts = Counter({word: number for word, number in counts.items() if number > rarest})
    return counts


def _line(word: str) -> str:
    plain = word.isprintable() and not word.startswith('"') and word
    return word if plain else json.dumps(word)


def _word(line: str, path: Path, number: int) -> str:
    if not line.startswith('"'):
        return line
    try:
        word = json.loads(line)
    except ValueError:
        raise UserError(f'{path}:{number}: a line that starts with " must be a JSON string') from None
    return str(word)


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    temporary.replace(path)
