"""The library transformers: imported late, named where it is missing, silent, and never asked to look up."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from inspect import signature
from typing import Any

import torch
from torch import nn

from pretune.errors import UserError

LEFT_OUT = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")


def transformers() -> Any:
    """The module; raises `UserError` that names the extra where it is not installed."""
    try:
        return import_module("transformers")
    except ImportError as error:
        raise UserError(
            f"models of transformers need that library ({error}); install it with: pip install 'pretune[hf]'"
        ) from None


def load_models() -> None:
    """Import what any model needs, which takes seconds."""
    library = transformers()
    assert library.AutoModel and library.AutoTokenizer and library.PreTrainedModel


@contextmanager
def silent() -> Iterator[None]:
    """Without reports and bars on stderr: what matters is checked and said by us."""
    log = transformers().utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def described(config: Any) -> dict[str, Any]:
    """A config of transformers as plain values, all of them, for the defaults of later versions differ."""
    plain: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return {name: value for name, value in plain.items() if name not in LEFT_OUT}


def config_of(plain: Mapping[str, Any]) -> Any:
    """The config that `described` described."""
    library = transformers()
    kind = plain["model_type"]
    if kind not in library.CONFIG_MAPPING:
        raise UserError(
            f"transformers {library.__version__} knows no model_type {kind!r}; another version may, and code "
            "that comes with a model is never run"
        )
    config = library.CONFIG_MAPPING[kind].from_dict({k: v for k, v in plain.items() if k != "model_type"})
    if hasattr(config, "use_cache"):
        config.use_cache = False  # nothing is generated
    return config


def options(config: Any, pooler: bool) -> dict[str, Any]:
    """What the model's class is to be made with: no pooler where none is read, and full precision."""
    found: dict[str, Any] = {"dtype": torch.float32}
    cls = transformers().MODEL_MAPPING.get(type(config), None)
    if cls is not None and not isinstance(cls, tuple) and "add_pooling_layer" in signature(cls).parameters:
        found["add_pooling_layer"] = pooler
    return found


def fresh_model(plain: Mapping[str, Any], pooler: bool) -> nn.Module:
    """A model with random weights, of an encoder-decoder the encoder."""
    config = config_of(plain)
    with silent():
        return reader(transformers().AutoModel.from_config(config, **options(config, pooler)))


def reader(model: Any) -> nn.Module:
    """The part that reads."""
    found: nn.Module = model.get_encoder() if model.config.is_encoder_decoder else model
    return found
