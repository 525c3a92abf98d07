"""Runs: from a start to a folder and back; strict loading; nothing half-written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import tiny
from pretune.config import update
from pretune.data.samples import Sample, sample
from pretune.errors import UsageError, UserError
from pretune.methods import METHODS
from pretune.recipes import RECIPES
from pretune.runs.folders import check_out, write_folder
from pretune.runs.measure import Measure, fingerprint
from pretune.runs.run import (
    Start,
    Trained,
    adapt,
    finetune,
    load_start,
    load_trained,
    plan_of,
    pretrain,
    recipe_for,
)
from pretune.runs.starts import adjusted, save_start
from pretune.runs.trained import join
from pretune.tasks.classification import Classification
from pretune.training.loop import Fitting
from pretune.training.sources import task_batch

QUIET = Fitting(device="cpu", quiet=True)
SAMPLES = tiny.labelled(12)
TASK = Classification.of(SAMPLES)


def trained(start: Start | list[Start], name: str = "full", **changes: object) -> Trained:
    return finetune(start, TASK, tiny.recipe(name, **changes), SAMPLES, SAMPLES[:4], QUIET)[0]


def same_answers(a: Trained, b: Trained, samples: list[Sample] = SAMPLES) -> bool:
    return a.answers(samples) == b.answers(samples)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("method", METHODS)
def test_a_loaded_model_is_the_one_that_was_saved(method: str, name: str, tmp_path: Path) -> None:
    model = join(tiny.start(method), TASK, tiny.recipe(name), 0)
    model.save(tmp_path / "model", {"seed": 0})
    again = load_trained(tmp_path / "model")
    assert again.parameters == model.parameters
    assert again.task == TASK
    again.save(tmp_path / "again", {})
    for file in ("config.json", "model.safetensors", "vocab.txt", "codec.json"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "model" / file).read_bytes()


def test_an_auxiliary_objective_is_saved_and_loaded(tmp_path: Path) -> None:
    model = trained(tiny.start("ulmfit"), "full", auxiliary=0.5)
    model.save(tmp_path / "model", {})
    assert same_answers(model, load_trained(tmp_path / "model"))


def test_finetuning_leaves_its_start_as_it_was() -> None:
    start = tiny.start("ulmfit")
    before = {name: x.clone() for name, x in start.encoder.state_dict().items()}
    trained(start)
    assert all(torch.equal(x, before[name]) for name, x in start.encoder.state_dict().items())


@pytest.mark.parametrize(
    ("method", "setting"),
    [
        ("gpt", {"residual_dropout": 0.9}),
        ("bert", {"attention_dropout": 0.9}),
        ("elmo", {"dropout": 0.9}),
        ("ulmfit", {"task_drop_mult": 0.0}),
        ("ulmfit", {"task": {"weight": 0.9}}),
    ],
)
def test_what_no_weight_depends_on_is_chosen_anew(method: str, setting: dict[str, Any]) -> None:
    old = tiny.start(method)
    new = adjusted(old, setting)
    assert new.encoder_config == update(old.encoder_config, setting, "encoder") != old.encoder_config
    weights = old.encoder.state_dict()
    assert all(torch.equal(x, weights[name]) for name, x in new.encoder.state_dict().items())
    for name in set(tiny.ENCODER[method]) - set(old.method.adjustable) - {"deviation"}:
        with pytest.raises(UsageError, match=rf"encoder\.{name} comes with the weights"):
            adjusted(old, {name: tiny.ENCODER[method][name]})
    batch = task_batch(TASK, old.codec, SAMPLES, TASK.rows(old.codec, SAMPLES), gold=False)

    def trained(start: Start) -> Tensor:
        start.encoder.purpose("task")
        torch.manual_seed(0)
        found: Tensor = start.encoder.train()(batch).layers[-1].detach()
        return found

    assert not torch.allclose(trained(old), trained(new), atol=1e-3)


def test_frozen_features_leave_the_encoder_equal_to_the_bit(tmp_path: Path) -> None:
    start = tiny.start("ulmfit")
    trained(start, "features").save(tmp_path / "model", {})
    again = load_start(tmp_path / "model")
    assert isinstance(again, Start)
    after = again.encoder.state_dict()
    assert all(torch.equal(x, after[name]) for name, x in start.encoder.state_dict().items())


def test_equal_seeds_give_equal_models_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = tiny.start("ulmfit", seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert same_answers(trained(first), trained(tiny.start("ulmfit", seed=3)))
    assert not same_answers(trained(first), trained(tiny.start("ulmfit", seed=4)))


SHORT = {"bert": {"objective": "mlm", "length": 32, "long_share": 0.0, "epochs": 1}}  # texts of one sentence


@pytest.mark.parametrize("method", METHODS)
def test_pretrain_adapt_finetune_hand_on_a_folder_each(method: str, tmp_path: Path) -> None:
    found = METHODS[method]
    first: Any = replace(found.pretraining, **SHORT.get(method, {}))  # type: ignore[type-var]
    second: Any = replace(found.adaptation, **SHORT.get(method, {}))  # type: ignore[type-var]
    start = tiny.start(method)
    shape = found.learner(start.encoder_config)
    made = {"codec_config": start.codec.config, "encoder_config": shape}  # type: ignore[attr-defined]
    pretrain(
        found, tiny.corpus, None, tmp_path / "old", size="tiny", pretraining=first, fitting=QUIET, **made
    )
    old = load_start(tmp_path / "old")
    assert isinstance(old, Start)
    assert old.name == "old"

    def target() -> list[str]:
        return ["great great good good unheard unheard unheard film film film"] * 4

    def words(start: Start | list[Start]) -> set[str]:
        assert isinstance(start, Start)
        return set(start.codec.vocab.words)  # type: ignore[attr-defined]

    same: Any = {"adaptation": second, "fitting": QUIET}
    adapt(tmp_path / "old", target, None, tmp_path / "new", vocabulary="target", **same)
    new = load_start(tmp_path / "new")
    assert isinstance(new, Start)
    ending = "</w>" if method == "gpt" else ""
    assert f"unheard{ending}" in words(new) and f"dull{ending}" not in words(new)
    if method == "gpt":
        with pytest.raises(UserError, match="pieces, which are learned as a whole"):
            adapt(tmp_path / "old", target, None, tmp_path / "both", vocabulary="union", **same)
    else:
        adapt(tmp_path / "old", target, None, tmp_path / "both", vocabulary="union", **same)
        assert words(load_start(tmp_path / "both")) == words(old) | words(new)
    assert trained(new).answers(SAMPLES)
    run = json.loads((tmp_path / "new" / "run.json").read_text())
    assert {"command", "config", "scores", "seconds", "peak_memory_bytes", "versions", "seed"} <= run.keys()
    assert run["config"]["from"] == str(tmp_path / "old")


def test_forward_and_backward_are_pretrained_adapted_and_averaged(tmp_path: Path) -> None:
    start = tiny.start("ulmfit")
    forward = start.codec.config  # type: ignore[attr-defined]
    codecs = {"forward": forward, "backward": replace(forward, direction="backward")}
    pretrain(
        METHODS["ulmfit"],
        tiny.corpus,
        None,
        tmp_path / "both",
        codec_config=codecs,
        encoder_config=start.encoder_config,
        fitting=QUIET,
    )
    assert json.loads((tmp_path / "both" / "config.json").read_text())["members"] == ["forward", "backward"]
    adapt(tmp_path / "both", tiny.corpus, None, tmp_path / "adapted", fitting=QUIET)
    starts = load_start(tmp_path / "adapted")
    assert isinstance(starts, list)
    model = trained(starts)
    model.save(tmp_path / "model", {})
    again = load_trained(tmp_path / "model")
    assert same_answers(model, again)
    alone = [load_trained(tmp_path / "model" / way).answers(SAMPLES) for way in ("forward", "backward")]
    for mean, one, other in zip(again.answers(SAMPLES), *alone, strict=True):
        assert mean.scores["yes"] == pytest.approx((one.scores["yes"] + other.scores["yes"]) / 2)
    assert again.parameters == 2 * trained(starts[0]).parameters


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    trained(tiny.start("wordvectors")).save(tmp_path / "model", {})
    return tmp_path / "model"


def spoil(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return apply


NAME = "encoder.embedding.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (spoil(lambda t: t.pop(NAME)), f"{NAME} is missing"),
        (spoil(lambda t: t.update(more=torch.zeros(1))), "more is not known"),
        (spoil(lambda t: t.update({NAME: t[NAME][1:].clone()})), rf"{NAME} is \(\d+, 6\), not \(\d+, 6\)"),
        (spoil(lambda t: t.update({NAME: t[NAME].double()})), f"{NAME} is torch.float64, not torch.float32"),
        (spoil(lambda t: t[NAME].fill_(float("nan"))), f"{NAME} has values that are not finite"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "cannot be read as weights"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be read as weights"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: "),
        (lambda folder: (folder / "config.json").write_text("{}"), "'kind' is missing"),
        (lambda folder: (folder / "config.json").write_text('{"kind": "robot"}'), "'robot' is unknown"),
        (lambda folder: (folder / "config.json").write_text('{"kind": "model"}'), "config.json: "),
        (lambda folder: (folder / "config.json").write_text('{"kind": "model", "format": 9}'), "format 9"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(
    damage: Callable[[Path], None], message: str, folder: Path
) -> None:
    damage(folder)
    with pytest.raises(UserError, match=message):
        load_trained(folder)


def test_a_mistyped_folder_is_answered_with_the_nearest(folder: Path) -> None:
    with pytest.raises(UserError, match=r"mdel: no such model folder; nearest: .*model$"):
        load_trained(folder.parent / "mdel")


def test_a_pretrained_folder_does_not_answer(tmp_path: Path) -> None:
    save_start(tiny.start("wordvectors"), tmp_path / "x", {})
    with pytest.raises(UserError, match="knows no task yet; `pretune finetune"):
        load_trained(tmp_path / "x")


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def fill(new: Path) -> None:
        (new / "config.json").write_text("{}")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_folder(tmp_path / "x", fill)
    assert list(tmp_path.iterdir()) == []
    write_folder(tmp_path / "x", lambda new: (new / "config.json").write_text('{"kind": "first"}'))
    with pytest.raises(RuntimeError):
        write_folder(tmp_path / "x", fill)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert "first" in (tmp_path / "x" / "config.json").read_text()


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    (tmp_path / "empty").mkdir()
    for overwrite in (False, True):
        with pytest.raises(UserError, match="is not empty and no model folder"):
            check_out(tmp_path, overwrite)
        with pytest.raises(UserError, match="is a file"):
            check_out(tmp_path / "thesis.tex", overwrite)
        check_out(tmp_path / "empty", overwrite)
        check_out(tmp_path / "new" / "deeper", overwrite)


def test_a_model_folder_is_replaced_only_on_demand(folder: Path) -> None:
    check_out(folder, overwrite=True)
    with pytest.raises(UserError, match="add --overwrite"):
        check_out(folder)


def test_the_recipe_is_the_methods_own_but_full_from_scratch() -> None:
    fresh = tiny.start("ulmfit")
    loaded = replace(fresh, name="books")
    assert recipe_for(loaded) == METHODS["ulmfit"].recipe
    assert recipe_for(fresh) == RECIPES["full"]()
    assert recipe_for(loaded, "features", {"epochs": 3}) == RECIPES["features"](epochs=3)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="the recipe is 'ful'; did you mean 'full'"):
        recipe_for(fresh, "ful")


def test_a_plan_names_groups_rates_and_parameters() -> None:
    start = tiny.start("ulmfit")
    rows = plan_of(start, TASK, tiny.recipe("gradual"))
    last = [row for row in rows if row["stage"] == rows[-1]["stage"]]
    assert sum(int(str(row["parameters"])) for row in last) == trained(start, "gradual").parameters
    rates = [float(str(row["lr"])) for row in last]
    assert rates == sorted(rates)


def test_long_texts_share_no_batch_with_many_others() -> None:
    from pretune.tensors.lengths import answer_batches

    batches = list(answer_batches([5, 1000, 3, 400, 400], 3, tokens=1000))
    assert batches == [[1], [3, 4], [0, 2]]


def test_measure_sees_memory_that_was_held_for_a_moment() -> None:
    with Measure() as before:
        pass
    with Measure() as cost:
        block = torch.ones(64 << 20, dtype=torch.uint8)
        del block
    assert cost.seconds > 0
    assert cost.peak_memory_bytes >= before.peak_memory_bytes


def test_a_fingerprint_depends_on_texts_golds_and_order() -> None:
    a, b = sample("x", gold="1"), sample("y", gold="1")
    prints = {fingerprint(s) for s in ([a, b], [b, a], [a], [replace(a, gold="2"), b])}
    assert len(prints) == 4
