"""The commands of `pretune`; what they do is imported only once one of them runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from pretune.cli.answer import evaluate, predict
from pretune.cli.common import Command, Group, Version
from pretune.cli.compare import compare
from pretune.cli.embed import embed
from pretune.cli.explain import explain
from pretune.cli.finetune import finetune
from pretune.cli.generate import generate
from pretune.cli.interchange import export, import_
from pretune.cli.starters import starters
from pretune.cli.train import adapt, pretrain
from pretune.cli.zero_shot import zero_shot

app = typer.Typer(
    name="pretune",
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS: tuple[Callable[..., Any], ...] = (compare, pretrain, adapt, finetune, evaluate, predict, embed)
COMMANDS += (generate, zero_shot, explain, import_, export, starters)
NAMES: tuple[str, ...] = tuple(command.__name__.rstrip("_").replace("_", "-") for command in COMMANDS)
for name, command in zip(NAMES, COMMANDS, strict=True):
    app.command(name, cls=Command, no_args_is_help=command is not starters)(command)


@app.callback()
def main(version: Version = False) -> None:
    """Carry knowledge from raw text to a task, by published methods, and compare them on your own data.

    `pretune compare --demo` needs no file; `pretune compare train.csv --text review --label stars` is yours.
    """
