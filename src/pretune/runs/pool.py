"""Running a comparison's work, here or in several processes: starts first, then the cells that need them."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Any, Protocol

from pretune.errors import UserError
from pretune.runs.cells import Cell, Data, Finished, run_cell
from pretune.runs.prepare import Preparation, facts, made, prepare

PATIENCE = 30.0  # seconds that interrupted workers get to write a checkpoint


@dataclass(frozen=True)
class Job:
    """A cell to be run, and what must be made before it."""

    cell: Cell
    needs: Preparation | None
    model: Path | None
    command: str


class Watch(Protocol):
    """Who wants to know how far a comparison is."""

    def note(self, text: str) -> None: ...

    def begin(self, cells: Sequence[Cell], done: Sequence[Finished], titles: Mapping[str, str]) -> None:
        """All cells, and those that an earlier run has finished."""
        ...

    def preparing(self, name: str) -> None: ...

    def prepared(self, name: str, seconds: float) -> None: ...

    def finished(self, cell: Finished) -> None: ...

    def end(self) -> None:
        """Always called, also after an error."""
        ...


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def execute(jobs: Sequence[Job], data: Data, out: Path, workers: int, watch: Watch) -> None:
    """Run everything; each cell is on disk as soon as it is over."""
    if workers == 1:
        _here(jobs, data, out, watch)
    elif jobs:
        _spread(jobs, data, out, workers, watch)


def _here(jobs: Sequence[Job], data: Data, out: Path, watch: Watch) -> None:
    for job in jobs:
        if job.needs is not None and not made(job.needs.folder(out)):
            watch.preparing(job.needs.name)
            prepare(job.needs, job.needs.folder(out))
            watch.prepared(job.needs.name, facts(job.needs.folder(out))["seconds"])
        watch.finished(run_cell(job.cell, data, out, job.model, job.command))


def _spread(jobs: Sequence[Job], data: Data, out: Path, workers: int, watch: Watch) -> None:
    waiting: dict[str, list[Job]] = {}
    first: dict[str, Preparation] = {}
    ready = []
    for job in jobs:
        if job.needs is None or made(job.needs.folder(out)):
            ready.append(job)
        else:
            waiting.setdefault(job.needs.fingerprint, []).append(job)
            first[job.needs.fingerprint] = job.needs
    threads = max(
        1, cores() // max(1, min(workers, len(first)))
    )  # nothing else runs long while starts are made
    with _pool(workers, data, out) as submit:
        running: dict[Future[Any], Preparation | None] = {}
        for preparation in first.values():
            watch.preparing(preparation.name)
            running[submit(_prepare, preparation, preparation.folder(out), threads)] = preparation
        running |= {submit(_run, job): None for job in ready}
        while running:
            over, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in over:
                start, result = running.pop(future), future.result()
                if start is None:
                    watch.finished(result)
                    continue
                watch.prepared(start.name, facts(start.folder(out))["seconds"])
                running |= {submit(_run, job): None for job in waiting[start.fingerprint]}


@contextmanager
def _pool(workers: int, data: Data, out: Path) -> Iterator[Callable[..., Future[Any]]]:
    """Fresh processes; whatever ends the block early ends them too."""
    before = set(multiprocessing.active_children())
    threads = max(1, cores() // workers)
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(data, out, threads)
    )
    try:
        yield pool.submit
    except BaseException as error:
        _stop(set(multiprocessing.active_children()) - before)
        if isinstance(error, BrokenProcessPool):
            raise UserError(
                "a worker process died, perhaps for want of memory (or the script that compares has no "
                "`if __name__ == '__main__':`); finished cells are kept: try again with fewer --jobs"
            ) from None
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _stop(processes: set[BaseProcess]) -> None:
    """At once, but for a training with checkpoints: it may write one."""
    for process in processes:
        process.terminate()
    end = monotonic() + PATIENCE
    for process in processes:
        process.join(max(0.0, end - monotonic()))
        if process.is_alive():
            process.kill()


_given: dict[str, Any] = {}  # of a worker process: what every cell needs, sent once


def _begin(data: Data, out: Path, threads: int) -> None:
    """First thing in a worker: its share of the cores; Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ |= {
        name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    }
    import torch

    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    assert parent is not None
    Thread(target=_end_with, args=(parent,), daemon=True).start()
    _given.update(data=data, out=out)


def _end_with(parent: BaseProcess) -> None:
    """A parent that was killed leaves no workers behind."""
    parent.join()
    os._exit(1)


def _run(job: Job) -> Finished:
    with _mortal():
        return run_cell(job.cell, _given["data"], _given["out"], job.model, job.command)


def _prepare(preparation: Preparation, folder: Path, threads: int) -> None:
    with _mortal():
        prepare(preparation, folder, threads)


@contextmanager
def _mortal() -> Iterator[None]:
    """A worker told to stop in the middle of a training stops, instead of taking up the next one."""
    from pretune.training.interrupts import Interrupted

    try:
        yield
    except (Interrupted, KeyboardInterrupt):
        os._exit(1)
