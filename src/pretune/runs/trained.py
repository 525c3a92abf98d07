"""Trained models: what answers, on its own or as one of several, and its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from pretune.config import build, described, imported, kind_of, to_dict
from pretune.data.rows import Codec, Row
from pretune.data.samples import Sample
from pretune.errors import UserError, choose
from pretune.keys import key
from pretune.recipes import RECIPES
from pretune.recipes.base import Recipe
from pretune.recipes.beside import BesideVectors
from pretune.recipes.features import Features
from pretune.recipes.frozen import FrozenFeatures
from pretune.runs.files import write_json
from pretune.runs.folders import CONFIG, FORMAT, WEIGHTS, load_weights, save_weights, write_folder, write_run
from pretune.runs.starts import Start, describe, empty_start
from pretune.tasks import TASKS
from pretune.tasks.base import Answer, Scores, Task
from pretune.tensors.lengths import TOKENS, answer_batches, padded_tokens
from pretune.training.model import Model
from pretune.training.sources import task_batch


class Trained(Protocol):
    """Something that answers."""

    @property
    def task(self) -> Task: ...

    @property
    def parameters(self) -> int: ...

    def answers(self, samples: Sequence[Sample], batch_size: int = 64) -> list[Answer]:
        """One answer a sample, in order; an answer never depends on its batch."""
        ...

    def save(self, folder: Path, info: Mapping[str, Any]) -> None:
        """The whole folder in one go; `info` becomes run.json."""
        ...


@dataclass
class TrainedModel:
    """An encoder and a head that have learned a task together."""

    start: Start  # its encoder is the one inside `model`, as it was before the recipe wrapped it
    task: Task
    recipe: Recipe
    model: Model
    learned: Task  # `task` as the recipe has it: what batches are made by

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def answers(self, samples: Sequence[Sample], batch_size: int = 64) -> list[Answer]:
        return self.read(samples, self.rows(samples), batch_size)

    def rows(self, samples: Sequence[Sample]) -> list[list[Row]]:
        return self.learned.rows(self.start.codec, samples)

    def read(
        self, samples: Sequence[Sample], rows: Sequence[list[Row]], batch_size: int = 64
    ) -> list[Answer]:
        """As `answers`, of rows at hand."""
        return answer(self.model, self.learned, self.start.codec, samples, rows, batch_size)

    def save(self, folder: Path, info: Mapping[str, Any]) -> None:
        write_folder(folder, lambda new: self.fill(new, info))

    def fill(self, folder: Path, info: Mapping[str, Any]) -> None:
        recipe = _at(self.recipe, Path())
        config = {
            "kind": "model",
            **describe(self.start),
            "task": task_config(self.task),
            "recipe": described(recipe, {Recipe: RECIPES}),
        }
        write_json(folder / CONFIG, config)
        save_weights(self.model, folder / WEIGHTS)
        self.start.codec.save(folder)
        if isinstance(self.learned, BesideVectors):
            self.learned.vectors.save(folder)
        _write_run(folder, info, self)


@runtime_checkable
class Averaging(Protocol):
    """A task whose answers several models can give together."""

    def average(self, answers: Sequence[Sequence[Answer]]) -> list[Answer]: ...


@runtime_checkable
class Turning(Protocol):
    """A codec whose rows may be another's, or those turned round."""

    def rows_from(self, other: Codec, rows: Sequence[Sequence[Row]]) -> list[list[Row]] | None: ...


@dataclass
class Ensemble:
    """Several models that answer together: the mean of what each says. Text is cut into tokens once."""

    members: dict[str, TrainedModel]  # by the name of their subfolders

    @property
    def task(self) -> Task:
        return next(iter(self.members.values())).task

    @property
    def parameters(self) -> int:
        return sum(member.parameters for member in self.members.values())

    def answers(self, samples: Sequence[Sample], batch_size: int = 64) -> list[Answer]:
        if not isinstance(self.task, Averaging):
            raise UserError("the answers of this task cannot be averaged; load one of the subfolders alone")
        read: list[tuple[TrainedModel, list[list[Row]]]] = []
        for member in self.members.values():
            read.append((member, _rows_once(member, read, samples)))
        return self.task.average([member.read(samples, rows, batch_size) for member, rows in read])

    def save(self, folder: Path, info: Mapping[str, Any]) -> None:
        def fill(new: Path) -> None:
            write_json(new / CONFIG, {"kind": "ensemble", "format": FORMAT, "members": list(self.members)})
            _write_run(new, info, self)
            for name, member in self.members.items():
                (new / name).mkdir()
                member.fill(new / name, info)

        write_folder(folder, fill)


def _rows_once(
    member: TrainedModel, read: Sequence[tuple[TrainedModel, list[list[Row]]]], samples: Sequence[Sample]
) -> list[list[Row]]:
    """A member's rows, made of those of one before it where both read the same tokens."""
    codec = member.start.codec
    if isinstance(codec, Turning):
        for other, rows in read:
            found = codec.rows_from(other.start.codec, rows) if other.learned == member.learned else None
            if found is not None:
                return found
    return member.rows(samples)


def mixes_of(trained: Trained) -> list[dict[str, Any]]:
    """What the scalar mixes inside have learned: place, layers, weights after the softmax, gamma."""
    if isinstance(trained, Ensemble):
        members = [(name, mix) for name, one in trained.members.items() for mix in mixes_of(one)]
        return [{**mix, "place": f"{mix['place']} of {name}"} for name, mix in members]
    encoder = trained.model.encoder if isinstance(trained, TrainedModel) else None
    return [mix._asdict() for mix in encoder.learned()] if isinstance(encoder, FrozenFeatures) else []


def _write_run(folder: Path, info: Mapping[str, Any], trained: Trained) -> None:
    mixes = mixes_of(trained)
    write_run(folder, {**info, "mixes": mixes} if mixes else info)


def answer(
    model: Model,
    task: Task,
    codec: Codec,
    samples: Sequence[Sample],
    rows: Sequence[list[Row]],
    batch_size: int = 64,
) -> list[Answer]:
    """Answers in the order of `samples`, worked out in batches of like length."""
    found: dict[int, Answer] = {}
    device, most = next(model.parameters()).device, task.tokens_at_once or TOKENS

    def scores_of(some: Sequence[Sample], their_rows: Sequence[list[Row]]) -> Scores:
        batch = task_batch(task, codec, some, their_rows, gold=False).to(device)
        return {name: x.cpu() for name, x in model(batch).scores.items()}

    with evaluating(model), torch.no_grad():
        for wanted in answer_batches([padded_tokens(of_sample) for of_sample in rows], batch_size, most):
            some, their_rows = [samples[i] for i in wanted], [rows[i] for i in wanted]
            pieces = task.pieces(their_rows[0]) if len(some) == 1 else []
            if len(pieces) > 1:
                scores = task.together([scores_of(some, [piece]) for piece in pieces], pieces)
            else:
                scores = scores_of(some, their_rows)
            found |= zip(wanted, task.decode(scores, some, their_rows), strict=True)
    return [found[i] for i in range(len(samples))]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No dropout inside; afterwards every module is in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    if training:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def join(start: Start, task: Task, recipe: Recipe, seed: int) -> TrainedModel:
    """A model around `start.encoder` itself, its head fresh: a function of the seed."""
    start.encoder.purpose("task")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "init"))
        wrapped, learned = recipe.wrap(start.encoder), recipe.task(task)
        head = learned.head(wrapped)
    return TrainedModel(start, task, recipe, Model(wrapped, head, recipe.alpha, recipe.beta), learned)


def load_model(folder: Path, config: Mapping[str, Any]) -> TrainedModel:
    """A folder of kind "model"."""
    start = empty_start(folder, config)
    try:
        task = task_from(config["task"])
        recipe = build(Recipe, config["recipe"], "recipe", {Recipe: RECIPES})  # type: ignore[type-abstract]
    except (KeyError, UserError) as error:
        raise UserError(f"{folder / CONFIG}: {error}") from None
    trained = join(start, task, _at(recipe, folder), 0)
    load_weights(trained.model, folder / WEIGHTS)
    trained.model.eval()
    return trained


def _at(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with its files where a model folder has them."""
    return recipe.at(folder) if isinstance(recipe, Features) else recipe


def task_config(task: Task) -> dict[str, Any]:
    """{"name": "classification", its fields...}: the fields may have a `kind` of their own."""
    name = kind_of(task, {Task: TASKS}) or f"{type(task).__module__}:{type(task).__qualname__}"
    return {"name": name, **to_dict(task)}


def task_class(name: str) -> Any:
    """A task of the table, or somebody else's `package.module:Name`."""
    if ":" in name:
        return imported(name, "the task")
    if name not in TASKS:
        raise choose("the task", name, TASKS)
    return TASKS[name]


def task_from(config: Mapping[str, Any]) -> Task:
    """The task that `task_config` described."""
    settings = {name: value for name, value in config.items() if name != "name"}
    task: Task = build(task_class(config["name"]), settings, "task")
    return task
