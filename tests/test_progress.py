"""Progress: what is passed through stays what it is, and is counted on stderr only where that takes long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pretune.cli.inputs import corpora
from pretune.training import progress
from pretune.training.progress import passed


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SECONDS_UNSEEN", "SECONDS_BETWEEN_LINES", "SECONDS_BETWEEN_FRAMES"):
        monkeypatch.setattr(progress, name, 0.0)


def test_what_is_over_soon_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(passed("abc", "reading", quiet=False)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("at_once")
def test_what_takes_long_is_counted_unless_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(passed("abc", "reading", quiet=False, total=3)) == ["a", "b", "c"]
    assert capsys.readouterr().err.splitlines()[-1].startswith("reading · 3 of 3 · 0:00")
    assert list(passed("abc", "reading", quiet=True)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("at_once")
def test_an_error_passes_through() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("the second")

    with pytest.raises(ValueError, match="the second"):
        list(passed(broken(), "reading", quiet=False))


@pytest.mark.usefixtures("at_once")
def test_a_corpus_knows_its_documents_after_the_first_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("\n".join(f"document {n}" for n in range(20)))
    read, held_out, _ = corpora([tmp_path / "a.txt"], "line", None, "utf-8", 10, quiet=False)
    assert held_out is not None and len(list(held_out())) == 2
    capsys.readouterr()
    first = list(read())
    assert capsys.readouterr().err.splitlines()[-1] == "reading documents · 18 · 0:00"
    next(iter(read()))  # a pass that is broken off
    assert list(read()) == first and len(first) == 18
    assert capsys.readouterr().err.splitlines()[-1] == "reading documents · 18 of 18 · 0:00"
