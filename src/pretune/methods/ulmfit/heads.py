"""Published heads of classifiers in and out: blocks of batch norm, dropout, linear (section 3.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from pretune.data.files import listed
from pretune.errors import UserError
from pretune.tasks.summary_head import ClassificationHead

NORM: Final = ("weight", "bias", "running_mean", "running_var")
COUNT: Final = "num_batches_tracked"  # files of torch 0.3 have none
SETTLED: Final = 10  # batches after which a running mean of momentum 0.1 is no plain mean any more
# 0.7: 1.layers.0.bn.weight and 1.layers.0.lin.weight; 1: 1.layers.4.weight; 2: 1.layers.1.0.weight
NAME: Final = re.compile(r"^1\.layers\.(?P<block>\d+)\.(?:(?P<part>\d+|bn|lin)\.)?(?P<what>\w+)$")
PARTS: Final[Mapping[str, int]] = {"bn": 0, "lin": 1}
CLOSE: Final = 1e-4  # of the largest bias, what may be lost where a bias is moved into a norm


@dataclass(frozen=True)
class PublishedHead:
    """From the summary to the scores: a batch norm and a linear layer each, by torch's names."""

    norms: list[dict[str, Tensor]]
    linears: list[dict[str, Tensor]]

    @property
    def hidden(self) -> int | tuple[int, ...]:
        """The widths between the layers, as `Classification` writes them."""
        widths = tuple(len(linear["weight"]) for linear in self.linears[:-1])
        return widths[0] if len(widths) == 1 else widths

    @property
    def outputs(self) -> int:
        return len(self.linears[-1]["weight"])


def head_of(tensors: Mapping[str, Tensor], summary_width: int, file: Path) -> tuple[PublishedHead, list[str]]:
    """The head of a classifier's file. Numbers of its modules say their order only: dropouts that are not
    there move them.
    """
    modules: dict[tuple[int, int], dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = NAME.match(name)
        if match is None:
            raise UserError(f"{file}: {name} is no part of a head of batch norms and linear layers")
        part = match["part"] or "0"
        place = int(match["block"]), PARTS[part] if part in PARTS else int(part)
        modules.setdefault(place, {})[match["what"]] = tensor
    kinds = [_kind(modules[place], place, file) for place in sorted(modules)]
    if kinds != ["norm", "linear"] * (len(kinds) // 2):
        raise UserError(
            f"{file}: its head is {', '.join(kinds)}; known is norm, linear, once or several times: "
            "--encoder-only leaves the head out"
        )
    ordered = [modules[place] for place in sorted(modules)]
    found, notes = PublishedHead(ordered[::2], ordered[1::2]), []
    width = summary_width
    for norm, linear in zip(found.norms, found.linears, strict=True):
        if "bias" not in linear:
            linear["bias"] = torch.zeros(len(linear["weight"]))
            notes = ["the head's linear layers have no bias; zeros stand in its place"]
        norm.setdefault(COUNT, torch.tensor(SETTLED))
        for what, have, want in (
            *((f"a batch norm has the {name}", norm[name], (width,)) for name in NORM),
            ("a linear layer has the weight", linear["weight"], (len(linear["weight"]), width)),
            ("a linear layer has the bias", linear["bias"], (len(linear["weight"]),)),
        ):
            if have.shape != want:
                raise UserError(f"{file}: in its head {what} {list(have.shape)}, expected {list(want)}")
        width = len(linear["weight"])
    return found, notes


def _kind(module: Mapping[str, Tensor], place: tuple[int, int], file: Path) -> str:
    names = set(module) - {COUNT}
    if names == set(NORM):
        return "norm"
    if names in ({"weight"}, {"weight", "bias"}) and module["weight"].dim() == 2:
        return "linear"
    where = ".".join(map(str, place))
    raise UserError(
        f"{file}: module {where} of the head has {listed(sorted(module))}, which is no known layer"
    )


def fill(head: ClassificationHead, found: PublishedHead) -> None:
    """The values into a head of the same shapes."""
    norms, linears = _modules(head)
    for module, tensors in zip((*norms, *linears), (*found.norms, *found.linears), strict=True):
        module.load_state_dict(dict(tensors))


def _modules(head: ClassificationHead) -> tuple[list[nn.BatchNorm1d], list[nn.Linear]]:
    layers = list(head.layers)
    norms = [x for x in layers if isinstance(x, nn.BatchNorm1d)]
    return norms, [x for x in layers if isinstance(x, nn.Linear)]


def exported_head(head: ClassificationHead) -> tuple[dict[str, Tensor], list[str]]:
    """fastai 2's names and tensors; its linear layers have no bias, so ours go into the norms before them.

    W (n + d) = W n + b for d with W d = b, which is there wherever W has as many columns as rows that
    differ; n, what comes out of the norm, takes d into its own bias.
    """
    norms, linears = _modules(head)
    if len(norms) != len(linears):
        raise UserError("fastai's heads have batch norms; this one, of the kind linear, has none")
    found: dict[str, Tensor] = {}
    moved = False
    for block, (norm, linear) in enumerate(zip(norms, linears, strict=True)):
        for name, tensor in norm.state_dict().items():
            found[f"1.layers.{block}.0.{name}"] = tensor.detach().cpu().clone()
        weight, bias = linear.weight.detach().cpu(), linear.bias.detach().cpu()
        if bias.any():
            found[f"1.layers.{block}.0.bias"] += _shift(weight, bias)
            moved = True
        found[f"1.layers.{block}.2.weight"] = weight.clone()
    note = "fastai's linear layers have no bias: theirs are moved into the batch norms before them"
    return found, [note] if moved else []


def _shift(weight: Tensor, bias: Tensor) -> Tensor:
    exact = weight.double()
    shift = torch.linalg.pinv(exact) @ bias.double()  # the smallest that does it
    lost = (exact @ shift - bias).abs().max()
    if lost > CLOSE * bias.abs().max():
        rows, columns = weight.shape
        raise UserError(
            f"fastai's head has no biases, and those of a layer from {columns} to {rows} values cannot be "
            "moved into the batch norm before it: a layer must give no more values than it takes"
        )
    moved: Tensor = shift.float()
    return moved
