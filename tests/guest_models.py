"""Tiny models of transformers with random weights, in folders as transformers writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny

transformers = pytest.importorskip(
    "transformers", reason="guests need transformers: pip install 'pretune[hf]'"
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
GPT: dict[str, Any] = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40}
TEMPLATES = {  # special tokens in order, one text, two texts
    "bert": (["[PAD]", "[UNK]", "[CLS]", "[SEP]"], "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
    "gpt2": (["<unk>", "<eos>"], None, None),
    "openai-gpt": (["<unk>"], None, None),
    "t5": (["<pad>", "</s>", "<unk>"], "$A </s>", "$A </s> $B </s>"),
    "roberta": (["<s>", "<pad>", "</s>", "<unk>"], "<s> $A </s>", "<s> $A </s> </s> $B </s>"),
}
ROLES = {
    "[PAD]": "pad_token",
    "<pad>": "pad_token",
    "[UNK]": "unk_token",
    "<unk>": "unk_token",
    "[CLS]": "cls_token",
    "[SEP]": "sep_token",
    "<eos>": "eos_token",
    "</s>": "eos_token",
    "<s>": "cls_token",
}
KINDS = {  # model_type: (template, what else its config is given)
    "bert": ("bert", SIZES),
    "distilbert": (
        "bert",
        {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 40},
    ),
    "gpt2": ("gpt2", {**GPT, "bos_token_id": 1, "eos_token_id": 1}),
    "openai-gpt": ("openai-gpt", GPT),
    "t5": ("t5", {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}),
    "roberta": (
        "roberta",
        {**SIZES, "type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
    ),
    "fnet": ("bert", {name: x for name, x in SIZES.items() if name != "num_attention_heads"}),
    "convbert": ("bert", {**SIZES, "embedding_size": 16, "head_ratio": 1}),
}


def tokenizer(kind: str, **options: Any) -> Any:
    """A fast one of whole words."""
    special, one, two = TEMPLATES[kind]
    words = {word: i for i, word in enumerate([*special, *tiny.WORDS])}
    roles = {ROLES[token]: token for token in special}
    backend = Tokenizer(models.WordLevel(words, roles["unk_token"]))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if one is not None:
        named = [(token, words[token]) for token in special]
        backend.post_processor = processors.TemplateProcessing(one, two, named)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **{**roles, **options})


def saved(kind: str, folder: Path, seed: int = 0, **options: Any) -> Path:
    """A folder with a model of that type and its tokenizer."""
    template, settings = KINDS[kind]
    words = tokenizer(template)
    config = transformers.CONFIG_MAPPING[kind](vocab_size=len(words), **{**settings, **options})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformers.AutoModel.from_config(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
