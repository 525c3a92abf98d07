"""Weights laid out for a kernel once, kept as long as the weights live, and again when they have changed."""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from pretune.errors import UserError

T = TypeVar("T")
Precision = Literal["float32", "float16", "int8"]  # how weights are stored

RUN = 127  # numbers, taken two and two, whose sum is looked at; a prime, so that rows and runs begin apart
_lock = RLock()
_kept: Any = WeakTensorKeyDictionary()  # weight -> how it is laid out -> (stamp, layout)


def packed(weight: Tensor, how: str, make: Callable[[Tensor], T]) -> T:
    """`make(weight)` of a float32 weight, or what it made last, named `how`, of the same values."""
    stamp = stamped(weight)
    with _lock:  # which also lets only one of several threads do it
        found = _kept.get(weight, {}).get(how)
        if found is None or found[0] != stamp:
            with torch.no_grad():
                found = stamp, make(weight.detach())
            _kept.setdefault(weight, {})[how] = found
    result: T = found[1]
    return result


def stamped(weight: Tensor) -> tuple[int, int]:
    """What changes with the weight: its version, and a sum of its bits that knows their places.

    Fused optimisers and `weight.data` write without a new version, so the values are read: as long as one
    step of the recurrence would take for it.
    """
    flat = weight.detach().reshape(-1)
    even = len(flat) // (2 * RUN) * 2 * RUN
    wide = torch.int64 if flat.element_size() >= 4 else torch.int32
    sums = flat[:even].view(wide).view(-1, RUN).sum(1)  # of runs: values that change places change runs
    places = torch.arange(1, len(sums) + 1, device=flat.device)
    rest = flat[even:].view(torch.int32 if flat.element_size() >= 4 else torch.int16)
    total = (sums * places).sum() + (rest * torch.arange(1, len(rest) + 1, device=flat.device)).sum()
    return 0 if weight.is_inference() else weight._version, int(total)


def as_halves(weight: Tensor) -> Tensor:
    """The weight rounded to 16 bits."""
    halves = weight.half()
    if halves.isinf().sum() > weight.isinf().sum():
        raise UserError("a weight is beyond 65504, the largest float16: use precision float32")
    return halves
