"""Tables of counts: what baselines that count have learned, and their folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pretune.data.samples import Sample
from pretune.errors import UserError
from pretune.runs.files import write_json
from pretune.runs.folders import CONFIG, FORMAT, read_config, write_folder, write_run
from pretune.runs.trained import Trained, task_config, task_from
from pretune.tasks.base import Answer, Task

Counts = dict[str, dict[str, int]]  # of what is seen, how often it had each tag
TABLE = "counts.json"

K = TypeVar("K", bound=Task)
M = TypeVar("M")
T = TypeVar("T", bound=Trained, covariant=True)


class Fit(NamedTuple, Generic[T]):
    """A baseline, and what it scored and answered on the validation samples before it counted those too."""

    model: T
    scores: dict[str, float]
    answers: list[Answer]


def fit(
    made: Callable[[K, Sequence[Sample]], T], task: K, train: Sequence[Sample], valid: Sequence[Sample]
) -> Fit[T]:
    """Counted in all labels; the scores are of `valid` by what `train` counts."""
    answers = made(task, train).answers(valid)
    scores = task.score([sample.gold for sample in valid], answers)
    return Fit(made(task, [*train, *valid]), scores, answers)


def counted(pairs: Iterable[tuple[str, str]]) -> Counts:
    """How often each second was seen with each first."""
    found: dict[str, Counter[str]] = {}
    for what, tag in pairs:
        found.setdefault(what, Counter())[tag] += 1
    return {what: dict(counts) for what, counts in found.items()}


def save(folder: Path, method: str, task: Task, tables: Mapping[str, Any], info: Mapping[str, Any]) -> None:
    """config.json, counts.json and run.json, atomically."""
    config = {"format": FORMAT, "kind": method, "method": method, "task": task_config(task)}

    def fill(new: Path) -> None:
        write_json(new / CONFIG, config)
        write_json(new / TABLE, tables)
        write_run(new, info)

    write_folder(folder, fill)


def load(folder: Path, kind: type[K], made: Callable[[K, Any], M]) -> M:
    """What `made` makes of the task and the tables of a folder; it raises where they do not fit."""
    task = task_from(read_config(folder)["task"])
    try:
        tables = json.loads((folder / TABLE).read_text(encoding="utf-8"))
        if not isinstance(task, kind):
            raise ValueError(f"its task is no {kind.__name__}")
        return made(task, tables)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder}: its {TABLE} cannot be read: {error!r:.80}") from None
