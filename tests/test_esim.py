"""ESIM: its equations, whatever the batch, and from pairs of texts to answers."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import plain_loops as plain
import tiny
from plain_loops import QUIET, Array
from pretune.cli import app
from pretune.data.samples import sample
from pretune.errors import UsageError, UserError
from pretune.methods import METHODS
from pretune.runs.predictor import Predictor
from pretune.runs.run import finetune
from pretune.runs.starts import save_start
from pretune.runs.trained import join
from pretune.tasks.classification import Classification
from pretune.tasks.esim import ESIM
from pretune.tasks.pairs import rows_by_side
from pretune.training.sources import task_batch

TASK = Classification(labels=("no", "yes"), head_kind="esim", hidden=3)


def made(reads: bool = True) -> ESIM:
    torch.manual_seed(0)
    return ESIM(4, 3, 0.0, reads).double().eval()


def composed(model: ESIM, x: list[Array], y: list[Array]) -> Array:
    m = []
    for a, found in zip(x, plain.aligned(x, y), strict=True):
        m.append(np.maximum(plain.linear(model.project, np.concatenate((a, found, a - found, a * found))), 0))
    v = plain.bilstm(m, model.compose.lstm)
    return np.concatenate((np.mean(v, 0), np.max(v, 0)))


@pytest.mark.parametrize("reads", [True, False])
def test_a_pair_is_what_the_equations_say_whichever_row_comes_first(reads: bool) -> None:
    model = made(reads)
    top, batch = plain.rows_of((4, 2, 1, 3), 4, sides=(0, 1, 1, 0), more=2)
    said = plain.array(model(top, batch))
    assert said.shape == (2, model.width) == (2, 24)
    texts = plain.texts_of(top, batch)
    if model.encode is not None:
        texts = [plain.bilstm(x, model.encode.lstm) for x in texts]
    for found, (a, b) in zip(said, ((texts[0], texts[1]), (texts[3], texts[2])), strict=True):
        wanted = np.concatenate((composed(model, a, b), composed(model, b, a)))
        np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_the_output_has_a_hidden_relu_layer_and_weights_begin_as_published() -> None:
    model = ESIM(4, 3, 0.5, True)
    drop, hidden, relu, again, out = model.layers(5)
    assert (drop.p, again.p) == (0.5, 0.5) and isinstance(relu, nn.ReLU)
    assert (hidden.in_features, hidden.out_features, out.out_features) == (24, 3, 5)
    assert not hidden.bias.any() and not model.project.bias.any()
    lstm = model.compose.lstm
    torch.testing.assert_close(lstm.weight_hh_l0.t() @ lstm.weight_hh_l0, torch.eye(3))
    assert lstm.bias_hh_l0_reverse.tolist() == [0.0] * 3 + [1.0] * 3 + [0.0] * 6
    assert hidden.weight.abs().max() <= (6 / (24 + 3)) ** 0.5 and not lstm.bias_ih_l0.any()
    usual = Classification(labels=("a", "b"), head_kind="esim")
    assert (usual.widths(), usual.dropouts()) == ((300,), (0.5,))


def test_in_training_a_text_loses_the_same_features_at_every_token() -> None:
    torch.manual_seed(0)
    model, (top, batch) = ESIM(4, 3, 0.5, True).double().train(), plain.rows_of((3, 3), 4, sides=(0, 1))
    read: list[torch.Tensor] = []
    model.encode.register_forward_hook(lambda module, args, out: read.append(args[0]))
    model(top, batch)
    gone = (read[0] == 0).any(1)
    assert gone.any() and torch.equal(gone, (read[0] == 0).all(1))


def test_rows_are_found_by_their_side_and_texts_of_several_are_refused() -> None:
    _, batch = plain.rows_of((1, 1, 1, 1), 2, sides=(1, 0, 0, 1))
    assert rows_by_side(batch).tolist() == [[1, 2], [0, 3]]
    batch.given["side"] = torch.tensor([0, 0, 0, 1])
    with pytest.raises(UserError, match="two texts of one row each"):
        rows_by_side(batch)


@pytest.mark.parametrize("method", METHODS)
def test_any_encoder_answers_alike_in_every_batch_and_from_its_folder(method: str, tmp_path: Path) -> None:
    some = [*plain.alike(4), sample("", "good"), sample("bad", " ".join(tiny.WORDS * 2))]
    model = join(tiny.start(method), TASK, tiny.recipe("full"), 0)
    plain.check_alike(model, some)
    plain.check_folder(model, some, tmp_path / "m")


def test_losses_of_single_pairs_add_up_to_that_of_the_batch_and_gold_changes_no_score() -> None:
    some = plain.alike(5)
    model = join(tiny.start("elmo"), TASK, tiny.recipe("features"), 0)
    model.model.eval()

    def run(these: list, gold: bool = True) -> tuple[torch.Tensor, torch.Tensor | None]:
        batch = task_batch(TASK, model.start.codec, these, TASK.rows(model.start.codec, these), gold)
        with torch.no_grad():
            scores = model.model(batch).scores
            return scores["logits"], model.model.head.loss(scores, batch) if gold else None

    logits, lost = run(some)
    torch.testing.assert_close(lost, sum(run([one])[1] for one in some), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(run(some, gold=False)[0], logits, atol=0, rtol=0)


def test_a_handful_is_learned_by_heart_upon_elmo_and_word_vectors(tmp_path: Path) -> None:
    some = plain.alike(6)
    task = Classification.of(some, head_kind="esim", hidden=6, dropout=0.0)
    way = tiny.recipe("features", vectors=plain.write_vectors(tmp_path), epochs=25, dropout=0.0, batch_size=3)
    model, fitted = finetune(tiny.start("elmo"), task, way, some, some, QUIET)
    assert fitted.best["accuracy"] == 1
    plain.check_folder(model, some, tmp_path / "m")


def test_the_command_trains_it_on_pairs_and_answers(tmp_path: Path) -> None:
    train, folder = tmp_path / "train.csv", tmp_path / "elmo"
    with train.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("a", "b", "label"))
        writer.writerows((*one.texts, one.gold) for one in plain.alike(12))
    save_start(tiny.start("elmo"), folder, {})
    call = ["finetune", "classification", str(train), "--from", str(folder), "--recipe", "features"]
    call += ["task.head_kind=esim", "task.hidden=4", "recipe.epochs=1", "--device", "cpu", "--quiet"]
    pair = ["--text", "a", "--text", "b", "--label", "label"]
    done = CliRunner().invoke(app, [*call, *pair, "--out", str(tmp_path / "m")])
    assert done.exit_code == 0, done.stderr
    assert Predictor.load(tmp_path / "m", "cpu").answer([("good film", "bad")])[0].label in ("yes", "no")
    alone = CliRunner().invoke(app, [*call, "--text", "a", "--label", "label", "--out", str(tmp_path / "n")])
    assert alone.exit_code != 0 and "has 1 text; task.head_kind is esim" in alone.stderr
    assert not (tmp_path / "n" / "config.json").exists()


def test_what_makes_no_sense_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"esim, which reads two texts each alone; leave task\.pair out"):
        replace(TASK, pair="joined")
    with pytest.raises(UsageError, match=r"esim, which reads no text after another; leave task\.orders out"):
        replace(TASK, orders="both")
    with pytest.raises(UsageError, match=r"dropout has 2 numbers, but 1 layers"):
        replace(TASK, dropout=(0.1, 0.2))
    with pytest.raises(UserError, match=r"'7' has 1 text; task.head_kind is esim, which compares two"):
        TASK.rows(tiny.start("elmo").codec, [sample("a", key="7")])
