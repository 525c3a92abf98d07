"""Devices, precision and processes: all that the loop asks of accelerate."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from pretune.errors import UsageError, UserError, choose
from pretune.tensors.batch import Batch
from pretune.training.model import Model
from pretune.training.stage import Stage

T = TypeVar("T")

if TYPE_CHECKING:
    from accelerate import Accelerator

PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}  # ours -> accelerate's


def find_device(name: str) -> str:
    """`auto` is the first that this machine has of cuda, mps, cpu; any other name must be one of them."""
    here = ["cuda"] if torch.cuda.is_available() else []
    here += ["mps"] if torch.backends.mps.is_available() else []
    here += ["cpu"]
    if name == "auto":
        return here[0]
    if name not in ("cuda", "mps", "cpu"):
        raise choose("device", name, ["auto", *here])
    if name not in here:
        raise UsageError(f"device is {name!r}, which this machine lacks; choose one of {', '.join(here)}")
    return name


def find_precision(name: str, device: str) -> str:
    """`auto` is bf16 where the device has it fast, else fp32."""
    if name == "auto":
        fast = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if fast else "fp32"
    if name not in PRECISIONS:
        raise choose("precision", name, ["auto", *PRECISIONS])
    if name == "fp16" and device != "cuda":
        raise UsageError(f"precision fp16 needs a cuda device, this is {device}; choose fp32 or bf16")
    return name


@contextmanager
def team(device: str, precision: str) -> Iterator[Accelerator]:
    """An accelerator of our own; whatever state accelerate held before is there again afterwards."""
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState, PartialState

    device = find_device(device)
    mixed = PRECISIONS[find_precision(precision, device)]
    before = [dict(state._shared_state) for state in (AcceleratorState, PartialState)]
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        # unused parameters: an encoder's summary has weights that a task on tokens never touches
        ddp = DistributedDataParallelKwargs(find_unused_parameters=True)
        accelerator = Accelerator(cpu=device == "cpu", mixed_precision=mixed, kwargs_handlers=[ddp])
        asked = int(os.environ.get("WORLD_SIZE", 1))
        if accelerator.num_processes != asked:
            raise UserError(
                f"{asked} processes were asked for, {accelerator.num_processes} trains; "
                "start them with `python -m torch.distributed.run`"
            )
        yield accelerator
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        for state, held in zip((AcceleratorState, PartialState), before, strict=True):
            state._shared_state.update(held)


class Shell(nn.Module):
    """What accelerate may wrap and patch, so that the model inside stays as it is.

    It returns nothing that gradients could come from but the loss: DistributedDataParallel waits for
    the gradient of every weight that any output depends on.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        # never used: DistributedDataParallel warns if it looks for such weights and finds none
        self.idle = nn.Parameter(torch.zeros(()))

    def forward(self, batch: Batch, carry: Any) -> tuple[Tensor, Tensor, dict[str, Tensor], Any]:
        """The loss summed over targets, the same as it is reported, its parts, the carry without history."""
        output = self.model(batch, carry)
        if output.loss is None or output.reported is None:
            raise UserError("the training data has no gold; give labels")
        return output.loss, output.reported, output.parts, detached(output.carry)


def detached(carry: Any) -> Any:
    """Recurrent state without its history: gradients end at the batch."""
    if isinstance(carry, Tensor):
        return carry.detach()
    if isinstance(carry, dict):
        return {name: detached(part) for name, part in carry.items()}
    if isinstance(carry, (list, tuple)):
        return type(carry)(detached(part) for part in carry)
    return carry


def forget(team: Accelerator) -> None:
    """Let go of what was prepared for the stage before, its wrapper and its optimizer.

    accelerate collects garbage too, which takes 0.2 s of a small run: not for a stage that has none before.
    """
    team.free_memory()


def prepare(team: Accelerator, model: Model, stage: Stage) -> tuple[nn.Module, Any]:
    """The model and a new optimizer for one stage, wrapped anew.

    Replicas diverge in silence if weights thaw under a live DistributedDataParallel, so the last
    stage's wrapper must be gone: `forget` comes first.
    """
    model.to(team.device)
    shell, optimizer = team.prepare(Shell(model), stage.optimizer.build(stage.optimized()))
    if team.scaler is None:  # accelerate's `step` then adds only a search for packages, 0.5 ms each time
        optimizer = optimizer.optimizer
    return shell, optimizer


def seed_dropout(team: Accelerator, seed: int) -> None:
    """Seed the generators that dropout draws from; `torch.manual_seed` would take 1 ms for all others."""
    torch.default_generator.manual_seed(seed)
    if team.device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif team.device.type == "mps":
        torch.mps.manual_seed(seed)


def together(team: Accelerator, *numbers: float) -> list[float]:
    """Each number summed over all processes."""
    if team.num_processes == 1:
        return list(numbers)
    summed = torch.tensor(numbers, dtype=torch.float64, device=team.device)
    torch.distributed.all_reduce(summed)
    return summed.tolist()


def share_buffers(team: Accelerator, model: nn.Module) -> None:
    """Running statistics as the first process has them: what is validated and kept."""
    if team.num_processes > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, src=0)


def from_first(team: Accelerator, value: T) -> T:
    """What the first process says, for everybody."""
    if team.num_processes == 1:
        return value
    from accelerate.utils import broadcast_object_list

    said: T = broadcast_object_list([value])[0]
    return said
