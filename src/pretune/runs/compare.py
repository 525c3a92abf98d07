"""compare: methods × recipes × starts × sizes × seeds on one data set, to a verdict, a report and a model."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pretune.data.samples import Sample
from pretune.errors import UsageError, UserError, choose
from pretune.runs.cells import Cell, Data, Finished, Setting, cell_id, cell_path, run_cell
from pretune.runs.comparison import Comparison, Contender
from pretune.runs.pool import Job, Watch, cores, execute
from pretune.runs.prepare import Preparation, Texts, facts, folder_contents, made, plain, texts_of

if TYPE_CHECKING:
    from pretune.methods.base import Method

Labelled = Path | str | Sequence[Sample]
LADDER = (100, 200, 500, 1000)  # sizes where none are given
ALL_UP_TO = 2000  # a pool of up to this many is also used whole
TITLES = {"tfidf": "TF-IDF"}
SECTIONS = ("recipe", "task", "pretraining", "adaptation", "encoder", "codec", "fitting")


@dataclass(frozen=True)
class Options:
    """What is compared, beside the data."""

    methods: tuple[str, ...] = ("tfidf", "wordvectors", "ulmfit")
    recipes: tuple[str, ...] = ()
    """For every encoder; without any each has its own: the paper's with a start, `full` from scratch."""
    sizes: tuple[int | Literal["all"], ...] = ()
    """Numbers of labels, those for validation included; without any 100, 200, 500, 1000 and a small pool whole."""
    seeds: int = 3
    seed: int = 0
    """The first seed; it also decides a held-out test set and what is made once for all."""
    scratch: bool = True
    """Whether every encoder is also trained from random weights."""
    encoder_size: str = "small"
    """Of encoders that are pretrained here, or have no start at all."""
    language: str | None = None
    """Guessed from the characters if not given."""
    valid_share: float = 0.2
    """Of the labels, for choosing epochs and models."""
    test_share: float = 0.2
    """Of the data, where there is no test file."""
    jobs: int | None = None
    """Trainings at a time; one for each core, or one on an accelerator, if not given."""
    device: str = "auto"
    only: str | None = None
    """A pattern of method/recipe/start/size/seed: the only trainings to run."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Tables such as {"recipe": {"epochs": 4}}, or for one method {"ulmfit": {"recipe": {"epochs": 4}}}."""


@dataclass(frozen=True)
class Demo:
    """What `pretune compare --demo` runs, within five minutes on two cores."""

    sizes: tuple[int, ...] = (50, 200, 1000)
    seeds: int = 3
    methods: tuple[str, ...] = ("tfidf", "wordvectors", "ulmfit")
    encoder_size: str = "tiny"
    settings: Mapping[str, Any] = field(default_factory=dict)
    out: Path = Path("demo-report")


DEMO = Demo()


@dataclass(frozen=True)
class Problem:
    """The data as read: the pool, the test samples, and what to say of them."""

    name: str
    data: Data
    columns: tuple[tuple[str, ...], tuple[str, ...]]
    notes: list[str]


@dataclass(frozen=True)
class Entry:
    """A contender and what must be made for it."""

    setting: Setting
    needs: Preparation | None = None


def compare(
    train: Labelled,
    test: Labelled | None = None,
    *,
    text: str | Sequence[str] = (),
    label: str | Sequence[str] = (),
    kind: str | None = None,
    label_separator: str | None = None,
    format: str | None = None,  # noqa: A002, the option's name
    encoding: str = "utf-8",
    task: str = "classification",
    methods: Sequence[str] = ("tfidf", "wordvectors", "ulmfit"),
    recipes: Sequence[str] = (),
    sizes: Sequence[int | Literal["all"]] = (),
    seeds: int = 3,
    seed: int = 0,
    from_: Sequence[Path | str] = (),
    vectors: Path | str | None = None,
    unlabelled: Literal["none"] | Sequence[Path | str] | None = None,
    scratch: bool = True,
    encoder_size: str = "small",
    language: str | None = None,
    valid_share: float = 0.2,
    test_share: float = 0.2,
    jobs: int | None = None,
    device: str = "auto",
    only: str | None = None,
    settings: Mapping[str, Any] | None = None,
    out: Path | str = "pretune-report",
    name: str | None = None,
    command: str | None = None,
    watch: Watch | None = None,
) -> Comparison:
    """Which way of using pretrained language models serves this data, from how many labels, at which cost?

    `train` and `test` are files or lists of `Sample`; without `test` a share of `train` is held out.
    `unlabelled` are files (`Path`) or texts (`str`): every pretrained encoder of `from_` is adapted to them and
    to the training texts; a method without a start learns from them. None adapts to the training texts alone,
    "none" adapts nothing. Finished trainings in `out` are kept: called again, it goes on where it stopped.
    Scripts that call this with more than one job need `if __name__ == "__main__":`.

        compare("train.csv", text="review", label="stars", from_=["models/en"]).recommendation
    """
    out = Path(out)
    options = Options(
        tuple(methods),
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
    )
    _check(options, task, out)
    columns = {"text": _listed(text), "label": _listed(label), "label_separator": label_separator}
    problem = _read(train, test, name, columns | {"format": format, "encoding": encoding}, kind, options)
    texts = _texts(unlabelled, problem, encoding)
    entries, notes = _entries(options, problem, [Path(x) for x in from_], vectors and Path(vectors), texts)
    problem.notes.extend(notes)
    command = command or _own_command()
    jobs_of_all, chosen = _cells(entries, options, problem.data, out, command)
    return _run(jobs_of_all, chosen, problem, options, out, task, command, watch or Silent())


class Silent:
    """A watch that says nothing."""

    def preparing(self, name: str) -> None: ...

    def prepared(self, name: str, seconds: float) -> None: ...

    def finished(self, cell: Finished) -> None: ...
