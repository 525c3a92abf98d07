"""Small folders of OpenAI's, Google's and transformers' files, for tests of import and export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pretune.methods.gpt.bpe import learned
from pretune.methods.gpt.files import merges_text

WORDS = "the a it was film book plot good great fine bad poor dull but and not very quite too hello".split()
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz.,!", *WORDS[5:]]
PIECES += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
TEXTS = (
    "the film was good, and the plot too!",
    "It was DULL.",
    "a very, very poor book but not quite bad hello it's a test",
)
Arrays = list[NDArray[np.float32]]


def gpt_vocabulary() -> tuple[list[str], list[tuple[str, str]]]:
    """<unk>, characters, merges, the line break: no specials."""
    counts = {word: 30 - number for number, word in enumerate([*WORDS, ".", ",", "!", "'", "s", "xyzjk"])}
    return learned(counts, 60, 1)


def write_gpt_vocabulary(folder: Path, pieces: str = "vocab.json", merges: str = "merges.txt") -> int:
    """The files of a vocabulary; returns how many pieces it has."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab, pairs = gpt_vocabulary()
    (folder / pieces).write_text(json.dumps({piece: number for number, piece in enumerate(vocab)}))
    (folder / merges).write_text(merges_text(tuple(pairs)))
    return len(vocab)


def arrays_of(words: int, width: int = 8, layers: int = 2, positions: int = 16, seed: int = 0) -> Arrays:
    """Random arrays in the order and shapes of OpenAI's release, only smaller."""
    chance = np.random.default_rng(seed)
    block: list[tuple[int, ...]] = [(1, width, 3 * width), (3 * width,), (1, width, width), (width,)]
    block += [(width,), (width,), (1, width, 4 * width), (4 * width,), (1, 4 * width, width), (width,)]
    block += [(width,), (width,)]
    shapes = [(positions, width), (words, width), *block * layers]
    arrays = [chance.normal(0, 0.3, shape).astype("<f4") for shape in shapes]
    for number in range(layers):  # gains near one, as they are
        for gain in (2 + 12 * number + 4, 2 + 12 * number + 10):
            arrays[gain] += 1
    return arrays


def write_arrays(folder: Path, arrays: Arrays, borders: list[int]) -> None:
    """`params_i.npy`, cut at uneven places, and `params_shapes.json`."""
    run = np.concatenate([x.reshape(-1) for x in arrays])
    for number, part in enumerate(np.split(run, borders)):
        np.save(folder / f"params_{number}.npy", part)
    (folder / "params_shapes.json").write_text(json.dumps([list(x.shape) for x in arrays]))


def openai_folder(folder: Path, heads: int = 1, **sizes: int) -> tuple[Path, Arrays]:
    """What OpenAI published, smaller: width 64 has one head."""
    words = write_gpt_vocabulary(folder, "encoder_bpe_40000.json", "vocab_40000.bpe")
    arrays = arrays_of(words, **{"width": 64 * heads, **sizes})
    total = sum(x.size for x in arrays)
    write_arrays(folder, arrays, [5, 6, 1000, total // 3, total // 2, total - 7])
    return folder, arrays


def numpy_gpt(arrays: Arrays, ids: NDArray[np.int64], heads: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The release's network in float64, by the paper's formulas: ids (N, T) -> top (N, T, D), logits."""
    positions, tokens, *rest = [x.astype(np.float64) for x in arrays]
    T = ids.shape[1]
    h = tokens[ids] + positions[:T]
    mask = np.tril(np.ones((T, T)))

    def norm(x: NDArray[Any], gain: NDArray[Any], bias: NDArray[Any]) -> NDArray[Any]:
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * gain + bias

    def gelu(x: NDArray[Any]) -> NDArray[Any]:
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    for at in range(0, len(rest), 12):
        w_qkv, b_qkv, w_o, b_o, g_1, b_1, w_up, b_up, w_down, b_down, g_2, b_2 = rest[at : at + 12]
        parts = np.split(h @ w_qkv[0] + b_qkv, 3, -1)
        q, k, v = (x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3) for x in parts)
        scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1])
        scores = np.where(mask == 1, scores, -1e9)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        attended = (shares @ v).transpose(0, 2, 1, 3).reshape(h.shape)
        n = norm(h + attended @ w_o[0] + b_o, g_1, b_1)
        h = norm(n + gelu(n @ w_up[0] + b_up) @ w_down[0] + b_down, g_2, b_2)
    return h, h @ tokens.T


def randomized(model: Any, seed: int = 0) -> Any:
    """Every parameter far from where models begin, so that a mistake shows; ties stay."""
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            near_one = "norm" in name.lower() or "ln_" in name
            parameter.normal_(1.0 if near_one and name.endswith("weight") else 0.0, 0.2, generator=chance)
    return model.eval()


def hf_gpt(kind: str = "OpenAIGPTLMHeadModel", extra_rows: int = 0, **config: Any) -> Any:
    """A small GPT of transformers for `write_gpt_vocabulary`'s pieces."""
    import transformers

    settings = {"n_embd": 12, "n_layer": 2, "n_head": 3, "n_positions": 24, **config}
    size = len(gpt_vocabulary()[0]) + extra_rows
    made = transformers.OpenAIGPTConfig(vocab_size=size, **settings)
    return randomized(getattr(transformers, kind)(made))


def hf_bert(kind: str = "BertForPreTraining", **config: Any) -> Any:
    """A small BERT of transformers for `PIECES`."""
    import transformers

    settings: dict[str, Any] = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3}
    settings |= {"intermediate_size": 20, "max_position_embeddings": 32, **config}
    made = transformers.BertConfig(vocab_size=len(PIECES), **settings)
    return randomized(getattr(transformers, kind)(made))


def save_bert(model: Any, folder: Path) -> Path:
    """The folder as transformers saves it, with vocab.txt."""
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
    return folder


def save_gpt(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    write_gpt_vocabulary(folder)
    return folder
