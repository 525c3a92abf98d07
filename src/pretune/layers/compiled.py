"""The compiled kernels: C that this machine's own compiler builds once, at first use, for this user."""

from __future__ import annotations

import atexit
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import warnings
from ctypes import CDLL, POINTER, Structure, c_double, c_float, c_int, c_int64, c_void_p
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor
from torch.nn import Parameter

from pretune.errors import UserError, choose

FOLDER = Path(__file__).parent / "kernels"
NAMES = ("recurrence.c", "product.h", "characters.h", "attention.h", "vectors.h")  # the first is compiled
SOURCES = [FOLDER / name for name in NAMES]
FLAGS = ["-std=gnu11", "-O3", "-ffp-contract=fast", "-fPIC", "-shared"]  # NaN rules out -ffast-math
# The first that the compiler knows are taken. With tree-pre GCC 12 keeps the sums of a tile in memory.
MACHINE: tuple[list[str], ...] = (
    ["-march=native", "-fno-tree-pre"],
    ["-march=native"],
    ["-mcpu=native"],
    [],
)
SWITCH = "PRETUNE_COMPILED"  # "0": never; "1": an error where they cannot be had

_lock = Lock()
_found: list[CDLL | None] = []


class Matrix(Structure):
    """Weights in panels, as product.h declares them."""

    _fields_ = (
        ("kind", c_int64),
        ("columns", c_int64),
        ("depth", c_int64),
        ("gates", c_int64),
        ("data", c_void_p),
    )


class Sequence(Structure):
    """One direction of one layer over its packed rows, as recurrence.c declares it."""

    _fields_ = (
        ("products", c_void_p),
        ("index", c_void_p),
        ("counts", c_void_p),
        ("steps", c_int64),
        ("units", c_int64),
        ("outputs", c_int64),
        ("first", c_int64),
        ("last", c_int64),
        ("h", c_void_p),
        ("c", c_void_p),
        ("recurrent", POINTER(Matrix)),
        ("projection", POINTER(Matrix)),
        ("cell_clip", c_float),
        ("projection_clip", c_float),
        ("y", c_void_p),
        ("gates", c_void_p),
        ("cells", c_void_p),
        ("hidden", c_void_p),
    )


class Gradient(Structure):
    """What its gradient reads and writes."""

    _fields_ = (
        ("counts", c_void_p),
        ("steps", c_int64),
        ("units", c_int64),
        ("outputs", c_int64),
        ("first", c_int64),
        ("last", c_int64),
        ("c", c_void_p),
        ("gates", c_void_p),
        ("cells", c_void_p),
        ("y", c_void_p),
        ("recurrent", POINTER(Matrix)),
        ("projection", POINTER(Matrix)),
        ("cell_clip", c_float),
        ("projection_clip", c_float),
        ("dy", c_void_p),
        ("dh", c_void_p),
        ("dc", c_void_p),
        ("dz", c_void_p),
        ("dp", c_void_p),
    )


class Maxima(Structure):
    """One convolution over characters, as characters.h declares it."""

    _fields_ = (
        ("table", c_void_p),
        ("size", c_int64),
        ("characters", c_int64),
        ("filters", c_int64),
        ("words", c_void_p),
        ("live", c_void_p),
        ("count", c_int64),
        ("length", c_int64),
        ("out", c_void_p),
        ("stride", c_int64),
    )


class Attention(Structure):
    """Some heads of attention inside rows, as attention.h declares it."""

    _fields_ = (
        ("qkv", c_void_p),
        ("groups", c_void_p),
        ("count", c_int64),
        ("heads", c_int64),
        ("size", c_int64),
        ("first", c_int64),
        ("last", c_int64),
        ("causal", c_int64),
        ("y", c_void_p),
    )


def library() -> CDLL | None:
    """The kernels, or None where the plain path is to be taken.

    Built at the first call. Without a C compiler that works a warning says so, once.
    """
    wanted = os.environ.get(SWITCH, "")
    if wanted not in ("", "0", "1"):
        raise choose(SWITCH, wanted, ("0", "1"))
    if wanted == "0":
        return None
    with _lock:
        if not _found:
            try:
                _found.append(_declare(CDLL(str(_built()))))
            except (OSError, subprocess.SubprocessError) as error:
                message = f"the compiled kernels cannot be had: {error}"
                if wanted == "1":
                    raise UserError(f"{message}; install gcc or clang, or name one in CC") from None
                _found.append(None)
                warnings.warn(
                    f"{message}; the plain path gives the same numbers at about half the speed "
                    f"(install gcc or clang or name one in CC; {SWITCH}=0 silences this)",
                    stacklevel=2,
                )
        elif wanted == "1" and _found[0] is None:
            raise UserError(f"{SWITCH} is 1, but the kernels could not be built; install gcc or clang")
        return _found[0]


def kernels_for(*tensors: Tensor | None) -> CDLL | None:
    """The kernels, where they may read all of these."""
    return library() if all(x is None or readable(x) for x in tensors) else None


def readable(x: Tensor) -> bool:
    """Whether a kernel may read it by its address: float32 in the processor's memory, not traced."""
    if torch.jit.is_tracing() or torch.compiler.is_compiling():  # type: ignore[attr-defined, no-untyped-call]
        return False
    return type(x) in (Tensor, Parameter) and x.dtype == torch.float32 and x.device.type == "cpu"


def _declare(kernels: CDLL) -> CDLL:
    matrix = POINTER(Matrix)
    kernels.packed_bytes.argtypes, kernels.packed_bytes.restype = [matrix], c_int64
    kernels.pack.argtypes, kernels.pack.restype = [matrix, c_void_p, c_int64, c_int64], None
    kernels.recur.argtypes, kernels.recur.restype = [POINTER(Sequence)], c_int
    kernels.recur_back.argtypes, kernels.recur_back.restype = [POINTER(Gradient)], c_int
    kernels.linear.argtypes = [matrix, c_void_p, c_int64, c_void_p, c_void_p]
    kernels.linear.restype = c_int
    kernels.maxima.argtypes, kernels.maxima.restype = [POINTER(Maxima)], None
    kernels.attend.argtypes, kernels.attend.restype = [POINTER(Attention)], c_int
    kernels.gelu.argtypes, kernels.gelu.restype = [c_void_p, c_void_p, c_int64, c_int64, c_int64], None
    kernels.norm.argtypes = [c_void_p] * 5 + [c_double, c_int64, c_int64]
    kernels.norm.restype = None
    kernels.few.argtypes, kernels.few.restype = [c_void_p] * 4 + [c_int64] * 5, None
    kernels.lanes.argtypes, kernels.lanes.restype = [], c_int64
    return kernels


def _built() -> Path:
    """The library's file: named by source, flags, compiler and processor, written beside and renamed."""
    compiler = _compiler()
    for machine in MACHINE:
        command = [*compiler, *FLAGS, *machine]
        told = _run([*command, "-dM", "-E", "-x", "c", os.devnull])  # version and processor, as macros
        if told.returncode == 0:
            break
    else:
        raise OSError(f"{shlex.join(compiler)} does not run: {_last(told.stderr)}")
    sources = [source.read_text() for source in SOURCES]
    key = hashlib.sha256("\n".join([*sources, *command, told.stdout]).encode()).hexdigest()
    folder = _folder()
    path = folder / f"recurrence-{key[:20]}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as beside:
            made = Path(beside) / path.name
            done = _run([*command, str(SOURCES[0]), "-o", str(made), "-lm"])
            if done.returncode:
                raise OSError(f"{shlex.join(compiler)} failed: {_last(done.stderr)}")
            made.replace(path)
    return path


def _compiler() -> list[str]:
    """CC, or the first of the usual names that is there."""
    named = shlex.split(os.environ.get("CC", ""))
    for command in [named] if named else [["cc"], ["gcc"], ["clang"]]:
        if shutil.which(command[0]):
            return command
    raise OSError(f"CC is {named[0]!r}, which is no program" if named else "no cc, gcc or clang")


def _folder() -> Path:
    """The user's cache folder, or a new one for this process where that cannot be written."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "pretune"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError):  # RuntimeError: no home
        folder = Path(tempfile.mkdtemp(prefix="pretune-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return folder


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]
