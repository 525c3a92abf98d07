"""explain: why a trained model answers as it does, word by word."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from pretune.cli.common import ConfigFile, Device, Encoding, Notes, Quiet, SampleFormat, stderr, stdout
from pretune.errors import UsageError, choose

if TYPE_CHECKING:
    from pretune.runs.attributions import Explaining
    from pretune.runs.explain import Explanation

ENDINGS = (".html", ".jsonl")
FAR_OFF = 0.05  # of the difference that integrated gradients explain
WILD = 10  # times as far from even as the answer
OF = {"steps": "integrated", "baseline": "integrated", "occlude": "occlusion"}


def explain(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `finetune` or `compare` left.")],
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT", help="csv, tsv, jsonl, parquet, or txt with a text a line; - is stdin."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="A page (.html) or data (.jsonl); to the terminal if not given."),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            "--method", help="integrated (gradients), gradient (× input) or occlusion (words left out)."
        ),
    ] = "integrated",
    wanted: Annotated[
        str | None,
        typer.Option(
            "--for", metavar="LABEL", help="What speaks for this label; for the answer if not given."
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Of integrated: more are slower, exacter. 50.")
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", help="Of integrated: zero or unknown, what stands for no word. zero."),
    ] = None,
    occlude: Annotated[
        str | None,
        typer.Option("--occlude", help="Of occlusion: words are removed, or unknown. removed."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Explain so many texts, the first of the input.")
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", help="Column with the text; twice for pairs. As in training if not given."),
    ] = None,
    file_format: SampleFormat = None,
    encoding: Encoding = "utf-8",
    device: Device = "auto",
    quiet: Quiet = False,
    config: ConfigFile = None,
) -> None:
    """Which words of each text speak for the answer, and which against it.

    Scores are in log-odds of the label, and stand for characters of the original text. Those of integrated
    gradients add up to what the words together change.

    Example: pretune explain stars new.csv --out explained.html

    As data: pretune explain stars new.csv --method occlusion --out explained.jsonl
    """
    from pretune.runs.explain import Explainer
    from pretune.runs.predictor import read_input

    if out is not None and out.suffix not in ENDINGS:
        raise UsageError(f"--out {out}: write .html for a page or .jsonl for data")
    how = _how(method, steps, baseline, occlude)
    explainer = Explainer.load(folder, how, device)
    notes = Notes(quiet)
    samples, said = read_input(folder, source, text or (), file_format, encoding)
    notes(*said)
    samples = samples[:limit]
    found = list(_watched(explainer.explain_all(samples, wanted), len(samples), notes))
    notes(*doubts(found, how))
    if out is None:
        _print(found)
        return
    from pretune.runs.explanation_page import html
    from pretune.runs.files import write_text

    name = "stdin" if source == "-" else Path(source).name
    page = html(found, f"{folder.absolute().name} on {name}") if out.suffix == ".html" else _lines(found)
    write_text(out, page)
    notes(f"{len(found)} text{'s' * (len(found) != 1)} explained in {out}")


def _how(method: str, steps: int | None, baseline: str | None, occlude: str | None) -> Explaining:
    from pretune.runs.attributions import Explaining

    if method not in ("integrated", "gradient", "occlusion"):
        raise choose("--method", method, ("integrated", "gradient", "occlusion"))
    given: dict[str, Any] = {"steps": steps, "baseline": baseline, "occlude": occlude}
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        if OF[name] != method:
            raise UsageError(f"--{name} is for --method {OF[name]}; --method is {method}")
    return Explaining(cast(Any, method), **given)


def _watched(found: Iterator[Explanation], total: int, notes: Notes) -> Iterable[Explanation]:
    """The same, with a bar on a terminal."""
    if notes.quiet or not stderr().is_terminal:
        return found
    from rich.progress import track

    return track(found, "explain", total, console=stderr(), transient=True)


def doubts(found: list[Explanation], how: Explaining) -> list[str]:
    """Where integrated gradients begin far from any text, or do not add up to what they should."""
    lost = [
        one for one in found if one.baseline is not None and abs(one.baseline) > WILD * max(1, abs(one.score))
    ]
    doubts = []
    if 2 * len(lost) > len(found):
        doubts.append(
            f"without words {len(lost)} of {len(found)} texts score far beyond their answers (the first "
            f"{lost[0].baseline:.3g}), so nearly every word seems to count; --method occlusion asks nearer by"
        )
    far = [
        one
        for one in found
        if one.baseline is not None
        and abs(one.gap or 0) > max(FAR_OFF * abs(one.score - one.baseline), FAR_OFF)
    ]
    if far:
        share = f"{len(far)} of {len(found)} texts"
        doubts.append(
            f"scores of {share} add up to more than 5 % off; --steps {4 * how.steps} would come nearer"
        )
    return doubts


def _lines(found: list[Explanation]) -> str:
    return "".join(json.dumps(one.to_dict(), ensure_ascii=False) + "\n" for one in found)


def _print(found: list[Explanation]) -> None:
    """JSON lines; on a terminal shaded text."""
    if not sys.stdout.isatty():
        sys.stdout.write(_lines(found))
        return
    from rich.text import Text as Styled

    from pretune.runs.explanation_page import number, pieces

    for one in found:
        said = f"{one.label} {one.probability:.3f}" if one.label is not None else f"{one.answer.value:.4g}"
        head = Styled(said, style="bold")
        head.append(f"  {number(one.score)}", style="dim")
        stdout().print(head)
        for part in range(len(one.texts)):
            line = Styled()
            for piece in pieces(one, part):
                line.append(piece.text, style=_style(piece.level))
            stdout().print(line)
        stdout().print()


def _style(level: int) -> str:
    """Blue and underlined for, orange and slanted against; strong words are bold as well."""
    if not level:
        return ""
    side = "underline bright_blue" if level > 0 else "italic dark_orange"
    return f"bold {side}" if abs(level) > 2 else side
