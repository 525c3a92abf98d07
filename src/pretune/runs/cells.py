"""Cells: one training of a comparison each, measured, kept on disk, never run twice."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pretune.data.samples import Sample
from pretune.data.splits import split, subsample, without_leaks
from pretune.runs.asked import ASKED
from pretune.runs.baselines import BASELINES
from pretune.runs.comparison import Contender, Row
from pretune.runs.files import write_json
from pretune.runs.guests import METHOD as GUEST

if TYPE_CHECKING:
    from pretune.runs.starts import Start
    from pretune.runs.trained import Trained
    from pretune.tasks.base import Answer, Task

FORMAT = 1  # of a cell's file


@dataclass(frozen=True)
class Setting:
    """How a contender is trained: all that its numbers depend on beside data, size and seed."""

    contender: Contender
    recipe: Mapping[str, Any]  # of the recipe, or of TfIdfConfig
    folder: Path | None = None  # a pretrained folder; from scratch only its codec and sizes are taken
    fingerprint: str = ""  # of what the folder holds, or of all that it will be made from
    task: Mapping[str, Any] = field(default_factory=dict)  # options of the head
    fitting: Mapping[str, Any] = field(default_factory=dict)  # device, precision, patience, …
    encoder: Mapping[str, Any] = field(default_factory=dict)  # other than the folder's; in `fingerprint`


@dataclass(frozen=True)
class Cell:
    """One training."""

    setting: Setting
    size: int  # labels, those for validation included
    seed: int

    @property
    def name(self) -> str:
        """method/recipe/start/size/seed: what `--only` matches."""
        return "/".join(map(str, (*self.setting.contender, self.size, self.seed)))


@dataclass(frozen=True)
class Data:
    """What every cell sees: the pool that is drawn from, and the test samples."""

    pool: tuple[Sample, ...]
    test: tuple[Sample, ...]
    kind: str  # one, many, number; choice; tags; qa; roles; clusters
    valid_share: float
    task: str = "classification"

    def drawn(self, size: int, seed: int) -> tuple[list[Sample], list[Sample]]:
        """(train, valid) of a seed: the same for every contender, and smaller sizes inside larger ones."""
        together = ASKED[self.task].together
        chosen = subsample(self.pool, size, seed, together)
        rest, valid = split(chosen, self.valid_share, seed, together is None, together)
        return without_leaks(rest, valid)[0], valid

    @cached_property
    def labels(self) -> str:
        """A fingerprint of the names that golds may have."""
        golds = {str(s.gold) for s in self.pool} if self.kind != "number" else set()
        return digest([self.kind, sorted(golds)])


def digest(value: object) -> str:
    """12 hex digits that depend on plain values alone."""
    text = json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def slug(text: str) -> str:
    """A name as part of a file's."""
    return re.sub(r"[^\w.]+", "-", text).strip("-.").lower() or "x"


def cell_id(cell: Cell, data: Data) -> str:
    """A readable name that changes with everything the cell's numbers depend on."""
    from pretune.runs.measure import fingerprint, versions

    train, valid = data.drawn(cell.size, cell.seed)
    setting = cell.setting
    depends = [
        FORMAT,
        versions(),
        setting.contender,
        setting.recipe,
        setting.fingerprint,
        setting.task,
        setting.fitting,
        cell.size,
        cell.seed,
        data.labels,
        *map(fingerprint, (train, valid, data.test)),
    ]
    names = [*map(slug, setting.contender), str(cell.size), f"seed{cell.seed}"]
    return "-".join([*names, digest(depends)])


@dataclass(frozen=True)
class Finished:
    """What a cell found, as its file says it."""

    id: str
    row: Row
    metric: str
    validation: dict[str, float]
    golds: list[Any]
    predicted: list[Any]  # of each test sample what `Answer.said` has: a label, a number, tags, a text, …
    chances: list[float]  # the probability of the gold label or choice, the share of right tags, or a score
    history: list[dict[str, Any]]
    threads: int
    command: str
    mixes: list[dict[str, Any]] = field(default_factory=list)  # what scalar mixes learned
    tallies: list[list[int]] = field(default_factory=list)  # of each test sample, where scores are of sums
    counted: str = "labels"  # what `row.size` is a number of
    valid_golds: list[Any] = field(default_factory=list)
    valid_predicted: list[Any] = field(default_factory=list)  # by what had not learned them
    valid_tallies: list[list[int]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "row": dict(self.row.__dict__)}

    @classmethod
    def read(cls, path: Path) -> Finished | None:
        """What an earlier run left; None if there is nothing or it is no longer readable."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**values, "row": Row(**values["row"])})
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None


def run_cell(
    cell: Cell, data: Data, out: Path, model: Path | None, command: str, record: bool = True
) -> Finished:
    """Train, answer the test samples, `record` it in out/cells/<id>.json; `model` says where to save it."""
    import torch

    from pretune.runs.measure import Measure
    from pretune.runs.run import report
    from pretune.runs.trained import mixes_of
    from pretune.tasks.base import Tallied

    _load_libraries(cell.setting.contender.method)
    name = cell_id(cell, data)
    train, valid = data.drawn(cell.size, cell.seed)
    with Measure() as cost:
        trained, validation, history, checked = _train(cell, data, train, valid)
    began = perf_counter()
    answers = trained.answers(data.test)
    speed = len(data.test) / max(perf_counter() - began, 1e-9)
    checked = trained.answers(valid) if checked is None else checked
    golds, valid_golds = ([sample.gold for sample in samples] for samples in (data.test, valid))
    tallied = trained.task if isinstance(trained.task, Tallied) else None
    scores = {name: _finite(value) for name, value in trained.task.score(golds, answers).items()}
    row = Row(
        *cell.setting.contender,
        cell.size,
        cell.seed,
        scores[trained.task.metric],
        scores,
        round(cost.seconds, 4),
        cost.peak_memory_bytes,
        trained.parameters,
        round(speed, 2),
    )
    finished = Finished(
        name,
        row,
        trained.task.metric,
        {name: _finite(value) for name, value in validation.items()},
        [_listed(gold) for gold in golds],
        [_listed(answer.said) for answer in answers],
        _chances(trained.task, golds, answers, data.kind),
        [{name: _plain(x) for name, x in epoch.items()} for epoch in history],
        torch.get_num_threads(),
        command,
        mixes_of(trained),
        tallied.tallies(golds, answers).tolist() if tallied else [],
        ASKED[data.task].counted,
        [_listed(gold) for gold in valid_golds],
        [_listed(answer.said) for answer in checked],
        tallied.tallies(valid_golds, checked).tolist() if tallied else [],
    )
    if model is not None:
        config = {"recipe": dict(cell.setting.recipe), "size": cell.size, "valid_share": data.valid_share}
        info = {"command": command, "seed": cell.seed, "validation": finished.validation, "cell": name}
        trained.save(model, report(cost, scores, config, info))
    if record:
        write_json(cell_path(out, name), finished.to_dict())
    return finished


def _chances(task: Task, golds: Sequence[Any], answers: Sequence[Answer], kind: str) -> list[float]:
    """How likely each gold was to the model; of tags the share that is right, else what each would score."""
    pairs = list(zip(golds, answers, strict=True))
    if kind == "tags":
        right = [[one == other for one, other in zip(gold, a.said, strict=True)] for gold, a in pairs]
        return [round(sum(found) / max(1, len(found)), 6) for found in right]
    if kind not in ("one", "choice"):
        from pretune.tasks.base import Tallied

        rows = task.tallies(golds, answers) if isinstance(task, Tallied) else []
        return [round(_finite(task.scores_of(row)[task.metric]), 6) for row in rows]  # type: ignore[attr-defined]
    return [round(answer.scores.get(str(gold), 0.0), 6) for gold, answer in pairs]


@cache
def _load_libraries(method: str) -> None:
    """Before the clock starts: the first training of a process must not pay for imports."""
    if method == GUEST:
        from pretune.methods.hub.library import load_models

        load_models()
    if method == "tfidf":
        from sklearn.datasets import make_classification
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression, Ridge

        x, y = make_classification(20, random_state=0)
        LogisticRegression().fit(x, y), Ridge().fit(x, y), TfidfVectorizer().fit(["some text"])
    elif method not in BASELINES:
        import torch

        import_module("accelerate")
        weight = torch.nn.Parameter(torch.ones(1))
        weight.grad = torch.ones(1)
        torch.optim.AdamW([weight], fused=True).step()  # the first optimizer of a process imports for seconds


def cell_path(out: Path, name: str) -> Path:
    return out / "cells" / f"{name}.json"


def _train(
    cell: Cell, data: Data, train: Sequence[Sample], valid: Sequence[Sample]
) -> tuple[Trained, Mapping[str, float], Sequence[Mapping[str, Any]], Sequence[Answer] | None]:
    """Also the answers on `valid` of a baseline before it learned those too; else None."""
    from pretune.config import build, update
    from pretune.recipes.base import Recipe
    from pretune.runs import tfidf
    from pretune.runs.run import TABLES, finetune
    from pretune.runs.starts import side_by_side
    from pretune.training.loop import Fitting

    setting, task = cell.setting, task_of(cell.setting, data, train)
    if setting.contender.method == "tfidf":
        config = build(tfidf.TfIdfConfig, setting.recipe, "tfidf")
        tries = tfidf.tried(task, train, valid, config)
        best = tfidf.best_of(task, tries)
        history = [{"strength": one.strength, "scores": one.scores} for one in tries]
        return tfidf.fit_at(task, [*train, *valid], best.strength, config), best.scores, history, best.answers
    if setting.contender.method in BASELINES:
        found = import_module(BASELINES[setting.contender.method].module).fit(task, train, valid)
        return found.model, found.scores, [], found.answers
    recipe = build(Recipe, setting.recipe, "recipe", TABLES)  # type: ignore[type-abstract]
    fitting = update(Fitting(seed=cell.seed, quiet=True), setting.fitting, "fitting")
    start = _start(cell)
    if isinstance(start, list) and ASKED[data.task].side_by_side:
        start = side_by_side(start, cell.setting.contender.start)
    trained, fitted = finetune(start, task, recipe, train, valid, fitting)
    return trained, fitted.best, fitted.history, None


def task_of(setting: Setting, data: Data, train: Sequence[Sample]) -> Task:
    """The names of labels come from the pool, the scale of numbers from the samples drawn."""
    from pretune.config import update
    from pretune.runs.trained import task_class

    samples = train if data.kind == "number" else data.pool
    task: Task = update(task_class(data.task).of(samples, data.kind), setting.task, "task")
    return task


def _start(cell: Cell) -> Start | list[Start]:
    """The folder's encoder; from scratch the same encoder with fresh weights."""
    from dataclasses import replace

    from pretune.runs.run import load_start
    from pretune.runs.starts import adjusted, fresh

    assert cell.setting.folder is not None
    start = load_start(cell.setting.folder)

    def own(loaded: Start) -> Start:
        one = adjusted(loaded, cell.setting.encoder)
        if cell.setting.contender.start != "scratch":
            return one
        return replace(one, encoder=fresh(one.method, one.encoder_config, one.codec, cell.seed))

    return [own(one) for one in start] if isinstance(start, list) else own(start)


def _listed(value: Any) -> Any:
    """Tuples as JSON has them."""
    return [_listed(x) for x in value] if isinstance(value, (tuple, list)) else value


def _finite(value: float) -> float:
    """A score that is not defined, such as the correlation of a constant, counts as 0."""
    value = float(value)
    return value if value == value and abs(value) != float("inf") else 0.0


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    return value
