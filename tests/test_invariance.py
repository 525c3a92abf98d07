"""A text's answer depends on that text alone: not on its batch, its neighbours or their order."""

from __future__ import annotations

from random import Random

import pytest

import tiny
from pretune.data.samples import Sample, sample
from pretune.methods import METHODS
from pretune.runs.trained import TrainedModel, join
from pretune.tasks.classification import Classification

BPTT = 10
LENGTHS = sorted({1, 2, 3, 300, *(k * BPTT + d for k in (1, 2, 3, 4, 5, 10, 29) for d in (-2, -1, 0, 1, 2))})
TASK = Classification(labels=("a", "b", "c"), head_kind="two_layer")


def model(method: str, recipe: str, **encoder: object) -> TrainedModel:
    """Random weights, in eval mode."""
    made = join(tiny.start(method, **encoder), TASK, tiny.recipe(recipe), 0)
    made.model.eval()
    return made


def samples(lengths: list[int]) -> list[Sample]:
    chance = Random(1)
    return [sample(" ".join(chance.choices(tiny.WORDS, k=length)), key=str(length)) for length in lengths]


def scores(model: TrainedModel, some: list[Sample], batch_size: int) -> list[dict[str, float]]:
    return [answer.scores for answer in model.answers(some, batch_size)]


@pytest.mark.parametrize("recipe", ["features", "full"])  # gradual wraps nothing either
@pytest.mark.parametrize("method", METHODS)
def test_scores_are_equal_alone_in_any_batch_and_in_any_order(method: str, recipe: str) -> None:
    some, asked = samples(LENGTHS), model(method, recipe)
    alone = scores(asked, some, 1)
    assert len({round(x["a"], 6) for x in alone}) > len(some) / 2  # else the test would show nothing
    order = list(range(len(some)))
    for batch_size in (2, 7, len(some)):
        Random(batch_size).shuffle(order)
        together = scores(asked, [some[i] for i in order], batch_size)
        for i, found in zip(order, together, strict=True):
            assert found == pytest.approx(alone[i], abs=1e-5), some[i].key


@pytest.mark.parametrize("method", METHODS)
def test_scores_do_not_feel_a_much_longer_neighbour(method: str) -> None:
    asked = model(method, "full")
    short, long = samples([3]), samples([3, 300])
    assert scores(asked, long, 2)[0] == pytest.approx(scores(asked, short, 1)[0], abs=1e-5)


def test_where_a_long_text_is_cut_does_not_change_its_scores() -> None:
    some = samples([9, 10, 11, 35])
    at = [scores(model("ulmfit", "full", bptt=bptt), some, 4) for bptt in (10, 7, 100)]
    for found in at[1:]:
        for one, other in zip(at[0], found, strict=True):
            assert one == pytest.approx(other, abs=1e-5)


def test_an_empty_text_has_an_answer_too() -> None:
    for method in METHODS:
        assert sum(scores(model(method, "full"), [sample("")], 1)[0].values()) == pytest.approx(1)
