"""Gradual unfreezing as published: stages, rates, schedules, optimizers; and what a change of one leaves."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pretune.config import build, parse, to_dict, update
from pretune.encoder import Encoder
from pretune.errors import UsageError
from pretune.recipes import NAMES, VARIANTS
from pretune.recipes.gradual import Gradual
from pretune.recipes.published import SCHEDULES
from pretune.runs.run import changed, recipe_called
from pretune.tasks.classification import Classification
from pretune.training.loop import Fitting, fit
from pretune.training.optimizers import AdamW
from pretune.training.schedules import Constant, Cosine, MomentumCycle, OneCycle, SlantedTriangular
from pretune.training.sources import SampleSource
from pretune.training.stage import Stage
from test_recipes import CODEC, SAMPLES, TASK, Stack, answers, model_of, trained, vectors

GROUPS = ["embedding", "rnns.0", "rnns.1", "rnns.2", "head"]  # of an AWD-LSTM of three layers, bottom to top


def stages_of(recipe: Gradual, encoder: Encoder | None = None) -> list[Stage]:
    encoder = encoder or Stack()
    return recipe.stages(encoder, TASK.head(encoder))


def layerwise(lr: float) -> list[float]:
    """[lr / 2.6⁴, …, lr / 2.6, lr], as the release and slice(lr / 2.6⁴, lr) over five groups have it."""
    return [lr / 2.6**depth for depth in (4, 3, 2, 1, 0)]


FREEZING = [
    (1, 1, layerwise(0.01)),
    (2, 1, layerwise(0.01)),
    (3, 1, layerwise(0.01)),
    (4, 1, layerwise(0.01)),
]
# (groups that move, epochs, rates from the bottom) of each stage: the table of the specification
STAGES: dict[str, list[tuple[int, int, list[float]]]] = {
    "few_labels": [*FREEZING, (5, 8, layerwise(0.01))],
    "paper": [*FREEZING, (5, 50, layerwise(0.01))],
    "script": [(1, 1, layerwise(0.01)), (2, 1, layerwise(0.01)), (5, 50, layerwise(0.01))],
    "fastai1": [
        (1, 1, layerwise(0.1)),
        (2, 1, layerwise(0.05)),
        (3, 1, layerwise(0.025)),
        (5, 2, layerwise(0.005)),
    ],
    "fastai2": [
        (1, 1, layerwise(0.02)),
        (2, 1, layerwise(0.01)),
        (3, 1, layerwise(0.005)),
        (5, 2, layerwise(0.001)),
    ],
    "fine_tune": [(1, 1, [0.01] * 5), (5, 4, [0.005 / 100 ** (depth / 4) for depth in (4, 3, 2, 1, 0)])],
    "multifit": [(5, 8, [0.01 / 2.6**4 * (2 * 2.6**4) ** (height / 4) for height in range(5)])],
    "transformer": [*((n, 1, layerwise(0.001)) for n in range(1, 5)), (5, 8, layerwise(0.001))],
}
ADAM = {
    "few_labels": AdamW(0.7, 0.99),
    "paper": AdamW(0.7, 0.99),
    "script": AdamW(0.8, 0.99),
    "fastai1": AdamW(0.9, 0.99),
    "fastai2": AdamW(0.9, 0.99, 1e-5),
    "fine_tune": AdamW(0.9, 0.99, 1e-5),
    "multifit": AdamW(0.9, 0.99),
    "transformer": AdamW(),
}
# (samples a step, weight decay, largest gradient norm)
SIZES = {
    "few_labels": (32, 0.01, 25),
    "paper": (64, 1e-6, 25),
    "script": (32, 1e-6, 25),
    "fastai1": (128, 0.01, None),
    "fastai2": (64, 0.01, None),
    "fine_tune": (64, 0.01, None),
    "multifit": (18, 0.01, 0.12),
    "transformer": (16, 0.01, 1),
}
WITHIN = {  # the schedules of the first and of the last stage
    "few_labels": (SlantedTriangular(0.1, 32), SlantedTriangular(0.1, 32)),
    "paper": (SlantedTriangular(0.1, 32), SlantedTriangular(0.1, 32)),
    "script": (SlantedTriangular(1 / 3, 8), SlantedTriangular(1 / 8, 8)),
    "fastai1": (OneCycle(0.3, 25, 25e4), OneCycle(0.3, 25, 25e4)),
    "fastai2": (OneCycle(0.25, 25, 1e5), OneCycle(0.25, 25, 1e5)),
    "fine_tune": (OneCycle(0.99, 25, 1e5), OneCycle(0.3, 5, 1e5)),
    "multifit": (OneCycle(0.3, 25, 25e4), OneCycle(0.3, 25, 25e4)),
    "transformer": (SlantedTriangular(0.1, 32), SlantedTriangular(0.1, 32)),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_named_schedule_is_the_published_one(name):
    recipe = Gradual(schedule=name)
    stages = stages_of(recipe)
    assert [(len(stage.groups), stage.epochs) for stage in stages] == [row[:2] for row in STAGES[name]]
    for stage, (moved, _, rates) in zip(stages, STAGES[name], strict=True):
        assert [group.name for group in stage.groups] == GROUPS[-moved:]
        assert [group.lr for group in stage.groups] == pytest.approx(rates[-moved:])
        assert stage.optimizer == ADAM[name]
    batch, decay, clip = SIZES[name]
    assert recipe.batch_size == batch
    assert {(group.weight_decay, stage.clip) for stage in stages for group in stage.groups} == {(decay, clip)}
    assert (stages[0].schedule, stages[-1].schedule) == WITHIN[name]
    assert (recipe.alpha, recipe.beta) == ((0, 0) if name == "transformer" else (2, 1))
    spares = name in ("fastai2", "fine_tune", "transformer")  # norms and biases
    assert {group.decay_all for stage in stages for group in stage.groups} == {not spares}


@pytest.mark.parametrize("name", SCHEDULES)
def test_momentum_cycles_with_the_rate_where_the_rate_is_one_cycle(name):
    for stage in stages_of(Gradual(schedule=name)):
        if isinstance(stage.schedule, OneCycle):
            assert stage.momentum == MomentumCycle(0.8, 0.7, stage.schedule.climb)
        else:
            assert stage.momentum is None


def test_rates_over_the_whole_encoder_end_at_the_same_rate_whatever_its_depth():
    shallow = vectors()  # one group and the head
    (stage,) = stages_of(Gradual(schedule="multifit"), shallow)
    assert [group.lr for group in stage.groups] == pytest.approx([0.01 / 2.6**4, 0.02])


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_stage_before_the_last_moves_everything(name):
    for encoder in (vectors(), Stack()):
        stages = stages_of(Gradual(schedule=name), encoder)
        groups = len(encoder.groups()) + 1
        assert [len(stage.groups) for stage in stages][-1] == groups
        assert all(len(stage.groups) < groups for stage in stages[:-1])


def test_what_is_said_wins_over_the_schedule_and_scales_its_later_stages():
    recipe = Gradual(
        schedule="fastai2", lr=0.04, epochs=5, thaw_epochs=2, beta1=0.85, clip=None, batch_size=7
    )
    stages = stages_of(recipe)
    assert [stage.groups[-1].lr for stage in stages] == pytest.approx([0.04, 0.02, 0.01, 0.002])
    assert [stage.epochs for stage in stages] == [2, 2, 2, 5]
    assert {stage.optimizer for stage in stages} == {AdamW(0.85, 0.99, 1e-5)}
    assert {stage.momentum for stage in stages} == {None}  # or the said beta1 would be nothing
    assert recipe.batch_size == 7
    assert Gradual(clip=None).clip is None


def test_share_and_ratio_of_the_climb_are_set_for_all_stages_at_once():
    stages = stages_of(Gradual(schedule="script", cut_frac=0.2, ratio=4))
    assert {stage.schedule for stage in stages} == {SlantedTriangular(0.2, 4)}
    (first, *_) = stages_of(Gradual(rate_schedule="one_cycle", momentum=(0.9, 0.8), cut_frac=0.4))
    assert (first.schedule, first.momentum) == (OneCycle(0.4, 32), MomentumCycle(0.9, 0.8, 0.4))


def test_settings_change_what_was_said_and_keep_the_rest_of_it():
    script = update(Gradual(), {"schedule": "script"}, "recipe")
    assert script == Gradual(schedule="script")
    assert update(script, {"lr": 0.5}, "recipe") == Gradual(schedule="script", lr=0.5)
    assert update(Gradual(lr=0.5), {"schedule": "fastai1"}, "recipe") == Gradual(schedule="fastai1", lr=0.5)
    assert update(Gradual(), {"thaw": "chain"}, "recipe") == Gradual(thaw="chain")
    cooled = update(Gradual(schedule="fastai2"), {"rate_schedule": "slanted_triangular"}, "recipe")
    assert cooled.momentum is None


@pytest.mark.parametrize("name", VARIANTS)
def test_a_recipe_comes_back_from_its_saved_settings(name):
    recipe = VARIANTS[name]
    assert build(type(recipe), to_dict(recipe), "recipe") == recipe


def test_settings_saved_before_schedules_had_names_mean_what_they_meant():
    old = {
        "lr": 0.01, "factor": 2.6, "epochs": 8, "thaw_epochs": 1, "batch_size": 32, "cut_frac": 0.1,
        "ratio": 32.0, "beta1": 0.7, "beta2": 0.99, "weight_decay": 0.01, "clip": 25.0,
        "alpha": 2.0, "beta": 1.0,
    }  # fmt: skip
    encoder = Stack()
    head = TASK.head(encoder)
    assert build(Gradual, old, "recipe").stages(encoder, head) == Gradual().stages(encoder, head)


ABLATION: dict[
    str, tuple[list[list[str]], bool, Any]
] = {  # groups of each stage, discr, rates within a stage
    "ablation-full": ([GROUPS], False, Constant()),
    "ablation-full-discr": ([GROUPS], True, Constant()),
    "ablation-last": ([["head"]], False, Constant()),
    "ablation-freez": ([GROUPS[k:] for k in (4, 3, 2, 1, 0)], False, Constant()),
    "ablation-freez-discr": ([GROUPS[k:] for k in (4, 3, 2, 1, 0)], True, Constant()),
    "ablation-freez-stlr": ([GROUPS[k:] for k in (4, 3, 2, 1, 0)], False, SlantedTriangular()),
    "ablation-freez-cos": ([GROUPS[k:] for k in (4, 3, 2, 1, 0)], False, Cosine()),
    "gradual-few_labels": ([GROUPS[k:] for k in (4, 3, 2, 1, 0)], True, SlantedTriangular()),
}


@pytest.mark.parametrize("name", ABLATION)
def test_a_row_of_the_papers_ablation_moves_what_it_says(name):
    moved, discr, schedule = ABLATION[name]
    stages = stages_of(VARIANTS[name])
    assert [[group.name for group in stage.groups] for stage in stages] == moved
    for stage in stages:
        rates = [group.lr for group in stage.groups]
        wanted = layerwise(0.01)[-len(rates) :] if discr else [0.01] * len(rates)
        assert rates == pytest.approx(wanted)
        assert stage.schedule == schedule


def test_the_ablation_can_be_said_in_the_settings_that_the_documentation_gives():
    text = (Path(__file__).parent.parent / "docs" / "recipes.md").read_text("utf-8")
    rows = dict(re.findall(r"^\|[^|]+\| `(ablation-[a-z-]+)` \| `([^`]+)` \|$", text, re.MULTILINE))
    assert rows.keys() == {name for name in VARIANTS if name.startswith("ablation")}
    for name, settings in rows.items():
        assert update(Gradual(), parse(settings.split())["recipe"], "recipe") == VARIANTS[name], name


def test_chain_thaw_is_the_head_then_each_group_alone_from_the_bottom_then_all():
    stages = stages_of(VARIANTS["ablation-chain-thaw"])
    names = [[group.name for group in stage.groups] for stage in stages]
    assert names == [["head"], ["embedding"], ["rnns.0"], ["rnns.1"], ["rnns.2"], GROUPS]
    assert [group.lr for group in stages[-1].groups] == pytest.approx([1e-4, 1e-4, 1e-4, 1e-4, 1e-3])
    assert [stage.groups[0].lr for stage in stages[:-1]] == pytest.approx([1e-3, *[1e-4] * 4])
    assert [stage.epochs for stage in stages] == [1, 1, 1, 1, 1, 8]


def test_chain_thaw_trains_one_group_at_a_time_and_leaves_the_head_as_it_was_to_the_bit():
    task = Classification.of(SAMPLES, "one", head_kind="two_layer")
    recipe = Gradual(thaw="chain", lr=0.1)
    model = model_of(recipe, Stack(), task)
    source = SampleSource(task, CODEC, SAMPLES, 2, seed=0)
    stages = recipe.stages(model.encoder, model.head)
    fit(model, stages[:1], source, Fitting(device="cpu", quiet=True))
    before = deepcopy(model.state_dict())
    fit(model, stages[1:2], source, Fitting(device="cpu", quiet=True))
    moved = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert moved == {"encoder.embedding.weight"}  # nor do the running statistics of the frozen head move


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_norms_of_the_head_train_in_every_stage_of_every_schedule(name):
    task = Classification.of(SAMPLES, "one", head_kind="two_layer")
    recipe = Gradual(schedule=name)
    model = model_of(recipe, Stack(), task)
    norms = [module for module in model.head.modules() if isinstance(module, nn.BatchNorm1d)]
    assert len(norms) == 2
    for stage in recipe.stages(model.encoder, model.head):
        stage.thaw(model)
        stage.train(model)
        assert all(norm.training and norm.weight.requires_grad for norm in norms)


@pytest.mark.parametrize(
    "recipe",
    [
        Gradual(schedule="script", epochs=40, lr=0.03),
        Gradual(schedule="fastai2", epochs=60, lr=0.3),
        Gradual(schedule="multifit", epochs=60, lr=0.1),
        Gradual(thaw="chain", epochs=80, lr=0.03),
        Gradual(thaw="last", epochs=80, lr=0.05),
        Gradual(rate_schedule="cosine", epochs=60, lr=0.02),
    ],
    ids=["script", "fastai2", "multifit", "chain", "last", "cosine"],
)
def test_two_samples_are_learned_by_heart_by_any_schedule(recipe):
    model = model_of(recipe, Stack())
    trained(recipe, model)
    assert answers(model) == ["yes", "no"]


def test_fine_tune_is_what_fastai_does():
    """The rate of each group and the momentum at every step, recorded from fastai itself."""
    pytest.importorskip("fastai.learner", reason="fastai is a test oracle, and not installed")
    from fastai.callback.core import Callback
    from fastai.callback.schedule import ParamScheduler  # noqa: F401, patches fine_tune in
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader
    from fastai.learner import Learner

    torch.manual_seed(0)
    layers = nn.Sequential(*(nn.Linear(2, 2) for _ in range(5)))
    data = DataLoader([(torch.ones(2), torch.ones(2))] * 8, bs=2)
    learner = Learner(
        DataLoaders(data, data),
        layers,
        loss_func=nn.MSELoss(),
        moms=(0.8, 0.7, 0.8),
        splitter=lambda model: [list(layer.parameters()) for layer in model],
    )
    seen: list[tuple[list[float], float]] = []

    class Record(Callback):  # type: ignore[misc]
        order = 70  # after the schedule has set the rates

        def before_batch(self) -> None:
            if self.learn.training:
                hypers = self.learn.opt.hypers
                seen.append(([h["lr"] for h in hypers], hypers[-1]["mom"]))

    with learner.no_bar(), learner.no_logging():
        learner.add_cb(Record())
        learner.fine_tune(4, 1e-2)
    stages = stages_of(Gradual(schedule="fine_tune"))
    ours = []
    for stage in stages:
        steps = 4 * stage.epochs
        for step in range(steps):
            factor = stage.schedule(step, steps)
            assert stage.momentum is not None
            ours.append(([group.lr * factor for group in stage.groups], stage.momentum(step, steps)))
    assert len(seen) == len(ours) == 20
    for (theirs, momentum), (rates, beta) in zip(seen, ours, strict=True):
        assert rates == pytest.approx(theirs[-len(rates) :], rel=1e-6)
        assert beta == pytest.approx(momentum, rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "fastai3"}, "recipe.schedule is 'fastai3'; .*choose one of few_labels, paper"),
        ({"thaw": "slow"}, "recipe.thaw is 'slow'"),
        ({"momentum": (0.8, 0.7)}, "momentum goes with one_cycle"),
        ({"schedule": "fastai2", "momentum": (1.8, 0.7)}, "two numbers from 0 to below 1"),
        ({"rate_schedule": "constant", "ratio": 8}, "recipe.ratio is for rates that climb"),
        ({"factor": 0.5}, "recipe.factor is 0.5"),
        ({"eps": -1.0}, "recipe.eps is -1.0"),
    ],
)
def test_settings_that_make_no_sense_are_usage_errors(settings, message):
    with pytest.raises(UsageError, match=message):
        Gradual(**settings)


def test_a_recipe_with_a_name_of_its_own_takes_other_settings_but_not_those_it_is_named_for():
    assert recipe_called("gradual-fastai2", Gradual()) == Gradual(schedule="fastai2")
    assert changed(VARIANTS["gradual-fastai2"], "gradual-fastai2", {"lr": 0.5}).lr == 0.5
    with pytest.raises(UsageError, match=r"recipe\.factor is part of what ablation-full means"):
        changed(VARIANTS["ablation-full"], "ablation-full", {"factor": 2.0})
    with pytest.raises(UsageError, match="did you mean 'gradual-paper'"):
        recipe_called("gradual-papr", Gradual())
    assert {"gradual", "gradual-script", "ablation-chain-thaw"} <= set(NAMES)
