"""Small files laid out as ULMFiTs were published, from one random model, and what it should answer."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

WIDTH, HIDDEN, LAYERS, INNER, LABELS = 6, 8, 3, 5, 3
ORDINARY = [*"the a it was film book plot good great fine bad poor dull but and not very quite too .".split()]
SPECIALS = {
    "v07": ["_unk_", "_pad_", "xbos", "xfld", "t_up", "tk_rep", "tk_wrep"],
    "v1": ["xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxmaj", "xxup", "xxrep", "xxwrep"],
    "v2": ["xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxrep", "xxwrep", "xxup", "xxmaj"],
    "salesforce": ["<unk>", "<eos>"],
}


def words(generation: str) -> list[str]:
    return [*SPECIALS[generation], *ORDINARY, "xxfake"]


def lstm(count: int, seed: int = 0, hidden: int = HIDDEN, layers: int = LAYERS) -> dict[str, Tensor]:
    """Weights by plain names: embedding, bias, and ih, hh, bih, bhh of each layer."""
    chance = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=chance) - 0.5

    found = {"embedding": draw(count, WIDTH), "bias": draw(count)}
    for n in range(layers):
        wide = WIDTH if n == 0 else hidden
        out = WIDTH if n == layers - 1 else hidden
        found |= {f"ih{n}": draw(4 * out, wide), f"hh{n}": draw(4 * out, out)}
        found |= {f"bih{n}": draw(4 * out), f"bhh{n}": draw(4 * out)}
    return found


def qrnn(count: int, seed: int = 0) -> dict[str, Tensor]:
    """As `lstm`, of a quasi-recurrent model: w and b of each layer."""
    chance = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=chance) - 0.5

    found = {"embedding": draw(count, WIDTH), "bias": draw(count)}
    for n in range(LAYERS):
        wide = 2 * WIDTH if n == 0 else HIDDEN
        out = WIDTH if n == LAYERS - 1 else HIDDEN
        found |= {f"w{n}": draw(3 * out, wide), f"b{n}": draw(3 * out)}
    return found


def head(seed: int = 1, bias: bool = True, outputs: int = LABELS) -> dict[str, Tensor]:
    """Weights of a classifier's head: n and l of its two blocks."""
    chance = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=chance) - 0.5

    found = {}
    for n, (wide, out) in enumerate(((3 * WIDTH, INNER), (INNER, outputs))):
        found |= {f"n{n}.weight": draw(wide) + 1, f"n{n}.bias": draw(wide)}
        found |= {f"n{n}.running_mean": draw(wide), f"n{n}.running_var": draw(wide) + 1}
        found |= {f"l{n}.weight": draw(out, wide)} | ({f"l{n}.bias": draw(out)} if bias else {})
    return found


def hidden_states(weights: Mapping[str, Tensor], ids: Sequence[int]) -> Tensor:
    """The top layer, by torch's LSTM or by the formula of a QRNN: (T, WIDTH)."""
    x = weights["embedding"][torch.tensor(ids)][None]  # (1, T, WIDTH)
    for n in range(LAYERS):
        if f"w{n}" in weights:
            x = _quasi(x, weights[f"w{n}"], weights[f"b{n}"])
        elif f"ih{n}" in weights:
            ih, hh = weights[f"ih{n}"], weights[f"hh{n}"]
            layer = nn.LSTM(ih.shape[1], hh.shape[1], batch_first=True)
            names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
            values = (ih, hh, weights[f"bih{n}"], weights[f"bhh{n}"])
            layer.load_state_dict(dict(zip(names, values, strict=True)))
            x = layer(x)[0]
    return x[0].detach()


def _quasi(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if weight.shape[1] == 2 * x.shape[2]:
        x = torch.cat((x, torch.cat((torch.zeros_like(x[:, :1]), x[:, :-1]), 1)), 2)
    z, f, o = (x @ weight.T + bias).chunk(3, 2)
    c, said = torch.zeros_like(z[:, 0]), []
    for t in range(x.shape[1]):
        c = f[:, t].sigmoid() * z[:, t].tanh() + (1 - f[:, t].sigmoid()) * c
        said.append(o[:, t].sigmoid() * c)
    return torch.stack(said, 1)


def next_logits(weights: Mapping[str, Tensor], ids: Sequence[int], bias: bool = True) -> Tensor:
    """What follows each of `ids`: (T, V)."""
    found = hidden_states(weights, ids) @ weights["embedding"].T
    return found + weights["bias"] if bias else found


def label_logits(weights: Mapping[str, Tensor], over: Mapping[str, Tensor], ids: Sequence[int]) -> Tensor:
    """(LABELS,)"""
    h = hidden_states(weights, ids)
    x = torch.cat((h[-1], h.amax(0), h.mean(0)))
    for n in (0, 1):
        x = (x - over[f"n{n}.running_mean"]) / (over[f"n{n}.running_var"] + 1e-5).sqrt()
        x = over[f"l{n}.weight"] @ (x * over[f"n{n}.weight"] + over[f"n{n}.bias"])
        x = x + over[f"l{n}.bias"] if f"l{n}.bias" in over else x
        x = x.relu() if n == 0 else x
    return x


def salesforce(weights: Mapping[str, Tensor], drop: bool = True) -> dict[str, Tensor]:
    module, raw = ("module.", "_raw") if drop else ("", "")
    found = {"encoder.weight": weights["embedding"]}
    for n in range(_layers(weights)):
        at = f"rnns.{n}.{module}"
        found |= {f"{at}weight_ih_l0": weights[f"ih{n}"], f"{at}bias_ih_l0": weights[f"bih{n}"]}
        found |= {f"{at}bias_hh_l0": weights[f"bhh{n}"], f"{at}weight_hh_l0{raw}": weights[f"hh{n}"]}
    return {**found, "decoder.weight": weights["embedding"], "decoder.bias": weights["bias"]}


def v07(weights: Mapping[str, Tensor], drop: bool = True) -> dict[str, Tensor]:
    found = {f"0.{name}": x for name, x in salesforce(weights, drop).items() if "decoder" not in name}
    found["0.encoder_with_dropout.embed.weight"] = weights["embedding"]
    return {**found, "1.decoder.weight": weights["embedding"]}


def v2(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {"0.encoder.weight": weights["embedding"], "0.encoder_dp.emb.weight": weights["embedding"]}
    for n in range(_layers(weights)):
        at = f"0.rnns.{n}."
        found |= {f"{at}weight_hh_l0_raw": weights[f"hh{n}"], f"{at}module.weight_ih_l0": weights[f"ih{n}"]}
        found |= {f"{at}module.bias_ih_l0": weights[f"bih{n}"], f"{at}module.bias_hh_l0": weights[f"bhh{n}"]}
    return {**found, "1.decoder.weight": weights["embedding"], "1.decoder.bias": weights["bias"]}


def v1(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As of fastai 2 with copies of what the last training step dropped."""
    stale = {f"0.rnns.{n}.module.weight_hh_l0": weights[f"hh{n}"] * 1.25 for n in range(_layers(weights))}
    return {**v2(weights), **stale}


def multifit(weights: Mapping[str, Tensor], at: str = "layers.0.linear") -> dict[str, Tensor]:
    found = {"0.encoder.weight": weights["embedding"], "0.encoder_dp.emb.weight": weights["embedding"]}
    for n in range(LAYERS):
        found[f"0.rnns.{n}.{at}.weight_raw"] = weights[f"w{n}"]
        found[f"0.rnns.{n}.{at}.module.weight"] = weights[f"w{n}"] * 1.25  # stale
        found[f"0.rnns.{n}.{at}.module.bias"] = weights[f"b{n}"]
    return {**found, "1.decoder.weight": weights["embedding"], "1.decoder.bias": weights["bias"]}


def _layers(weights: Mapping[str, Tensor]) -> int:
    return sum(name.startswith("hh") for name in weights)


PLACES = {  # generation, whether dropouts are above 0: the modules of the two blocks
    ("v07", True): ("0.bn", "0.lin", "1.bn", "1.lin"),
    ("v1", True): ("0", "2", "4", "6"),
    ("v1", False): ("0", "1", "3", "4"),
    ("v2", True): ("0.0", "0.2", "1.0", "1.2"),
    ("v2", False): ("0.0", "0.1", "1.0", "1.1"),
}


def classifier(
    model: Mapping[str, Tensor], over: Mapping[str, Tensor], generation: str, dropout: bool = True
) -> dict[str, Tensor]:
    """A language model's file as the classifier that has its encoder."""
    inner = "" if generation == "v07" else "module."
    found = {name.replace("0.", f"0.{inner}", 1): x for name, x in model.items() if name.startswith("0.")}
    for short, place in zip(("n0", "l0", "n1", "l1"), PLACES[generation, dropout], strict=True):
        for name, x in over.items():
            if name.startswith(f"{short}."):
                found[f"1.layers.{place}.{name.removeprefix(f'{short}.')}"] = x
        if short.startswith("n") and generation != "v07":
            found[f"1.layers.{place}.num_batches_tracked"] = torch.tensor(7)
    return found


def encoder(model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `save_encoder` leaves of a language model."""
    return {name.removeprefix("0."): x for name, x in model.items() if name.startswith("0.")}


def write(
    folder: Path, tensors: Any, itos: Any = None, name: str = "lstm.pth", legacy: bool = False
) -> tuple[Path, Path]:
    """The weights, and the words as itos.pkl."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, folder / name, _use_new_zipfile_serialization=not legacy)
    if itos is not None:
        (folder / "itos.pkl").write_bytes(pickle.dumps(itos))
    return folder / name, folder / "itos.pkl"


class Ancient:
    """A tensor as torch 0.3 pickled it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __reduce__(self) -> Any:
        x = self.tensor.contiguous()
        parts = (x._typed_storage(), x.storage_offset(), tuple(x.shape), x.stride())
        return torch._utils._rebuild_tensor, parts
