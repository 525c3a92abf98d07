"""HDF5 files as arrays by name: the format of published ELMo weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretune.data.files import check_exists
from pretune.errors import UserError


class Hdf5:
    """The datasets of a file by their full names; shapes are read at once, values when asked for.

    Links to other files are not followed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shapes: dict[str, tuple[int, ...]] = {}
        h5py = library()
        check_exists(path)

        def note(name: str, found: Any) -> None:
            if isinstance(found, h5py.Dataset):
                if found.external or found.is_virtual or found.shape is None:
                    raise UserError(f"{path}: {name} has its values in another file, or none")
                self.shapes[name] = tuple(map(int, found.shape))

        try:
            with h5py.File(path, "r") as file:
                file.visititems(note)
        except (OSError, RuntimeError, KeyError) as error:
            raise UserError(f"{path}: not an HDF5 file, or damaged ({error})") from None

    def read(self, name: str) -> NDArray[Any]:
        try:
            with library().File(self.path, "r") as file:
                return np.asarray(file[name][()])
        except (OSError, RuntimeError, KeyError, TypeError) as error:
            raise UserError(f"{self.path}: {name} cannot be read ({error})") from None


def write_hdf5(path: Path, arrays: Iterable[tuple[str, NDArray[Any]]]) -> None:
    """A dataset each, contiguous and without attributes, as published; one after another."""
    with library().File(path, "w") as file:
        for name, array in arrays:
            file.create_dataset(name, data=array)


def library() -> Any:
    """h5py, which is in the extra `elmo`."""
    try:
        import h5py
    except ImportError:
        raise UserError("HDF5 files need h5py: pip install 'pretune[elmo]'") from None
    return h5py
