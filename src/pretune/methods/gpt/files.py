"""Vocabulary files of GPT as others write them: OpenAI's, those of transformers, and tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pretune.errors import UserError
from pretune.methods.gpt.bpe import END, Pair

BOTH: Final = (("encoder_bpe_40000.json", "vocab_40000.bpe"), ("vocab.json", "merges.txt"))
WHOLE: Final = "tokenizer.json"
HEADER: Final = "#version: 0.2"


def read(folder: Path) -> tuple[list[str], list[Pair]]:
    """The pieces in the order of their ids, and the merges."""
    for pieces, merges in BOTH:
        if (folder / pieces).is_file():
            return _in_order(_json(folder / pieces), folder / pieces), read_merges(folder / merges)
    if (folder / WHOLE).is_file():
        return _whole(folder / WHOLE)
    wanted = " or ".join([*(" with ".join(pair) for pair in BOTH), WHOLE])
    raise UserError(f"{folder}: no vocabulary of GPT there; it is {wanted}")


def read_merges(path: Path) -> list[Pair]:
    """A merge a line, two pieces with a space between them, after a line that says the version."""
    lines = _text(path).replace("\r\n", "\n").split("\n")
    first = int(lines[0].startswith("#version"))
    while lines and not lines[-1]:
        lines.pop()
    return [_merge(line, f"{path}:{number}") for number, line in enumerate(lines[first:], first + 1)]


def merges_text(merges: tuple[Pair, ...]) -> str:
    """What `read_merges` reads."""
    return "".join(f"{line}\n" for line in (HEADER, *map(" ".join, merges)))


def _merge(line: str, where: str) -> Pair:
    left, space, right = line.partition(" ")
    if not (left and space and right) or " " in right:
        raise UserError(f"{where}: {line!r} is no merge, which is two pieces with a space between them")
    return left, right


def _whole(path: Path) -> tuple[list[str], list[Pair]]:
    model = _json(path).get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE" or model.get("end_of_word_suffix") != END:
        raise UserError(f"{path}: its model is not byte-pair encoding with the end mark {END}, as GPT's is")
    merges = [
        _merge(merge, str(path)) if isinstance(merge, str) else (str(merge[0]), str(merge[1]))
        for merge in model.get("merges", [])
    ]
    return _in_order(model.get("vocab", {}), path), merges


def _in_order(ids: Mapping[str, Any], path: Path) -> list[str]:
    pieces = sorted(ids, key=ids.__getitem__)
    if [ids[piece] for piece in pieces] != list(range(len(pieces))):
        raise UserError(f"{path}: its ids are not 0 to {len(pieces) - 1}, each once")
    return pieces


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_text(path))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: a table is wanted, this is {type(found).__name__}")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None
