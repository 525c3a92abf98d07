"""The published options.json, to and from ELMoConfig."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any, Final, get_args

from pretune.data.files import read_bytes, shown
from pretune.errors import UserError
from pretune.layers.char_cnn import Activation
from pretune.methods.elmo.config import ELMoConfig

Options = Mapping[str, Any]
REQUIRED: Final = object()
CHARACTERS: Final = (261, 262)  # of a model in training; with the row of padded tokens, which inference adds


def read_options(path: Path, two_ways: bool = True) -> tuple[ELMoConfig, list[str]]:
    """The encoder that an options.json describes, and what its reader should know.

    Keys that say nothing about the network (batch sizes, counts of tokens) are left aside. An absent
    `bidirectional` is `two_ways`: files for inference have none, however the model reads.
    """
    try:
        options = json.loads(read_bytes(path))
    except UnicodeDecodeError:
        raise UserError(f"{path}: not JSON; are --options and --weights swapped?") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    if not isinstance(options, dict) or not isinstance(options.get("lstm"), dict):
        raise UserError(f"{path}: no options of a biLM: it has no table 'lstm'")
    said = _Said(path, options)
    dim = said.whole("lstm.dim")
    width = said.whole("lstm.projection_dim", dim)
    if width > dim:
        raise UserError(f"{path}: lstm.projection_dim is {width}, more than lstm.dim, {dim}")
    read: dict[str, Any] = {
        "dim": dim,
        "projection_dim": width,
        "layers": said.whole("lstm.n_layers", 1),
        "cell_clip": said.bound("lstm.cell_clip"),
        "proj_clip": said.bound("lstm.proj_clip"),
        "skip_connections": said.switch("lstm.use_skip_connections", False),
        "directions": "both" if said.switch("bidirectional", two_ways) else "forward",
        "dropout": said.number("dropout", 0.1),
    }
    notes: list[str] = []
    if "char_cnn" in options:
        read |= _characters(said)
        notes += _count_of_characters(said)
    else:
        read |= {"inputs": "words", "tied": said.switch("share_embedding_softmax", False)}
    try:
        return ELMoConfig(**read), notes
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _characters(said: _Said) -> dict[str, Any]:
    activation = said.get("char_cnn.activation")
    if activation not in get_args(Activation):
        raise said.wrong("char_cnn.activation", activation, " or ".join(get_args(Activation)))
    filters = said.get("char_cnn.filters")
    pairs = isinstance(filters, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(type(x) is int and x > 0 for x in pair)
        for pair in filters
    )
    if not pairs or not filters:
        raise said.wrong("char_cnn.filters", filters, "a list of [characters wide, how many]")
    return {
        "activation": activation,
        "filters": tuple((size, count) for size, count in filters),
        "highways": said.whole("char_cnn.n_highway", 0, least=0),
        "char_dim": said.whole("char_cnn.embedding.dim"),
        "max_characters": said.whole("char_cnn.max_characters_per_token"),
    }


def _count_of_characters(said: _Said) -> list[str]:
    count = said.get("char_cnn.n_characters", None)
    if count == CHARACTERS[1] or count is None:
        return []
    if count == CHARACTERS[0]:
        return [f"{said.path.name}: n_characters is 261, as in training; the row of padded tokens makes 262"]
    raise said.wrong("char_cnn.n_characters", count, " or ".join(map(str, CHARACTERS)))


class _Said:
    """Values of a nested table by dotted name; a wrong one is answered with its file and name."""

    def __init__(self, path: Path, options: Options) -> None:
        self.path, self.options = path, options

    def get(self, name: str, default: Any = REQUIRED) -> Any:
        value: Any = self.options
        for step in name.split("."):
            if not isinstance(value, dict):
                raise UserError(f"{self.path}: {name} cannot be read: it stands in no table")
            value = value.get(step)
            if value is None:
                break
        if value is None and default is REQUIRED:
            raise UserError(f"{self.path}: {name} is missing")
        return default if value is None else value

    def wrong(self, name: str, value: Any, wanted: str) -> UserError:
        return UserError(f"{self.path}: {name} is {shown(value)}; it must be {wanted}")

    def whole(self, name: str, default: Any = REQUIRED, least: int = 1) -> int:
        value = self.get(name, default)
        if type(value) is not int or value < least:
            raise self.wrong(name, value, f"a whole number of at least {least}")
        return value

    def number(self, name: str, default: float) -> float:
        value = self.get(name, default)
        if type(value) not in (int, float):
            raise self.wrong(name, value, "a number")
        return float(value)

    def bound(self, name: str) -> float | None:
        value = self.get(name, None)
        if value is None:
            return None
        if type(value) not in (int, float) or not 0 < value < inf:
            raise self.wrong(name, value, "a number above 0, or absent")
        return float(value)

    def switch(self, name: str, default: bool) -> bool:
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, value, "true or false")
        return value


def options_of(config: ELMoConfig, words: int) -> dict[str, Any]:
    """options.json for inference by bilm-tf, AllenNLP and what came after; `words` is V, 0 for none."""
    lstm = {
        "dim": config.dim,
        "projection_dim": config.projection_dim,
        "n_layers": config.layers,
        "cell_clip": config.cell_clip,
        "proj_clip": config.proj_clip,
        "use_skip_connections": config.skip_connections,
    }
    options: dict[str, Any] = {"lstm": lstm}
    if config.inputs == "characters":
        options["char_cnn"] = {
            "activation": config.activation,
            "filters": [list(pair) for pair in config.filters],
            "n_highway": config.highways,
            "embedding": {"dim": config.char_dim},
            "n_characters": CHARACTERS[1],
            "max_characters_per_token": config.max_characters,
        }
    elif config.tied:
        options["share_embedding_softmax"] = True
    if config.directions == "forward":
        options["bidirectional"] = False
    if words:
        options["n_tokens_vocab"] = words
    return {**options, "dropout": config.dropout}
