"""Who takes part in a comparison: methods with each of their starts and recipes, and what these need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretune.errors import UsageError, choose
from pretune.runs.asked import ASKED
from pretune.runs.baselines import BASELINES
from pretune.runs.cells import Setting, digest, task_of
from pretune.runs.comparison import Contender
from pretune.runs.guests import METHOD as GUEST
from pretune.runs.guests import called
from pretune.runs.options import USUAL, Options
from pretune.runs.prepare import Preparation, contents, folder_contents
from pretune.runs.problem import Problem

if TYPE_CHECKING:
    from pretune.methods.base import Method
    from pretune.recipes.base import Recipe

PRETRAINED_HERE = "unlabelled text"  # the start of what learned from the user's text
OF_STARTS = ("encoder", "codec", "fitting")  # tables of settings that any start is made by


@dataclass(frozen=True)
class Entry:
    """A contender, and what must be made for it first."""

    setting: Setting
    needs: Preparation | None = None


@dataclass(frozen=True)
class Base:
    """A start to be: its name in the report, and where it is or how to make it."""

    name: str
    folder: Path | None
    needs: Preparation | None
    out: Path
    given: bool = False  # whether it is one of --from, whose sizes are settled

    @property
    def place(self) -> Path:
        if self.needs is not None:
            return self.needs.folder(self.out)
        assert self.folder is not None
        return self.folder

    @property
    def fingerprint(self) -> str:
        return self.needs.fingerprint if self.needs else folder_contents(self.place)


def entries(
    options: Options, problem: Problem, folders: Sequence[Path], vectors: Path | None, out: Path
) -> tuple[list[Entry], list[str]]:
    """Everyone, in the order of --methods, and notes on what is missing."""
    given = _by_method(folders, options)
    found: list[Entry] = []
    notes: list[str] = []
    if vectors is not None and "wordvectors" not in options.methods:
        raise UsageError("--vectors are for wordvectors, which is not among --methods")
    for method in options.methods:
        if method in BASELINES:
            found.append(_baseline(method, options, problem))
            continue
        bases = _bases(method, given.get(method, []), options, problem, vectors, out)
        found += [e for base in bases for e in _of(method, base, False, options, problem.data.task)]
        if not bases and method != "wordvectors":
            notes.append(
                f"{method} runs from scratch only: --unlabelled none, and no --from of `pretune pretrain`."
            )
        if not bases and method == "wordvectors":
            notes.append(
                "wordvectors runs from scratch only: --unlabelled none, and no --vectors (GloVe, word2vec)."
            )
        if options.scratch:
            base = bases[0] if bases else _vocabulary(method, options, problem, out)
            found += _of(method, base, True, options, problem.data.task)
    if not found:
        raise UsageError(
            "nothing is left to compare: with --no-scratch a method needs --from, --vectors or --unlabelled"
        )
    _check_recipe_settings(options, found)
    metrics = set()
    for setting in {digest(e.setting.task): e.setting for e in found}.values():
        task = task_of(setting, problem.data, problem.data.pool)
        metrics.add(task.fitted_to(problem.data.pool).metric)
    if len(metrics) > 1:
        raise UsageError(
            f"the settings of the task lead to different metrics ({', '.join(sorted(metrics))}); "
            "let them be those of all methods"
        )
    return found, notes


def compared(
    methods: Sequence[str], folders: Sequence[Path], task: str = "classification"
) -> tuple[str, ...]:
    """The methods asked for; without any the usual ones and those of the folders to start from."""
    if task not in ASKED:
        raise choose("--task", task, ASKED)
    if methods:
        return tuple(methods)
    return tuple(dict.fromkeys([ASKED[task].baseline, *USUAL, *map(_method_of, folders)]))


def _method_of(folder: Path) -> str:
    from pretune.runs.folders import read_config
    from pretune.runs.starts import member_folders

    config = read_config(folder)
    if config["kind"] == "ensemble":
        config = read_config(member_folders(folder, config)[0])
    if config["kind"] not in ("pretrained", "model"):
        raise UsageError(
            f"--from {folder} is of kind {config['kind']!r}, which holds no encoder to start from"
        )
    return str(config["method"])


def _by_method(folders: Sequence[Path], options: Options) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for folder in folders:
        method = _method_of(folder)
        if method not in options.methods:
            raise UsageError(
                f"--from {folder} holds {method}, which is not among --methods {','.join(options.methods)}"
            )
        found.setdefault(method, []).append(folder)
    return found


def _baseline(method: str, options: Options, problem: Problem) -> Entry:
    task, own = problem.data.task, ASKED[problem.data.task].baseline
    if method != own:
        raise UsageError(f"--methods {method} is no baseline of {task}, which has {own}")
    if method != "tfidf":
        record, said = BASELINES[method], options.table("task", method)
        heeded = {name: said[name] for name in record.heeds if name in said}
        return Entry(Setting(Contender(method, record.recipe, "scratch"), {}, task=heeded))
    from pretune.config import to_dict, update
    from pretune.runs.tfidf import for_language

    config = update(for_language(problem.language), options.table("tfidf", "tfidf"), "tfidf")
    recipe = "ridge" if problem.data.kind == "number" else "logistic"
    return Entry(Setting(Contender("tfidf", recipe, "scratch"), to_dict(config)))


def _bases(
    method: str, folders: Sequence[Path], options: Options, problem: Problem, vectors: Path | None, out: Path
) -> list[Base]:
    """A method's starts: given and adapted, or made from the unlabelled text."""
    words = method == "wordvectors"
    if method == GUEST and not folders:
        raise UsageError(f"{GUEST} is among --methods: give the guest's folder with --from, or hf:OWNER/NAME")
    texts = problem.given or problem.own
    bases = []
    for folder, name in zip(folders, _names(folders), strict=True):
        if words or method == GUEST or not problem.adapts:  # word vectors are no language model: as they are
            bases.append(Base(name, folder, None, out, given=True))
            continue
        title = f"{name}, adapted"
        needs = _preparation(f"{method} from {title}", "adapt", method, options, problem, folder, texts)
        bases.append(Base(title, None, needs, out, given=True))
    if words and vectors is not None:
        if not vectors.is_file():
            raise UsageError(f"--vectors {vectors}: no such file")
        name = vectors.name
        for ending in (".xz", ".gz", ".txt", ".vec", ".bin"):
            name = name.removesuffix(ending)
        needs = _preparation(f"{method} from {name}", "vectors", method, options, problem, vectors, None)
        bases.append(Base(name, None, needs, out))
    if not bases and problem.adapts:
        name = f"{method} from {PRETRAINED_HERE}"
        needs = _preparation(name, "pretrain", method, options, problem, None, texts)
        bases.append(Base(PRETRAINED_HERE, None, needs, out))
    return bases


def _vocabulary(method: str, options: Options, problem: Problem, out: Path) -> Base:
    name = f"{method} vocabulary"
    needs = _preparation(name, "vocabulary", method, options, problem, None, problem.given or problem.own)
    return Base("vocabulary", None, needs, out)


def _preparation(
    name: str, work: Any, method: str, options: Options, problem: Problem, source: Path | None, texts: Any
) -> Preparation:
    own = {"adapt": ("adaptation", "fitting"), "pretrain": ("pretraining", *OF_STARTS)}.get(
        work, OF_STARTS[:2]
    )
    settings = {table: options.table(table, method) for table in own}
    if "fitting" in own:
        settings["fitting"] = {"device": options.device, **settings["fitting"]}
    return Preparation(
        name, work, method, options.seed, source, texts, options.encoder_size, problem.language, settings
    )


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, with those above where two are called the same."""
    absolute = [folder.resolve() for folder in folders]
    names = [called(folder) for folder in absolute]
    found = [
        name if names.count(name) == 1 else f"{folder.parent.name}/{name}"
        for folder, name in zip(absolute, names, strict=True)
    ]
    for name in found:
        if found.count(name) > 1:
            raise UsageError(f"two folders of --from are called {name}; rename one, to tell them apart")
    return found


def _of(method: str, base: Base, scratch: bool, options: Options, asks: str) -> list[Entry]:
    """A start with each of its recipes."""
    from pretune.config import described, merge
    from pretune.recipes import VARIANTS
    from pretune.runs.run import TABLES
    from pretune.runs.starts import check_adjustable, method_named

    record = method_named(method)
    own = record.task_options if asks == "classification" else {}  # the paper's head
    task = merge(own, options.table("task", method))
    fitting = {"device": options.device, **options.table("fitting", method)}
    encoder = options.table("encoder", method) if base.given else {}
    check_adjustable(record, encoder, f"--from {base.name}")
    start = "scratch" if scratch else base.name
    found = []
    for name in options.recipes or [None]:
        recipe = recipe_of(record, scratch, name)
        settings = described(_changed(recipe, name, options, method, ASKED[asks].recipe), TABLES)
        contender = Contender(method, name if name in VARIANTS else str(settings["kind"]), start)
        fingerprint = _with_vectors(base.fingerprint, settings.get("vectors"))
        fingerprint = digest([fingerprint, encoder]) if encoder else fingerprint
        setting = Setting(contender, settings, base.place, fingerprint, task, fitting, encoder)
        found.append(Entry(setting, base.needs))
    return found


def _with_vectors(fingerprint: str, vectors: str | None) -> str:
    """The start's, changed by what the recipe's file of word vectors holds."""
    if vectors is None:
        return fingerprint
    if not Path(vectors).is_file():
        raise UsageError(f"recipe.vectors is {vectors}; there is no such file")
    return digest([fingerprint, contents(Path(vectors))])


def recipe_of(method: Method, scratch: bool, name: str | None) -> Recipe:
    """The recipe called `name`, else the method's own; from scratch `full`: nothing known is to be spared."""
    from pretune.runs.run import recipe_called

    name = name or ("full" if scratch else None)
    return method.recipe if name is None else recipe_called(name, method.recipe, method.recipes)


def _changed(
    recipe: Recipe, name: str | None, options: Options, method: str, usual: Mapping[str, Any]
) -> Recipe:
    """With the settings that this recipe has: `recipe.factor` is nothing to `full`; else `usual`."""
    from pretune.recipes.variants import meant
    from pretune.runs.run import changed

    possible = {f.name for f in fields(recipe)}  # type: ignore[arg-type]
    own = {setting: value for setting, value in usual.items() if setting not in meant(name)}
    said = {**own, **options.table("recipe", method)}
    changes = {setting: value for setting, value in said.items() if setting in possible}
    return changed(recipe, name, changes)


def _check_recipe_settings(options: Options, found: Sequence[Entry]) -> None:
    """A setting that no recipe has is a mistake."""
    encoders = [e.setting for e in found if e.setting.contender.method not in BASELINES]
    wanted: set[tuple[str | None, str]] = {(None, name) for name in options.settings.get("recipe", {})}
    for method in options.methods:
        wanted |= {(method, name) for name in options.settings.get(method, {}).get("recipe", {})}
    for whose, name in sorted(wanted, key=str):
        if not any(name in s.recipe for s in encoders if whose in (None, s.contender.method)):
            kinds = sorted({s.contender.recipe for s in encoders}) or ["no encoder"]
            raise UsageError(f"recipe.{name}: none of the recipes here ({', '.join(kinds)}) has that setting")
