"""Training on frozen ELMo: each text read once and remembered, beside reading it in every epoch.

    python benchmarks/features_once.py                  # 13.6 M weights, 200 made-up questions, 30 epochs
    python benchmarks/features_once.py --bilstm 64

Both are this package, in turns in one process, at one thread. Prints CPU seconds and the ratio of each pair,
and how far the trained weights of the two lie apart; the figure to quote is the median ratio.
"""

from __future__ import annotations

import argparse
import time
from random import Random
from statistics import median

import torch
from torch import Tensor

from pretune.data.samples import Sample, sample
from pretune.methods import METHODS
from pretune.recipes.features import Features
from pretune.runs.run import finetune, scratch
from pretune.runs.trained import TrainedModel
from pretune.tasks.classification import Classification
from pretune.training.loop import Fitting


def questions(count: int) -> list[Sample]:
    """Texts of 6 to 14 words out of 800; the first word tells the label."""
    chance = Random(0)
    words = ["".join(chance.choices("abcdefghijklmnoprstuvwy", k=chance.randint(2, 9))) for _ in range(800)]
    found = []
    for i in range(count):
        text = [words[i % 6], *chance.choices(words, k=chance.randint(5, 13))]
        found.append(sample(" ".join(text), key=str(i), gold=str(i % 6)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bilstm", type=int, default=0, help="units a direction of the task's BiLSTM")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--pairs", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    data = questions(250)
    start = scratch(METHODS["elmo"], "small", lambda: [s.texts[0] for s in data], 0)
    task = Classification.of(data)

    def seconds(megabytes: int, epochs: int) -> tuple[float, dict[str, Tensor]]:
        recipe = Features(bilstm=asked.bilstm, epochs=epochs, cache_megabytes=megabytes)
        began = time.process_time()
        model, _ = finetune(start, task, recipe, data[:200], data[200:], Fitting(device="cpu", quiet=True))
        assert isinstance(model, TrainedModel)
        return time.process_time() - began, model.model.state_dict()

    seconds(0, 1)  # imports, and what is compiled at first use
    ratios = []
    for _ in range(asked.pairs):
        (once, ours), (always, theirs) = seconds(1024, asked.epochs), seconds(0, asked.epochs)
        apart = max(float((x - theirs[name]).abs().max()) for name, x in ours.items())
        ratios.append(always / once)
        times = f"once {once:.2f} s, every epoch {always:.2f} s: {ratios[-1]:.1f} times"
        print(f"{times}; weights within {apart:.1e}")
    print(f"median: {median(ratios):.1f} times")


if __name__ == "__main__":
    main()
