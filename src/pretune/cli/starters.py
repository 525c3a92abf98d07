"""starters: the small pretrained models that are installed."""

from __future__ import annotations

from typing import Annotated

import typer

from pretune.cli.common import ConfigFile, stdout
from pretune.errors import choose


def starters(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One of them: its model card in full.")
    ] = None,
    folder: Annotated[bool, typer.Option("--folder", help="Of NAME its folder alone, for scripts.")] = False,
    config: ConfigFile = None,
) -> None:
    """List the small pretrained models that are installed, to be named where a model folder may be.

    They come with `pip install pretune-starters`: small enough for a laptop, every method in English, learned
    from public-domain novels, and word vectors in Chinese. `--from en` means all of them for `compare`, and
    that of --method for `finetune`; other commands take one by its name.

    Example: pretune compare train.csv --text review --label stars --from en --out report

    Example: pretune embed elmo-en sentences.txt --out vectors.h5

    Example: pretune starters bert-en
    """
    from rich.markdown import Markdown
    from rich.table import Table

    from pretune.errors import UsageError
    from pretune.runs.starters import INSTALL
    from pretune.runs.starters import starters as installed

    found = installed()
    console = stdout()
    if not found:
        console.print(f"no starters are installed: {INSTALL}", markup=False)
        return
    if name is not None:
        if name not in found:
            raise choose("NAME", name, found)
        if folder:
            typer.echo(found[name].folder)
            return
        console.print(Markdown(found[name].card))
        return
    if folder:
        raise UsageError("--folder is of one starter; give its NAME")
    table = Table()
    table.add_column("starter", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("MB", justify="right", no_wrap=True)
    table.add_column("on text held out")
    for starter in found.values():
        weights = f"{starter.parameters:,}" if starter.parameters else "–"
        held_out = starter.run.get("card", {}).get("held_out", "–")
        table.add_row(starter.name, weights, f"{starter.bytes / 1e6:.1f}", held_out)
    console.print(table)
    console.print("pretune starters NAME tells what it learned from and where its limits are.", style="dim")
