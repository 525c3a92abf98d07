"""ELMo's vectors of words without their context, in a file: made once, used in place of the character CNN.

The file is bilm-tf's `dump_token_embeddings`: HDF5 with the dataset `embedding`, float32 (V, D), whose row i
is the vector of line i of a vocabulary; ours also has the lines themselves, as `words`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretune.data.document_files import decoded_lines
from pretune.data.files import check_exists, shown
from pretune.data.hdf5 import library
from pretune.errors import UsageError, UserError
from pretune.methods.elmo import ELMo, ElmoCodec
from pretune.methods.elmo.word_cache import MEMORY, WordCache
from pretune.runs.starts import Start

EMBEDDING, WORDS = "embedding", "words"
CHUNK = 4096  # words at a time
PROBES = 64  # words whose vectors are worked out, to see whether a file is this model's
ERROR = 1e-4  # between the file's vectors and the network's


def read_words(file: Path, encoding: str = "utf-8") -> list[str]:
    """A word a line, without the white space around it, as bilm-tf reads a vocabulary."""
    check_exists(file)
    words = [line.strip() for line in decoded_lines(file, encoding)]
    for number, word in enumerate(words, 1):
        if len(word.split()) > 1:
            raise UserError(
                f"{file.name}:{number}: {shown(word)} is not one word; --layers tokens wants a word a line"
            )
    return words


def token_vectors(start: Start, words: Iterable[str]) -> Iterator[NDArray[np.float32]]:
    """(W, D) of some thousands of words at a time; `<S>` and `</S>` have those of the marks of sentences."""
    encoder, spell = _spelling(start)
    device = next(encoder.parameters()).device
    stream = iter(words)
    while some := list(islice(stream, CHUNK)):
        with torch.no_grad():
            yield encoder.word_vectors(spell(some).to(device)).cpu().numpy()


def use_token_vectors(start: Start, file: Path, vocabulary: Path | None = None) -> None:
    """Fill the encoder's memory of words with a file's vectors; other words go on through the network.

    Raises `UserError` where vectors and words do not go together, or are another model's: some of them are
    compared with what the network gives.
    """
    encoder, spell = _spelling(start)
    words, table = _read(file, vocabulary)
    if not words:
        return
    if table.shape[1] != start.encoder_config.projection_dim:
        raise UserError(
            f"{file}: its vectors have {table.shape[1]} numbers, this model's "
            f"{start.encoder_config.projection_dim}; it was made by another model"
        )
    probes = np.unique(np.linspace(0, len(words) - 1, PROBES).astype(int))
    (wanted,) = token_vectors(start, [words[i] for i in probes])
    wrong = np.abs(wanted - table[probes]).max(1)
    if not wrong.max() < ERROR:
        worst = int(wrong.argmax())
        raise UserError(
            f"{file}: the vector of {shown(words[probes[worst]])} is not this model's (it differs by "
            f"{wrong[worst]:.2g}); give the file of this model, with its own vocabulary"
        )
    encoder.cache = WordCache(MEMORY + 2 * table.nbytes)
    weights = list(encoder.characters.parameters()) if encoder.characters is not None else []
    seen: set[bytes] = set()
    for at in range(0, len(words), CHUNK):
        characters = spell(words[at : at + CHUNK])  # (W, C)
        new = []
        for k, row in enumerate(characters.numpy()):
            if (key := row.tobytes()) not in seen:
                seen.add(key)
                new.append(k)
        if new:
            rows = torch.from_numpy(table[at : at + CHUNK][new])  # (W', D)
            encoder.cache.vectors(characters[new], weights, partial(_given, rows))


def _given(rows: Tensor, characters: Tensor) -> Tensor:
    return rows


def write_token_vectors(start: Start, words: Sequence[str], file: Path) -> None:
    """`file` anew; the caller gives a name to be renamed once it is whole."""
    h5py = library()
    width = start.encoder_config.projection_dim if isinstance(start.encoder, ELMo) else 0
    vectors = token_vectors(start, words)
    first = next(vectors, np.zeros((0, width), np.float32))
    with h5py.File(file, "w") as out:
        table = out.create_dataset(EMBEDDING, (len(words), width), "float32")
        names = out.create_dataset(WORDS, (len(words),), h5py.string_dtype())
        at = 0
        while len(first):
            table[at : at + len(first)] = first
            names[at : at + len(first)] = list(islice(words, at, at + len(first)))
            at += len(first)
            first = next(vectors, first[:0])


def _spelling(start: Start) -> tuple[ELMo, Any]:
    spell = start.codec.spell if isinstance(start.codec, ElmoCodec) else None
    if not isinstance(start.encoder, ELMo) or spell is None:
        raise UsageError(
            "vectors of words without context are those of an ELMo that reads characters; this folder holds "
            f"{start.method.name}"
        )
    return start.encoder, spell


def _read(file: Path, vocabulary: Path | None) -> tuple[list[str], NDArray[np.float32]]:
    h5py = library()
    check_exists(file)
    try:
        with h5py.File(file, "r") as found:
            if EMBEDDING not in found:
                raise UserError(
                    f"{file}: no dataset '{EMBEDDING}' there; it holds {', '.join(found) or 'none'}"
                )
            table = np.asarray(found[EMBEDDING][()], np.float32)
            words = [word.decode() for word in found[WORDS][()]] if WORDS in found else None
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file}: cannot be read as HDF5 of vectors ({error})") from None
    if table.ndim != 2:
        raise UserError(f"{file}: '{EMBEDDING}' has {table.ndim} dimensions, not a vector a word")
    if vocabulary is not None:
        words = read_words(vocabulary)
    if words is None:
        raise UsageError(f"{file} does not say whose vectors it holds; give the vocabulary it was made of")
    if len(words) != len(table):
        raise UserError(
            f"{file} holds {len(table)} vectors, {vocabulary or 'its list'} {len(words)} words; give the "
            "vocabulary that it was made of"
        )
    return words, table
