"""Arrays as a checkpoint of TensorFlow, without TensorFlow: what `tensor_bundle` reads."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pretune.data.checksums import crc32c
from pretune.data.tensor_bundle import DTYPES, MAGIC

TYPES: Final = {np.dtype(code): number for number, code in DTYPES.items()}
BLOCK: Final = 4096  # bytes after which the index begins a new block
FIXED32: Final = 5  # the wire type of four bytes
PLAIN: Final = b"\0"  # a block that is not compressed
Pair = tuple[bytes, bytes]  # a key and its value


def write_bundle(prefix: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """`prefix.index` and `prefix.data-00000-of-00001`, variables in the order of their names."""
    pairs: list[Pair] = [(b"", _header())]
    at = 0
    with prefix.with_name(f"{prefix.name}.data-00000-of-00001").open("wb") as stream:
        for name, array in sorted(arrays.items(), key=lambda pair: pair[0].encode()):
            array = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
            data = array.tobytes()
            pairs.append((name.encode(), _entry(array, at, data)))
            at += stream.write(data)
    prefix.with_name(f"{prefix.name}.index").write_bytes(_table(pairs))


def _header() -> bytes:
    """BundleHeaderProto: one file of data (1), little-endian (2, its default), version (3) producer 1 (1)."""
    return _field(1, 1) + _field(3, _field(1, 1))


def _entry(array: NDArray[Any], at: int, data: bytes) -> bytes:
    """BundleEntryProto; see `tensor_bundle`. Numbers that are 0 are left out, as protocol buffers do."""
    shape = b"".join(_field(2, _field(1, side)) for side in array.shape)
    offset = _field(4, at) if at else b""
    checksum = _varint(6 << 3 | FIXED32) + struct.pack("<I", crc32c(data))
    return _field(1, TYPES[array.dtype]) + _field(2, shape) + offset + _field(5, len(data)) + checksum


def _table(pairs: list[Pair]) -> bytes:
    """A table in LevelDB's format: blocks of pairs in order, the block that lists them, where that lies."""
    out = bytearray()
    handles: list[Pair] = []
    some: list[Pair] = []
    for number, pair in enumerate(pairs, 1):
        some.append(pair)
        if number == len(pairs) or sum(len(key) + len(value) for key, value in some) >= BLOCK:
            handles.append((some[-1][0], _added(out, some)))
            some = []
    metadata = _added(out, [])
    footer = metadata + _added(out, handles)
    return bytes(out) + footer.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def _added(out: bytearray, pairs: list[Pair]) -> bytes:
    """Put a block behind what is there; returns where it lies. Every key is written whole."""
    at, starts, block = len(out), [], bytearray()
    for key, value in pairs:
        starts.append(len(block))
        block += _varint(0) + _varint(len(key)) + _varint(len(value)) + key + value
    starts = starts or [0]
    block += struct.pack(f"<{len(starts) + 1}I", *starts, len(starts))
    out += block + PLAIN + struct.pack("<I", crc32c(bytes(block) + PLAIN))
    return _varint(at) + _varint(len(block))


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
