"""What the commands share: options, settings from files and overrides, notes and errors."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from pretune.errors import UsageError, UserError, choose

if TYPE_CHECKING:
    from rich.console import Console

    from pretune.training.loop import Fitting

OVERRIDE = re.compile(r"[a-z_]+(\.[A-Za-z_0-9]+)+=")  # recipe.lr=0.004
SECTIONS = "pretune.sections"  # where the tables of --config wait until the command asks for them


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Values of the file become the options' defaults; its tables wait in the context."""
    if path is None or context.resilient_parsing:
        return path
    from pretune.config import load_toml

    names = {x: p.name for p in context.command.params for x in (p.name, *(o.lstrip("-") for o in p.opts))}
    defaults, sections = {}, {}
    for name, value in load_toml(path).items():
        if isinstance(value, dict):
            if name != "about" and "set" not in names:
                raise UsageError(
                    f"{path}: [{name}] has no meaning for this command, which takes options only"
                )
            sections[name] = value
        elif name.replace("_", "-") in names or name in names:
            defaults[names[name if name in names else name.replace("_", "-")]] = value
        else:
            options = [o.lstrip("-") for p in context.command.params for o in p.opts]
            raise UsageError(f"{path}: {choose('an option', name, options)}")
    context.default_map = {**(context.default_map or {}), **defaults}
    context.meta[SECTIONS] = sections
    return path


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"pretune {version('pretune')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and end."),
]
Text = Annotated[
    list[str] | None,
    typer.Option("--text", help="Column with the text; twice for pairs. Guessed and printed if not given."),
]
Label = Annotated[
    list[str] | None,
    typer.Option("--label", help="Column with the label. Guessed and printed if not given."),
]
Choices = Annotated[
    list[str] | None,
    typer.Option(
        "--choices", help="For choice: column with the list of choices, or repeat for a column each."
    ),
]
Kind = Annotated[
    str | None,
    typer.Option("--kind", help="What labels are: one, many or number. Guessed and printed if not given."),
]
LabelSeparator = Annotated[
    str | None, typer.Option("--label-separator", help="What stands between labels where a cell holds many.")
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="csv, tsv, jsonl, parquet, txt or label-first; for tagging conll, conllu or jsonl; by the "
        "file's ending if not given.",
    ),
]
SampleFormat = Annotated[
    str | None,
    typer.Option(
        "--format", help="csv, tsv, jsonl, parquet, txt or label-first; by the file's ending if not given."
    ),
]
Documents = Annotated[
    str | None,
    typer.Option(
        "--documents", help="A document of a plain text is the file, up to a blank line, or a line."
    ),
]
Encoding = Annotated[str, typer.Option("--encoding", help="How files are encoded.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for the result.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the model folder that is there.")]
Seed = Annotated[int, typer.Option("--seed", help="Everything random follows from it.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Processes that make batches.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")]
Plan = Annotated[bool, typer.Option("--plan", help="Print stages, groups, rates and parameters, then end.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", is_eager=True, callback=_read_config, help="TOML: options, and tables such as [recipe]."
    ),
]


def setting(examples: str) -> Any:
    """The option --set of a command that takes such settings."""
    return typer.Option(
        "--set", metavar="NAME=VALUE", help=f"A setting such as {examples}; --set may be left out."
    )


Set = Annotated[
    list[str] | None,
    setting("recipe.lr=0.004, fitting.patience=3 (early stopping) or fitting.precision=bf16"),
]


class Command(TyperCommand):
    """A command that also takes bare settings: `recipe.lr=0.004` among its arguments."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if any("--set" in param.opts for param in self.params):
            args = self._marked(list(args))
        return super().parse_args(ctx, args)

    def _marked(self, args: list[str]) -> list[str]:
        """The same with `--set=` before bare settings; values of other options stay as they are."""
        valued = {
            o for p in self.params for o in p.opts if o.startswith("-") and not getattr(p, "is_flag", False)
        }
        before = ["", *args]
        return [
            f"--set={arg}" if OVERRIDE.match(arg) and before[i] not in valued else arg
            for i, arg in enumerate(args)
        ]


class Group(TyperGroup):
    """All commands; a user's mistake ends in one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            fail(str(error), "error: " if error.exit_code != 130 else "")
            raise typer.Exit(error.exit_code) from None
        except BrokenPipeError:
            raise
        except OSError as error:
            fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            fail("stopped", "")
            raise typer.Exit(130) from None


def fail(message: str, word: str = "error: ") -> None:
    """`error: …` in red, on one line of stderr."""
    from rich.text import Text as Styled

    line = " ".join(message.split())
    stderr().print(Styled.assemble((word, "bold red"), line), soft_wrap=True)


def stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def stdout() -> Console:
    from rich.console import Console

    return Console(highlight=False)


class Notes:
    """What the user should know beside the result; silent if asked, and on all processes but the first."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet or os.environ.get("RANK", "0") != "0"

    def __call__(self, *lines: str) -> None:
        if not self.quiet:
            for line in lines:
                stderr().print(line, style="dim", markup=False, soft_wrap=True)


def settings(
    context: typer.Context, overrides: Sequence[str] | None, sections: Sequence[str]
) -> dict[str, Any]:
    """The tables of --config with the overrides on top; `about` is for readers of the file alone."""
    from pretune.config import merge, parse

    said = merge(context.meta.get(SECTIONS, {}), parse(overrides or []))
    said.pop("about", None)
    for name, value in said.items():
        if name not in sections:
            raise choose("a setting's first word", name, sections)
        if not isinstance(value, Mapping):
            raise UsageError(f"{name} is a table of settings; write {name}.NAME=VALUE")
    return {name: dict(said.get(name, {})) for name in sections}


def fitting(
    out: Path,
    changes: Mapping[str, Any],
    *,
    seed: int,
    device: str,
    workers: int,
    resume: bool,
    quiet: bool,
    label: str,
) -> Fitting:
    """How to run, with checkpoints beside `out` until the run is over."""
    from pretune.config import update
    from pretune.training.loop import Fitting

    base = Fitting(
        seed=seed,
        device=device,
        folder=checkpoints(out),
        resume=resume,
        workers=workers,
        quiet=Notes(quiet).quiet,
        label=label,
    )
    return update(base, changes, "fitting")


def checkpoints(out: Path) -> Path:
    return out.with_name(f"{out.name}.checkpoints")


def done(out: Path, notes: Notes) -> None:
    """A finished run needs its checkpoints no more."""
    import shutil

    if os.environ.get("RANK", "0") == "0":
        shutil.rmtree(checkpoints(out), ignore_errors=True)
    notes(f"saved in {out}")


def print_plan(rows: Sequence[Mapping[str, object]]) -> None:
    """Stages one after another, each with a table of its groups, rates and parameters."""
    from itertools import groupby

    from rich.table import Table

    console = stdout()
    for number, (name, of_stage) in enumerate(groupby(rows, lambda row: row["stage"]), start=1):
        groups = list(of_stage)
        first = groups[0]
        epochs = f"{first['epochs']} epoch{'s' * (first['epochs'] != 1)}"
        epochs += f", more if those are fewer than {first['least_steps']} steps" * bool(first["least_steps"])
        how = [epochs, first["optimizer"], first["schedule"]]
        how += [first["momentum"]] if first["momentum"] else []
        how += [f"gradient norm up to {first['clip']:g}"] if first["clip"] is not None else []
        console.print(f"{number}. {name}: {', '.join(map(str, how))}", soft_wrap=True)
        table = Table("group", "rate", "weight decay", "parameters")
        for column in table.columns[1:]:
            column.justify = "right"
        for row in groups:
            rates = f"{row['lr']:.4g}", f"{row['weight_decay']:.4g}", f"{row['parameters']:,}"
            table.add_row(str(row["group"]), *rates)
        console.print(table)


def score_lines(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
