"""compare: methods × recipes × starts × sizes × seeds on one data set, to a verdict, a report and a model."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from pretune.errors import UsageError
from pretune.metrics.learning_curves import SIZES
from pretune.runs.asked import ASKED
from pretune.runs.cells import Cell, Finished, Setting, cell_id, cell_path, run_cell, task_of
from pretune.runs.comparison import BASELINES, Comparison
from pretune.runs.entries import Entry, compared, entries
from pretune.runs.guests import resolved
from pretune.runs.options import Options, Size
from pretune.runs.pool import Job, Watch, cores, execute
from pretune.runs.prepare import facts, made, prepare
from pretune.runs.problem import Labelled, Problem, Unlabelled, read
from pretune.runs.starters import expanded
from pretune.runs.verdict import View, named

TITLES = {**{name: one.title for name, one in BASELINES.items()}, "wordvectors": "word vectors"}


# Half a million words in two minutes: one wide layer learns more of them than two narrow ones, and many
# small steps more than few large ones. Fifty labels are few batches, so these are small too.
DEMO_SETTINGS: Mapping[str, Any] = {
    "ulmfit": {
        "encoder": {"embedding": 160, "hidden": 160, "layers": 1},
        "pretraining": {"epochs": 3, "lr": 0.01, "streams": 16, "candidates": 1000},
        "recipe": {"batch_size": 8, "epochs": 12},
    }
}


@dataclass(frozen=True)
class Demo:
    """What `pretune compare --demo` runs: under five minutes on two cores."""

    sizes: tuple[int, ...] = (50, 200, 1000)
    seeds: int = 3
    methods: tuple[str, ...] = ("tfidf", "wordvectors", "ulmfit")
    encoder_size: str = "tiny"
    settings: Mapping[str, Any] = field(default_factory=lambda: DEMO_SETTINGS)
    out: Path = Path("demo-report")


DEMO = Demo()


def compare(
    train: Labelled,
    test: Labelled | None = None,
    *,
    text: str | Sequence[str] = (),
    label: str | Sequence[str] = (),
    choices: str | Sequence[str] = (),
    kind: str | None = None,
    label_separator: str | None = None,
    format: str | None = None,  # noqa: A002, the option's name
    encoding: str = "utf-8",
    task: str = "classification",
    methods: Sequence[str] = (),
    recipes: Sequence[str] = (),
    sizes: Sequence[Size] = (),
    seeds: int = 3,
    seed: int = 0,
    from_: Sequence[Path | str] = (),
    vectors: Path | str | None = None,
    unlabelled: Unlabelled = None,
    scratch: bool = True,
    encoder_size: str = "small",
    language: str | None = None,
    valid_share: float = 0.2,
    test_share: float = 0.2,
    jobs: int | None = None,
    device: str = "auto",
    only: str | None = None,
    settings: Mapping[str, Any] | None = None,
    target: float | None = None,
    out: Path | str = "pretune-report",
    name: str | None = None,
    command: str | None = None,
    watch: Watch | None = None,
) -> Comparison:
    """Which way of using pretrained language models serves this data, from how many labels, at which cost?

    Without `methods` the task's baseline, wordvectors, ulmfit and those of `from_` are compared.
    `train` and `test` are files, pandas DataFrames, `datasets.Dataset`s, lists of dicts or of `Sample`;
    without `test` a share of `train` is held out.
    `task` is classification, choice, tagging, qa, srl or coref; `choices` are columns for the second.
    `unlabelled` are files (`Path`) or texts (`str`): every pretrained encoder of `from_` is adapted to them
    and to the training texts, and a method without a start learns from them. None stands for the
    training texts alone, "none" for nothing: no adaptation. `target` is the score that learning curves are
    read at, to say how many labels it takes; without it the best score there is. Finished trainings in `out`
    are kept: called again, it goes on where it stopped. A script that calls this with several jobs needs
    `if __name__ == "__main__":`.

        compare("train.csv", text="review", label="stars", from_=["models/en"]).recommendation
    """
    out = Path(out)
    folders = [resolved(x) for x in expanded(from_, methods)]
    options = Options(
        compared(methods, folders, task),
        tuple(recipes),
        tuple(sizes),
        seeds,
        seed,
        scratch,
        encoder_size,
        language,
        valid_share,
        test_share,
        jobs,
        device,
        only,
        settings or {},
        target,
    )
    options.check(out)
    reading = {"text": _listed(text), "label": _listed(label), "label_separator": label_separator}
    reading |= {"format": format, "encoding": encoding, "choices": _listed(choices)}
    problem = read(train, test, unlabelled, name, reading, kind, options, task)
    found, notes = entries(options, problem, folders, Path(vectors) if vectors else None, out)
    if options.target is not None and len(problem.sizes) < SIZES:
        raise UsageError(
            f"--target needs {SIZES} sizes or more to draw curves through, such as --sizes 100,200,500; "
            f"there {'is' if len(problem.sizes) == 1 else 'are'} {len(problem.sizes)}"
        )
    problem = replace(problem, notes=(*problem.notes, *notes))
    plan = _plan(found, options, problem, out, command or own_command())
    for note in problem.notes:
        (watch or Silent()).note(note)
    return _run(plan, found, problem, options, out, command or own_command(), watch or Silent())


class Silent:
    """A watch that says nothing."""

    def note(self, text: str) -> None: ...

    def begin(self, cells: Sequence[Cell], done: Sequence[Finished], titles: Mapping[str, str]) -> None: ...

    def preparing(self, name: str) -> None: ...

    def prepared(self, name: str, seconds: float) -> None: ...

    def finished(self, cell: Finished) -> None: ...

    def end(self) -> None: ...


def own_command() -> str:
    from pretune.runs.measure import command

    return command()


def _listed(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _plan(
    found: Sequence[Entry], options: Options, problem: Problem, out: Path, command: str
) -> dict[str, Job]:
    """Every cell by its id: the baseline first, then by falling size, so that the longest start early."""
    seeds = range(options.seed, options.seed + options.seeds)
    pairs = [
        (entry, Cell(entry.setting, size, seed))
        for size in reversed(problem.sizes)
        for seed in seeds
        for entry in found
    ]
    pairs.sort(key=lambda pair: pair[1].setting.contender.method not in BASELINES)
    if options.only is not None:
        names = [cell.name for _, cell in pairs]
        pairs = [pair for pair in pairs if fnmatchcase(pair[1].name, options.only)]
        if not pairs:
            raise UsageError(
                f"--only {options.only!r} fits no training; they are called {names[0]}, {names[-1]}, …"
            )
    largest = max(cell.size for _, cell in pairs)
    jobs = {}
    for entry, cell in pairs:
        name = cell_id(cell, problem.data)
        model = out / "models" / name if cell.size == largest else None
        jobs[name] = Job(cell, entry.needs, model, again(command, cell.name, out))
    return jobs


def again(command: str, name: str, out: Path) -> str:
    """The command that repeats one training, elsewhere."""
    words = shlex.split(command)
    if "compare" not in words[:4]:
        return f'compare(…, only="{name}", out="{out}-again")'
    kept = []
    for before, word in zip(["", *words], words, strict=False):
        if word not in ("--out", "--only") and before not in ("--out", "--only"):
            kept += [] if word.startswith(("--out=", "--only=")) else [word]
    return shlex.join([*kept, "--only", name, "--out", f"{out}-again"])


def _run(
    plan: Mapping[str, Job],
    found: Sequence[Entry],
    problem: Problem,
    options: Options,
    out: Path,
    command: str,
    watch: Watch,
) -> Comparison:
    from pretune.methods import GUESTS, METHODS
    from pretune.runs.measure import versions
    from pretune.runs.report import write
    from pretune.runs.verdict import judge
    from pretune.training.interrupts import Interrupted

    titles = {name: method.title.split(" (")[0] for name, method in (METHODS | GUESTS).items()} | TITLES
    (out / "cells").mkdir(parents=True, exist_ok=True)
    done = {name: cell for name in plan if (cell := Finished.read(cell_path(out, name)))}
    workers = options.jobs or default_jobs(options.device)
    watch.begin([job.cell for job in plan.values()], list(done.values()), titles)
    try:
        execute([job for name, job in plan.items() if name not in done], problem.data, out, workers, watch)
    except Interrupted:  # of one training; the comparison as a whole goes on when called again
        raise KeyboardInterrupt from None
    finally:
        watch.end()
    cells = [cell for name in plan if (cell := Finished.read(cell_path(out, name)))]
    assert len(cells) == len(plan)
    data = _data(problem, found, out, workers, titles)
    view = _view(problem, found[0].setting)
    comparison = judge(cells, view, problem.data.task, data, titles, target=options.target)
    _keep_best(comparison, plan, cells, problem, out)
    comparison = replace(
        comparison,
        versions=versions(),
        notes=[*problem.notes, *_method_notes(problem, options, comparison)],
        commands=_commands(command, comparison, cells),
    )
    write(comparison, out)
    return comparison.in_folder(out)


def _view(problem: Problem, setting: Setting) -> View:
    """How the test samples, their golds and answers are shown and counted."""
    from pretune.tasks.base import Tallied

    data, asked = problem.data, ASKED[problem.data.task]
    task = task_of(setting, data, data.pool)
    said = asked.said
    return View(
        [asked.text(sample) for sample in data.test],
        (lambda i, value: said(task, data.test[i], value)) if said else (lambda i, value: named(value)),
        task.scores_of if isinstance(task, Tallied) else None,
        partial(asked.pictures, task, data.test) if asked.pictures else None,
        partial(asked.right, task),
    )


def default_jobs(device: str) -> int:
    """One for each core; an accelerator has no room for two."""
    from pretune.training.devices import find_device

    return cores() if find_device(device) == "cpu" else 1


def _data(
    problem: Problem, found: Sequence[Entry], out: Path, workers: int, titles: Mapping[str, str]
) -> dict[str, Any]:
    from pretune.runs.measure import fingerprint

    data = problem.data
    starts = {}
    for entry in found:
        if entry.needs is not None and made(entry.needs.folder(out)) and entry.needs.work != "vocabulary":
            method = entry.needs.method
            name = entry.needs.name.replace(method, titles.get(method, method), 1)
            starts[name] = facts(entry.needs.folder(out))["seconds"]
    number = cores()
    threads = max(1, number // workers)
    several = f", {workers} trainings at a time" if workers > 1 else ""
    return {
        "name": problem.name,
        "train": len(data.pool),
        "test": len(data.test),
        "kind": data.kind,
        "labels": list(problem.labels),
        "counted": ASKED[data.task].counted,
        "text_columns": list(problem.columns.get("text", ())),
        "label_columns": list(problem.columns.get("label", ())),
        "language": problem.language,
        "valid_share": data.valid_share,
        "fingerprint": {"train": fingerprint(data.pool), "test": fingerprint(data.test)},
        "machine": f"{number} core{'s' * (number > 1)}{several}, {threads} thread{'s' * (threads > 1)} each",
        "starts": starts,
    }


def _keep_best(
    comparison: Comparison, plan: Mapping[str, Job], cells: Sequence[Finished], problem: Problem, out: Path
) -> None:
    """The chosen model as best/; one that an earlier run threw away is trained again, to the same weights."""
    import torch

    from pretune.runs.folders import write_folder, write_run

    best = comparison.best
    assert best is not None
    cell = next(
        c
        for c in cells
        if c.row.contender == best.contender and (c.row.size, c.row.seed) == (best.size, best.seed)
    )
    chosen = cell.id
    if _cell_of(out / "best") != chosen:
        job, model = plan[chosen], out / "models" / chosen
        if _cell_of(model) != chosen:
            if job.needs is not None and not made(job.needs.folder(out)):
                prepare(job.needs, job.needs.folder(out))
            threads = torch.get_num_threads()
            torch.set_num_threads(cell.threads)  # sums in the same order
            run_cell(job.cell, problem.data, out, model, job.command, record=False)
            torch.set_num_threads(threads)

        def fill(new: Path) -> None:
            shutil.copytree(model, new, dirs_exist_ok=True)
            run = json.loads((new / "run.json").read_text(encoding="utf-8"))
            columns = problem.columns or {"text": [], "label": [], "label_separator": None}
            write_run(new, {**run, "data": {"kind": problem.data.kind, **columns}})

        write_folder(out / "best", fill)
    shutil.rmtree(out / "models", ignore_errors=True)


def _cell_of(folder: Path) -> str | None:
    """Which cell a saved model is."""
    try:
        name = json.loads((folder / "run.json").read_text(encoding="utf-8"))["cell"]
    except (FileNotFoundError, ValueError, KeyError):
        return None
    return str(name)


def _method_notes(problem: Problem, options: Options, comparison: Comparison) -> list[str]:
    share = f"{options.valid_share:.0%}".replace("%", " %")
    notes = [
        f"Sizes count all {comparison.counted} used: {share} of them choose epochs and models (validation), "
        "the rest train. " + BASELINES[ASKED[problem.data.task].baseline].refitted,
        "A seed draws the same samples for every approach, and larger sizes contain the smaller ones.",
        "The recommendation, and so best/, is the simplest approach within one standard error of the best on "
        "validation data (Breiman et al. 1984); only where the test data say clearly that it is worse than "
        "another do they choose instead, which is then said. The tests against the first row of the ranking "
        "take that row as found on the test data.",
        "Peak memory is that of the whole process while it trains: libraries, and what earlier trainings "
        "left in it, included.",
        "From scratch an encoder has the vocabulary of its pretrained sister and, without --recipes, the "
        "recipe full: gradual unfreezing would spare layers that know nothing.",
    ]
    if problem.data.task == "choice":
        notes.append(
            "TF-IDF scores a choice by its words, by those that it shares with the question, and by how many."
        )
    if problem.given is not None:
        notes.append(
            "Unlabelled text: what was given and the training texts without labels; test texts that stand in "
            "it as a document or a line were left out."
        )
    elif any("adapted" in row.start for row in comparison.rows):
        notes.append("Adaptation saw the training texts without their labels; never a test text.")
    if any(start for start in comparison.data["starts"]):
        notes.append("Starts are made once, with the first seed, and shared by all sizes and seeds.")
    return notes


def _commands(command: str, comparison: Comparison, cells: Sequence[Finished]) -> list[str]:
    """The whole, then the best validated seed of each contender at the largest size."""
    largest, lines = comparison.sizes[-1], [command]
    for contender in comparison.contenders:
        mine = [c for c in cells if c.row.contender == contender and c.row.size == largest]
        if mine:
            lines.append(max(mine, key=lambda c: c.validation[comparison.metric]).command)
    return lines
