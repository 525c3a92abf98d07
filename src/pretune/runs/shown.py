"""A comparison in a terminal, in a notebook, as a table and as a file: what its methods in Python show."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from pretune.errors import UsageError, UserError
from pretune.runs.comparison import Comparison, Rank, p_text, seconds_text, style

MOST = 10  # approaches in a short ranking
COSTS = ("train_seconds", "peak_memory_bytes", "parameters", "predictions_per_second")  # means over seeds


def title(comparison: Comparison) -> str:
    number, seeds = len(comparison.contenders), len({row.seed for row in comparison.rows})
    return (
        f"{number} approach{'es' * (number != 1)} to {comparison.task} on {comparison.data['name']}, with "
        f"{comparison.sizes[-1]:,} {comparison.counted}, {seeds} seed{'s' * (seeds != 1)}"
    )


def cells(comparison: Comparison, rank: Rank) -> list[str]:
    """A line of the ranking: name, mean, interval, p, seconds."""
    say = style(comparison.metric)
    return [
        comparison.name(rank.contender),
        say(rank.mean),
        f"{say(rank.low, unit=False)} to {say(rank.high, unit=False)}",
        p_text(rank.p_value),
        seconds_text(comparison.cost(rank.contender, rank.size, "train_seconds")),
    ]


def lines(comparison: Comparison) -> tuple[list[list[str]], str]:
    """Heads and the first rows of the ranking at the largest size, and how many more there are."""
    heads = ["approach", comparison.metric.replace("_", " "), "95 % interval", "p", "training"]
    top = comparison.top()
    more = f"and {len(top) - MOST} more" if len(top) > MOST else ""
    return [heads, *(cells(comparison, rank) for rank in top[:MOST])], more


def text(comparison: Comparison) -> str:
    """For a terminal: a short ranking, and the recommendation."""
    rows, more = lines(comparison)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    drawn = [
        "  ".join([row[0].ljust(widths[0]), *(x.rjust(n) for x, n in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join(
        [title(comparison), "", *drawn, *([more] if more else []), "", comparison.recommendation]
    )


def page(comparison: Comparison) -> str:
    """For a notebook: the same as a table."""
    (heads, *rows), more = lines(comparison)
    number = ' style="text-align: right"'
    head = "".join(f'<th scope="col">{escape(x)}</th>' for x in heads)
    body = "".join(
        f'<tr><th scope="row" style="text-align: left">{escape(name)}</th>'
        + "".join(f"<td{number}>{escape(x)}</td>" for x in others)
        + "</tr>"
        for name, *others in rows
    )
    return (
        f"<table><caption>{escape(title(comparison))}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
        + (f"<p>{escape(more)}</p>" if more else "")
        + f"<p>{escape(comparison.recommendation)}</p>"
    )


def table(comparison: Comparison) -> Any:
    """The ranking as a pandas DataFrame, largest size first, best first."""
    try:
        import pandas  # type: ignore[import-untyped]
    except ImportError:
        raise UserError("a table needs pandas: pip install pandas (comparison.ranking is the same)") from None
    rows = [
        {
            "approach": comparison.name(rank.contender),
            **rank.__dict__,
            **{what: comparison.cost(rank.contender, rank.size, what) for what in COSTS},
        }
        for rank in comparison.ranking
    ]
    return pandas.DataFrame(rows)


def write_report(comparison: Comparison, path: Path) -> Path:
    """The whole report, by the ending of `path`."""
    from pretune.runs.files import write_text
    from pretune.runs.report import html, markdown

    writers = {".html": html, ".htm": html, ".md": markdown}
    if path.suffix.lower() not in writers or path.is_dir():
        raise UsageError(f"report({str(path)!r}): give a file that ends in {', '.join(writers)}")
    write_text(path, writers[path.suffix.lower()](comparison))
    return path
