"""The metrics of coreference on the cases that the official scorer is tested with, and on cases by hand."""

from __future__ import annotations

from itertools import permutations
from random import Random

import numpy as np
import pytest

from pretune.errors import UserError
from pretune.metrics.coreference import scores_of, tallies

KEY_A = "a bc def"
# case: key, response, (recall, precision) of MUC, of B³, of CEAF-e as published; None where they are not
CASES = {
    "TC-A-1": (KEY_A, "a bc def", (1, 1), (1, 1), (1, 1)),
    "TC-A-2": (KEY_A, "a de", (1 / 3, 1), (7 / 18, 1), (0.6, 0.9)),
    "TC-A-3": (KEY_A, "a bcx defy z", (1, 3 / 5), (1, 55 / 108), (0.88571, 0.66429)),
    "TC-A-4": (KEY_A, "a bcx dy z", (1 / 3, 1 / 3), (5 / 9, 17 / 42), (0.73333, 0.55)),
    "TC-A-5": (KEY_A, "a bcxB dy z", (1 / 3, 1 / 4), (5 / 9, 5 / 16), (0.68889, 0.51667)),
    "TC-A-6": (KEY_A, "a bcx dy Bz", (1 / 3, 1 / 4), (5 / 9, 17 / 48), (0.73333, 0.55)),
    "TC-A-7": (KEY_A, "a bcxb dy z", (1 / 3, 1 / 3), (5 / 9, 17 / 42), (0.73333, 0.55)),
    "TC-A-8": (KEY_A, "a bcx dy bz", (1 / 3, 1 / 3), (5 / 9, 17 / 42), (0.73333, 0.55)),
    "TC-A-9": (KEY_A, "a bcx dy bbbbbbbbbbz", (1 / 3, 1 / 3), (5 / 9, 17 / 42), (0.73333, 0.55)),
    "TC-A-10": (KEY_A, "a b c d e f", (0, 0), (3 / 6, 1), None),
    "TC-A-11": (KEY_A, "abcdef", (1, 3 / 5), (1, 7 / 18), None),
    "TC-A-12": (KEY_A, "a x y c d e z", (0, 0), (13 / 36, 4 / 7), None),
    "TC-A-13": (KEY_A, "axycdez", (1 / 3, 1 / 6), (17 / 36, 6 / 49), None),
    "TC-D-1": ("12345 67 89ABC", "12345 6789ABC", (1, 9 / 10), (1, 16 / 21), None),
    "TC-E-1": ("12345 67 89ABC", "1234589ABC 67", (1, 9 / 10), (1, 7 / 12), None),
    "TC-F-1": ("ABCD", "AB CD", (2 / 3, 1), None, None),
    "TC-G-1": ("AB CD", "ABCD", (1, 2 / 3), None, None),
    "TC-J-1": ("ABC", "AC", (1 / 2, 1), None, None),
    "TC-K-1": ("BCDEGHJ", "ABC DEF GHI", (3 / 6, 3 / 6), None, None),
    "TC-L-1": ("ABC DEFG", "AB CD FGH", (2 / 5, 2 / 4), None, None),
    "TC-M-1": ("abcdef", "abcdef", (1, 1), (1, 1), (1, 1)),
    "TC-M-2": ("abcdef", "a b c d e f", (0, 0), None, None),
    "TC-N-1": ("a b c d e f", "a b c d e f", (0, 0), (1, 1), (1, 1)),
    "TC-N-4": ("a b c d e f", "a b c x y z", (0, 0), None, None),
}


def scores(key: str, said: str) -> dict[str, float]:
    return scores_of(tallies([key.split()], [said.split()]).sum(0))


@pytest.mark.parametrize("case", CASES)
def test_cases_of_the_official_scorer_come_out_as_published(case: str) -> None:
    key, said, *expected = CASES[case]
    found = scores(key, said)
    for name, sides in zip(("muc", "b_cubed", "ceaf_e"), expected, strict=True):
        if sides is None:
            continue
        assert (found[f"{name}_recall"], found[f"{name}_precision"]) == pytest.approx(sides, abs=6e-6), name
        recall, precision = sides
        f1 = 2 * recall * precision / (recall + precision) if recall + precision else 0
        assert found[f"{name}_f1"] == pytest.approx(f1, abs=1e-5)


def test_the_score_of_conll_is_the_mean_of_three() -> None:
    found = scores(KEY_A, "a de")
    assert found["muc_f1"] == pytest.approx(1 / 2)
    assert found["b_cubed_f1"] == pytest.approx(14 / 25)
    assert found["ceaf_e_f1"] == pytest.approx(0.72)
    assert found["conll_f1"] == pytest.approx((1 / 2 + 14 / 25 + 0.72) / 3)
    assert found["mention_recall"] == pytest.approx(3 / 6) and found["mention_precision"] == 1


def test_documents_are_added_up_before_they_are_divided() -> None:
    golds, answers = [["ab"], ["cdef"]], [["ab"], ["cd", "ef"]]
    rows = tallies(golds, answers)
    assert rows[:, :4].tolist() == [[1, 1, 1, 1], [2, 3, 2, 2]]  # links
    assert scores_of(rows.sum(0))["muc_recall"] == pytest.approx(3 / 4)
    # phi4: 1 of ab; 2 * 2 / (4 + 2) of cdef, which is aligned with one of two
    assert scores_of(rows.sum(0))["ceaf_e_precision"] == pytest.approx((1 + 2 / 3) / 3)


def test_singletons_count_where_they_stand_but_not_as_links() -> None:
    with_singleton, without = scores("ab c", "ab c"), scores("ab c", "ab")
    assert with_singleton["conll_f1"] == 1
    assert without["muc_f1"] == 1
    assert without["b_cubed_recall"] == pytest.approx(2 / 3) and without["ceaf_e_recall"] == 1 / 2


def test_nothing_said_or_nothing_to_find_scores_zero() -> None:
    assert set(scores("ab cd", "").values()) == {0.0}
    assert set(scores("", "ab cd").values()) == {0.0}
    assert set(scores("", "").values()) == {0.0}
    with pytest.raises(UserError, match="cannot score 0 answers against 1 golds"):
        tallies([["ab"]], [])


def test_the_alignment_of_clusters_is_the_best_of_all() -> None:
    chance = Random(3)
    for _ in range(20):
        key, said = ([list[str]() for _ in range(4)] for _ in range(2))
        for mention in "abcdefghijkl":
            chance.choice(key).append(mention)
            chance.choice(said).append(mention)
        key, said = ([x for x in some if x] for some in (key, said))
        few, many = sorted((key, said), key=len)
        best = max(
            sum(2 * len({*x} & {*y}) / (len(x) + len(y)) for x, y in zip(few, order, strict=False))
            for order in permutations(many)
        )
        assert tallies([key], [said])[0, 8] == pytest.approx(best)


def test_who_is_gold_and_who_answers_turns_recall_and_precision_round() -> None:
    one, other = "abc de f", "ab cdx f"
    there, back = scores(one, other), scores(other, one)
    for name in ("muc", "b_cubed", "ceaf_e", "mention"):
        assert there[f"{name}_recall"] == pytest.approx(back[f"{name}_precision"])
    assert np.isclose(there["conll_f1"], back["conll_f1"])
