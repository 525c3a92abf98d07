"""Run: one training from a start to a folder: pretraining, adaptation, a task."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from pretune.config import build, kind_of, to_dict, update
from pretune.data.samples import Sample
from pretune.errors import UsageError, UserError, choose
from pretune.methods.base import Method, Pretraining, Vocabulary
from pretune.recipes import NAMES, RECIPES, VARIANTS
from pretune.recipes.base import Recipe, auxiliary
from pretune.recipes.full import Full
from pretune.recipes.variants import meant
from pretune.runs.baselines import BASELINES
from pretune.runs.folders import read_config
from pretune.runs.guests import resolved
from pretune.runs.measure import Measure, command, versions
from pretune.runs.remember import remembered
from pretune.runs.starts import (
    Corpus,
    Start,
    adopted,
    for_task,
    is_pretrained,
    load_pretrained,
    member_folders,
    save_start,
    scratch,
)
from pretune.runs.trained import Ensemble, Trained, TrainedModel, answer, join, load_model
from pretune.tasks.base import Task, Tuned
from pretune.training.averaging import ASGD, NTASGD
from pretune.training.loop import Fitted, Fitting, fit
from pretune.training.model import Model
from pretune.training.optimizers import SGD, Adagrad, AdamW, Optimizer
from pretune.training.published_optimizers import BERTAdam, OpenAIAdam
from pretune.training.schedules import (
    BERTLinear,
    Constant,
    Cosine,
    OneCycle,
    OpenAIWarmup,
    Schedule,
    SlantedTriangular,
    WarmupCosine,
    WarmupLinear,
)
from pretune.training.sources import SampleSource
from pretune.training.stage import plan

__all__ = ["Start", "Trained", "adapt", "finetune", "load_start", "load_trained", "pretrain", "scratch"]

TABLES: dict[type, dict[str, type]] = {  # what config may choose among by `kind`
    Recipe: RECIPES,
    Optimizer: {
        "adamw": AdamW,
        "openai": OpenAIAdam,
        "bert": BERTAdam,
        "adagrad": Adagrad,
        "sgd": SGD,
        "nt_asgd": NTASGD,
        "asgd": ASGD,
    },
    Schedule: {
        "constant": Constant,
        "cosine": Cosine,
        "slanted_triangular": SlantedTriangular,
        "warmup_linear": WarmupLinear,
        "warmup_cosine": WarmupCosine,
        "openai_warmup": OpenAIWarmup,
        "bert_linear": BERTLinear,
        "one_cycle": OneCycle,
    },
}


def is_main() -> bool:
    """Whether this process is the one of its launch that writes and prints."""
    return int(os.environ.get("RANK", "0")) == 0


def pretrain(
    method: Method,
    corpus: Corpus,
    held_out: Corpus | None,
    out: Path,
    *,
    size: str = "small",
    pretraining: Pretraining | None = None,
    codec_config: Any = None,
    encoder_config: Any = None,
    fitting: Fitting = Fitting(),  # noqa: B008, frozen
    info: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Learn from raw text and leave a pretrained folder; returns the scores on `held_out`.

    A mapping of names to codec settings as `codec_config` makes an ensemble, one member for each.
    """
    pretraining = pretraining or method.pretraining
    configs = codec_config if isinstance(codec_config, Mapping) else {"": codec_config}
    starts: list[Start] = []
    scores: dict[str, float] = {}
    with Measure() as cost:
        for name, config in configs.items():
            start = scratch(method, size, corpus, fitting.seed, config, encoder_config=encoder_config)
            start.name = name or start.name
            said = pretraining.run(start.encoder, start.codec, corpus, held_out, _within(fitting, name))
            scores |= {f"{name}.{what}" if name else what: value for what, value in said.items()}
            starts.append(start)
    if is_main():
        config = {"size": size, "pretraining": pretraining, "fitting": fitting, **_described(starts[0])}
        save_start(starts if "" not in configs else starts[0], out, report(cost, scores, config, info))
    return scores


def adapt(
    folder: Path,
    corpus: Corpus,
    held_out: Corpus | None,
    out: Path,
    *,
    adaptation: Pretraining | None = None,
    fitting: Fitting = Fitting(),  # noqa: B008, frozen
    vocabulary: Vocabulary | None = None,
    info: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Go on with pretraining on the target's text; ensembles member by member.

    `vocabulary` says whose words are predicted from then on; None: as the method's paper has it.
    """
    loaded = load_start(folder)
    olds = loaded if isinstance(loaded, list) else [loaded]
    news: list[Start] = []
    scores: dict[str, float] = {}
    with Measure() as cost:
        for old in olds:
            name = old.name if isinstance(loaded, list) else ""
            new = adopted(old, corpus, vocabulary, fitting.seed)
            run = adaptation or old.method.adaptation
            said = run.run(new.encoder, new.codec, corpus, held_out, _within(fitting, name))
            scores |= {f"{name}.{what}" if name else what: value for what, value in said.items()}
            news.append(new)
    if is_main():
        named = vocabulary or olds[0].method.vocabulary
        config = {"from": str(folder), "vocabulary": named, "fitting": fitting}
        config |= {"adaptation": adaptation or olds[0].method.adaptation, **_described(news[0])}
        save_start(news if isinstance(loaded, list) else news[0], out, report(cost, scores, config, info))
    return scores


def finetune(
    start: Start | list[Start],
    task: Task,
    recipe: Recipe,
    train: Sequence[Sample],
    valid: Sequence[Sample],
    fitting: Fitting,
) -> tuple[Trained, Fitted]:
    """Learn `task` from `train`; with `valid` the best weights by the task's metric are kept.

    `start` itself stays as it is. A list becomes an ensemble whose members learn one after another.
    """
    if not train:
        raise UserError("there is no sample to learn from")
    if isinstance(start, list):
        return _finetune_all(start, task, recipe, train, valid, fitting)
    task = task.fitted_to(train)
    trained = join(for_task(start, auxiliary(recipe)), task, recipe, fitting.seed)
    source = SampleSource(trained.learned, start.codec, train, recipe.batch_size, fitting.seed)
    rows = trained.learned.rows(start.codec, valid) if valid else []
    golds = [sample.gold for sample in valid]
    asked = source.task = remembered(trained, [(train, source.rows), (valid, rows)], fitting)

    def validate(model: Model) -> dict[str, float]:
        return task.score(golds, answer(model, asked, start.codec, valid, rows))

    stages = recipe.stages(trained.model.encoder, trained.model.head)
    check = validate if valid else None
    fitted = fit(trained.model, stages, source, fitting, check, task.metric, task.higher_is_better)
    if valid and isinstance(task, Tuned):
        found = answer(trained.model, asked, start.codec, valid, rows)
        tuned = task.tuned(golds, found)
        if tuned != task:
            trained = replace(trained, task=tuned, learned=recipe.task(tuned))
            answers = answer(trained.model, trained.learned, start.codec, valid, rows)
            fitted = replace(fitted, best=tuned.score(golds, answers))
    return trained, fitted


def _finetune_all(
    starts: list[Start],
    task: Task,
    recipe: Recipe,
    train: Sequence[Sample],
    valid: Sequence[Sample],
    fitting: Fitting,
) -> tuple[Ensemble, Fitted]:
    members: dict[str, TrainedModel] = {}
    runs = []
    for start in starts:
        trained, fitted = finetune(start, task, recipe, train, valid, _within(fitting, start.name))
        assert isinstance(trained, TrainedModel)
        members[start.name] = trained
        runs.append(fitted)
    both = Ensemble(members)
    whole = Fitted(
        task.score([sample.gold for sample in valid], both.answers(valid)) if valid else {},
        [epoch for run in runs for epoch in run.history],
        sum(run.seconds for run in runs),
        sum(run.steps for run in runs),
        sum(run.tokens for run in runs),
    )
    return both, whole


def recipe_for(start: Start, name: str | None = None, changes: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe called `name`, else the method's own; from scratch `full`: nothing known is to be spared."""
    own = start.method.recipe
    if name is None:
        recipe = Full() if start.name == "scratch" and type(own) is not Full else own
    else:
        recipe = recipe_called(name, own, start.method.recipes)
    return changed(recipe, name, changes or {})


def recipe_called(name: str, own: Recipe, others: Mapping[str, Recipe] | None = None) -> Recipe:
    """A recipe by its name; `own` is the method's, which it may be, `others` what it calls so otherwise."""
    if ":" in name:
        return build(Recipe, {"kind": name}, "recipe", TABLES)  # type: ignore[type-abstract]
    if name in VARIANTS:
        return VARIANTS[name]
    if name not in RECIPES:
        raise choose("the recipe", name, NAMES)
    if type(own) is RECIPES[name]:
        return own
    return others[name] if others and name in others else RECIPES[name]()


def changed(recipe: Recipe, name: str | None, changes: Mapping[str, Any]) -> Recipe:
    """`recipe`, which is called `name`, with other settings; not those that its name stands for."""
    for setting in changes:
        if setting in meant(name):
            raise UsageError(
                f"recipe.{setting} is part of what {name} means; leave it out, or take the recipe "
                f"{kind_of(recipe, TABLES)}"
            )
    return update(recipe, changes, "recipe", TABLES)


def plan_of(start: Start, task: Task, recipe: Recipe) -> list[dict[str, object]]:
    """What `finetune` would do: a row for every group of every stage."""
    trained = join(for_task(start, auxiliary(recipe)), task, recipe, 0)
    return plan(recipe.stages(trained.model.encoder, trained.model.head))


def load_start(folder: Path) -> Start | list[Start]:
    """What a folder learned from text: a pretrained one or a guest's as it is, of a trained one its encoder.

    `hf:OWNER/NAME` is a guest of the hub.
    """
    folder = resolved(folder)
    config = read_config(folder)
    if config["kind"] == "ensemble":
        found = [load_start(member) for member in member_folders(folder, config)]
        return [start for start in found if isinstance(start, Start)]
    if config["kind"] == "pretrained":
        return load_pretrained(folder, config)
    if config["kind"] == "model":
        return load_model(folder, config).start
    raise UserError(f"{folder} is of kind {config['kind']!r}, which holds no encoder to start from")


def load_trained(folder: Path) -> Trained:
    """The folder of a task, ready to answer."""
    config = read_config(folder)
    if is_pretrained(folder):
        raise UserError(f"{folder} knows no task yet; `pretune finetune … --from {folder}` teaches one")
    if config["kind"] == "model":
        return load_model(folder, config)
    if config["kind"] in BASELINES:
        baseline: Trained = import_module(BASELINES[config["kind"]].module).load(folder)
        return baseline
    if config["kind"] == "ensemble":
        members = {path.name: load_trained(path) for path in member_folders(folder, config)}
        models = {name: model for name, model in members.items() if isinstance(model, TrainedModel)}
        if len(models) < len(members):
            raise UserError(f"{folder}: a member of an ensemble must be of kind 'model'")
        return Ensemble(models)
    raise UserError(f"{folder}: kind {config['kind']!r} is unknown to this pretune")


def report(
    cost: Measure,
    scores: Mapping[str, float],
    config: Mapping[str, Any],
    info: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What run.json says of a run."""
    fitting = config.get("fitting")
    plain = {name: _plain(value) for name, value in config.items()}
    return {
        "command": command(),
        "seed": fitting.seed if isinstance(fitting, Fitting) else 0,
        "scores": dict(scores),
        "seconds": round(cost.seconds, 3),
        "peak_memory_bytes": cost.peak_memory_bytes,
        **(info or {}),
        "config": plain,
        "versions": versions(),
    }


def _within(fitting: Fitting, name: str) -> Fitting:
    """The same for a member of an ensemble, which has checkpoints of its own."""
    if not name:
        return fitting
    folder = fitting.folder / name if fitting.folder else None
    return replace(fitting, folder=folder, label=f"{fitting.label} {name}".strip())


def _described(start: Start) -> dict[str, Any]:
    return {
        "method": start.method.name,
        "encoder": start.encoder_config,
        "codec": start.codec.describe(),
        "parameters": start.parameters,
    }


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return to_dict(value, TABLES)
    return value
