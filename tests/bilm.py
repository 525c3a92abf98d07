"""Published biLMs for tests: made-up ones in the release's layout, and what they must give."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pretune.methods.elmo.encoder import ELMo
from pretune.methods.elmo.release import Release
from pretune.methods.elmo.tokens import ElmoCodec, ElmoCodecConfig
from pretune.methods.elmo.weights import import_bilm

Arrays = dict[str, NDArray[Any]]
WORDS = ["<S>", "</S>", "<UNK>", *"the a film was good bad Āt naïve unbelievable".split()]
OPTIONS: dict[str, Any] = {
    "lstm": {
        "use_skip_connections": True,
        "projection_dim": 5,
        "cell_clip": 0.6,
        "proj_clip": 0.5,
        "dim": 7,
        "n_layers": 2,
    },
    "char_cnn": {
        "activation": "relu",
        "filters": [[1, 3], [2, 4], [3, 5]],
        "n_highway": 2,
        "embedding": {"dim": 3},
        "n_characters": 262,
        "max_characters_per_token": 12,
    },
}

SHAPES: dict[str, dict[str, Any]] = {
    "as published": {},
    "no skip": {"lstm__use_skip_connections": False},
    "skip not said": {"lstm__use_skip_connections": None},
    "one layer": {"lstm__n_layers": 1},
    "three layers": {"lstm__n_layers": 3},
    "no projection of states": {"lstm__projection_dim": 7},
    "no projection of characters": {"lstm__projection_dim": 12, "lstm__dim": 15},
    "no projection at all": {"lstm__projection_dim": 12, "lstm__dim": 12},
    "tanh": {"char_cnn__activation": "tanh"},
    "no highway": {"char_cnn__n_highway": 0},
    "highways not said": {"char_cnn__n_highway": None},
    "no cell clip": {"lstm__cell_clip": None},
    "no clips": {"lstm__cell_clip": None, "lstm__proj_clip": None},
    "one direction": {"bidirectional": False},
    "one direction, three layers, no skip": {
        "bidirectional": False,
        "lstm__n_layers": 3,
        "lstm__use_skip_connections": False,
    },
    "words": {"char_cnn": None},
    "words, one direction, no projection": {
        "char_cnn": None,
        "bidirectional": False,
        "lstm__projection_dim": 7,
    },
}


def changed(**changes: Any) -> dict[str, Any]:
    """OPTIONS with lstm__dim=3; None takes a key away."""
    options = deepcopy(OPTIONS)
    for name, value in changes.items():
        *tables, key = name.split("__")
        place = options
        for table in tables:
            place = place[table]
        place.pop(key, None)
        if value is not None:
            place[key] = value
    return options


def made_up(options: dict[str, Any], softmax: bool = False, seed: int = 0) -> Arrays:
    """Random weights under the names and in the shapes of a published HDF5 file."""
    chance = np.random.default_rng(seed)
    arrays: Arrays = {}

    def add(name: str, *shape: int, size: float = 1.0) -> None:
        arrays[name] = (chance.standard_normal(shape) * size).astype("<f4")

    lstm, cnn = options["lstm"], options.get("char_cnn")
    H, D = lstm["dim"], lstm["projection_dim"]
    if cnn is None:
        add("embedding", len(WORDS), D)
    else:
        E, N = cnn["embedding"]["dim"], sum(n for _, n in cnn["filters"])
        add("char_embed", 261, E)
        for i, (width, n) in enumerate(cnn["filters"]):
            add(f"CNN/W_cnn_{i}", 1, width, E, n, size=0.5)
            add(f"CNN/b_cnn_{i}", n)
        for k in range(cnn.get("n_highway", 0)):
            for gate in ("carry", "transform"):
                add(f"CNN_high_{k}/W_{gate}", N, N, size=N**-0.5)
                add(f"CNN_high_{k}/b_{gate}", N)
        if N != D:
            add("CNN_proj/W_proj", N, D, size=N**-0.5)
            add("CNN_proj/b_proj", D)
    for way in range(1 if options.get("bidirectional") is False else 2):
        for layer in range(lstm["n_layers"]):
            cell = f"RNN_{way}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
            add(f"{cell}/W_0", 2 * D, 4 * H, size=D**-0.5)
            add(f"{cell}/B", 4 * H)
            if D != H:
                add(f"{cell}/W_P_0", H, D)
    if softmax:
        add("softmax/W", len(WORDS), D)
        add("softmax/b", len(WORDS))
    return arrays


def write(folder: Path, options: dict[str, Any], arrays: Arrays) -> Release:
    """The files of a release; vocab.txt where something in it needs words."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "options.json").write_text(json.dumps(options))
    softmax = {name: x for name, x in arrays.items() if name.startswith("softmax/")}
    for file, some in (
        ("lm_weights.hdf5", arrays.keys() - softmax),
        ("softmax_weights.hdf5", softmax.keys()),
    ):
        with h5py.File(folder / file, "w") as written:
            for name in sorted(some):
                written[name] = arrays[name]
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS), encoding="utf-8")
    return Release(
        folder / "options.json",
        folder / "lm_weights.hdf5",
        softmax=folder / "softmax_weights.hdf5" if softmax else None,
        vocab=folder / "vocab.txt" if softmax or "char_cnn" not in options else None,
    )


def read(release: Release) -> tuple[ElmoCodec, ELMo]:
    codec, encoder, _ = import_bilm(release, ElmoCodecConfig(segmenter="spaces"))
    return codec, encoder.eval()


def arrays_of(path: Path) -> Arrays:
    """All datasets of a file."""
    found: Arrays = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, x: found.update({name: x[()]}) if isinstance(x, h5py.Dataset) else None)
    return found


def characters(word: str, most: int) -> list[int]:
    """Section 1.1 of the release's data.py: raw ids, before the 1 is added."""
    if word in ("<S>", "</S>"):
        inside = [256 if word == "<S>" else 257]
    else:
        inside = list(word.encode("utf-8", "ignore")[: most - 2])
    row = [258, *inside, 259]
    return row + [260] * (most - len(row))


def sigmoid(x: NDArray[Any]) -> NDArray[Any]:
    return 1 / (1 + np.exp(-x))


def token(options: dict[str, Any], w: Arrays, word: str) -> NDArray[Any]:
    """A word's own vector, in double precision: (D,)."""
    cnn = options.get("char_cnn")
    if cnn is None:
        return w["embedding"][WORDS.index(word) if word in WORDS else 2].astype(float)
    table = np.concatenate((np.zeros((1, cnn["embedding"]["dim"])), w["char_embed"]))
    x = table[np.array(characters(word, cnn["max_characters_per_token"])) + 1]  # (C, E)
    pooled = []
    for i, (width, _) in enumerate(cnn["filters"]):
        kernel = w[f"CNN/W_cnn_{i}"][0].astype(float)  # (width, E, n)
        windows = [np.einsum("we,wen->n", x[p : p + width], kernel) for p in range(len(x) - width + 1)]
        y = np.max(windows, axis=0) + w[f"CNN/b_cnn_{i}"]
        pooled.append(np.maximum(y, 0) if cnn["activation"] == "relu" else np.tanh(y))
    y = np.concatenate(pooled)
    for k in range(cnn.get("n_highway", 0)):
        g = sigmoid(y @ w[f"CNN_high_{k}/W_carry"] + w[f"CNN_high_{k}/b_carry"])
        new = np.maximum(y @ w[f"CNN_high_{k}/W_transform"] + w[f"CNN_high_{k}/b_transform"], 0)
        y = g * new + (1 - g) * y
    return y @ w["CNN_proj/W_proj"] + w["CNN_proj/b_proj"] if "CNN_proj/W_proj" in w else y


def expected(options: dict[str, Any], arrays: Arrays, words: Sequence[str]) -> list[NDArray[Any]]:
    """All layers of one sentence from zero state, step by step, in double precision: L × (T, ·)."""
    w = {name: x.astype(float) for name, x in arrays.items()}
    lstm = options["lstm"]
    tokens = [token(options, w, word) for word in ("<S>", *words, "</S>")]
    ways = 1 if options.get("bidirectional") is False else 2
    layers = [[np.stack(tokens)] * ways]
    for layer in range(lstm["n_layers"]):
        sides = []
        for way in range(ways):
            cell = f"RNN_{way}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
            given = layers[-1][way]
            h, c = np.zeros(lstm["projection_dim"]), np.zeros(lstm["dim"])
            outputs = [h] * len(given)
            for t in range(len(given))[:: -1 if way else 1]:
                i, j, f, o = np.split(np.concatenate((given[t], h)) @ w[f"{cell}/W_0"] + w[f"{cell}/B"], 4)
                c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(j)
                if lstm.get("cell_clip"):
                    c = np.clip(c, -lstm["cell_clip"], lstm["cell_clip"])
                h = sigmoid(o) * np.tanh(c)
                h = h @ w[f"{cell}/W_P_0"] if f"{cell}/W_P_0" in w else h
                if lstm.get("proj_clip"):
                    h = np.clip(h, -lstm["proj_clip"], lstm["proj_clip"])
                outputs[t] = h + given[t] if lstm.get("use_skip_connections") and layer else h
            sides.append(np.stack(outputs))
        layers.append(sides)
    return [np.concatenate(sides, axis=-1)[1:-1] for sides in layers]
