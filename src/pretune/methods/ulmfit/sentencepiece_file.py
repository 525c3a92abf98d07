"""SentencePiece's `.model` files, which are protocol buffers, read without its package."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pretune.errors import UserError
from pretune.methods.ulmfit.rules import SPECIALS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # types of a piece
UNIGRAM, BPE = 1, 2  # types of a model
NOTHING: Final = "▁<unk>▁"  # the name of what is in no piece: no text can give it, for ▁ starts a piece


@dataclass(frozen=True)
class SentencePieceFile:
    """What of a model file decides how text is read."""

    pieces: tuple[tuple[str, float, int], ...]  # piece, score, type
    kind: int
    byte_fallback: bool
    spans_spaces: bool
    space_behind: bool
    charsmap: bytes  # how characters are normalised, compiled
    space_in_front: bool
    squeezes: bool
    escapes: bool


def parsed(data: bytes, where: str) -> SentencePieceFile:
    """The fields of `sentencepiece_model.proto`, by their numbers; what is not listed is not needed."""
    try:
        whole = _Message(data)
        pieces = tuple(_piece(_Message(value)) for value in whole.texts.get(1, ()))
        trainer, normalizer = _Message(whole.text(2)), _Message(whole.text(3))
        charsmap = normalizer.text(2)
    except (ValueError, IndexError, struct.error):
        pieces = ()
    if not any(kind == NORMAL for _, _, kind in pieces):
        raise UserError(f"{where}: not a model file of SentencePiece")
    return SentencePieceFile(
        pieces,
        kind=trainer.numbers.get(3, UNIGRAM),
        byte_fallback=bool(trainer.numbers.get(35, 0)),
        spans_spaces=not trainer.numbers.get(22, 1),
        space_behind=bool(trainer.numbers.get(24, 0)),
        charsmap=charsmap,
        space_in_front=bool(normalizer.numbers.get(3, 1)),
        squeezes=bool(normalizer.numbers.get(4, 1)),
        escapes=bool(normalizer.numbers.get(5, 1)),
    )


def _piece(message: _Message) -> tuple[str, float, int]:
    (score,) = struct.unpack("<f", message.text(2) or bytes(4))
    return message.text(1).decode(), score, message.numbers.get(3, NORMAL)


class _Message:
    """The fields of a message: whole numbers, and all others as bytes."""

    def __init__(self, data: bytes) -> None:
        self.numbers: dict[int, int] = {}
        self.texts: dict[int, list[bytes]] = {}
        at = 0
        while at < len(data):
            tag, at = _varint(data, at)
            number, kind = tag >> 3, tag & 7
            if kind == 0:
                self.numbers[number], at = _varint(data, at)
                continue
            size = {1: 8, 5: 4}.get(kind)
            if kind == 2:
                size, at = _varint(data, at)
            if size is None or at + size > len(data):
                raise ValueError("no protocol buffer, or one cut off")
            self.texts.setdefault(number, []).append(data[at : at + size])
            at += size

    def text(self, number: int) -> bytes:
        return self.texts.get(number, [b""])[-1]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("no number")


def tokenizer_of(file: SentencePieceFile, where: str, composed: bool = False) -> Tokenizer:
    """The same pieces by `tokenizers`; `composed` joins letters and their accents first (NFC)."""
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

    unread = {
        "byte fallback": file.byte_fallback,
        "pieces that span spaces": file.spans_spaces,
        "spaces at the end of words": file.space_behind,
        "spaces that are not escaped": not file.escapes,
        "words or characters as pieces": file.kind not in (UNIGRAM, BPE),
    }
    for what, has in unread.items():
        if has:
            raise UserError(f"{where}: a model with {what}, which is not read here; only unigram and BPE are")
    tokenizer = Tokenizer(_unigram(file) if file.kind == UNIGRAM else _bpe(file, where))
    steps: list[normalizers.Normalizer] = [normalizers.NFC()] if composed else []
    if file.charsmap:
        steps.append(normalizers.Precompiled(file.charsmap))
    if file.squeezes:
        steps += [normalizers.Replace(Regex(r"\A +|[ ▁]+\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    scheme = "always" if file.space_in_front else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    return tokenizer


def _unigram(file: SentencePieceFile):  # type: ignore[no-untyped-def]
    """A symbol of the user's costs nothing, so that no other reading of its characters is cheaper."""
    from tokenizers import models

    scores = {NOTHING: 0.0}
    for piece, score, kind in file.pieces:
        if kind in (NORMAL, USER_DEFINED):
            scores.setdefault(piece, 0.0 if kind == USER_DEFINED else score)
    return models.Unigram(list(scores.items()), unk_id=0)


def _bpe(file: SentencePieceFile, where: str):  # type: ignore[no-untyped-def]
    """Every piece that two others make is a merge, the best score first."""
    from tokenizers import models

    foreign = [
        piece for piece, _, kind in file.pieces if kind == USER_DEFINED and piece.strip("▁") not in SPECIALS
    ]
    if foreign:
        raise UserError(f"{where}: a BPE model with symbols of its own ({foreign[0]!r}), not read here")
    order = [piece for piece, _, kind in file.pieces if kind == NORMAL]
    ids = {NOTHING: 0}
    for piece in order:
        ids.setdefault(piece, len(ids))
    scores = {piece: score for piece, score, kind in file.pieces if kind == NORMAL}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in sorted(order, key=lambda piece: -scores[piece])
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
    return models.BPE(ids, merges, unk_token=NOTHING, fuse_unk=True)
