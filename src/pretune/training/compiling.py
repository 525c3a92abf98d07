"""torch.compile in training: what a Transformer's blocks do to each token for itself, in fewer passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from pretune.errors import UsageError, UserError
from pretune.layers.attention import Transformer


@contextmanager
def compiling(model: nn.Module, wanted: bool, device: str | torch.device) -> Iterator[None]:
    """The Transformers inside are compiled until the end; attention, whose rows differ in length, is not."""
    parts = [module for module in model.modules() if isinstance(module, Transformer)] if wanted else []
    if wanted and not parts:
        raise UsageError(
            "fitting.compile is for Transformers, gpt and bert, and this model has none; leave it out"
        )
    if wanted:
        _try(device)
    for part in parts:
        part.compile_blocks(True)
    try:
        yield
    finally:
        for part in parts:
            part.compile_blocks(False)


def _try(device: str | torch.device) -> None:
    """Raise `UserError` where nothing can be compiled, before anything is trained."""
    try:
        torch.compile(torch.cosh, dynamic=True)(torch.ones(4, device=device))
    except Exception as error:  # of torch or of the compiler, whose kinds are not promised
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"fitting.compile is set, but torch.compile does not work here: {said}; install a compiler "
            "(g++ for a processor, triton for a GPU) or leave fitting.compile out"
        ) from error
