"""AWD-LSTM, ours beside fastai's: the same work in turn, in one process, at one thread, in float32.

    python benchmarks/ulmfit.py                           # 128/400 × 3, 15,000 words
    python benchmarks/ulmfit.py --size base               # the paper's 400/1152 × 3, 60,000 words: minutes
    python benchmarks/ulmfit.py --only step --rows 64 --window 72

Prints CPU seconds of both and the ratio of each pair; the figure to quote is the median ratio. What there is:

    step        a language model's training step: forward, softmax, AR and TAR, backward, clipping, Adam
    adaptive    the same with our adaptive softmax, which fastai lacks, against its full one: another model
    optimizer   Adam's step alone, with weight decay
    classifier  a classifier's training step, texts of random lengths: forward, backward, clipping, Adam
    similar     a classifier's answers on texts of similar lengths
    random      a classifier's answers on texts of random lengths
    generation  100 tokens after a prompt of 10
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretune.data.vocab import Vocab
from pretune.keys import generator
from pretune.methods.ulmfit import AWDLSTM, AWDLSTMConfig, UlmfitCodec, UlmfitCodecConfig
from pretune.methods.ulmfit.rules import SPECIALS
from pretune.runs.search import Allowed, Sampling, draw
from pretune.runs.writers import UlmfitWriter
from pretune.tasks.classification import Classification
from pretune.tasks.next_token import NextToken
from pretune.tensors.batch import Batch
from pretune.tensors.streams import StreamSource
from pretune.training.model import Model
from pretune.training.optimizers import AdamW

Step = Callable[[], Any]
Pair = tuple[Step, Step]  # ours, fastai's
SIZES = {
    "small": (AWDLSTMConfig(128, 400, bptt=72, max_len=1440), 15_000),
    "base": (AWDLSTMConfig(bptt=72, max_len=1440), 60_000),
}
CUTOFFS = 4_000, 20_000  # of the adaptive softmax
WRITTEN = 100  # tokens


@dataclass(frozen=True)
class Setting:
    config: AWDLSTMConfig
    words: int
    rows: int
    window: int
    documents: int


def zipf(count: int, words: int) -> np.ndarray:
    return np.minimum(np.random.default_rng(0).zipf(1.2, count) + 8, words - 1)


# Language models ------------------------------------------------------------


def our_language_model(config: AWDLSTMConfig, words: int) -> Model:
    encoder = AWDLSTM(config, words)
    encoder.purpose("language_model")
    return Model(encoder, NextToken(encoder.output_p).head(encoder), alpha=2.0, beta=1.0)


def their_sizes(config: AWDLSTMConfig) -> dict[str, int]:
    return {"emb_sz": config.embedding, "n_hid": config.hidden, "n_layers": config.layers}


def their_language_model(config: AWDLSTMConfig, words: int) -> nn.Module:
    from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_lm_config
    from fastai.text.models.core import get_language_model

    return get_language_model(AWD_LSTM, words, awd_lstm_lm_config | their_sizes(config))


def our_adam(model: nn.Module) -> torch.optim.Optimizer:
    groups = [{"params": list(model.parameters()), "lr": 1e-3, "weight_decay": 0.01}]
    return AdamW(0.8, 0.99, 1e-5).build(groups)


def their_adam(model: nn.Module) -> Any:
    from fastai.optimizer import Adam

    return Adam(list(model.parameters()), 1e-3, mom=0.8, sqr_mom=0.99, wd=0.01)


def step(setting: Setting, cutoffs: tuple[int, ...] = ()) -> Pair:
    ids = zipf(setting.rows * (setting.window * 40 + 1), setting.words)
    model = our_language_model(replace(setting.config, cutoffs=cutoffs), setting.words).train()
    adam = our_adam(model)
    source = StreamSource(ids, np.array([0, len(ids)]), setting.rows, setting.window)
    state: dict[str, Any] = {"step": 0, "carry": None}

    def ours() -> None:
        batch = source.batch(0, state["step"] % 40)
        output = model(batch, state["carry"])
        (output.loss / model.head.targets(batch)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        adam.step()
        adam.zero_grad()
        state["carry"] = tuple((h.detach(), c.detach()) for h, c in output.carry)
        state["step"] += 1

    their_model = their_language_model(setting.config, setting.words).train()
    their = their_adam(their_model)
    length = (len(ids) - 1) // setting.rows
    streams = torch.from_numpy(ids[: setting.rows * length]).view(setting.rows, length)
    their_state = {"step": 0}

    def theirs() -> None:
        start = their_state["step"] % 40 * setting.window
        x, y = (streams[:, start + i : start + i + setting.window] for i in (0, 1))
        x = x[:, : y.shape[1]]
        logits, raw, dropped = their_model(x)
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
        loss = loss + 2.0 * dropped.pow(2).mean()
        loss = loss + (raw[:, 1:] - raw[:, :-1]).pow(2).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(their_model.parameters(), 0.25)
        their.step()
        their.zero_grad()
        their_state["step"] += 1

    return ours, theirs


def adaptive(setting: Setting) -> Pair:
    return step(setting, CUTOFFS)


def optimizer(setting: Setting) -> Pair:
    models = (
        our_language_model(setting.config, setting.words),
        their_language_model(setting.config, setting.words),
    )
    for model in models:
        for weight in model.parameters():
            weight.grad = torch.randn_like(weight) * 1e-3
    return our_adam(models[0]).step, their_adam(models[1]).step


def generation(setting: Setting) -> Pair:
    words = [*SPECIALS, *(f"word{i}" for i in range(setting.words - len(SPECIALS)))]
    codec = UlmfitCodec(UlmfitCodecConfig(), Vocab(words))
    writer = UlmfitWriter(our_language_model(setting.config, setting.words).eval(), codec)
    prompt = zipf(10, setting.words).tolist()

    def ours() -> None:
        chances = [generator(0, "text")]
        for _ in draw(writer, prompt, WRITTEN, Allowed((), (0,)), Sampling(), chances):
            pass

    model = their_language_model(setting.config, setting.words).eval()

    @torch.no_grad()
    def theirs() -> None:  # the loop of LMLearner.predict
        ids = torch.tensor(prompt)
        for _ in range(WRITTEN):
            model.reset()
            chances = model(ids[None])[0].softmax(-1)[0, -1]
            chances[0] = 0.0
            ids = torch.cat((ids, torch.multinomial(chances, 1)))

    return ours, theirs


# Classifiers ----------------------------------------------------------------


def our_classifier(config: AWDLSTMConfig, words: int) -> Model:
    encoder = AWDLSTM(config, words)
    encoder.purpose("task")
    task = Classification("one", ("no", "yes"), head_kind="two_layer")
    return Model(encoder, task.head(encoder), alpha=2.0, beta=1.0)


def their_classifier(config: AWDLSTMConfig, words: int) -> nn.Module:
    from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_clas_config
    from fastai.text.models.core import get_text_classifier

    sizes = awd_lstm_clas_config | their_sizes(config)
    return get_text_classifier(AWD_LSTM, words, 2, seq_len=config.bptt, config=sizes, max_len=config.max_len)


def documents(setting: Setting, lengths: list[int]) -> tuple[Batch, Tensor]:
    """A batch of ours, and fastai's: chunks of padding in front, the rest behind, the longest first."""
    longest = max(lengths)
    ids = torch.ones(len(lengths), longest, dtype=torch.long)
    front = torch.ones_like(ids)
    for n, length in enumerate(lengths):
        row = torch.from_numpy(zipf(length, setting.words))
        before = (longest - length) // setting.config.bptt * setting.config.bptt
        ids[n, :length] = row
        front[n, before : before + length] = row
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    owner = torch.arange(len(ids))
    gold = {"label": owner % 2}
    return Batch(ids, mask, torch.zeros_like(ids), owner, gold=gold), front


def even_lengths(setting: Setting) -> list[int]:
    return np.linspace(300, 270, setting.documents).astype(int).tolist()


def uneven_lengths(setting: Setting) -> list[int]:
    return np.linspace(586, 70, setting.documents).astype(int).tolist()


def classifier(setting: Setting) -> Pair:
    batch, front = documents(setting, uneven_lengths(setting))
    model, their_model = (
        make(setting.config, setting.words).train() for make in (our_classifier, their_classifier)
    )
    adam, their = our_adam(model), their_adam(their_model)

    def ours() -> None:
        output = model(batch)
        (output.loss / model.head.targets(batch)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 25.0)
        adam.step()
        adam.zero_grad()

    def theirs() -> None:
        logits, raw, dropped = their_model(front)
        loss = F.cross_entropy(logits, batch.gold["label"]) + 2.0 * dropped.pow(2).mean()
        loss = loss + (raw[:, 1:] - raw[:, :-1]).pow(2).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(their_model.parameters(), 25.0)
        their.step()
        their.zero_grad()

    return ours, theirs


def answers(setting: Setting, lengths: list[int]) -> Pair:
    batch, front = documents(setting, lengths)
    batch.gold = {}
    model, their_model = (
        make(setting.config, setting.words).eval() for make in (our_classifier, their_classifier)
    )
    return torch.no_grad()(lambda: model(batch)), torch.no_grad()(lambda: their_model(front))


def similar(setting: Setting) -> Pair:
    return answers(setting, even_lengths(setting))


def random(setting: Setting) -> Pair:
    return answers(setting, uneven_lengths(setting))


WORK: dict[str, Callable[[Setting], Pair]] = {
    "step": step,
    "adaptive": adaptive,
    "optimizer": optimizer,
    "classifier": classifier,
    "similar": similar,
    "random": random,
    "generation": generation,
}


def tokens_of(name: str, setting: Setting) -> int:
    lengths = {"classifier": uneven_lengths, "random": uneven_lengths, "similar": even_lengths}
    if name in lengths:
        return sum(lengths[name](setting))
    return {"generation": WRITTEN, "optimizer": 0}.get(name, setting.rows * setting.window)


def timed(pair: Pair, pairs: int) -> Iterator[tuple[float, float]]:
    for number in range(pairs + 1):  # the first warms up
        spent = [0.0, 0.0]
        for side in (0, 1) if number % 2 else (1, 0):
            began = time.process_time()
            pair[side]()
            spent[side] = time.process_time() - began
        if number:
            yield spent[0], spent[1]


def matrix_product() -> float:
    """GFLOP/s of a large one, which is what all of this can hope for."""
    a = torch.randn(2048, 2048)
    spent = []
    for _ in range(4):
        began = time.process_time()
        a @ a
        spent.append(time.process_time() - began)
    return 2 * 2048**3 / min(spent) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", default="small", choices=SIZES)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=WORK, default=list(WORK))
    parser.add_argument("--rows", type=int, default=32, help="streams of a language model")
    parser.add_argument("--window", type=int, default=70, help="tokens of each in a step")
    parser.add_argument("--documents", type=int, default=16, help="texts of a classifier's batch")
    options = parser.parse_args()
    try:
        import fastai.text.models.awdlstm  # noqa: F401
    except ImportError as error:
        sys.exit(f"fastai is not installed ({error}); nothing to compare with")
    warnings.simplefilter("ignore")  # fastai's LSTMs warn of weights that are not one block
    torch.set_num_threads(1)
    config, words = SIZES[options.size]
    setting = Setting(config, words, options.rows, options.window, options.documents)
    print(f"a large matrix product: {matrix_product():.0f} GFLOP/s")
    for name in options.only:
        torch.manual_seed(0)
        ours, theirs = zip(*timed(WORK[name](setting), options.pairs), strict=True)
        ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
        tokens = tokens_of(name, setting)
        rates = (
            f", {tokens / median(ours):,.0f} against {tokens / median(theirs):,.0f} tokens/s"
            if tokens
            else ""
        )
        print(
            f"{name:10} {median(ratios):5.2f}× (from {min(ratios):.2f} to {max(ratios):.2f}): "
            f"{median(ours):.3f} against {median(theirs):.3f} CPU s{rates}",
            flush=True,
        )


if __name__ == "__main__":
    main()
