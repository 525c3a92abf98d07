"""Progress of a run on stderr: a bar on a terminal, plain lines elsewhere, nothing if quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

T = TypeVar("T")

SECONDS_UNSEEN = 2.0  # what is over by then is not worth a bar
SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_FRAMES = 0.1
SMOOTHING = 0.98  # of the loss shown, per step


class Progress:
    """Says nothing itself; keeps what the two below show. Used as a context manager."""

    seconds_between: float = float("inf")

    def __init__(self, label: str = "") -> None:
        self.label = label
        self.stage_name, self.done, self.total, self.scores = "", 0, 0, ""
        self._weighted, self._weight, self._shown_at = 0.0, 0.0, time.monotonic()
        self._parts: dict[str, float] = {}  # of the loss, weighted as it is

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def stage(self, name: str, done: int, total: int) -> None:
        """A stage begins, or goes on after `done` of its `total` steps."""
        self.stage_name, self.done, self.total = name, done, total

    def step(
        self, loss: float, lr: float, tokens_per_second: float, parts: Mapping[str, float] | None = None
    ) -> None:
        """One optimizer step is over; shown only every now and then."""
        self.done += 1
        self._weighted = SMOOTHING * self._weighted + (1 - SMOOTHING) * loss
        self._weight = SMOOTHING * self._weight + (1 - SMOOTHING)
        for name, part in (parts or {}).items():
            self._parts[name] = SMOOTHING * self._parts.get(name, 0.0) + (1 - SMOOTHING) * part
        if time.monotonic() - self._shown_at >= self.seconds_between:
            self._shown_at = time.monotonic()
            weighted = {name: part / self._weight for name, part in self._parts.items()}
            self.show_step(_losses(self._weighted / self._weight, weighted), lr, tokens_per_second)

    def epoch(self, entry: dict[str, Any]) -> None:
        """An epoch is over, with its line of the history."""
        scores = " ".join(f"{name} {value:.4g}" for name, value in entry["scores"].items())
        self.scores = f"held out: {scores}" if scores else ""
        self.show_epoch(entry)

    def note(self, text: str) -> None:
        """One line that the user should see."""

    def show_step(self, losses: str, lr: float, tokens_per_second: float) -> None: ...

    def show_epoch(self, entry: dict[str, Any]) -> None: ...

    @property
    def title(self) -> str:
        return " · ".join(part for part in (self.label, self.stage_name) if part)


class Lines(Progress):
    """A line an epoch, and one every ten seconds within it."""

    seconds_between = SECONDS_BETWEEN_LINES

    def __enter__(self) -> Progress:
        self._begun = time.monotonic()
        self._skipped = 0
        return self

    def stage(self, name: str, done: int, total: int) -> None:
        super().stage(name, done, total)
        self._begun, self._skipped = time.monotonic(), done

    def note(self, text: str) -> None:
        print(f"{self.label}: {text}" if self.label else text, file=sys.stderr, flush=True)

    def show_step(self, losses: str, lr: float, tokens_per_second: float) -> None:
        each = (time.monotonic() - self._begun) / max(1, self.done - self._skipped)
        self._line(
            f"step {self.done}/{self.total}",
            losses,
            self.scores,
            f"rate {lr:.2g}",
            f"{tokens_per_second:,.0f} tokens/s",
            f"{_clock(each * (self.total - self.done))} left",
        )

    def show_epoch(self, entry: dict[str, Any]) -> None:
        self._line(
            f"epoch {entry['epoch'] + 1}",
            _losses(entry["loss"], entry.get("losses", {})),
            self.scores,
            f"rate {entry['lr']:.2g}",
            f"{entry['tokens_per_second']:,.0f} tokens/s",
            f"{_clock(entry['seconds'])}",
        )
        self._shown_at = time.monotonic()

    def _line(self, *parts: str) -> None:
        print(" · ".join(part for part in (self.title, *parts) if part), file=sys.stderr, flush=True)


class Bar(Progress):
    """A rich progress bar, redrawn ten times a second at most and never from a thread."""

    seconds_between = SECONDS_BETWEEN_FRAMES

    def __init__(self, label: str, console: Console) -> None:
        super().__init__(label)
        self.rich = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            auto_refresh=False,
            transient=True,
        )
        self.task = self.rich.add_task(label, total=None, figures="")

    def __enter__(self) -> Progress:
        self.rich.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.rich.stop()

    def stage(self, name: str, done: int, total: int) -> None:
        super().stage(name, done, total)
        self.rich.reset(self.task, total=total, completed=done, description=self.title)
        self.rich.refresh()

    def note(self, text: str) -> None:
        self.rich.console.print(
            f"{self.label}: {text}" if self.label else text, markup=False, highlight=False
        )

    def show_step(self, losses: str, lr: float, tokens_per_second: float) -> None:
        figures = f"{losses} {self.scores} rate {lr:.2g} {tokens_per_second:,.0f} tokens/s"
        self.rich.update(self.task, completed=self.done, figures=" ".join(figures.split()))
        self.rich.refresh()

    def show_epoch(self, entry: dict[str, Any]) -> None:
        losses = _losses(entry["loss"], entry.get("losses", {}))
        figures = f"epoch {entry['epoch'] + 1} · {losses} {self.scores}"
        self.note(f"{self.stage_name} · {figures}".rstrip())


def progress(label: str, quiet: bool) -> Progress:
    """What suits stderr: a bar, lines or nothing."""
    if quiet:
        return Progress(label)
    console = Console(stderr=True)
    return Bar(label, console) if console.is_terminal else Lines(label)


def passed(things: Iterable[T], label: str, quiet: bool, total: int | None = None) -> Iterator[T]:
    """The same things; where their pass takes long, how many are through is shown on stderr, as above."""
    if quiet:
        yield from things
        return
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    bar = RichProgress(*columns, console=console, auto_refresh=False, transient=True)
    task = bar.add_task(label, total=total)
    begun = shown = time.monotonic()
    every = SECONDS_BETWEEN_FRAMES if console.is_terminal else SECONDS_BETWEEN_LINES
    started = False
    try:
        for done, thing in enumerate(things, 1):
            yield thing
            now = time.monotonic()
            if now - begun < SECONDS_UNSEEN or now - shown < every:
                continue
            shown = now
            if console.is_terminal:
                if not started:
                    bar.start()
                    started = True
                bar.update(task, completed=done)
                bar.refresh()
            else:
                of = f" of {total:,}" if total else ""
                print(f"{label} · {done:,}{of} · {_clock(now - begun)}", file=sys.stderr, flush=True)
    finally:
        if started:
            bar.stop()


def _losses(loss: float, parts: Mapping[str, float]) -> str:
    """loss 2.1 (task 0.6, next tokens 3)"""
    said = ", ".join(f"{name.replace('_', ' ')} {part:.4g}" for name, part in parts.items())
    return f"loss {loss:.4g} ({said})" if said else f"loss {loss:.4g}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
