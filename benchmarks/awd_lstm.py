"""One language-model training step of AWD-LSTM, ours beside fastai's, interleaved in one process.

    python benchmarks/awd_lstm.py                # 128/400 × 3, 15,000 words
    python benchmarks/awd_lstm.py --base         # the paper's 400/1152 × 3, 60,000 words: minutes

Forward, full softmax, AR and TAR, backward, clipping and Adam, at one thread. Prints CPU seconds and the
ratio of each pair; the figure to quote is the median ratio.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from pretune.layers.regularisation import activation_penalty
from pretune.methods.ulmfit import AWDLSTM, AWDLSTMConfig
from pretune.tasks.next_token import NextToken
from pretune.tensors.streams import StreamSource
from pretune.training.model import Model

ROWS, WINDOW = 32, 70


def ours(config: AWDLSTMConfig, words: int, ids: np.ndarray) -> Callable[[], None]:
    encoder = AWDLSTM(config, words)
    encoder.purpose("language_model")
    model = Model(encoder, NextToken(encoder.output_p).head(encoder), alpha=2.0, beta=1.0).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, betas=(0.8, 0.99), fused=True)
    source = StreamSource(ids, np.array([0, len(ids)]), ROWS, WINDOW)
    state = {"step": 0, "carry": None}

    def step() -> None:
        batch = source.batch(0, state["step"])
        output = model(batch, state["carry"])
        (output.loss / model.head.targets(batch)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
        optimizer.zero_grad()
        state["step"] += 1
        state["carry"] = tuple((h.detach(), c.detach()) for h, c in output.carry)

    return step


def theirs(config: AWDLSTMConfig, words: int, ids: np.ndarray) -> Callable[[], None]:
    from fastai.optimizer import Adam
    from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_lm_config
    from fastai.text.models.core import get_language_model

    sizes = {"emb_sz": config.embedding, "n_hid": config.hidden, "n_layers": config.layers}
    model = get_language_model(AWD_LSTM, words, awd_lstm_lm_config | sizes).train()
    optimizer = Adam(list(model.parameters()), 1e-3, mom=0.8)
    length = (len(ids) - 1) // ROWS
    streams = torch.from_numpy(ids[: ROWS * length].astype(np.int64)).view(ROWS, length)
    state = {"step": 0}

    def step() -> None:
        start = state["step"] * WINDOW
        x, y = streams[:, start : start + WINDOW], streams[:, start + 1 : start + WINDOW + 1]
        logits, raw, dropped = model(x)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten())
        loss = loss + activation_penalty(dropped, raw, torch.ones_like(x, dtype=torch.bool), 2.0, 1.0)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
        optimizer.zero_grad()
        state["step"] += 1

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--base", action="store_true", help="the paper's size")
    parser.add_argument("--pairs", type=int, default=7)
    options = parser.parse_args()
    try:
        import fastai.text.models.awdlstm  # noqa: F401
    except ImportError as error:
        sys.exit(f"fastai is not installed ({error}); nothing to compare with")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config, words = (AWDLSTMConfig(), 60_000) if options.base else (AWDLSTMConfig(128, 400), 15_000)
    chance = np.random.default_rng(0)
    ids = np.minimum(chance.zipf(1.2, ROWS * WINDOW * (options.pairs + 3)), words - 1).astype(np.int32)
    steps = {"pretune": ours(config, words, ids), "fastai": theirs(config, words, ids)}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for pair in range(options.pairs + 1):  # the first warms up
        for name in sorted(steps, reverse=pair % 2 == 1):
            began = time.process_time()
            steps[name]()
            seconds[name].append(time.process_time() - began)
    for name, spent in seconds.items():
        print(
            f"{name:8} {(usual := median(spent[1:])):.3f} CPU s a step, {ROWS * WINDOW / usual:,.0f} tokens/s"
        )
    ratios = [a / b for a, b in zip(seconds["fastai"][1:], seconds["pretune"][1:], strict=True)]
    print(f"fastai / pretune: {median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
