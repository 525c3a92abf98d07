"""The files of a published ULMFiT: named one by one, or found in a folder, tar or zip."""

from __future__ import annotations

import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO, Final, Literal, NamedTuple
from zipfile import BadZipFile, ZipFile

from pretune.data.files import check_exists, listed
from pretune.errors import UsageError, UserError
from pretune.methods.ulmfit.published import HDF5

Way = Literal["forward", "backward"]

ARCHIVES: Final = (".tgz", ".tar.gz", ".tar", ".tar.xz", ".tar.bz2", ".zip")
WEIGHTS: Final = (".pth", ".pt", ".h5", ".safetensors")
VOCABULARIES: Final = (".pkl", ".pickle", ".json", ".txt")
PIECES: Final = (".model",)
BACKWARD: Final = re.compile(r"(?<![a-z])(bwd|backwards?)(?![a-z])")
FORWARD: Final = re.compile(r"(?<![a-z])(fwd|forwards?)(?![a-z])")
BROKEN: Final = (
    BadZipFile,
    tarfile.TarError,
    LZMAError,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
)
ENCODER: Final = re.compile(r"(?<![a-z])enc(oder)?(?![a-z])|encoder$")
KERAS: Final = re.compile(r"\.index$|\.data-\d+|saved_model\.pb$|\.hdf5$|\.keras$|\.h5$")


class Files(NamedTuple):
    """Of one model; None where there is none, or where nothing tells."""

    weights: Path
    vocab: Path | None
    pieces: Path | None  # a SentencePiece model
    way: Way | None  # as names say it


def way_of(path: Path) -> Way | None:
    """What the name of a file, or else of its folder, says of the direction of reading."""
    for name in (path.name.lower(), path.parent.name.lower()):
        if BACKWARD.search(name):
            return "backward"
        if FORWARD.search(name):
            return "forward"
    return None


@contextmanager
def models(
    source: Path, vocab: Path | None = None, pieces: Path | None = None, way: Way | None = None
) -> Iterator[list[Files]]:
    """One model, or the forward and the backward one of a release; archives are unpacked for a while."""
    for given in (source, vocab, pieces):
        if given is not None:
            check_exists(given)
    if source.is_dir():
        yield _within(source, source, vocab, pieces, way)
    elif source.name.lower().endswith(ARCHIVES):
        with TemporaryDirectory(prefix="pretune-") as name:
            _unpack(source, Path(name))
            yield _within(Path(name), source, vocab, pieces, way)
    else:
        yield [Files(source, vocab, pieces, way_of(source))]


def _within(
    folder: Path, source: Path, vocab: Path | None, pieces: Path | None, way: Way | None
) -> list[Files]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    weights = [path for path in files if path.suffix.lower() in WEIGHTS and not _is_hdf5(path)]
    if not weights:
        keras = [path.name for path in files if KERAS.search(path.name)]
        if keras:
            raise UserError(
                f"{source} holds {listed(keras, 4)}, weights of Keras; what is read is the .pth of fastai "
                "that they were made from (tf2-ulmfit keeps it in fastai_model)"
            )
        raise UserError(f"{source} holds no weights of ULMFiT: no file ending in {', '.join(WEIGHTS)}")
    whole = [path for path in weights if not ENCODER.search(path.stem.lower())]
    alone = [path for path in weights if path.parent not in {other.parent for other in whole}]
    ways: dict[Way | None, list[Path]] = {}
    for path in sorted({*whole, *alone}):  # encoders are in the language models beside them
        ways.setdefault(_way_within(path, folder), []).append(path)
    if "backward" in ways and "forward" not in ways and None in ways:
        ways["forward"] = ways.pop(None)
    if way is not None and way not in ways and None not in ways:
        raise UsageError(f"{source} holds a {next(iter(ways))} model only, and --direction is {way}")
    both: list[Way] = ["forward", "backward"]
    wanted = [way] if way in ways else [one for one in both if one in ways]
    found = []
    for one in wanted or [None]:
        weights = ways[one]
        if len(weights) > 1:
            names = [str(path.relative_to(folder)) for path in weights]
            raise UserError(f"{source} holds {listed(names)}; give the one that is meant, with its --vocab")
        found.append(
            Files(
                weights[0],
                vocab or _beside(weights[0], one, _vocabularies(files), folder, source, "--vocab"),
                pieces or _beside(weights[0], one, _ending(files, PIECES), folder, source, "--pieces"),
                one,
            )
        )
    return found


def _way_within(path: Path, folder: Path) -> Way | None:
    """As `way_of`, but of no folder above the release."""
    return way_of(Path(*path.relative_to(folder).parts))


def _ending(files: list[Path], endings: tuple[str, ...]) -> list[Path]:
    return [path for path in files if path.suffix.lower() in endings]


def _vocabularies(files: list[Path]) -> list[Path]:
    return [x for x in _ending(files, VOCABULARIES) if re.search("itos|vocab", x.stem.lower())]


def _beside(
    weights: Path, way: Way | None, candidates: list[Path], folder: Path, source: Path, option: str
) -> Path | None:
    """The candidate in the same folder, else of the same direction, else of none."""
    for fitting in (
        [x for x in candidates if x.parent == weights.parent and _way_within(x, folder) == way],
        [x for x in candidates if x.parent == weights.parent and _way_within(x, folder) is None],
        [x for x in candidates if _way_within(x, folder) == way],
        [x for x in candidates if _way_within(x, folder) is None],
        [x for x in candidates if way is None or len(candidates) == 1],
    ):
        if len(fitting) > 1:
            names = [str(path.relative_to(folder)) for path in fitting]
            raise UserError(f"{source} holds {listed(names)}; say which one with {option}")
        if fitting:
            return fitting[0]
    return None


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(HDF5)) == HDF5


def _unpack(archive: Path, folder: Path) -> None:
    """The files that a release may have, in their folders; no link, no path that leaves `folder`."""
    try:
        if archive.name.lower().endswith(".zip"):
            with ZipFile(archive) as packed:
                for entry in packed.infolist():
                    if not entry.is_dir():
                        with packed.open(entry) as member:
                            _write(member, entry.filename, folder)
            return
        with tarfile.open(archive) as tar:
            for item in tar:
                if item.isfile() and (found := tar.extractfile(item)) is not None:
                    _write(found, item.name, folder)
    except BROKEN as error:
        raise UserError(f"{archive}: not an archive that can be read ({error})") from None


def _write(member: IO[bytes], name: str, folder: Path) -> None:
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", ".")]
    if not parts or ".." in parts or any(part.startswith("._") or ":" in part for part in parts):
        return
    if not parts[-1].lower().endswith((*WEIGHTS, *VOCABULARIES, *PIECES)) and not KERAS.search(parts[-1]):
        return
    target = folder.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as stream:
        shutil.copyfileobj(member, stream, 1 << 20)
