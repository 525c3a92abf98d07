"""Watching a comparison: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from time import monotonic
from typing import TYPE_CHECKING

from pretune.runs.cells import Cell, Finished
from pretune.runs.comparison import (
    Comparison,
    Contender,
    bytes_text,
    contender_names,
    count_text,
    p_text,
    seconds_text,
    style,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table


class PlainLines:
    """One line for every training that ends."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def note(self, text: str) -> None:
        self.say(text)

    def begin(self, cells: Sequence[Cell], done: Sequence[Finished], titles: Mapping[str, str]) -> None:
        self.names = contender_names(list(dict.fromkeys(c.setting.contender for c in cells)), titles)
        self.total, self.number = len(cells), len(done)
        if done:
            self.say(f"{len(done)} of {len(cells)} trainings are finished already")

    def preparing(self, name: str) -> None:
        self.say(f"making {name} …")

    def prepared(self, name: str, seconds: float) -> None:
        self.say(f"made {name} in {seconds_text(seconds)}")

    def finished(self, cell: Finished) -> None:
        self.number += 1
        row, say = cell.row, style(cell.metric)
        self.say(
            f"[{self.number}/{self.total}] {self.names[row.contender]}, {row.size:,} {cell.counted}, "
            f"seed {row.seed}: {cell.metric} {say(row.score)} ({seconds_text(row.train_seconds)})"
        )

    def end(self) -> None:
        return None

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True, style="dim")


class LiveTable(PlainLines):
    """Means as they come in: contenders down, sizes across."""

    live: Live | None = None

    def begin(self, cells: Sequence[Cell], done: Sequence[Finished], titles: Mapping[str, str]) -> None:
        from rich.live import Live

        super().begin(cells, done, titles)
        self.cells, self.done, self.making = list(cells), list(done), list[str]()
        self.began = monotonic()
        self.live = Live(
            get_renderable=self.table, console=self.console, refresh_per_second=4, transient=True
        )
        self.live.start()

    def preparing(self, name: str) -> None:
        self.making.append(name)

    def prepared(self, name: str, seconds: float) -> None:
        self.making.remove(name)
        super().prepared(name, seconds)

    def finished(self, cell: Finished) -> None:
        self.number += 1
        self.done.append(cell)

    def end(self) -> None:
        if self.live is not None:
            self.live.stop()

    def table(self) -> Table:
        from rich.table import Table

        sizes = sorted({cell.size for cell in self.cells})
        doing = f"making {', '.join(self.making)}; " if self.making else ""
        caption = f"{doing}{self.number} of {self.total} trainings, {seconds_text(monotonic() - self.began)}"
        table = Table("", *(f"{size:,}" for size in sizes), caption=caption, caption_justify="left")
        for column in table.columns[1:]:
            column.justify = "right"
        for contender, name in self.names.items():
            table.add_row(name, *(self._entry(contender, size) for size in sizes))
        return table

    def _entry(self, contender: Contender, size: int) -> str:
        found = [c for c in self.done if c.row.contender == contender and c.row.size == size]
        wanted = sum(c.setting.contender == contender and c.size == size for c in self.cells)
        if not found:
            return "·" * min(wanted, 5)
        mean = style(found[0].metric)(fmean(c.row.score for c in found))
        return mean + "·" * min(wanted - len(found), 5)


def watcher(console: Console) -> PlainLines:
    return LiveTable(console) if console.is_terminal else PlainLines(console)


def ranking(comparison: Comparison) -> Table:
    """The ranking at the largest size, for the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    say, size = style(comparison.metric), comparison.sizes[-1]
    names = contender_names(comparison.contenders, comparison.titles)
    unit = f", in{say.unit}" if say.unit else ""
    title = f"{comparison.metric.replace('_', ' ')} with {size:,} {comparison.counted}{unit}"
    heads = ("", "mean ± sd", "95 % interval", "p", "training", "memory", "answers/s")
    table = Table(*heads, title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.columns[0].overflow = "fold"  # a recipe's name is never cut
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for rank in comparison.top():
        who = rank.contender
        table.add_row(
            names[who],
            f"{say(rank.mean, unit=False)} ± {say(rank.sd, unit=False)}",
            f"{say(rank.low, unit=False)}–{say(rank.high, unit=False)}",
            p_text(rank.p_value),
            seconds_text(comparison.cost(who, size, "train_seconds")),
            bytes_text(comparison.cost(who, size, "peak_memory_bytes")),
            count_text(comparison.cost(who, size, "predictions_per_second")),
            style="bold" if rank is comparison.top()[0] else "",
        )
    return table
