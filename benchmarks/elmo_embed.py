"""ELMo's vectors of natural sentences, ours beside AllenNLP's modules, interleaved in one process.

    pip install --no-deps simple-elmo-pytorch           # a copy of AllenNLP's modules that installs today
    python benchmarks/elmo_embed.py                     # small shape, one thread, CPU seconds
    python benchmarks/elmo_embed.py --size original
    python benchmarks/elmo_embed.py --threads 2         # wall seconds, one direction a thread
    python benchmarks/elmo_embed.py --peer ~/allennlp   # a checkout of AllenNLP in place of that package

Batches of 32 sentences as they follow one another in a text, whole words in, all three layers out, states at
zero before each batch (the peer's carried state is reset: that is in its favour). The weights are random, so
large that both clips are felt. "cold": no word was seen before, each batch alone; "cached": the words of the
text have been seen. float16 and int8 are ours alone, with their error. Ratios are of pairs; quote the median.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pretune.data.corpus import Corpus, documents
from pretune.data.demo import demo
from pretune.data.samples import Part, Span
from pretune.methods import METHODS
from pretune.methods.elmo import ELMo, ElmoCodec, ElmoCodecConfig
from pretune.methods.elmo.tokens import spelled
from pretune.methods.elmo.weights import export_bilm
from pretune.tensors.batch import collate

ROWS = 32
Sentences = list[list[str]]
Clock = Callable[[], float]


def batches(texts: Corpus, codec: ElmoCodec, count: int) -> list[Sentences]:
    """Consecutive sentences of a text, of 4 to 80 words."""
    found: Sentences = []
    for text in texts():
        found += [words for line in codec.sentences(text) if 4 <= len(words := codec.words(line)) <= 80]
        if len(found) >= ROWS * count:
            break
    return [found[i * ROWS : (i + 1) * ROWS] for i in range(min(count, len(found) // ROWS))]


def random_model(size: str, codec: ElmoCodec) -> ELMo:
    """Weights that use the range of the clips: about a tenth of the outputs at one of them."""
    torch.manual_seed(0)
    config = METHODS["elmo"].sizes[size]
    encoder = ELMo(type(config)(**{**vars(config), "softmax": False}), 0).eval()
    with torch.no_grad():
        for layer in encoder.rnns:
            for side in (layer.forwards, layer.backwards):
                side.weight_ih *= 3
                side.weight_proj *= 4
    return encoder


def ours(
    encoder: ELMo, codec: ElmoCodec, precision: Any, cached: bool
) -> Callable[[Sentences], list[Tensor]]:
    def embed(sentences: Sentences) -> list[Tensor]:
        if not cached:
            encoder.cache.clear()
        encoder.precision = precision
        rows = codec.encode([(_part(words),) for words in sentences])
        with torch.no_grad():
            return list(encoder(collate(rows, codec.pad_id, spell=codec.spell)).layers)

    return embed


def _part(words: list[str]) -> Part:
    """A text that is its words with spaces between them."""
    ends = np.cumsum([len(word) + 1 for word in words]) - 1
    return Part(
        " ".join(words), tuple(Span(int(e) - len(w), int(e)) for e, w in zip(ends, words, strict=True))
    )


def theirs(folder: Path, checkout: Path | None) -> tuple[str, Callable[[Sentences], list[Tensor]], Any]:
    """Name, function and character ids of the peer, which reads the weights that we export."""
    if checkout is not None:
        sys.path.insert(0, str(checkout))
        from allennlp.modules.elmo import _ElmoBiLm as Network
        from allennlp.modules.elmo import batch_to_ids
    else:
        from simple_elmo_pytorch.models.elmo import ElmoBiLmSentence as Network
        from simple_elmo_pytorch.models.elmo import batch_to_ids
    model = Network(str(folder / "options.json"), str(folder / "lm_weights.hdf5")).eval()

    def embed(sentences: Sentences) -> list[Tensor]:
        model._elmo_lstm.reset_states()
        with torch.no_grad():
            layers: list[Tensor] = model(batch_to_ids(sentences))["activations"]
        return [layer[:, 1:-1] for layer in layers]

    return "allennlp" if checkout else "simple-elmo-pytorch", embed, batch_to_ids


def error(a: list[Tensor], b: list[Tensor], sentences: Sentences) -> tuple[float, float]:
    """The greatest difference, and the root mean square one relative to b's size, at real words."""
    pairs = [
        (x[n, : len(words)], y[n, : len(words)])
        for x, y in zip(a, b, strict=True)
        for n, words in enumerate(sentences)
    ]
    x, y = (torch.cat([pair[i].flatten() for pair in pairs]) for i in range(2))
    return float((x - y).abs().max()), float((x - y).square().mean().sqrt() / y.square().mean().sqrt())


def timed(function: Callable[[Sentences], Any], given: Sentences, clock: Clock) -> float:
    began = clock()
    function(given)
    return clock() - began


def operations(config: Any) -> tuple[float, float]:
    """Multiplications and additions of a word: in its own vector, in context."""
    N, D, H = sum(n for _, n in config.filters), config.projection_dim, config.dim
    word = 2.0 * (config.highways * 2 * N * N + N * D)
    return word, 2.0 * 2 * config.layers * (4 * H * 2 * D + H * D)


def matrix_rate(clock: Clock) -> float:
    """GFLOP/s of a large product here, the limit of everything below."""
    x = torch.randn(2048, 2048)
    y = x @ x
    rates = []
    for _ in range(3):
        began = clock()
        torch.mm(x, x, out=y)
        rates.append(2 * 2048**3 / (clock() - began) / 1e9)
    return max(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", default="small", choices=["small", "medium", "original"])
    parser.add_argument("--threads", type=int, default=1, help="1: CPU seconds; 2: wall seconds")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--peer", type=Path, help="a checkout of AllenNLP")
    parser.add_argument("--text", type=Path, help="a text file; without it the docstrings of the demo")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock: Clock = time.process_time if options.threads == 1 else time.perf_counter
    codec = ElmoCodec(ElmoCodecConfig())
    texts = documents([options.text]) if options.text else Corpus.of(demo().unlabelled)
    given = batches(texts, codec, options.pairs + 1)
    encoder = random_model(options.size, codec)
    with tempfile.TemporaryDirectory() as folder:
        export_bilm(encoder, codec, Path(folder))
        try:
            name, peer, batch_to_ids = theirs(Path(folder), options.peer)
        except ImportError as missing:
            sys.exit(f"no peer to compare with ({missing}); pip install --no-deps simple-elmo-pytorch")
    ways = {
        "cold": ours(encoder, codec, "float32", cached=False),
        "cached": ours(encoder, codec, "float32", cached=True),
        "cached, float16": ours(encoder, codec, "float16", cached=True),
        "cached, int8": ours(encoder, codec, "int8", cached=True),
    }
    tokens = sum(map(len, given[-1]))
    lengths = [len(words) for words in given[-1]]
    print(f"{options.size}, {options.threads} threads, {ROWS} rows of {min(lengths)} to {max(lengths)} words")
    reference = peer(given[0])
    for way, function in ways.items():
        greatest, relative = error(function(given[0]), reference, given[0])
        print(f"  {way:16} differs by at most {greatest:.1e} ({relative:.1e} rms relative)")
    clipped = float((torch.stack(reference)[1:].abs() >= 3).float().mean())
    print(f"  {clipped:.1%} of the outputs lie at or beyond the clip")
    for batch in given:  # the words of the text become known
        ways["cached"](batch)
    seconds: dict[str, list[float]] = {who: [] for who in (name, *ways)}
    for pair, batch in enumerate(given[1:]):
        order = [(name, peer), *[(w, f) for w, f in ways.items() if w != "cold"], ("cold", ways["cold"])]
        for who, function in order if pair % 2 else reversed(order):
            if who != "cold" and who != name:
                function(batch)  # its words are known, its weights laid out
            seconds[who].append(timed(function, batch, clock) / sum(map(len, batch)))
    word, context = operations(encoder.config)
    limit = matrix_rate(clock)
    for who, spent in seconds.items():
        ratios = [a / b for a, b in zip(seconds[name], spent, strict=True)]
        rate = 1 / median(spent)
        print(
            f"{who:20} {rate:8,.0f} words/s  {median(ratios):6.2f} times the peer"
            f" (from {min(ratios):.2f} to {max(ratios):.2f}), LSTMs {context * rate / 1e9:.0f} GFLOP/s"
        )
    print(
        f"a word takes {word / 1e6:.1f} MFLOP for its own vector and {context / 1e6:.1f} in context;"
        f" a large matrix product runs at {limit:.0f} GFLOP/s"
    )
    their_ids, our_ids = (
        [min(timed(function, batch, clock) for _ in range(5)) for batch in given]
        for function in (batch_to_ids, _characters)
    )
    ratio = median(a / b for a, b in zip(their_ids, our_ids, strict=True))
    print(f"character ids: {tokens / our_ids[-1]:,.0f} words/s, {ratio:.0f} times the peer")


def _characters(sentences: Sentences) -> None:
    """The characters of the batch's distinct words, and which of them each token is."""
    places: dict[str, int] = {}
    np.fromiter((places.setdefault(word, len(places)) for words in sentences for word in words), np.int64)
    spelled(list(places))


if __name__ == "__main__":
    main()
