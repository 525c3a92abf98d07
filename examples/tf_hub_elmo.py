"""TF-Hub's ELMo tutorial in ten lines: embedding -> Dense(256, relu) -> Dense(1, sigmoid).

python examples/tf_hub_elmo.py [MODEL]    MODEL: what `pretune import elmo` or `pretune pretrain elmo` left
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from pretune import Embedder
from pretune.errors import UserError

TEXTS = [
    "a great film",
    "dull and too long",
    "I loved it",
    "a waste of time",
    "funny and moving",
    "so boring",
]
LABELS = [1, 0, 1, 0, 1, 0]


def main(folder: str | Path) -> float:
    """The share of the texts that the small network has learned."""
    torch.manual_seed(0)
    elmo = Embedder.load(folder)
    x = torch.from_numpy(elmo.outputs(TEXTS)["default"])  # (b, 2D): hub.Module(...)(texts)
    y = torch.tensor(LABELS, dtype=torch.float32)[:, None]
    model = nn.Sequential(nn.Linear(x.shape[1], 256), nn.ReLU(), nn.Linear(256, 1), nn.Sigmoid())
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(200):
        loss = nn.functional.binary_cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = float(((model(x) > 0.5) == y.bool()).float().mean())
    print(f"loss {loss.item():.4f}, {right:.0%} of {len(TEXTS)} texts right")
    return right


def made_up(folder: Path) -> Path:
    """A tiny ELMo without training, so that the example runs where no model is at hand."""
    from pretune.methods import METHODS
    from pretune.methods.elmo import ELMoConfig
    from pretune.runs.starts import save_start, scratch

    config = ELMoConfig(dim=64, projection_dim=16, filters=((1, 16), (2, 32), (3, 32)), highways=1)
    save_start(scratch(METHODS["elmo"], "", lambda: TEXTS * 3, 0, encoder_config=config), folder, {})
    return folder


if __name__ == "__main__":
    try:
        if len(sys.argv) > 1:
            main(sys.argv[1])
        else:
            with TemporaryDirectory() as place:
                main(made_up(Path(place) / "elmo"))
    except UserError as error:
        sys.exit(f"error: {error}")
