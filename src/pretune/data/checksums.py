"""CRC-32C with TensorFlow's mask, over many lanes at once in numpy."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

LANES = 4096  # pieces of the data that are worked on together
POLYNOMIAL = 0x82F63B78


def crc32c(data: bytes | bytearray) -> int:
    """The masked checksum that tables of LevelDB and checkpoints of TensorFlow carry.

    The data is cut into equal pieces, each a lane of four bytes a step; 32 lanes more, one for each bit of
    the register and with zeros for data, say what a piece does to the register before it, for the checksum
    is linear.
    """
    steps = len(data) // (4 * LANES)
    register = 0xFFFFFFFF
    if steps:
        low, high = _moved(32, 0, 16), _moved(32, 16, 16)
        lanes = np.concatenate((np.zeros(LANES, np.uint32), np.uint32(1) << np.arange(32, dtype=np.uint32)))
        words = np.frombuffer(data, "<u4", LANES * steps).reshape(LANES, steps)
        for column in words.T:
            lanes[:LANES] ^= column
            lanes = low[lanes & 0xFFFF] ^ high[lanes >> 16]
        shifted: list[int] = lanes[LANES:].tolist()
        for piece in lanes[:LANES].tolist():
            for bit, moved in enumerate(shifted):
                piece ^= moved if register >> bit & 1 else 0
            register = piece
    table: list[int] = _moved(8, 0, 8).tolist()
    for byte in data[4 * LANES * steps :]:
        register = table[(register ^ byte) & 255] ^ register >> 8
    crc = register ^ 0xFFFFFFFF
    return (crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF


@cache
def _moved(bits: int, shift: int, width: int) -> NDArray[np.uint32]:
    """Each register of `width` bits, at `shift`, after so many bits of zeros have been read."""
    table: NDArray[np.uint32] = np.arange(1 << width, dtype=np.uint32) << np.uint32(shift)
    for _ in range(bits):
        table = (table >> np.uint32(1)) ^ (table & np.uint32(1)) * np.uint32(POLYNOMIAL)
    return table
