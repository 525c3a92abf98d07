from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pretune.errors import UserError
from pretune.methods.ulmfit.pretraining import AveragedSGD, UlmfitPretraining
from pretune.runs.trained import join
from pretune.tasks.classification import Classification
from pretune.training.loop import Fitted, Interrupted, fit
from pretune.training.sources import SampleSource
from tiny import labelled, recipe, start
from tiny_training import TinySource, everything, gradual, loss_of, quietly, tiny_model, weights_of

TEXTS = ["a good film and a bad book", "the plot was dull but the film was good"] * 8
HERE = Path(__file__).parent


def killed_and_whole(folder: Path, seed: int, *cases: str) -> None:
    """Assert that runs which were killed three times end as those which were not."""
    command = [sys.executable, str(HERE / "resume_run.py"), str(folder), str(seed), *cases]
    path = f"{HERE.parent / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    for case in cases:
        whole = torch.load(folder / case / "whole-0.pt", weights_only=True)
        assert len(whole["history"]) == 6
        for rank in range(int(case[0])):
            killed = torch.load(folder / case / f"killed-{rank}.pt", weights_only=True)
            for name, x in whole["weights"].items():
                assert torch.equal(x, killed["weights"][name]), f"{case}, rank {rank}: {name}"
            assert {**killed, "weights": 0} == {**whole, "weights": 0}


def test_a_killed_and_resumed_run_equals_the_uninterrupted_to_the_bit(tmp_path: Path) -> None:
    killed_and_whole(tmp_path, 5, "1x2", "2x0")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [6, 7])
def test_so_it_does_with_any_number_of_processes_and_workers(tmp_path: Path, seed: int) -> None:
    killed_and_whole(tmp_path, seed, "1x0", "1x2", "2x0", "2x2")


class Pressed(TinySource):
    """Ctrl-C while a certain batch is being made."""

    at = (1, 4)

    def batch(self, epoch: int, step: int) -> Any:
        if (epoch, step) == self.at:
            os.kill(os.getpid(), signal.SIGINT)
        return super().batch(epoch, step)


def run(source: TinySource, **options: Any) -> tuple[Fitted, dict[str, torch.Tensor]]:
    model = tiny_model()
    fitted = fit(model, gradual(model, 2), source, quietly(**options), loss_of, "loss", False)
    return fitted, weights_of(model)


def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match=r"stopped at step 11, checkpoint in .*continue with --resume"):
        run(Pressed(), folder=tmp_path)
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000011"]
    whole, weights = run(TinySource())
    resumed, again = run(TinySource(), folder=tmp_path, resume=True)
    assert all(torch.equal(x, again[name]) for name, x in weights.items())
    assert resumed.best == whole.best
    assert (resumed.steps, resumed.tokens) == (whole.steps, whole.tokens)


def test_ctrl_c_during_validation_stops_after_that_epoch(tmp_path: Path) -> None:
    def pressed(model: Any) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGINT)
        return loss_of(model)

    model = tiny_model()
    with pytest.raises(Interrupted, match="stopped at step 7, checkpoint"):
        fit(model, gradual(model, 2), TinySource(), quietly(folder=tmp_path), pressed, "loss", False)
    resumed, _ = run(TinySource(), folder=tmp_path, resume=True)
    assert len(resumed.history) == 6


def test_a_stage_that_patience_ended_stays_over_after_resuming(tmp_path: Path) -> None:
    def training(press: bool, **options: Any) -> Fitted:
        losses = iter([1.0, 2.0, 3.0, 0.5, 0.6, 0.7] if not options.get("resume") else [0.5, 0.6, 0.7])

        def validate(model: Any) -> dict[str, float]:
            loss = next(losses)
            if press and loss == 3.0:
                os.kill(os.getpid(), signal.SIGINT)
            return {"loss": loss}

        model = tiny_model()
        stages = everything(model, 8) + everything(model, 8)
        return fit(model, stages, TinySource(2), quietly(patience=2, **options), validate, "loss", False)

    whole = training(press=False)
    with pytest.raises(Interrupted):
        training(press=True, folder=tmp_path)
    resumed = training(press=False, folder=tmp_path, resume=True)
    assert [entry["stage"] for entry in resumed.history] == [0, 0, 0, 1, 1, 1]
    assert [entry["loss"] for entry in resumed.history] == [entry["loss"] for entry in whole.history]


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    class Forbidden(TinySource):
        def batch(self, epoch: int, step: int) -> Any:
            if epoch or step:  # the first is looked at, to tell this run from others
                raise AssertionError("trained again")
            return super().batch(epoch, step)

    first, weights = run(TinySource(), folder=tmp_path, checkpoint_steps=1)
    resumed, again = run(Forbidden(), folder=tmp_path, resume=True)
    assert resumed.history == first.history
    assert all(torch.equal(x, again[name]) for name, x in weights.items())


def test_only_the_newest_two_checkpoints_stay(tmp_path: Path) -> None:
    run(TinySource(), folder=tmp_path, checkpoint_steps=5)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoints.json",
        "step-00000035",
        "step-00000040",
    ]


def test_checkpoints_hold_tensors_and_plain_values_only(tmp_path: Path) -> None:
    run(TinySource(), folder=tmp_path, checkpoint_steps=5)
    for file in tmp_path.rglob("*.pt"):
        torch.load(file, weights_only=True)


class OtherText(TinySource):
    """As many batches of as many rows."""

    def batch(self, epoch: int, step: int) -> Any:
        return super().batch(epoch + 100, step)


def test_two_runs_never_mix_in_one_folder(tmp_path: Path) -> None:
    run(TinySource(), folder=tmp_path, checkpoint_steps=5)
    with pytest.raises(UserError, match=r"another run \(its seed"):
        run(TinySource(), folder=tmp_path, resume=True, seed=3)
    with pytest.raises(UserError, match=r"another run \(its choice of the weights to keep differ"):
        run(TinySource(), folder=tmp_path, resume=True, keep="last")
    with pytest.raises(UserError, match=r"another run \(its batches an epoch"):
        run(TinySource(8), folder=tmp_path, resume=True)
    with pytest.raises(UserError, match=r"another run \(its first samples"):
        run(OtherText(), folder=tmp_path, resume=True)
    with pytest.raises(UserError, match=r"this run \(step-00000040\); continue with --resume"):
        run(TinySource(), folder=tmp_path)
    model = tiny_model()
    with pytest.raises(UserError, match=r"another run \(its stages"):
        fit(model, everything(model), TinySource(), quietly(folder=tmp_path))


def test_a_run_that_lost_its_folder_to_another_stops(tmp_path: Path) -> None:
    class Overtaken(TinySource):
        def batch(self, epoch: int, step: int) -> Any:
            if (epoch, step) == (1, 0):
                (tmp_path / "checkpoints.json").write_text('{"id": "another"}')
            return super().batch(epoch, step)

    with pytest.raises(UserError, match="another run has taken"):
        run(Overtaken(), folder=tmp_path, checkpoint_steps=5)


def test_resuming_without_a_checkpoint_starts_from_the_beginning_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, weights = run(TinySource())
    _, again = run(TinySource(), folder=tmp_path / "new", resume=True, quiet=False)
    assert "starting from the beginning" in capsys.readouterr().err
    assert all(torch.equal(x, again[name]) for name, x in weights.items())
    with pytest.raises(UserError, match="no folder for checkpoints"):
        run(TinySource(), resume=True)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    run(TinySource(), folder=tmp_path, checkpoint_steps=5)
    (tmp_path / "step-00000040" / "shared.pt").write_bytes(b"half")
    with pytest.raises(UserError, match="step-00000040 cannot be read; delete it"):
        run(TinySource(), folder=tmp_path, resume=True)


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"drop_mult": 0.7}, "dropouts or other settings of the network"),
        ({"candidates": 3}, "dropouts or other settings of the network"),
        ({"restarts": 0.5}, "restarts"),
        ({"sgd": AveragedSGD(non_monotone=2)}, "stages"),
    ],
)
def test_pretraining_with_other_settings_is_another_run(
    other: dict[str, Any], what: str, tmp_path: Path
) -> None:
    def train(resume: bool, **settings: Any) -> None:
        asked = start("ulmfit")
        shared = {"epochs": 1, "streams": 2, "window": 5, "optimizer": "nt_asgd", "max_steps": 3}
        pretraining = UlmfitPretraining(**{**shared, **settings})
        how = quietly(folder=tmp_path, checkpoint_steps=1, resume=resume)
        pretraining.run(asked.encoder, asked.codec, lambda: TEXTS, lambda: TEXTS, how)

    train(False)
    train(True)
    with pytest.raises(UserError, match=rf"another run \(its {what} differ"):
        train(True, **other)


def test_a_run_with_other_settings_of_the_task_is_another_run(tmp_path: Path) -> None:
    samples = labelled(8)

    def train(smoothing: float, **options: Any) -> None:
        asked = start("ulmfit")
        task = Classification.of(samples, label_smoothing=smoothing)
        model = join(asked, task, recipe("full"), 0).model
        source = SampleSource(task, asked.codec, samples, 4, 0)
        fit(model, everything(model), source, quietly(folder=tmp_path, checkpoint_steps=1, **options))

    train(0.1)
    with pytest.raises(UserError, match=r"another run \(its task settings differ"):
        train(0.2, resume=True)
