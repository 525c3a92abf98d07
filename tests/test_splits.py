"""Splits are stratified and seeded, subsamples nest, and leaks do not pass unnoticed."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretune.data.samples import Sample, sample
from pretune.data.splits import check_labels, split, subsample, without_leaks
from pretune.errors import UsageError, UserError
from pretune.runs.prepare import texts_of

GOLDS = st.one_of(
    st.lists(st.sampled_from("aaaabbc"), min_size=2, max_size=60),
    st.lists(st.floats(-5, 5), min_size=2, max_size=60),
    st.lists(st.sampled_from([(), ("a",), ("a", "b"), ("b",)]), min_size=2, max_size=60),
)


def of(golds: list[object]) -> list[Sample]:
    return [sample(f"text {i}", key=f"train.csv:{i + 2}", gold=gold) for i, gold in enumerate(golds)]


def counts(samples: list[Sample]) -> Counter[object]:
    return Counter(s.gold for s in samples)


@settings(max_examples=80, deadline=None)
@given(golds=GOLDS, fraction=st.floats(0.01, 0.99), seed=st.integers(0, 5), stratify=st.booleans())
def test_a_split_shares_out_every_sample_once_in_order(
    golds: list[object], fraction: float, seed: int, stratify: bool
) -> None:
    samples = of(golds)
    rest, held = split(samples, fraction, seed, stratify)
    assert rest and held
    assert sorted(rest + held, key=samples.index) == samples
    assert rest == sorted(rest, key=samples.index) and held == sorted(held, key=samples.index)
    assert split(samples, fraction, seed, stratify) == (rest, held)


def test_a_stratified_split_keeps_the_proportions() -> None:
    samples = of([*["a"] * 70, *["b"] * 25, *["c"] * 5])
    rest, held = split(samples, 0.2, 3)
    assert counts(held) == {"a": 14, "b": 5, "c": 1}
    assert counts(rest) == {"a": 56, "b": 20, "c": 4}
    assert split(samples, 0.2, 4)[1] != held


def test_a_class_of_one_stays_in_training_and_its_absence_is_noted() -> None:
    rest, held = split(of([*["a"] * 20, *["b"] * 20, "rare"]), 0.1, 1)
    assert counts(rest)["rare"] == 1 and len(held) == 4
    assert check_labels(rest, held, "one") == ["train.csv: no held-out example of 1 trained label: 'rare'"]


def test_a_fraction_too_small_for_every_class_still_splits() -> None:
    rest, held = split(of([chr(97 + i % 20) for i in range(40)]), 0.05, 1)
    assert len(held) == 2 and len(counts(rest)) == 20


def test_numbers_are_split_by_quantile() -> None:
    _, held = split(of([float(i) for i in range(100)]), 0.1, 1)
    assert sorted(int(s.gold) // 10 for s in held) == list(range(10))


def test_the_split_is_the_same_on_every_machine() -> None:
    samples = of(["a", "b"] * 10)
    assert [s.key for s in split(samples, 0.2, 7)[1]] == [
        "train.csv:6",
        "train.csv:8",
        "train.csv:11",
        "train.csv:21",
    ]
    assert [s.key for s in subsample(samples, 4, 7)] == [
        "train.csv:2",
        "train.csv:5",
        "train.csv:15",
        "train.csv:20",
    ]


@settings(max_examples=80, deadline=None)
@given(golds=GOLDS, seed=st.integers(0, 5))
def test_smaller_subsamples_lie_in_larger_ones(golds: list[object], seed: int) -> None:
    samples = of(golds)
    drawn = [{s.key for s in subsample(samples, size, seed)} for size in range(1, len(samples) + 1)]
    assert all(len(keys) == size for size, keys in enumerate(drawn, 1))
    assert all(small < large for small, large in pairwise(drawn))
    assert subsample(samples, len(samples), seed) == samples


@pytest.mark.parametrize("size", [10, 50, 200])
def test_a_subsample_keeps_the_proportions_and_every_class(size: int) -> None:
    samples = of([*["a"] * 600, *["b"] * 380, *["c"] * 20])
    drawn = counts(subsample(samples, size, 5))
    assert all(drawn.values()) and len(drawn) == 3
    assert abs(drawn["a"] - 0.6 * size) <= 1.5
    assert abs(drawn["c"] - 0.02 * size) <= 1


def test_seeds_draw_different_subsamples() -> None:
    samples = of(["a", "b"] * 50)
    assert subsample(samples, 20, 1) != subsample(samples, 20, 2)


def test_sizes_and_fractions_out_of_range_are_refused() -> None:
    samples = of(["a", "b"])
    with pytest.raises(UsageError, match=r"train\.csv: 3 rows asked for; there are 2"):
        subsample(samples, 3, 1)
    with pytest.raises(UsageError, match="fraction is 1"):
        split(samples, 1, 1)


def test_a_text_that_comes_with_several_questions_is_read_once() -> None:
    asked = [sample(f"question {i}?", f"passage {i // 5}", gold="x") for i in range(20)]
    texts = texts_of(asked)
    assert len(texts) == len(set(texts)) == 20 + 4


def test_texts_of_the_test_set_are_removed_from_training() -> None:
    train = [
        sample("The  same\ntext ", key="train.csv:2", gold="a"),
        sample("Cafe\u0301", key="train.csv:3", gold="a"),
        sample("another", key="train.csv:4", gold="b"),
        sample("the same text", "with a second part", key="train.csv:5", gold="b"),
    ]
    test = [sample("the same text", key="test.csv:2"), sample("CAFÉ", key="test.csv:3")]
    clean, notes = without_leaks(train, test)
    assert clean == train[2:]
    assert notes == [
        "train.csv: 2 training rows removed, of the same text as a test row (train.csv:2, train.csv:3)"
    ]
    assert without_leaks(clean, test) == (clean, [])


def test_training_on_the_test_file_is_refused() -> None:
    with pytest.raises(UserError, match=r"train\.csv: every text also stands in train\.csv; give other rows"):
        without_leaks(of(["a", "b"]), of(["a", "b"]))


def test_labels_seen_only_in_test_are_noted() -> None:
    train, test = (
        of(["a", "b"]),
        [sample("x", key="test.csv:2", gold="c"), sample("y", key="test.csv:3", gold="a")],
    )
    assert check_labels(train, test, "one") == [
        "test.csv: labels never seen in training count as errors: 'c' 1",
        "test.csv: no held-out example of 1 trained label: 'b'",
    ]


def test_equal_texts_with_different_labels_are_noted_and_kept() -> None:
    train = [sample("So so", key="a.csv:2", gold="x"), sample("so  so", key="a.csv:3", gold="y")]
    assert check_labels(train, [], "one") == [
        "a.csv: 1 text in training with different labels, kept (a.csv:2 and a.csv:3)"
    ]


@pytest.mark.parametrize(
    ("golds", "kind", "found"),
    [
        (["a", "a"], "one", "2 training rows, all with the label 'a'; nothing to tell apart"),
        ([2.5, 2.5], "number", "2 training rows, all with the number 2.5"),
        ([("a", "b"), ("a", "b")], "many", "all with the label 'a' \\+ 'b'"),
        ([(), ()], "many", r"all with the label \(none of the labels\)"),
        ([], "one", "0 training rows; nothing"),
    ],
)
def test_training_rows_that_are_all_alike_are_refused(golds: list[object], kind: str, found: str) -> None:
    with pytest.raises(UserError, match=found):
        check_labels(of(golds), [], kind)  # type: ignore[arg-type]


def test_what_belongs_together_is_never_parted() -> None:
    samples = [sample(f"text {i}", key=str(i % 7), gold="a") for i in range(50)]

    def of(one: Sample) -> str:
        return one.key

    rest, held = split(samples, 0.3, 1, stratify=False, together=of)
    assert {x.key for x in held}.isdisjoint(x.key for x in rest) and len({x.key for x in held}) == 2
    assert sorted([*rest, *held], key=samples.index) == samples
    one, other = split(samples[::7], 0.5, 1, together=of)  # all of one unit: each stands alone
    assert len(one) == len(other) == 4
    last: list[Sample] = []
    for size in (5, 12, 30, 50):
        drawn = subsample(samples, size, 3, of)
        assert len(drawn) == size and set(last) <= set(drawn) and drawn == sorted(drawn, key=samples.index)
        whole = [
            key
            for key in {x.key for x in drawn}
            if sum(x.key == key for x in drawn) < (8 if key == "0" else 7)
        ]
        assert len(whole) <= 1  # units that were cut
        last = drawn
    assert subsample(samples, 5, 3, of) != subsample(samples, 5, 4, of)
