"""TensorFlow's checkpoints (NAME.index, NAME.data-00000-of-00001) as arrays, without TensorFlow."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pretune.data.checksums import crc32c
from pretune.data.files import check_exists
from pretune.errors import UserError

MAGIC: Final = 0xDB4775248B80FB57  # ends every table of LevelDB's format, which the index is
FOOTER, TRAILER = 48, 5  # bytes
ENDING: Final = re.compile(r"\.(index|meta|data-\d+-of-\d+)$")
DTYPES: Final = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?", 19: "<f2"}
Fields = dict[int, list[Any]]  # of a protocol buffer message: number -> values


@dataclass(frozen=True)
class Entry:
    """Where a variable lies."""

    dtype: int  # TensorFlow's number
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int  # bytes
    checksum: int
    sliced: bool  # its parts are variables of their own


class TensorBundle:
    """The variables of a checkpoint by name; the index is read at once, values when asked for.

    `prefix` is the path without `.index`; one of the files will do. Raises `UserError` where files are
    missing, cut short or damaged: every length is checked before it is used, and every checksum.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix = prefix.with_name(ENDING.sub("", prefix.name))
        index = prefix.with_name(f"{prefix.name}.index")
        if prefix.is_file() and not index.exists():
            raise UserError(f"{prefix}: a checkpoint has an .index file beside it; here is none")
        check_exists(index)
        try:
            header, self.entries = _entries(index.read_bytes())
            self.shards = int(header.get(1, [1])[-1])
        except (ValueError, IndexError, struct.error, UnicodeDecodeError) as error:
            raise UserError(f"{index}: no index of a TensorFlow checkpoint, or damaged ({error})") from None
        if header.get(2, [0])[-1]:
            raise UserError(f"{index}: written on a big-endian machine, which is not supported")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: entry.shape for name, entry in self.entries.items()}

    def read(self, name: str) -> NDArray[Any]:
        entry = self.entries[name]
        path = self.prefix.with_name(f"{self.prefix.name}.data-{entry.shard:05d}-of-{self.shards:05d}")
        check_exists(path)
        if entry.dtype not in DTYPES or entry.sliced:
            kind = "saved in slices" if entry.sliced else f"of TensorFlow's type {entry.dtype}"
            raise UserError(f"{path}: {name} is {kind}, which is not supported")
        dtype = np.dtype(DTYPES[entry.dtype])
        if prod(entry.shape) * dtype.itemsize != entry.size:
            raise UserError(f"{path}: {name} of shape {entry.shape} cannot have {entry.size} bytes")
        if entry.offset + entry.size > path.stat().st_size:
            raise UserError(f"{path}: ends before {name} does; copy or download it again")
        data = bytearray(entry.size)
        with path.open("rb") as file:
            file.seek(entry.offset)
            file.readinto(data)
        if crc32c(data) != entry.checksum:
            raise UserError(f"{path}: {name} is damaged (its checksum differs); copy or download it again")
        return np.frombuffer(data, dtype).reshape(entry.shape)


def _entries(data: bytes) -> tuple[Fields, dict[str, Entry]]:
    """The header and all variables of an index file."""
    if len(data) < FOOTER or struct.unpack("<Q", data[-8:])[0] != MAGIC:
        raise ValueError("its end is missing")
    header: Fields = {}
    entries: dict[str, Entry] = {}
    for _, handle in _block(data, *_list_of_blocks(data)):
        offset, end = _varint(handle, 0)
        size, _ = _varint(handle, end)
        for key, value in _block(data, offset, size):
            if key:
                entries[key.decode("utf-8")] = _entry(value)
            else:
                header = _message(value)
    return header, entries


def _list_of_blocks(data: bytes) -> tuple[int, int]:
    """Offset and size of the block that says where the others are."""
    at = len(data) - FOOTER
    found = []
    for _ in range(4):  # the first two are those of a block of metadata, which is empty
        value, at = _varint(data, at)
        found.append(value)
    return found[2], found[3]


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block; each key repeats the beginning of the one before."""
    end = offset + size
    if end + TRAILER > len(data) or size < 4:
        raise ValueError("a block lies outside the file")
    packed, checksum = struct.unpack_from("<BI", data, end)
    if packed:
        raise ValueError("its blocks are compressed; save the checkpoint again without compression")
    if crc32c(data[offset : end + 1]) != checksum:
        raise ValueError("a checksum differs")
    restarts = struct.unpack_from("<I", data, end - 4)[0]
    last = end - 4 - 4 * restarts
    if last < offset:
        raise ValueError("a block has more marks than bytes")
    key, at = b"", offset
    while at < last:
        shared, at = _varint(data, at)
        own, at = _varint(data, at)
        length, at = _varint(data, at)
        if shared > len(key) or at + own + length > last:
            raise ValueError("an entry lies outside its block")
        key = key[:shared] + data[at : at + own]
        at += own
        yield key, data[at : at + length]
        at += length


def _entry(data: bytes) -> Entry:
    """BundleEntryProto: dtype 1, shape 2 {dim 2 {size 1}}, shard 3, offset 4, size 5, crc32c 6, slices 7."""
    fields = _message(data)
    shape = _message(fields.get(2, [b""])[-1])
    sides = tuple(int(_message(side).get(1, [0])[-1]) for side in shape.get(2, []))
    dtype, shard, offset, size, checksum = (int(fields.get(k, [0])[-1]) for k in (1, 3, 4, 5, 6))
    if max((*sides, shard, offset, size), default=0) >= 1 << 62:
        raise ValueError("a size is negative")
    return Entry(dtype, sides, shard, offset, size, checksum, 7 in fields)


def _message(data: bytes) -> Fields:
    """A protocol buffer message as plain values: whole numbers, and bytes of what is nested."""
    if not isinstance(data, bytes):
        raise ValueError("a number stands where a message should")
    fields: Fields = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        value: Any
        if tag & 7 == 0:
            value, at = _varint(data, at)
        elif tag & 7 == 2:
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
        elif tag & 7 in (1, 5):
            width = 8 if tag & 7 == 1 else 4
            value, at = int.from_bytes(data[at : at + width], "little"), at + width
        else:
            raise ValueError(f"a field of unknown kind {tag & 7}")
        if at > len(data):
            raise ValueError("a field is cut short")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in groups of 7 bits, lowest first, and the place behind it."""
    value = 0
    for place in range(10):
        byte = data[at + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise ValueError("a number of more than 64 bits")
