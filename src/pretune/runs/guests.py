"""What may be named where a model folder may: what transformers wrote, here or on the hub; starters."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pretune.errors import UsageError, UserError
from pretune.runs.starters import starter_folder

HUB = "hf:"  # hf:OWNER/NAME or hf:OWNER/NAME@REVISION; nothing else is ever looked up
METHOD = "hub"
NEEDED = (  # never what a repository has for other libraries, nor code
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
)
SAFE, TORCH = "model*.safetensors*", "pytorch_model*.bin*"
OURS = {"bert": "bert", "openai-gpt": "gpt"}  # model_type -> the method that reads it without padding


def resolved(name: Path | str) -> Path:
    """A folder as it is; of `hf:OWNER/NAME` the one in the hub's cache, fetched if it is not there yet; of a
    starter's name where it is installed.
    """
    said = str(name)
    return _fetched(said.removeprefix(HUB)) if said.startswith(HUB) else starter_folder(said) or Path(name)


@cache
def _fetched(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise UserError(f"{HUB}{name} needs the hub's client ({error}): pip install 'pretune[hf]'") from None
    repository, _, revision = name.partition("@")

    def snapshot(local: bool, patterns: list[str] | None = None) -> Path:
        return Path(
            snapshot_download(
                repository, revision=revision or None, local_files_only=local, allow_patterns=patterns
            )
        )

    try:
        found = snapshot(local=True)
        if _complete(found):
            return found
    except OSError:
        pass  # it is not there
    except ValueError as error:
        raise UsageError(f"{HUB}{name} is no name of the hub, which is hf:OWNER/NAME: {error}") from None
    try:
        found = snapshot(False, [*NEEDED, SAFE])
        if not list(found.glob(SAFE)):
            found = snapshot(False, [*NEEDED, TORCH])
    except Exception as error:  # whatever its client raises: no network, no such name, no permission
        raise UserError(_why(name, error)) from None
    if not _complete(found):
        raise UserError(f"{HUB}{name} lacks a config.json, a tokenizer, or weights for PyTorch")
    return found


def _complete(folder: Path) -> bool:
    weights = [*folder.glob(SAFE), *folder.glob(TORCH)]
    words = [path for names in ("tokenizer*", "vocab*", "*.model") for path in folder.glob(names)]
    return (folder / "config.json").is_file() and bool(weights) and bool(words)


def _why(name: str, error: Exception) -> str:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    begin, instead = (
        f"{HUB}{name} is not in this machine's cache of the hub, and",
        "give a folder that holds it",
    )
    if HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE") == "1":
        return f"{begin} HF_HUB_OFFLINE forbids to fetch it: set HF_HUB_OFFLINE=0, or {instead}"
    said, *_ = str(error).strip().splitlines() or [""]
    why = f"{type(error).__name__}: {said[:200]}"
    return f"{begin} it could not be fetched ({why}): check name and network, or {instead}"


def called(folder: Path) -> str:
    """A folder's name for people: of one in the hub's cache the model's, without its owner."""
    above = folder.parent
    if above.name == "snapshots" and above.parent.name.startswith("models--"):
        return above.parent.name.split("--")[-1]
    return folder.name


def is_guest(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is one of transformers."""
    return "kind" not in config and isinstance(config.get("model_type"), str)


def is_guest_folder(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and is_guest(config)


def as_ours(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a guest's config.json would say if it were one of ours."""
    return {"kind": "pretrained", "method": METHOD, "model_type": config["model_type"]}


def hint(folder: Path | str, config: Mapping[str, Any]) -> list[str]:
    """What else could be done with a guest, as lines for the user."""
    ours = OURS.get(str(config.get("model_type"))) if "encoder" not in config else None
    if ours is None:
        return []
    return [
        f"{folder} is read through transformers, as a guest; `pretune import {ours} {folder} --out DIR` "
        "makes a model of pretune's own of it, which is quicker and goes on learning from text"
    ]
