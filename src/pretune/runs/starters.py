"""Starters: small pretrained models that come as a distribution of their own, such as `pretune-starters`.

A distribution joins by an entry point of the group `pretune.starters` that names a package; each folder in
the package's `models` is a starter, called METHOD-LANGUAGE (`elmo-en`; `ulmfit-en-backward` reads
backwards). A starter may be named wherever a model folder may be, as long as no such folder is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pretune.errors import UsageError, UserError

GROUP = "pretune.starters"
INSTALL = "pip install pretune-starters"


@dataclass(frozen=True)
class Starter:
    """One model folder of an installed distribution."""

    name: str
    folder: Path
    method: str
    language: str

    @property
    def usual(self) -> bool:
        """Whether its language alone means it: `en` is `ulmfit-en`, not `ulmfit-en-backward`."""
        return self.name == f"{self.method}-{self.language}"

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.iterdir())

    @property
    def run(self) -> dict[str, Any]:
        """Its run.json: how it came about, and under `card` how well it predicts held-out text."""
        found: dict[str, Any] = json.loads((self.folder / "run.json").read_text("utf-8"))
        return found

    @property
    def parameters(self) -> int | None:
        """Of its card, or as `pretune pretrain` wrote it."""
        run = self.run
        count: int | None = run.get("parameters", run.get("config", {}).get("parameters"))
        return count

    @property
    def card(self) -> str:
        """README.md, or that there is none."""
        path = self.folder / "README.md"
        return path.read_text("utf-8") if path.is_file() else f"{self.name} comes without a card.\n"


@cache
def starters() -> dict[str, Starter]:
    """All that are installed, by name."""
    found: dict[str, Starter] = {}
    for entry in sorted(entry_points(group=GROUP)):
        spec = find_spec(entry.value)
        for root in (spec.submodule_search_locations or ()) if spec else ():
            for config in sorted(Path(root, "models").glob("*/config.json")):
                name = config.parent.name
                method, _, rest = name.partition("-")
                if language := rest.partition("-")[0]:
                    found.setdefault(name, Starter(name, config.parent, method, language))
    return found


def languages() -> list[str]:
    return sorted({starter.language for starter in starters().values()})


def is_language(said: str | Path) -> bool:
    """Whether `said` stands for all starters of a language: `en`, `zh`, unless a folder is called so."""
    said = str(said)
    if Path(said).exists() or not (len(said) == 2 and said.isalpha() and said.islower()):
        return False
    if not starters():
        raise UserError(f"{said}: no such folder, and no starter models are installed: {INSTALL}")
    if said not in languages():
        raise UserError(f"{said}: no such folder, and starters are there for {', '.join(languages())} only")
    return True


def starter_folder(said: str | Path) -> Path | None:
    """The folder of the starter of that name; None where `said` is none, or is there itself."""
    name = str(said)
    if "/" in name or Path(name).exists():
        return None
    if is_language(name):
        several = ", ".join(starter.name for starter in starters().values() if starter.language == name)
        raise UsageError(f"{name} stands for several starters; give one of {several}")
    found = starters().get(name)
    return found.folder if found else None


def of_language(said: str, methods: Iterable[str] = ()) -> list[Path]:
    """The usual starters of a language, those of `methods` if any are given."""
    wanted = tuple(methods)
    usual = [s for s in starters().values() if s.language == said and s.usual]
    found = [s.folder for s in usual if not wanted or s.method in wanted]
    if not found:
        raise UsageError(
            f"--from {said}: no starter of {', '.join(wanted)}; there are {', '.join(s.name for s in usual)}"
        )
    return found


def expanded(said: Iterable[str | Path], methods: Iterable[str] = ()) -> list[str | Path]:
    """The same, with a language replaced by its starters of `methods`."""
    wanted = tuple(methods)
    found: list[str | Path] = []
    for one in said:
        found += of_language(str(one), wanted) if is_language(one) else [one]
    return found
