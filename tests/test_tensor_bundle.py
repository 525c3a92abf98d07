"""Checkpoints of TensorFlow are read exactly, and damaged ones refused with a clear word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints import block, entry, field, index, varint, write_checkpoint
from pretune.data.checksums import LANES, crc32c
from pretune.data.tensor_bundle import TensorBundle
from pretune.errors import UserError

ARRAYS = {
    "lm/a": np.arange(6, dtype="<f4").reshape(2, 3),
    "lm/a/Adagrad": np.ones((2, 3), "<f4"),
    "lm/b": np.array(3, "<i8"),
    "lm/c/kernel": np.linspace(0, 1, 5).reshape(5, 1),
    "lm/c/kernel_2": np.array([True, False]),
    "empty": np.zeros((0, 4), "<f4"),
}


def plain(data: bytes) -> int:
    """RFC 3720's CRC-32C, bit by bit."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def test_checksums_are_those_of_the_standard_with_the_mask() -> None:
    assert plain(b"123456789") == 0xE3069283
    chance = np.random.default_rng(0)
    for size in (0, 1, 9, 4 * LANES - 1, 4 * LANES, 4 * LANES + 3, 12 * LANES + 5):
        data = chance.bytes(size)
        crc = plain(data)
        assert crc32c(data) == (crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8 & 0xFFFFFFFF


@pytest.mark.parametrize("ending", ["", ".index", ".data-00000-of-00001", ".meta"])
def test_every_variable_is_read_as_it_was_written(tmp_path: Path, ending: str) -> None:
    write_checkpoint(tmp_path / "model.ckpt-12", ARRAYS)
    bundle = TensorBundle(tmp_path / f"model.ckpt-12{ending}")
    assert bundle.shapes == {name: x.shape for name, x in ARRAYS.items()}
    for name, wanted in ARRAYS.items():
        found = bundle.read(name)
        assert found.dtype == wanted.dtype and np.array_equal(found, wanted)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    prefix = tmp_path / "model.ckpt-1"
    with pytest.raises(UserError, match=r"no such file: .*model.ckpt-1.index"):
        TensorBundle(prefix)
    prefix.write_bytes(b"an old checkpoint in one file")
    with pytest.raises(UserError, match="file beside it; here is none"):
        TensorBundle(prefix)
    write_checkpoint(prefix, ARRAYS)
    data = prefix.with_name("model.ckpt-1.data-00000-of-00001")
    whole = data.read_bytes()
    at = whole.index(ARRAYS["lm/a"].tobytes())
    data.write_bytes(whole[:at] + b"\1" + whole[at + 1 :])
    with pytest.raises(UserError, match="lm/a is damaged"):
        TensorBundle(prefix).read("lm/a")
    data.write_bytes(whole[: at + 5])
    with pytest.raises(UserError, match="ends before lm/a does"):
        TensorBundle(prefix).read("lm/a")
    data.unlink()
    with pytest.raises(UserError, match=r"no such file: .*data-00000-of-00001"):
        TensorBundle(prefix).read("lm/a")


def test_kinds_that_are_not_supported_are_named(tmp_path: Path) -> None:
    prefix = tmp_path / "model.ckpt-1"
    write_checkpoint(prefix, ARRAYS)
    index_file = prefix.with_name("model.ckpt-1.index")
    texts, slices = entry(np.zeros(1, "<f4"), 0, dtype=7), entry(np.zeros(1, "<f4"), 0) + field(7, b"")
    wrong_size = entry(np.zeros(1, "<f4"), 0) + field(2, field(2, field(1, 2)))
    index_file.write_bytes(index([(b"", field(1, 1)), (b"s", slices), (b"t", texts), (b"w", wrong_size)]))
    bundle = TensorBundle(prefix)
    for name, message in {"t": "type 7", "s": "in slices", "w": "cannot have 4 bytes"}.items():
        with pytest.raises(UserError, match=message):
            bundle.read(name)
    write_checkpoint(prefix, ARRAYS, header=field(1, 1) + field(2, 1))
    with pytest.raises(UserError, match="big-endian"):
        TensorBundle(prefix)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([(b"", field(1, 1)), (b"a", b"\x0b")], "unknown kind 3"),
        ([(b"", field(1, 1)), (b"a", b"\x12\x7f")], "cut short"),
        ([(b"", field(1, 1)), (b"a", b"\x08" + b"\xff" * 10)], "more than 64 bits"),
        ([(b"", field(1, 1)), (b"a", field(4, (1 << 64) - 1))], "negative"),
        ([(b"", field(1, 1)), (b"a", field(2, 5))], "a number stands where"),
        ([(b"", field(1, 1)), (b"a", field(1, b"x"))], "no index"),
    ],
)
def test_malformed_entries_are_refused(
    tmp_path: Path, pairs: list[tuple[bytes, bytes]], message: str
) -> None:
    (tmp_path / "x.index").write_bytes(index(pairs))
    with pytest.raises(UserError, match=message):
        TensorBundle(tmp_path / "x")


def test_a_compressed_index_is_refused(tmp_path: Path) -> None:
    written = bytearray(index([(b"", field(1, 1))]))
    first = len(block([(b"", field(1, 1))]))
    written[first - 5] = 1
    (tmp_path / "x.index").write_bytes(bytes(written))
    with pytest.raises(UserError, match="compressed"):
        TensorBundle(tmp_path / "x")
    assert varint(300) == b"\xac\x02"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_to_an_index_ends_in_anything_but_a_clear_error(data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "m"
        write_checkpoint(prefix, ARRAYS)
        path = prefix.with_name("m.index")
        content = bytearray(path.read_bytes())
        if data.draw(st.booleans()):
            content = content[: data.draw(st.integers(0, len(content) - 1))]
        for _ in range(data.draw(st.integers(0, 3))):
            if content:
                content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(bytes(content))
        try:
            bundle = TensorBundle(prefix)
            for name in bundle.entries:
                bundle.read(name)
        except UserError:
            pass
