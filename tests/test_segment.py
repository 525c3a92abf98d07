from __future__ import annotations

import re
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretune.data.aligned import Aligned, rewritten
from pretune.data.samples import Span
from pretune.data.segment import guess_language, segmenter
from pretune.errors import UsageError, UserError


def words(text: str, language: str = "en", name: str | None = None) -> list[str]:
    return [text[start:end] for start, end in segmenter(language, name)(text)]


@pytest.mark.parametrize(
    ("text", "split"),  # each as spaCy 3.8's blank English pipeline splits it
    [
        ("I can't, won't; don’t.", "I|ca|n't|,|wo|n't|;|do|n’t|."),
        ("She's they're we've I'll he'd I'm", "She|'s|they|'re|we|'ve|I|'ll|he|'d|I|'m"),
        ("cannot gonna let's y'all dont", "can|not|gon|na|let|'s|y'|all|do|nt"),
        ("well its ill were", "well|its|ill|were"),
        ("Anna's dogs' 'em", "Anna|'s|dogs|'|'em"),
        ("Mr. Smith, e.g. in the U.S. at 9am.", "Mr.|Smith|,|e.g.|in|the|U.S.|at|9|am|."),
        ("mr. smith", "mr|.|smith"),
        ("$3.50, 12,000 €5 10% 20km", "$|3.50|,|12,000|€|5|10|%|20|km"),
        (
            "a well-known state-of-the-art 3-year re--run",
            "a|well|-|known|state|-|of|-|the|-|art|3|-|year|re|--|run",
        ),
        ('He said: "Wait... what?!" (twice)', 'He|said|:|"|Wait|...|what|?|!|"|(|twice|)'),
        ("see http://a.co/x?y=1, me@x.org.", "see|http://a.co/x?y=1|,|me@x.org|."),
        ("fine :) (great :-D) <3", "fine|:)|(|great|:-D|)|<3"),
        ("end.Next a,b x=y and/or 1/2", "end|.|Next|a|,|b|x|=|y|and/or|1/2"),
        ("C++ 30°C 😀ok", "C++|30|°|C|😀|ok"),
        ("", ""),
    ],
)
def test_english_is_split_as_spacy_splits_it(text: str, split: str) -> None:
    assert "|".join(words(text)) == split


def test_other_languages_share_the_rules_but_not_the_english_words() -> None:
    assert words("Das ist's, „gut“ (3,50 €).", "de") == [
        "Das",
        "ist",
        "'s",
        *",„",
        "gut",
        *"“(",
        "3,50",
        *"€).",
    ]
    assert words("can't cannot", "de") == ["can't", "cannot"]
    assert words("l'homme d’Arc aujourd'hui", "fr") == ["l'", "homme", "d’", "Arc", "aujourd'hui"]
    assert words("Он сказал: «нет».", "ru") == ["Он", "сказал", ":", "«", "нет", "»", "."]


def test_chinese_is_read_by_characters_with_latin_runs_whole() -> None:
    assert segmenter("zh").name == "characters"
    assert words("我用iPhone6，3天！ok", "zh") == ["我", "用", "iPhone6", "，", "3", "天", "！", "ok"]
    assert words("東京タワー ✓", "ja") == ["東", "京", "タ", "ワ", "ー", "✓"]


def test_jieba_finds_words_quietly(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("jieba")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert words("我来到北京清华大学", "zh", "jieba") == ["我", "来到", "北京", "清华大学"]
    assert capfd.readouterr() == ("", "")
    assert [file.name for file in (tmp_path / "pretune").iterdir()] == ["jieba.cache"]


def test_without_jieba_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(UsageError, match=r"pip install 'pretune\[zh\]'"):
        segmenter("zh", "jieba")


def test_spacy_knows_the_words_of_each_language() -> None:
    pytest.importorskip("spacy", reason="spaCy is an extra: pip install 'pretune[spacy]'")
    assert words("I can't  go,\nnow", "en", "spacy") == ["I", "ca", "n't", "go", ",", "now"]
    assert words("z.B. heute", "de", "spacy") == ["z.B.", "heute"]
    assert words("half \ud83d an emoji", "en", "spacy") == ["half", "\ud83d", "an", "emoji"]
    assert segmenter("en", "spacy").by_run
    assert re.fullmatch(r"words by spaCy 3\.\d+\.\d+", segmenter("en", "spacy").described)
    with pytest.raises(UsageError, match="has no tokenizer for 'qqq'"):
        segmenter("qqq", "spacy")


def test_without_spacy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(UsageError, match=r"pip install 'pretune\[spacy\]'"):
        segmenter("en", "spacy")


@given(st.text(max_size=60), st.sampled_from(["en", "fr", "zh"]))
def test_words_cover_all_but_the_spaces_in_order(text: str, language: str) -> None:
    spans = segmenter(language)(text)
    assert all(a.end <= b.start for a, b in pairwise(spans))
    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    assert "".join(text[start:end] for start, end in spans) == "".join(text.split())


def test_a_run_without_spaces_of_any_length_is_split_in_linear_time() -> None:
    for run in ("()" * 10_000, "ab.cd@" * 5_000, "a-b" * 10_000, "x" * 100_000):
        assert "".join(words(run)) == run


# The user's own function.
def halves(text: str) -> list[str]:
    return [word for run in text.split() for word in (run[: len(run) // 2], run[len(run) // 2 :])]


def pairs(text: str) -> list[tuple[int, int]]:
    return [(start, min(start + 2, len(text))) for start in range(0, len(text), 2)]


def shouting(text: str) -> list[str]:
    return [text.upper()]


def backwards(text: str) -> list[tuple[int, int]]:
    return [(1, 2), (0, 1)]


def numbers(text: str) -> list[int]:
    return [1]


def test_the_users_function_gives_words_or_pairs() -> None:
    assert words("abcd a ef", "th", f"{__name__}:halves") == ["ab", "cd", "a", "e", "f"]
    assert segmenter("th", f"{__name__}:pairs")("abc") == [Span(0, 2), Span(2, 3)]


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        ("shouting", "gave 'AB', which is not in the text"),
        ("backwards", "left to right"),
        ("numbers", "must give words or"),
    ],
)
def test_a_function_that_gives_something_else_is_told_so(function: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        segmenter("en", f"{__name__}:{function}")("ab")


def test_a_function_in_the_working_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pretune_test_split.py").write_text("def split(text): return text.split()\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    own = segmenter("en", "pretune_test_split:split")
    assert own("a b") == [Span(0, 1), Span(2, 3)]
    assert sys.path == before
    version = own.version
    (tmp_path / "pretune_test_split.py").write_text("def split(text): return list(text)\n")
    assert segmenter("en", "pretune_test_split:split").version != version  # an edit is noticed


@pytest.mark.parametrize(
    ("language", "name", "complaint"),
    [
        ("en", "word", "did you mean 'words'"),
        ("en", "os:system", "standard library"),
        ("en", "no_such_module:split", "cannot import no_such_module"),
        ("en", f"{__name__}:no_such_function", "has no function no_such_function"),
        ("en", ":split", "module:function"),
        ("english", None, "two or three letters"),
        ("th", None, "without spaces"),
    ],
)
def test_a_wrong_choice_is_one_clear_line(language: str, name: str | None, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        segmenter(language, name)


def test_the_language_is_guessed_from_characters() -> None:
    assert guess_language(["这部电影很好看, IMDb 9.0"]) == "zh"
    assert guess_language(["この映画はとても面白い"]) == "ja"
    assert guess_language(["A film called 你好, mostly English"]) == "en"
    assert guess_language([]) == "en"


# Aligned text.
def test_rewriting_keeps_where_every_character_came_from() -> None:
    text = Aligned.of("so &amp; so").replace("amp;", "&").replace("&&", "and")
    assert text.text == "so and so"
    assert text.span(0, 2) == Span(0, 2)
    assert text.span(3, 6) == Span(3, 8)
    assert text.span(7, 9) == Span(9, 11)
    assert text.spans([0, 7], [1, 8]) == [Span(0, 2), Span(9, 11)]
    assert text.strip() is text
    assert Aligned.of("  x ").strip().span(0, 1) == Span(2, 3)
    assert Aligned.of("   ").strip().span(0, 0) == Span(0, 0)


@given(st.text("ab ", max_size=30), st.text("ab", min_size=1, max_size=3), st.text("abc", max_size=4))
def test_aligned_text_reads_as_plain_text(text: str, old: str, new: str) -> None:
    aligned = Aligned.of(text).replace(old, new)
    assert aligned.text == text.replace(old, new)
    assert len(aligned.starts) == len(aligned.ends) == len(aligned.text)
    assert list(aligned.starts) == sorted(aligned.starts)
    assert list(aligned.ends) == sorted(aligned.ends)
    double = re.compile("(a)(b)")
    swap = lambda match: [(match[2], *match.span(2)), (match[1], *match.span(1))]  # noqa: E731
    assert Aligned.of(text).sub(double, swap).text == rewritten(text, double, swap)
