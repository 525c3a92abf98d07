"""A small writer of TensorFlow's checkpoint format, by its description, for tests of the reader."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pretune.data.checksums import crc32c

TYPES = {"<f4": 1, "<f8": 2, "<i4": 3, "<i8": 9, "|b1": 10, "<f2": 19}


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def entry(array: NDArray[Any], offset: int, dtype: int | None = None) -> bytes:
    data = array.tobytes()
    shape = b"".join(field(2, field(1, side)) for side in array.shape)
    checksum = varint(6 << 3 | 5) + struct.pack("<I", crc32c(data))
    kind = TYPES[array.dtype.str] if dtype is None else dtype
    return field(1, kind) + field(2, shape) + field(4, offset) + field(5, len(data)) + checksum


def block(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """Entries with shared beginnings; every second one begins anew."""
    out, restarts, before = b"", [], b""
    for number, (key, value) in enumerate(pairs):
        shared = 0
        if number % 2:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        else:
            restarts.append(len(out))
        own = key[shared:]
        out += varint(shared) + varint(len(own)) + varint(len(value)) + own + value
        before = key
    restarts = restarts or [0]
    out += b"".join(struct.pack("<I", at) for at in restarts) + struct.pack("<I", len(restarts))
    return out + b"\0" + struct.pack("<I", crc32c(out + b"\0"))


def index(pairs: list[tuple[bytes, bytes]], a_block: int = 4) -> bytes:
    """A table in LevelDB's format."""
    out, handles = b"", []
    for at in range(0, len(pairs), a_block):
        some = pairs[at : at + a_block]
        made = block(some)
        handles.append((some[-1][0], varint(len(out)) + varint(len(made) - 5)))
        out += made
    meta, at = block([]), len(out)
    out += meta
    listing, place = block(handles), len(out)
    footer = varint(at) + varint(len(meta) - 5) + varint(place) + varint(len(listing) - 5)
    return out + listing + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def write_checkpoint(prefix: Path, arrays: Mapping[str, NDArray[Any]], header: bytes | None = None) -> None:
    """prefix.index and prefix.data-00000-of-00001."""
    data, entries = b"", {}
    for name, array in sorted(arrays.items()):
        entries[name.encode()] = entry(array, len(data))
        data += array.tobytes()
    pairs = [(b"", field(1, 1) + field(3, field(1, 1)) if header is None else header), *entries.items()]
    prefix.with_name(f"{prefix.name}.index").write_bytes(index(pairs))
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data)
