"""The files of a published biLM: named one by one, or found in a folder or zip."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from zipfile import BadZipFile, ZipFile

from pretune.data.files import check_exists, listed
from pretune.errors import UsageError, UserError

ENDINGS: Final = {  # of names in a folder; those of NLPL's zips, of the releases, of TensorFlow's checkpoints
    "options": ("options.json",),
    "softmax": ("softmax.hdf5", "softmax_weights.hdf5"),
    "weights": ("model.hdf5", "weights.hdf5"),
    "vocab": ("vocab.txt", "vocab.txt.gz"),
    "checkpoint": (".index",),
}


@dataclass(frozen=True)
class Release:
    """Where each file lies; None where there is none."""

    options: Path | None = None
    weights: Path | None = None  # HDF5
    checkpoint: Path | None = None  # of TensorFlow, without .index
    softmax: Path | None = None  # HDF5
    embedding: Path | None = None  # HDF5, of a model that reads words
    vocab: Path | None = None

    def needed(self, name: str) -> Path:
        found: Path | None = getattr(self, name)
        if found is None:
            raise UsageError(f"--{name} is missing: give the model's {ENDINGS[name][0]}")
        check_exists(found)
        return found

    @contextmanager
    def completed(self, source: Path | None) -> Iterator[Release]:
        """With what a folder or zip holds beside the files already named; a zip is unpacked for a while."""
        if source is None:
            yield self
            return
        check_exists(source)
        if source.is_dir():
            yield self._within(source, source)
            return
        with TemporaryDirectory(prefix="pretune-") as name:
            _unpack(source, Path(name))
            yield self._within(Path(name), source)

    def _within(self, folder: Path, source: Path) -> Release:
        found: dict[str, Path] = {}
        files = sorted(path for path in folder.iterdir() if path.is_file())
        for what, endings in ENDINGS.items():
            other = {"weights": "checkpoint", "checkpoint": "weights"}.get(what, what)
            if getattr(self, what) or getattr(self, other) or other in found:
                continue
            fitting = [path for path in files if path.name.endswith(endings)]
            if what == "weights":
                fitting = [path for path in fitting if not path.name.endswith(ENDINGS["softmax"])]
            if len(fitting) > 1:
                names = [path.name for path in fitting]
                raise UserError(f"{source} holds {listed(names)}; say which one with --{what}")
            if fitting:
                found[what] = fitting[0]
        if not found:
            raise UserError(f"{source} holds no files of a biLM, such as options.json and model.hdf5")
        return replace(self, **found)


def _unpack(archive: Path, folder: Path) -> None:
    """The files that a release may have, without their folders."""
    wanted = tuple(ending for endings in ENDINGS.values() for ending in endings)
    try:
        with ZipFile(archive) as packed:
            for entry in packed.infolist():
                name = Path(entry.filename.replace("\\", "/")).name
                if not entry.is_dir() and (name.endswith(wanted) or ".data-" in name):
                    with packed.open(entry) as source, (folder / name).open("xb") as target:
                        shutil.copyfileobj(source, target, 1 << 20)
    except FileExistsError as error:
        raise UserError(f"{archive} holds two files called {Path(error.filename).name}") from None
    except (BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise UserError(f"{archive}: not a zip that can be read ({error})") from None
