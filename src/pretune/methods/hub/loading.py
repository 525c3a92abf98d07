"""A folder of transformers as codec and encoder; what it needs is found out, not asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from pickle import UnpicklingError
from types import MappingProxyType
from typing import Any

from tokenizers import Tokenizer
from torch import nn

from pretune.config import update
from pretune.errors import UsageError, UserError
from pretune.methods.hub.encoder import Guest, HubConfig, Pooling, habits_of, ordinary
from pretune.methods.hub.library import config_of, described, options, reader, silent, transformers
from pretune.methods.hub.tokens import HubCodec, HubCodecConfig

NO_LIMIT = 1 << 20  # tokens; transformers writes 1e30 where it knows of no limit
CHOSEN = {"codec": ("context", "cut", "language"), "encoder": ("pooling",)}  # what a user may say
NOTHING: Mapping[str, Any] = MappingProxyType({})
POOLINGS: dict[str, Pooling] = {  # what sentence-transformers calls them
    "cls_token": "first",
    "cls": "first",
    "mean_tokens": "mean",
    "mean": "mean",
    "max_tokens": "max",
    "max": "max",
    "lasttoken": "last",
}


def load(
    folder: Path, codec: Mapping[str, Any] = NOTHING, encoder: Mapping[str, Any] = NOTHING
) -> tuple[HubCodec, Guest]:
    """The encoder of a folder that transformers wrote; nothing is looked up and no code of it is run.

    `codec` and `encoder` are settings that are to differ from what is found: those of `CHOSEN`. Raises
    `UserError` where files or weights are missing, or the tokenizer is a slow one.
    """
    for section, said in (("codec", codec), ("encoder", encoder)):
        for name in said:
            if name not in CHOSEN[section]:
                what = f"{section}.{name} is fixed by the guest; {section} takes {', '.join(CHOSEN[section])}"
                raise UsageError(what)
    found = _opened(folder)
    settings = _chosen(_codec_config(folder, found), codec)
    made = HubCodec(settings, Tokenizer.from_str(_backend(found.fast).to_str()))
    return made, Guest(_tried(folder, found, made, encoder.get("pooling")), found.model)


@dataclass(frozen=True)
class Opened:
    """What transformers reads."""

    plain: dict[str, Any]  # the config as plain values
    config: Any
    fast: Any  # the tokenizer
    model: nn.Module  # the part that reads
    pooler: bool  # whether the weights of its pooler are there


def _opened(folder: Path) -> Opened:
    with silent():
        try:
            auto = transformers().AutoConfig
            plain = described(
                auto.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
            )
            config = config_of(plain)
            fast = _fast_tokenizer(folder)
            return Opened(plain, config, fast, *_model(folder, config))
        except UnpicklingError:
            raise UserError(
                f"{folder}: its weights are a pickle with more in it than tensors, which is never opened; "
                "save it as safetensors"
            ) from None
        except (OSError, ValueError, ImportError, LookupError, TypeError, RuntimeError) as error:
            raise UserError(f"{folder}: transformers cannot read it: {_line(error)}") from None


def _chosen(found: HubCodecConfig, said: Mapping[str, Any]) -> HubCodecConfig:
    config = update(found, said, "codec")
    if found.context is not None and (config.context is None or config.context > found.context):
        raise UsageError(
            f"codec.context is {config.context}; this guest reads up to {found.context:,} tokens"
        )
    return config


def _fast_tokenizer(folder: Path) -> Any:
    fast = transformers().AutoTokenizer.from_pretrained(
        str(folder), local_files_only=True, trust_remote_code=False
    )
    if not fast.is_fast:
        raise UserError(
            f"{folder}: its tokenizer, {type(fast).__name__}, is a slow one, which does not say where tokens "
            "stand in a text; a guest needs a tokenizer.json"
        )
    return fast


def _backend(fast: Any) -> Tokenizer:
    found: Tokenizer = fast.backend_tokenizer
    return found


def _model(folder: Path, config: Any) -> tuple[nn.Module, bool]:
    """The part that reads, and whether the weights of its pooler are there."""
    whole, info = transformers().AutoModel.from_pretrained(
        str(folder),
        config=config,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
        **options(config, pooler=True),
    )
    model = reader(whole)
    read = {id(p) for p in model.parameters()}
    named = dict(whole.named_parameters(remove_duplicate=False))
    missing = [name for name in sorted(info["missing_keys"]) if name in named and id(named[name]) in read]
    lacks_pooler = any(name.startswith("pooler.") for name in missing)
    missing = [name for name in missing if not name.startswith("pooler.")]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UserError(f"{folder}: weights are missing: {', '.join(missing[:3])}{more}")
    return model.eval(), not lacks_pooler


def _codec_config(folder: Path, found: Opened) -> HubCodecConfig:
    fast, config, model = found.fast, found.config, found.model
    end = next((i for i in (fast.eos_token_id, fast.bos_token_id) if i is not None), None)
    pads = (fast.pad_token_id, getattr(config, "pad_token_id", None), end)
    limits = (fast.model_max_length, _positions(config, model), _said_limit(folder))
    return HubCodecConfig(
        name=type(fast).__name__,
        context=min((int(x) for x in limits if x and 0 < x < NO_LIMIT), default=None),
        cut=fast.truncation_side,
        pad_id=next((int(i) for i in pads if i is not None and i >= 0), 0),
        end_id=end,
        token_types=max(_backend(fast).encode("a", "a").type_ids, default=0) > 0
        and _tells_types(config, model),
    )


def _positions(config: Any, model: nn.Module) -> int | None:
    """How many tokens have a position; where padding has one of its own (RoBERTa), they begin after it."""
    for name, module in model.named_modules():
        if (
            name.endswith("position_embeddings")
            and isinstance(module, nn.Embedding)
            and module.padding_idx is not None
        ):
            return module.num_embeddings - module.padding_idx - 1
    found = getattr(config, "max_position_embeddings", None)
    return found if isinstance(found, int) else None


def _tells_types(config: Any, model: nn.Module) -> bool:
    """Whether the model has something to learn from token types; GPT's kind would look up words there."""
    if "token_type_ids" not in signature(model.forward).parameters:
        return False
    return getattr(config, "type_vocab_size", 0) > 1 or config.model_type == "xlnet"


def _tried(folder: Path, found: Opened, codec: HubCodec, said: Pooling | None) -> HubConfig:
    """What the model does to rows, and the pooling that suits it, or is asked for."""
    model, fast = found.model, found.fast
    try:
        vectors = len(model.get_input_embeddings().weight)  # type: ignore[operator]
        special = {*fast.all_special_ids, *fast.added_tokens_decoder}
        habits = habits_of(model, list(ordinary(min(vectors, codec.size), special)), codec.pad_id)
    except Exception as error:  # whatever a model raises that reads something else than text
        raise UserError(f"{folder}: it cannot be read as an encoder of text: {_line(error)}") from None
    if codec.size > vectors:
        raise UserError(f"{folder}: its tokenizer has {codec.size:,} ids, its model {vectors:,} vectors")
    pools = habits.pools and found.pooler
    pooling = said or _pooling(folder, codec, fast.cls_token_id, habits.causal, pools)
    if pooling == "pooler" and not pools:
        raise UsageError(f"encoder.pooling is pooler, and {folder} has no trained one; choose another")
    config = HubConfig(found.plain, pooling, habits.widths, codec.config.token_types, habits.padded)
    if pooling != "pooler" and "add_pooling_layer" in options(found.config, pooler=False):
        model.pooler = None  # type: ignore[assignment]
    return config


def _pooling(folder: Path, codec: HubCodec, cls_id: int | None, causal: bool, pools: bool) -> Pooling:
    """As sentence-transformers says beside the model; else its own, if it is trained; else by its kind."""
    said = _json(folder / "1_Pooling" / "config.json")
    for name, pooling in POOLINGS.items():
        if said.get(f"pooling_mode_{name}") is True or said.get("pooling_mode") == name:
            return pooling
    if pools:
        return "pooler"
    if causal:
        return "last"
    marked = codec.tokenizer.encode("a").ids
    if cls_id is not None and cls_id in (marked[0], marked[-1]):
        return "first" if marked[0] == cls_id else "last"
    return "mean"


def _said_limit(folder: Path) -> int | None:
    """Of sentence-transformers, beside the model."""
    found = _json(folder / "sentence_bert_config.json").get("max_seq_length")
    return found if isinstance(found, int) else None


def _json(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def _line(error: Exception) -> str:
    """The beginning of what others say at length."""
    words = " ".join(str(error).split())
    return words if len(words) < 300 else f"{words[:300]}…"
