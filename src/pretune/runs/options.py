"""What a comparison is asked to compare, beside the data."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pretune.errors import UsageError, choose
from pretune.runs.baselines import BASELINES

Size = int | Literal["all"]
TABLES_OF_SETTINGS = ("recipe", "task", "pretraining", "adaptation", "encoder", "codec", "fitting", "tfidf")


USUAL = ("wordvectors", "ulmfit")  # compared beside a baseline where no method is named


@dataclass(frozen=True)
class Options:
    """The same for every data set."""

    methods: tuple[str, ...] = ("tfidf", *USUAL)
    recipes: tuple[str, ...] = ()
    """For every encoder; without any each has its own: the paper's with a start, `full` from scratch."""
    sizes: tuple[Size, ...] = ()
    """Numbers of labels, validation included; without any 100, 200, 500, 1000 and a small pool whole."""
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
    target: float | None = None
    """The score that learning curves are read at: how many labels does it take?"""

    def check(self, out: Path) -> None:
        """Raise before anything is read if this cannot work."""
        from pretune.methods import GUESTS, METHODS
        from pretune.recipes import NAMES
        from pretune.runs.folders import TRUST

        for method in self.methods:
            if method not in METHODS | GUESTS | BASELINES and ":" not in method:
                raise choose("--methods", method, [*BASELINES, *METHODS, *GUESTS])
        for recipe in self.recipes:
            if recipe not in NAMES and ":" not in recipe:
                raise choose("--recipes", recipe, NAMES)
        if not self.methods:
            raise UsageError("--methods names no method")
        for method in set(self.methods) & set(METHODS):
            if self.encoder_size not in METHODS[method].sizes:
                raise choose(f"--encoder-size for {method}", self.encoder_size, METHODS[method].sizes)
        if self.seeds < 1:
            raise UsageError(f"--seeds is {self.seeds}; at least one is needed")
        if self.jobs is not None and self.jobs < 1:
            raise UsageError(f"--jobs is {self.jobs}; at least one is needed")
        for name in ("valid_share", "test_share"):
            if not 0 < getattr(self, name) < 1:
                option = name.replace("_", "-")
                raise UsageError(
                    f"--{option} is {getattr(self, name)}; give a number between 0 and 1, such as 0.2"
                )
        if self.target is not None and not 0 < self.target <= 1:
            raise UsageError(
                f"--target is {self.target:g}; give a score above 0 and at most 1, such as 0.9 for 90 %"
            )
        for name in ("seed", "folder", "resume", "quiet", "label"):
            if name in self.settings.get("fitting", {}):
                raise UsageError(f"fitting.{name} is the comparison's own; --seed and --out choose it")
        for table in self.settings:
            if table in METHODS | GUESTS and table not in self.methods:
                raise UsageError(
                    f"there are settings for {table}, which is not among --methods {','.join(self.methods)}; "
                    "add it, or leave them out"
                )
            if table not in TABLES_OF_SETTINGS and table not in self.methods:
                raise choose("a setting's first word", table, [*TABLES_OF_SETTINGS, *self.methods])
        for method in [name for name in self.methods if name in BASELINES and name != "tfidf"]:
            self._check_baseline(method)
        for method in set(self.methods) - set(BASELINES):  # tfidf's settings are one table of that name
            for table in self.settings.get(method, {}):
                if table not in TABLES_OF_SETTINGS:
                    raise choose(f"a setting of {method}", table, TABLES_OF_SETTINGS)
        if any(":" in name for name in (*self.methods, *_texts(self.settings))):
            os.environ.setdefault(TRUST, "1")  # code that the user names here runs in the workers too
        if out.exists() and not out.is_dir():
            raise UsageError(f"--out {out} is a file; give a folder")
        if out.is_dir() and any(out.iterdir()) and not (out / "cells").is_dir():
            raise UsageError(f"--out {out} is not empty and holds no earlier comparison; give another folder")

    def _check_baseline(self, method: str) -> None:
        """Raise where settings are given to a baseline that it does not heed."""
        heeded = [f"task.{name}" for name in BASELINES[method].heeds]
        for table, values in self.settings.get(method, {}).items():
            for name in values if isinstance(values, Mapping) else ["…"]:
                said = f"{table}.{name}" if isinstance(values, Mapping) else table
                if said not in heeded:
                    raise choose(f"a setting of {method}", said, heeded)

    def table(self, name: str, method: str) -> dict[str, Any]:
        """A table of settings as it holds for one method."""
        from pretune.config import merge

        return merge(self.settings.get(name, {}), self.settings.get(method, {}).get(name, {}))


def _texts(settings: Mapping[str, Any]) -> Iterator[str]:
    for value in settings.values():
        if isinstance(value, Mapping):
            yield from _texts(value)
        elif isinstance(value, str):
            yield value
