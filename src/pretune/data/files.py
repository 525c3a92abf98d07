"""A user's files as bytes and text: packed or plain, in a stated encoding, every mishap one clear line."""

from __future__ import annotations

import gzip
import lzma
import zlib
from codecs import lookup
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from pretune.errors import UsageError, UserError

PACKED: Final = (".gz", ".xz")
MAGIC: Final = {  # what a file starts with -> what it is, what to do
    b"\x1f\x8b": "gzip data in spite of its name; add .gz to the name",
    b"\xfd7zXZ\0": "xz data in spite of its name; add .xz to the name",
    b"BZh9": "bzip2 data; unpack it first (bunzip2)",
    b"PK\x03\x04": "a zip or Excel file; unpack it, or save the sheet as CSV (UTF-8)",
    b"PAR1": "a Parquet file; give --format parquet",
}


def shown(value: object, width: int = 40) -> str:
    """`value` within a message: on one line, quoted, cut to `width` characters."""
    text = value if isinstance(value, str) else str(value)
    return repr(text if len(text) <= width else text[: width - 1] + "…")


def listed(names: list[str], most: int = 8) -> str:
    """Names within a message: the first few, then how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def suffix(path: Path) -> str:
    """The ending that tells the format, in lower case, without .gz or .xz."""
    return (Path(path.stem) if path.suffix.lower() in PACKED else path).suffix.lower()


def check_exists(path: Path) -> None:
    """Raise with the nearest names of the same folder if there is no such file."""
    if path.exists():
        return
    if not path.parent.is_dir():
        raise UserError(f"no such file: {path} (there is no folder {path.parent})")
    near = get_close_matches(path.name, sorted(p.name for p in path.parent.iterdir()), n=3)
    raise UserError(f"no such file: {path}" + (f"; nearest: {', '.join(near)}" if near else ""))


def check_encoding(encoding: str) -> str:
    """The encoding's usual name; raise if Python knows none such, or none for text."""
    try:
        "\n".encode(encoding)
    except (LookupError, UnicodeError):
        raise UsageError(
            f"--encoding {encoding!r} is no text encoding; give one such as utf-8, latin-1, gb18030, utf-16"
        ) from None
    return lookup(encoding).name


def read_bytes(path: Path) -> bytes:
    """All bytes of a file, unpacked if its name ends in .gz or .xz."""
    check_exists(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder where a file is needed")
    try:
        if path.suffix.lower() == ".gz":
            with gzip.open(path, "rb") as stream:
                return stream.read()
        if path.suffix.lower() == ".xz":
            with lzma.open(path, "rb") as packed:
                return packed.read()
        return path.read_bytes()
    except EOFError:
        raise UserError(f"{path.name}: the packed file is cut short; copy or download it again") from None
    except (gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise UserError(
            f"{path.name}: not valid {path.suffix[1:]} data ({error}); copy it again, or correct its ending"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """A whole text file, without a byte-order mark; line ends as they are.

    Raises UserError with file and line where a byte does not fit `encoding`, or is NUL.
    """
    name = check_encoding(encoding)
    data = read_bytes(path)
    for start, what in MAGIC.items():
        if data.startswith(start):
            raise UserError(f"{path.name}: is {what}")
    try:
        text = data.decode(name)
    except UnicodeDecodeError as error:
        line = data[: error.start].decode(name, errors="replace").count("\n") + 1
        if name == "utf-8" and data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise UserError(f"{path.name}:{line}: is UTF-16, not UTF-8; give --encoding utf-16") from None
        advice = (
            "give the file's encoding, such as --encoding latin-1 (Chinese: gb18030)"
            if name == "utf-8"
            else "give the file's true encoding with --encoding"
        )
        byte = data[error.start]
        raise UserError(
            f"{path.name}:{line}: byte 0x{byte:02x} is not {encoding.upper()}; {advice}"
        ) from None
    nul = text.find("\0")
    if nul >= 0:
        line = text.count("\n", 0, nul) + 1
        raise UserError(f"{path.name}:{line}: NUL byte; not a text file, or UTF-16 (--encoding utf-16)")
    return text.removeprefix("\ufeff")
