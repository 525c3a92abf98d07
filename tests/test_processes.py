from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pretune.data.samples import Sample, sample
from pretune.errors import UserError
from pretune.training.loop import fit
from pretune.training.sources import SampleSource
from tiny_training import TinySource, everything, gradual, quietly, tiny_model, weights_of
from transformer_tasks import JOINT, STILL, gpt, still, trained

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes, started as a user would, were left with."""
    folder = tmp_path_factory.mktemp("processes")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    path = f"{HERE.parent / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [*launcher, str(HERE / "processes_run.py"), str(folder)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_replicas_are_equal_after_every_stage(replicas: list[dict[str, Any]]) -> None:
    first, second = replicas
    assert len(first["stages"]) == 3
    for mine, theirs in zip(first["stages"], second["stages"], strict=True):
        assert all(torch.equal(x, theirs[name]) for name, x in mine.items())
    moved = "encoder.recurrent.weight_hh_l0"
    assert not torch.equal(first["stages"][0][moved], first["stages"][1][moved])


def test_all_processes_know_the_same_losses_and_scores(replicas: list[dict[str, Any]]) -> None:
    first, second = replicas
    assert first["losses"] == second["losses"]
    assert first["best"] == second["best"] != {}
    one = TinySource(rows=4)
    tokens = sum(int(one.batch(epoch, step).mask.sum()) for epoch in range(3) for step in range(7))
    assert first["tokens"] == second["tokens"] == tokens


def test_two_processes_train_as_one_with_twice_the_batch(replicas: list[dict[str, Any]]) -> None:
    model = tiny_model(dropout=0.0)
    model.alpha = model.beta = 0.0
    fit(model, gradual(model), TinySource(rows=4), quietly(accumulate=2))
    for name, x in weights_of(model).items():
        if "norm" not in name:  # batch statistics are each process's own
            torch.testing.assert_close(x, replicas[0]["plain"][name], rtol=1e-4, atol=1e-5)


def test_two_processes_learn_a_task_beside_its_texts_as_one_does(replicas: list[dict[str, Any]]) -> None:
    first, second = (each["joint"] for each in replicas)
    for name in ("gpt", "bert"):
        assert first[name]["losses"] == second[name]["losses"]
        for weight, x in first[name]["weights"].items():
            assert torch.equal(x, second[name]["weights"][weight]), weight
    whole, fitted = trained(replace(JOINT, batch_size=4), still(gpt), STILL)
    for weight, x in weights_of(whole).items():
        if not weight.endswith("qkv.bias"):  # keys' have no gradient but rounding, of which Adam makes steps
            torch.testing.assert_close(x, first["gpt"]["weights"][weight], rtol=1e-3, atol=2e-5)
    for mine, theirs in zip(fitted.history, first["gpt"]["losses"], strict=True):
        assert mine["losses"] == pytest.approx(theirs, rel=1e-4)


def test_a_launcher_that_starts_too_few_processes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    import accelerate

    class Alone:
        num_processes = 1

        def __init__(self, **options: Any) -> None: ...

    monkeypatch.setattr(accelerate, "Accelerator", Alone)
    monkeypatch.setenv("WORLD_SIZE", "2")
    model = tiny_model()
    with pytest.raises(UserError, match=r"2 processes were asked for, 1 .*torch\.distributed\.run"):
        fit(model, everything(model), TinySource(), quietly())


class Lengths:
    """A task and codec in one, of which rows are all that is asked."""

    pad_id = 0

    def rows(self, codec: Any, samples: list[Sample]) -> list[list[str]]:
        return [[s.texts[0]] for s in samples]

    def classes(self, samples: list[Sample]) -> None:
        """Every sample once an epoch."""


@pytest.mark.parametrize("samples", [2, 5, 16, 17, 19, 41])
def test_every_process_gets_as_many_batches_and_none_is_empty(samples: int) -> None:
    texts = [sample("x" * (n % 5 + 1), key=str(n)) for n in range(samples)]
    task: Any = Lengths()
    sources = [SampleSource(task, task, texts, 4, seed=0, rank=rank, world=2) for rank in range(2)]
    for epoch in range(2):
        seen: list[int] = []
        for step in range(sources[0].steps(epoch)):
            shares = [source.wanted(epoch, step) for source in sources]
            assert min(map(len, shares)) >= min(2, samples // 2)
            assert abs(len(shares[0]) - len(shares[1])) <= 1
            seen += shares[0] + shares[1]
        assert sorted(seen) == list(range(samples))
    assert sources[0].steps(0) == sources[1].steps(0)


def test_fewer_samples_than_processes_are_an_error() -> None:
    task: Any = Lengths()
    with pytest.raises(UserError, match="1 training samples cannot be shared by 2 processes"):
        SampleSource(task, task, [sample("x")], 4, seed=0, rank=0, world=2)
