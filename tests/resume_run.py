"""Trains the tiny model in processes that are killed and resumed: `resume_run.py FOLDER SEED 1x0 2x2 …`.

Torch is imported once; every process of every run is a fork of this one. For each number of processes
x number of workers it leaves, for each rank, `FOLDER/1x0/whole-RANK.pt` of an uninterrupted run and
`killed-RANK.pt` of one that was killed with SIGKILL after two random steps and once in the middle of
writing a checkpoint, then resumed to its end.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import accelerate  # noqa: F401, so that the forks need not
import torch
import torch._dynamo  # the same: optimizers import it
import torch.distributed.nn  # the same: DistributedDataParallel

from pretune.training.checkpoints import State
from pretune.training.loop import Fitting, fit
from pretune.training.sources import own_rank, own_world
from tiny_training import TinySource, gradual, loss_of, quietly, tiny_model, weights_of

BATCHES, EPOCHS, ACCUMULATE = 7, 2, 2
STEPS = 3 * EPOCHS * 4  # stages, epochs, steps of at most two batches


def train(end: Path, fitting: Fitting) -> None:
    rank, world = own_rank(), own_world()
    model = tiny_model(seed=1 + rank)  # the wrapper makes replicas equal
    source = TinySource(BATCHES, rank=rank, world=world)
    fitted = fit(model, gradual(model, EPOCHS), source, fitting, loss_of, "loss", higher_is_better=False)
    history = [
        {name: value for name, value in entry.items() if name not in ("seconds", "tokens_per_second")}
        for entry in fitted.history
    ]
    done = {"best": fitted.best, "history": history, "steps": fitted.steps, "tokens": fitted.tokens}
    torch.save({"weights": weights_of(model), **done}, f"{end}-{rank}.pt")


def kill_after(step: int) -> None:
    end_step = State.end_step

    def end_and_die(state: State, *args: Any) -> None:
        end_step(state, *args)
        if state.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    State.end_step = end_and_die  # type: ignore[method-assign]


def kill_while_saving() -> None:
    save = torch.save

    def write_half_and_die(thing: Any, path: Path) -> None:
        save(thing, path)
        with Path(path).open("r+b") as file:
            file.truncate(Path(path).stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    torch.save = write_half_and_die


def launch(processes: int, run: Callable[[], None], killer: Callable[[], None] | None = None) -> bool:
    """Run in as many forks as torchrun would start processes; False if one was killed (then all are)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        if child := os.fork():
            children.append(child)
            continue
        if processes > 1:  # as torchrun does
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
            os.environ |= {"LOCAL_WORLD_SIZE": str(processes)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        code = 1
        try:
            if killer:
                killer()
            run()
            code = 0
        except BaseException:
            if not killer:  # else it may well complain that its peer is gone
                traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    ends: dict[int, int] = {}
    while len(ends) < processes:
        child, status = os.wait()
        if child in children:
            ends[child] = status
        if os.WIFSIGNALED(status):
            time.sleep(0.1)
            for other in set(children) - set(ends):
                os.kill(other, signal.SIGKILL)
    killed = any(os.WIFSIGNALED(status) for status in ends.values())
    if not killed and any(ends.values()):
        sys.exit("a run failed")
    return not killed


def kill_and_resume(folder: Path, seed: int, processes: int, workers: int) -> None:
    folder.mkdir()
    fitting = partial(quietly, accumulate=ACCUMULATE, workers=workers, checkpoint_steps=3)
    assert launch(processes, partial(train, folder / "whole", fitting()))

    first, second = sorted(random.Random(seed).sample(range(1, STEPS), 2))
    print(f"{processes} processes, {workers} workers: killed after steps {first} and {second}, and in a save")
    run, again = (
        partial(train, folder / "killed", fitting(folder=folder / "run", resume=resume))
        for resume in (False, True)
    )
    assert not launch(processes, run, partial(kill_after, first))
    assert not launch(processes, again, kill_while_saving)
    assert list((folder / "run").glob("*.tmp")), "no half checkpoint was left"
    assert not launch(processes, again, partial(kill_after, second))
    assert launch(processes, again)
    assert not list((folder / "run").glob("*.tmp")), "the half checkpoint was not removed"
    assert len(list((folder / "run").glob("step-*"))) == 2


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in sys.argv[3:]:
        kill_and_resume(Path(sys.argv[1]) / case, int(sys.argv[2]), *map(int, case.split("x")))
