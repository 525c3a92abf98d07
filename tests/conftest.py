"""Fixtures that all tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest

# Before torch is imported, here and in every process that a test starts: tiny models want one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parent.parent


def shared_folder() -> Path | None:
    """The folder of real data and fixtures, where this machine has it."""
    folder = Path(os.environ.get("PRETUNE_SHARED", ROOT.parent / "shared"))
    return folder if folder.is_dir() else None


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """`shared("data/sst")` is that path, or the test is skipped."""

    def find(name: str) -> Path:
        folder = shared_folder()
        if folder is None or not (folder / name).exists():
            pytest.skip(f"needs {name} of the shared folder (set PRETUNE_SHARED)")
        return folder / name

    return find


@pytest.fixture(autouse=True, scope="module")
def imports_are_no_garbage() -> None:
    """Between stages garbage is collected, which takes long where all that was imported is looked at too."""
    gc.collect()
    gc.freeze()
