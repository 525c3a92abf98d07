"""Work that needs no gradient, shared among threads that never wait for one another."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
FEWEST = 32  # rows that are worth a thread
LARGEST = 1 << 25  # numbers of scratch memory that a thread keeps: 128 MB
_own = threading.local()


def each(work: Callable[[int], T], count: int) -> list[T]:
    """`work(0)`, `work(1)`, ...: side by side, one thread each, where torch may have several threads.

    Work that shares itself out again does so one after the other: its threads would wait for themselves.
    """
    if torch.get_num_threads() < 2 or count < 2 or getattr(_own, "works", False):
        return [work(number) for number in range(count)]

    def quiet(number: int) -> T:
        with torch.no_grad():  # a thread does not know its caller's mode
            return work(number)

    return list(_pool(torch.get_num_threads(), os.getpid()).map(quiet, range(count)))


def by_rows(work: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`work(x)` of rows that do not depend on one another, a share of them in each thread."""
    parts = max(1, min(torch.get_num_threads(), len(x) // FEWEST))
    if parts == 1 or x.device.type != "cpu":
        return work(x)
    shares = x.tensor_split(parts)
    return torch.cat(each(lambda number: work(shares[number]), parts))


def alone(tensors: Iterable[Tensor]) -> bool:
    """Whether this is work for threads of ours: on a processor, and without a gradient."""
    return not torch.is_grad_enabled() and all(x.device.type == "cpu" for x in tensors)


def scratch(rows: int, columns: int) -> Tensor:
    """Memory of this thread's own that its next call overwrites, float32: (rows, columns).

    A fresh block of this size costs more to touch than a product costs to work out.
    """
    wanted = rows * columns
    if wanted > LARGEST:
        return torch.empty(rows, columns, dtype=torch.float32, device="cpu")
    memory: Tensor | None = getattr(_own, "memory", None)
    if memory is None or len(memory) < wanted:
        with torch.inference_mode(False):  # or it could not be written to outside of that mode
            memory = _own.memory = torch.empty(wanted, dtype=torch.float32, device="cpu")
    return memory[:wanted].view(rows, columns)


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """A pool of this process, for a fork has none of its parent's threads; torch has one thread in each."""
    together = threading.Barrier(threads)

    def alone_from_now_on() -> None:
        together.wait()
        _own.works = True
        torch.get_num_threads()  # at its first use torch gives a thread the number of all
        torch.set_num_threads(1)

    pool = ThreadPoolExecutor(threads, "pretune")
    for started in [pool.submit(alone_from_now_on) for _ in range(threads)]:
        started.result()
    torch.set_num_threads(threads)  # which threads born later begin with: the last number that anybody set
    return pool
