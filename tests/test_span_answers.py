"""Answers without a place, or with a wrong one, are found as whole words before parts of longer ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretune.data.passages import read_passages
from pretune.data.samples import Span
from pretune.data.span_answers import NEAR, SpanAnswer, placed, within_words

PARTY = "The party showed modern art, an artist said; art 5 of 15."


@pytest.mark.parametrize(
    ("text", "start", "span"),
    [
        ("art", None, (24, 27)),  # not in "party"
        ("art", 5, (5, 8)),  # exactly where the file says
        ("art", 6, (24, 27)),  # the file errs: "party" is nearer, but no whole word
        ("art", 40, (45, 48)),
        ("art", 30, (24, 27)),  # six characters away, the other fifteen
        ("5", None, (49, 50)),
        ("1", None, (54, 55)),  # within 15 alone
        ("part", None, (4, 8)),
        ("modern  art", None, (17, 27)),  # other white space
        ("art an", None, (24, 31)),  # other signs
        ("par", None, (4, 7)),
    ],
)
def test_whole_words_come_first(text: str, start: int | None, span: tuple[int, int]) -> None:
    found = placed(PARTY, text, start)
    assert found.span == Span(*span) and found.text == PARTY[slice(*span)]


def test_part_of_a_word_is_what_the_file_says_sooner_than_letters_with_signs_between_them() -> None:
    assert placed("I like ham. At 5 a.m. we", "am").text == "am"


def test_chinese_answers_are_never_within_words_and_words_beside_them_are() -> None:
    assert placed("他住在上海市", "上海") == SpanAnswer("上海", Span(3, 5))
    assert not within_words("他住在上海市", Span(3, 5))
    assert placed("用iPhones和Phone店", "Phone").span == Span(9, 14)
    assert within_words("用iPhones", Span(2, 7))


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab c.中", max_size=30), st.text(alphabet="ab c.中", min_size=1, max_size=4))
def test_what_is_found_stands_there(passage: str, text: str) -> None:
    found = placed(passage, text)
    if text in passage:
        assert found.span is not None
    if found.span is not None:
        assert passage[slice(*found.span)] == found.text and found.text
        here = [i for i in range(len(passage)) if passage.startswith(text, i)]
        whole = [i for i in here if not within_words(passage, Span(i, i + len(text)))]
        assert not whole or found.span == Span(whole[0], whole[0] + len(text))


def test_far_from_where_the_file_says_nothing_is_taken() -> None:
    passage = "art " + "x" * 3 * NEAR + " party"
    assert placed(passage, "art", NEAR + 20).span is None
    assert placed(passage, "art", len(passage) - 3).span == Span(len(passage) - 4, len(passage) - 1)


def test_a_note_says_how_many_were_only_found_within_words(tmp_path: Path) -> None:
    def line(passage: str, *answers: object) -> str:
        return json.dumps({"question": "What?", "passage": passage, "answers": answers})

    path = tmp_path / "x.jsonl"
    rows = [
        line("A party.", "art"),
        line("A party of art.", "art"),
        line("A party!", {"text": "art", "start": 3}),  # exact: as the file has it
        line("A party?", {"text": "art", "start": 1}),
    ]
    path.write_text("\n".join(rows), encoding="utf-8")
    found = read_passages(path)
    assert [x.gold[0].span for x in found.samples] == [Span(3, 6), Span(11, 14), Span(3, 6), Span(3, 6)]
    said = "x.jsonl: 2 answers found only within longer words; check them (x.jsonl:1, x.jsonl:4)"
    assert said in found.notes
