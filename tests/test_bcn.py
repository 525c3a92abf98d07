"""The biattentive classification network: its equations, whatever the batch, and from words to answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import plain_loops as plain
import tiny
from plain_loops import QUIET, Array
from pretune.cli import app
from pretune.data.samples import sample
from pretune.errors import UsageError, UserError
from pretune.methods import METHODS
from pretune.recipes.frozen import FrozenFeatures
from pretune.runs.predictor import Predictor
from pretune.runs.run import finetune
from pretune.runs.starts import save_start
from pretune.runs.trained import join
from pretune.tasks.bcn import BCN, Maxout
from pretune.tasks.classification import Classification
from pretune.training.sources import task_batch

SMALL = {"head_kind": "bcn", "hidden": 3, "maxout": 2}
TASK = Classification(labels=("no", "yes"), **SMALL)


def made(pairs: bool, reads: bool = True) -> BCN:
    torch.manual_seed(0)
    return BCN(4, 3, (0.0,) * 4, 2, pairs, reads).double().eval()


def encoded(model: BCN, x: list[Array]) -> list[Array]:
    if model.feed is None or model.encode is None:
        return x
    return plain.bilstm([np.maximum(plain.linear(model.feed, w), 0) for w in x], model.encode.lstm)


def pooled(model: BCN, text: int, x: list[Array], y: list[Array]) -> Array:
    read = [np.concatenate((a, a - c, a * c)) for a, c in zip(x, plain.aligned(x, y), strict=True)]
    z = plain.bilstm(read, model.integrate[text].lstm)
    drawn = plain.drawn_by([float(plain.linear(model.weigh[text], a)[0]) for a in z], z)
    return np.concatenate((np.max(z, 0), np.min(z, 0), np.mean(z, 0), drawn))


@pytest.mark.parametrize("reads", [True, False])
def test_a_text_that_attends_to_itself_is_what_the_equations_say(reads: bool) -> None:
    model = made(False, reads)
    top, batch = plain.rows_of((4, 1, 2), 4, more=2)
    said = plain.array(model(top, batch))
    assert said.shape == (3, model.width) == (3, 24)
    for own, found in zip(plain.texts_of(top, batch), said, strict=True):
        x = encoded(model, own)
        np.testing.assert_allclose(found, pooled(model, 0, x, x), atol=1e-12)


def test_each_text_of_a_pair_attends_to_the_other_and_has_its_own_integration() -> None:
    model = made(True)
    top, batch = plain.rows_of((4, 2, 1, 3), 4, sides=(0, 1, 1, 0))
    said = plain.array(model(top, batch))
    one, two, four, three = (encoded(model, x) for x in plain.texts_of(top, batch))
    for found, (x, y) in zip(said, ((one, two), (three, four)), strict=True):
        wanted = np.concatenate((pooled(model, 0, x, y), pooled(model, 1, y, x)))
        np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_an_output_of_a_maxout_layer_is_the_largest_of_its_pieces() -> None:
    layer = Maxout(2, 2, 3).double()
    x = torch.randn(1, 2, dtype=torch.float64)
    values = plain.linear(layer.linear, plain.array(x)[0])
    np.testing.assert_allclose(plain.array(layer(x))[0], [max(values[:3]), max(values[3:])])


def test_sizes_and_dropouts_are_the_published_ones_unless_others_are_asked_for() -> None:
    task = Classification(labels=tuple("abcde"), head_kind="bcn")
    assert task.widths() == (300,) and task.dropouts() == (0.25, 0.1, 0.2, 0.3)
    head = join(tiny.start("elmo"), task, tiny.recipe("features"), 0).model.head
    sizes = [(x.linear.in_features, x.linear.out_features) for x in head.layers if isinstance(x, Maxout)]
    assert sizes == [(2400, 1200 * 4), (1200, 600 * 4), (600, 5 * 4)]
    assert [x.p for x in head.layers if isinstance(x, torch.nn.Dropout)] == [0.1, 0.2, 0.3]
    assert replace(task, dropout=0.5).dropouts() == (0.5,) * 4


@pytest.mark.parametrize("method", METHODS)
def test_any_encoder_answers_alike_in_every_batch_and_from_its_folder(method: str, tmp_path: Path) -> None:
    some = [*plain.alike(4), sample("", "good"), sample("bad", " ".join(tiny.WORDS * 2))]
    for task in (TASK, replace(TASK, pair="siamese")):
        model = join(tiny.start(method), task, tiny.recipe("features"), 0)
        plain.check_alike(model, some)
    plain.check_folder(model, some, tmp_path / "m")


@pytest.mark.parametrize("kind", ["one", "many", "number"])
def test_losses_of_single_samples_add_up_to_that_of_the_batch(kind: str) -> None:
    golds = {"one": ("a", "b", "a"), "many": (("a",), (), ("a", "b")), "number": (1.0, 2.0, 4.0)}[kind]
    some = [replace(one, gold=gold) for one, gold in zip(plain.alike(3), golds, strict=True)]
    task = Classification.of(some, kind, **SMALL).fitted_to(some)
    model = join(tiny.start("elmo"), task, tiny.recipe("features"), 0)
    model.model.eval()
    start, head = model.start, model.model.head

    def lost(these: list) -> tuple[float, int]:
        batch = task_batch(task, start.codec, these, task.rows(start.codec, these), True)
        with torch.no_grad():
            return float(head.loss(model.model(batch).scores, batch)), head.targets(batch)

    each = [lost([one]) for one in some]
    assert lost(some) == (pytest.approx(sum(x for x, _ in each), rel=1e-5), sum(n for _, n in each))


def test_training_samples_decide_whether_pairs_are_read_apart() -> None:
    pairs, texts = plain.alike(4), tiny.labelled(4)
    assert TASK.fitted_to(pairs).apart and not TASK.fitted_to(texts).apart
    assert not TASK.fitted_to([*texts, *pairs]).apart
    for joined in (replace(TASK, pair="joined"), replace(TASK, orders="both")):
        assert not joined.fitted_to(pairs).apart
    with pytest.raises(UserError, match=r"'0' has 1 text; task.pair is siamese, which compares two"):
        join(tiny.start("elmo"), TASK.fitted_to(pairs), tiny.recipe("features"), 0).answers(texts)


def test_a_handful_is_learned_by_heart_upon_elmo_and_word_vectors(tmp_path: Path) -> None:
    some = tiny.labelled(6)
    task = Classification.of(some, head_kind="bcn", hidden=6, dropout=0.0)
    vectors = plain.write_vectors(tmp_path)
    way = tiny.recipe("features", vectors=vectors, epochs=40, lr=0.02, dropout=0.0, batch_size=6)
    model, fitted = finetune(tiny.start("elmo"), task, way, some, some, QUIET)
    assert fitted.best["accuracy"] == 1
    plain.check_folder(model, some, tmp_path / "m")


def test_the_second_mix_may_stand_beside_the_first_bilstm() -> None:
    """[h; ELMo'] with h the states of the recipe's BiLSTM; the network has no BiLSTM of its own before."""
    task = replace(TASK, bilstm=False)
    way = tiny.recipe("features", bilstm=5, placement="both")
    model = join(tiny.start("elmo"), task, way, 0)
    wrapped, head = model.model.encoder, model.model.head
    assert isinstance(wrapped, FrozenFeatures) and wrapped.output_mix is not None
    assert head.reader.encode is None and head.reader.integrate[0].lstm.input_size == 3 * wrapped.width
    some = tiny.labelled(3)
    batch = task_batch(task, model.start.codec, some, task.rows(model.start.codec, some), True)
    model.model.train()(batch).loss.backward()
    assert wrapped.output_mix.weights.grad.abs().sum() > 0


def test_the_command_trains_it_and_answers(tmp_path: Path) -> None:
    train, folder = tmp_path / "train.csv", tmp_path / "elmo"
    train.write_text("text,label\n" + "".join(f"{x.texts[0]},{x.gold}\n" for x in tiny.labelled(8)))
    save_start(tiny.start("elmo"), folder, {})
    call = ["finetune", "classification", str(train), "--from", str(folder), "--recipe", "features"]
    call += ["task.head_kind=bcn", "task.hidden=4", "recipe.epochs=1", "--out", str(tmp_path / "m")]
    done = CliRunner().invoke(app, [*call, "--device", "cpu", "--quiet"])
    assert done.exit_code == 0, done.stderr
    task = json.loads((tmp_path / "m" / "config.json").read_text())["task"]
    assert (task["head_kind"], task["hidden"], task["pair"]) == ("bcn", 4, None)
    assert Predictor.load(tmp_path / "m", "cpu").answer(["good film"])[0].label in ("yes", "no")
    wrong = CliRunner().invoke(app, [*call, "task.summary_dropout=0.2", "--overwrite"])
    assert wrong.exit_code == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"head_kind": "bcm"}, "did you mean 'bcn'"),
        ({"head_kind": "bcn", "hidden": (4, 4)}, r"hidden is \[4, 4\]; task.head_kind=bcn has one width"),
        ({"head_kind": "bcn", "hidden": 0}, "task.hidden is 0"),
        ({"head_kind": "bcn", "maxout": 1}, "task.maxout is 1"),
        ({"head_kind": "bcn", "dropout": (0.1, 0.2)}, "has 2 numbers, but 4 layers"),
        ({"head_kind": "bcn", "dropout": 1.0}, "task.dropout is 1.0"),
        ({"maxout": 3}, "task.maxout is for task.head_kind bcn, and this head is linear"),
        ({"bilstm": False}, "task.bilstm is for task.head_kind bcn or esim, and this head is linear"),
    ],
)
def test_options_that_mean_nothing_are_errors(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Classification(labels=("a", "b"), **options)
