from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretune.data.vocab import Vocab, counted
from pretune.errors import UserError

SPECIALS = ("xxunk", "xxpad")


def test_words_come_by_count_then_by_alphabet_behind_the_specials() -> None:
    tokens = [["b", "a", "c", "c"], ["xxpad", "a", "b", "d"]]
    assert Vocab.count(tokens, SPECIALS).words == ("xxunk", "xxpad", "a", "b", "c", "d")
    assert Vocab.count(reversed(tokens), SPECIALS) == Vocab.count(tokens, SPECIALS)


def test_rare_words_go_and_the_size_is_a_cap_for_all_words_together() -> None:
    tokens = [["a"] * 3 + ["b"] * 2 + ["c"]]
    assert Vocab.count(tokens, SPECIALS, min_count=2).words == ("xxunk", "xxpad", "a", "b")
    assert Vocab.count(tokens, SPECIALS, max_size=3).words == ("xxunk", "xxpad", "a")
    assert len(Vocab.count([["a"]], ("xxunk",))) == 2  # nothing rounds it up to a multiple of eight


def test_of_a_word_that_stands_twice_the_first_counts() -> None:
    vocab = Vocab(["xxunk", "xxfake", "xxfake"])
    assert len(vocab) == 3
    assert vocab.ids["xxfake"] == 1


def test_counting_forgets_the_rarest_words_when_there_are_too_many() -> None:
    stream = [["often"] * 3, ["twice"] * 2, *([f"once{i}"] for i in range(8)), ["late"]]
    counts = counted(stream, most=6)
    assert counts["often"] == 3
    assert len(counts) <= 6
    assert counts == counted(stream, most=6)


@given(st.lists(st.text(st.characters(), max_size=6), unique=True, max_size=20))
def test_any_word_survives_the_file(words: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.txt"
        Vocab(words).save(path)
        assert Vocab.load(path).words == tuple(words)
        assert len(path.read_text(encoding="utf-8").split("\n")) == len(words) + 1  # one word a line
        assert [file.name for file in path.parent.iterdir()] == ["vocab.txt"]


def test_plain_words_stand_in_the_file_as_they_are(tmp_path: Path) -> None:
    Vocab(["naïve", "中", "\n\n▁", '"', "\\"]).save(tmp_path / "vocab.txt")
    lines = (tmp_path / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert lines == ["naïve", "中", '"\\n\\n\\u2581"', '"\\""', "\\"]


def test_a_broken_or_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"vocab\.txt: no vocabulary"):
        Vocab.load(tmp_path / "vocab.txt")
    (tmp_path / "vocab.txt").write_text('fine\n"broken\n')
    with pytest.raises(UserError, match=r"vocab\.txt:2"):
        Vocab.load(tmp_path / "vocab.txt")
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="UTF-8"):
        Vocab.load(tmp_path / "vocab.txt")
