"""Metrics agree with scikit-learn and scipy, and intervals and tests hold what their names say."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from pretune.errors import UserError
from pretune.metrics.bootstrap import (
    error_of_splits,
    interval,
    interval_of,
    mcnemar,
    of_items,
    of_mean,
    on_draws,
    resampled,
    two_sided,
)
from pretune.metrics.classification import accuracy, by_label, confusion, macro_f1, micro_f1
from pretune.metrics.regression import mae, pearson, rmse, spearman

CHANCE = np.random.default_rng(0)
GOLDS = [str(x) for x in CHANCE.integers(0, 5, 200)]
ANSWERS = [gold if CHANCE.random() < 0.6 else str(CHANCE.integers(0, 6)) for gold in GOLDS]


def test_each_label_scores_as_in_scikit_learn():
    found = by_label(GOLDS, ANSWERS, ["0", "7"])
    assert list(found) == ["0", "7", "1", "2", "3", "4", "5"]  # the task's first, then what else there is
    names = sorted(found)
    theirs = sk.precision_recall_fscore_support(GOLDS, ANSWERS, labels=names, zero_division=0)
    for name, *wanted in zip(names, *theirs, strict=True):
        assert found[name] == pytest.approx(tuple(wanted))
    several = by_label([("a", "b"), ("a",), ()], [("a",), ("b",), ()])
    assert several["a"] == (1, 0.5, pytest.approx(2 / 3), 2)
    assert several["b"] == (0, 0, 0, 1)


def test_single_labels_score_as_in_scikit_learn():
    assert accuracy(GOLDS, ANSWERS) == pytest.approx(sk.accuracy_score(GOLDS, ANSWERS))
    assert macro_f1(GOLDS, ANSWERS) == pytest.approx(
        sk.f1_score(GOLDS, ANSWERS, average="macro", zero_division=0)
    )
    assert micro_f1(GOLDS, ANSWERS) == pytest.approx(accuracy(GOLDS, ANSWERS))


def test_several_labels_score_as_in_scikit_learn():
    golds = CHANCE.integers(0, 2, (50, 4))
    answers = CHANCE.integers(0, 2, (50, 4))
    named = [[tuple("abcd"[i] for i in np.flatnonzero(row)) for row in table] for table in (golds, answers)]
    assert micro_f1(*named) == pytest.approx(sk.f1_score(golds, answers, average="micro"))
    assert macro_f1(*named) == pytest.approx(sk.f1_score(golds, answers, average="macro"))


def test_a_perfect_answer_scores_one_and_nothing_to_find_scores_zero():
    assert accuracy(["a"], ["a"]) == micro_f1(["a"], ["a"]) == macro_f1(["a"], ["a"]) == 1
    assert micro_f1([()], [()]) == macro_f1([()], [()]) == 0


def test_confusion_counts_as_in_scikit_learn_and_keeps_labels_unseen_in_training():
    labels, counts = confusion(GOLDS, ANSWERS, labels=["4", "3", "2", "1", "0"])
    assert labels == ["4", "3", "2", "1", "0", "5"]
    assert (counts == sk.confusion_matrix(GOLDS, ANSWERS, labels=labels)).all()


def test_numbers_score_as_in_scipy_and_scikit_learn():
    x = CHANCE.integers(0, 10, 100).astype(float)
    y = x + CHANCE.normal(0, 3, 100).round()
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y)[0])
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y)[0])
    assert mae(x, y) == pytest.approx(sk.mean_absolute_error(x, y))
    assert rmse(x, y) == pytest.approx(sk.root_mean_squared_error(x, y))


def test_a_constant_answer_has_no_correlation():
    assert pearson([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]) == spearman([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]) == 0


@pytest.mark.parametrize("metric", [accuracy, micro_f1, macro_f1, pearson, spearman, mae, rmse])
def test_lists_of_unlike_length_are_a_clear_error(metric):
    with pytest.raises(UserError, match="cannot score"):
        metric([], [])


def test_an_interval_holds_the_mean_and_is_about_as_wide_as_the_binomial_says():
    right = (CHANCE.random(1000) < 0.8).astype(float)
    low, high = interval(right)
    assert low < right.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.16 / 1000), rel=0.15)


def test_seeds_that_disagree_widen_the_interval():
    agree = np.tile(np.repeat([1.0, 0.0], 500), (4, 1))
    disagree = np.stack([np.roll(np.repeat([1.0, 0.0], [500 + d, 500 - d]), d) for d in (-300, -50, 50, 300)])
    assert np.diff(interval(disagree)) > 2 * np.diff(interval(agree))


def test_the_interval_of_a_metric_function_is_that_of_its_mean():
    right = [int(gold == answer) for gold, answer in zip(GOLDS, ANSWERS, strict=True)]
    assert interval_of(accuracy, GOLDS, [ANSWERS]) == pytest.approx(interval(right), abs=0.01)


def test_an_interval_is_repeated_by_its_seed():
    right = CHANCE.random(50)
    assert interval(right, seed=1) == interval(right, seed=1) != interval(right, seed=2)


def test_ten_thousand_examples_are_resampled_in_seconds():
    start = time.process_time()
    interval((CHANCE.random((3, 10_000)) < 0.9).astype(float))
    assert time.process_time() - start < 3


def paired(a, b, resamples=2000):
    """The p of two approaches, each a list of its seeds."""
    drawn = resampled({"a": dict(enumerate(a)), "b": dict(enumerate(b))}, resamples)
    return two_sided(drawn["a"] - drawn["b"])


def test_the_paired_bootstrap_sees_a_difference_that_is_there_and_none_that_is_not():
    better, worse = [of_mean(CHANCE.random(500) < 0.9)], [of_mean(CHANCE.random(500) < 0.7)]
    assert paired(better, worse) < 0.01
    assert paired(worse, better) < 0.01
    assert paired(better, better) == 1
    coins = CHANCE.random((2, 500)) < 0.5
    assert paired([of_mean(coins[0])], [of_mean(coins[1])]) > 0.05


def test_the_paired_bootstrap_takes_any_metric_and_unlike_numbers_of_seeds():
    wrong, right = ["z"] * len(GOLDS), of_items(macro_f1, GOLDS, GOLDS)
    several = [right, of_items(macro_f1, GOLDS, ANSWERS)]
    assert paired(several, [of_items(macro_f1, GOLDS, wrong)], 200) < 0.02
    assert paired([of_mean(np.ones(40))] * 3, [of_mean(np.zeros(40))]) < 0.01


def runs_of(**approaches):
    """Tables of examples' scores, (seeds, examples) each."""
    return {name: {s: of_mean(row) for s, row in enumerate(table)} for name, table in approaches.items()}


def test_a_difference_is_paired_by_example_and_by_seed():
    """A constant lead over answers that vary as they like has no spread at all."""
    scores = CHANCE.random((3, 60))
    runs = runs_of(a=scores, b=scores + 0.1)
    drawn, splits = resampled(runs, 300), on_draws(runs, 300, shared=False)
    np.testing.assert_allclose(drawn["b"] - drawn["a"], 0.1)
    np.testing.assert_allclose(splits["b"] - splits["a"], 0.1)
    assert drawn["a"].std() > 0.005 and splits["a"].std(0).min() > 0.005


def test_the_bootstrap_spreads_as_seeds_and_examples_do():
    """Of 3 seeds whose means vary by 0.05 and 400 examples that vary by 0.4, over 150 experiments."""
    true = 0.05**2 / 3 + 0.4**2 / 400
    spreads = []
    for _ in range(150):
        table = CHANCE.normal(0, 0.05, (3, 1)) + CHANCE.normal(0, 0.4, (1, 400))
        spreads.append(resampled(runs_of(a=table), 300)["a"].var())
    assert np.mean(spreads) == pytest.approx(true, rel=0.15)
    assert np.mean(spreads) > 1.1 * (0.05**2 / 3 * 2 / 3 + 0.4**2 / 400)  # seeds drawn without the stretch


def test_validation_splits_know_as_much_as_their_examples_and_seeds():
    """Of three seeds with 100 examples each: without any difference of seeds as 300 examples know."""
    alike = np.tile(np.repeat([1.0, 0.0], 50), (3, 1))
    apart = alike + np.array([[-0.2], [0.0], [0.2]])
    found = on_draws(runs_of(alike=alike, apart=apart), 2000, shared=False)
    assert error_of_splits(found["alike"]) == pytest.approx(0.5 / np.sqrt(300), rel=0.05)
    assert error_of_splits(found["apart"]) == pytest.approx(0.2 / np.sqrt(3), rel=0.05)
    assert error_of_splits(found["alike"][:, :1]) == pytest.approx(0.05, rel=0.05)


def test_mcnemar_is_the_exact_binomial_test():
    a, b = CHANCE.random(300) < 0.85, CHANCE.random(300) < 0.75
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    assert mcnemar(a, b) == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue)
    assert mcnemar([True], [True]) == 1
    assert mcnemar([True] * 3000, [False] * 3000) < 1e-300
