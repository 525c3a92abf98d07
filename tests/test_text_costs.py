"""What text costs beside a softmax: spelling, capitals; and the units that costs are shared out to."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

import tiny
from pretune.data.text_units import count_words, one_spaced
from pretune.metrics import capitals
from pretune.metrics.spelling_model import BEGINNING, END, OUTCOMES, SpellingModel
from pretune.runs.surfaces import kept, tokens_of, vocabulary


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's 3 o'clock -- nearly.", 4),
        ("他说：GPT很好。", 5),  # 他 说 GPT 很 好
        ("テスト、です", 5),
        ("well-known 中文word", 4),
        ("… — !", 0),
        ("", 0),
    ],
)
def test_words_are_counted_without_any_tokens(text: str, words: int) -> None:
    assert count_words(text) == words


def test_white_space_is_one_space() -> None:
    assert one_spaced(" a \t\n b\u3000c\u00a0") == "a b c"


def test_a_word_is_spelled_by_witten_bell() -> None:
    model = SpellingModel(["ab", "ac"])
    # characters and ends: a 2, b 1, c 1, end 2; 6 of them, 4 different
    a, b, x, end = ((n + 4 / OUTCOMES) / (6 + 4) for n in (2, 1, 0, 2))
    first = (2 + 1 * (2 + 1 * a) / (2 + 1)) / (2 + 1)  # at the beginning stood a twice, nothing else
    second = (1 + 2 * (1 + 2 * b) / (2 + 2)) / (2 + 2)  # after a, and after the beginning and a: b or c
    third = (1 + 1 * (1 + 1 * end) / (1 + 1)) / (1 + 1)  # after b, and after ab: an end
    assert model.nats("ab") == pytest.approx(-log(first * second * third), rel=1e-12)
    unknown = 1 / 3 * (1 / 3 * x)  # x at the beginning
    assert model.nats("x") == pytest.approx(-log(unknown * end), rel=1e-12)


def test_spellings_share_one_probability() -> None:
    model = SpellingModel(["film", "fine", "be", "é"])
    seen = {*"filmnebé", END}
    for history in ("", BEGINNING * 2, "fi", "in", "zz", "éf"):
        total = sum(model.probability(c, history) for c in seen)
        rest = model.probability("z", history)
        assert total + (OUTCOMES - len(seen)) * rest == pytest.approx(1, rel=1e-9)


def test_capitals_cost_what_their_shares_say() -> None:
    text = "The cat I saw. The NATO McGee said"
    counts, mixed = capitals.changes(text.lower(), text)
    wanted = np.zeros(capitals.SHAPE, int)
    wanted[capitals.AT_START, capitals.FIRST] = 2
    wanted[capitals.SINGLE, capitals.FIRST] = 1
    wanted[capitals.ELSEWHERE] = [3, 0, 1, 1]  # cat, saw, said as read; NATO; McGee
    assert counts.tolist() == wanted.tolist() and mixed == 5
    other, none = capitals.changes("cats", "cats")
    found = capitals.costs(np.stack([counts, other]), np.array([mixed, none]))
    at_start = [-2 * log(2 / 3), -log(1 / 3)]  # two of three words at a beginning are changed
    elsewhere = -3 * log(3 / 5) - 2 * log(1 / 5)
    assert found == pytest.approx([at_start[0] + elsewhere + 5 * log(2), at_start[1]])


def test_capitals_that_are_read_cost_nothing() -> None:
    text = "The NATO, I say, is McGee's; ÉTÉ 中文."
    counts, mixed = capitals.changes(text, text)
    assert mixed == 0 and counts[:, 1:].sum() == 0
    assert capitals.costs(counts[None], np.array([mixed])) == [0]


@pytest.mark.parametrize(
    ("method", "text", "read", "changed"),
    [
        ("ulmfit", "The FILM wasn't McGood", "The FILM wasn't mcgood", 0),
        ("ulmfit", "so good!!!! The end", "so good!!!! The end", 0),  # xxrep 4 !
        ("ulmfit", "good &amp; bad", "good &amp; bad", 4),  # read as &&, as fastai does
        ("elmo", "The FILM wasn't McGood", "The FILM wasn't McGood", 0),
        ("gpt", "The FILM, I say", "the film, i say", 0),
        ("bert", "The FILM, I say", "the film, i say", 0),
        ("bert", "a bàd film", "a bàd film", 1),
        ("bert", "bad\u0007 film", "bad\u0007 film", 1),  # a control character, dropped
    ],
)
def test_what_a_codec_keeps_of_a_text(method: str, text: str, read: str, changed: int) -> None:
    found = kept(text, tokens_of(tiny.start(method).codec, text))
    assert found.read == read
    assert found.changed == changed


def test_vocabularies_are_words_without_marks() -> None:
    for method in ("ulmfit", "elmo", "gpt", "bert"):
        words = set(vocabulary(tiny.start(method).codec))
        assert "film" in words or method == "bert"
        assert not [word for word in words if word.startswith(("xx", "<", "[", "_", "##"))]
        assert not [word for word in words if word.endswith("</w>") or word == "\n"]
