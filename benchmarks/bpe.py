"""Text into GPT's ids: ours beside `tokenizers`, in one process, the same words and the same ids.

    python benchmarks/bpe.py                                  # the text that needs no download
    python benchmarks/bpe.py reviews.jsonl novels/            # yours; --documents 2000 of it
    python benchmarks/bpe.py --vocabulary ~/openai-gpt        # published files instead of learned merges

The peer is the tokenizer of transformers' `openai-gpt` (BERT's normalizer and words, byte-pair merges) by
`encode_batch` and `encode_batch_fast`, ours the codec with pretokenizer "hf"; both in one thread. "fresh"
starts each time with no word seen before, "warm" has read the same documents once. Prints CPU seconds, and
the median ratio of pairs.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from statistics import median

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from pretune.data.corpus import documents
from pretune.data.demo import demo
from pretune.methods.gpt.tokens import GPTCodec, GPTCodecConfig

Read = Callable[[list[str]], list[list[int]]]


def peer(codec: GPTCodec) -> Tokenizer:
    model = models.BPE(
        vocab=dict(codec.vocab.ids), merges=list(codec.merges), unk_token="<unk>", end_of_word_suffix="</w>"
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def makers(codec: GPTCodec) -> dict[str, Callable[[], Read]]:
    def batch() -> Read:
        tokenizer = peer(codec)
        return lambda texts: [read.ids for read in tokenizer.encode_batch(texts)]

    def fast() -> Read:
        tokenizer = peer(codec)
        return lambda texts: [read.ids for read in tokenizer.encode_batch_fast(texts)]

    def ours() -> Read:
        return GPTCodec(codec.config, codec.vocab, codec.merges).ids

    return {"encode_batch": batch, "encode_batch_fast": fast, "pretune": ours}


def measured(making: dict[str, Callable[[], Read]], texts: list[str], pairs: int, kind: str) -> None:
    size = sum(len(text.encode()) for text in texts) / 1e6
    warm = {name: make() for name, make in making.items()}
    if kind == "warm":
        for read in warm.values():
            read(texts)
    seconds: dict[str, list[float]] = {name: [] for name in making}
    for pair in range(pairs):
        for name in sorted(making, reverse=pair % 2 == 1):
            read = making[name]() if kind == "fresh" else warm[name]
            began = time.process_time()
            read(texts)
            seconds[name].append(time.process_time() - began)
    for name, spent in seconds.items():
        ratios = [a / b for a, b in zip(spent, seconds["pretune"], strict=True)]
        print(
            f"{kind} {name:17} {median(spent):7.2f} CPU s {size / median(spent):6.2f} MB/s, it / pretune: "
            f"{median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpus", nargs="*", type=Path)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--vocabulary", type=Path, help="a folder of published files")
    parser.add_argument("--merges", type=int, default=8000, help="of a learned vocabulary")
    asked = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    corpus = documents(asked.corpus)() if asked.corpus else demo().unlabelled
    texts = list(islice(corpus, asked.documents))
    if asked.vocabulary:
        codec = GPTCodec.read(asked.vocabulary, "hf")
    else:
        codec = GPTCodec.learn(lambda: texts, GPTCodecConfig(pretokenizer="hf", merges=asked.merges))
    making = makers(codec)
    read = {name: make()(texts) for name, make in making.items()}
    same = read["pretune"] == read["encode_batch"] == read["encode_batch_fast"]
    count = sum(map(len, read["pretune"]))
    print(
        f"{len(texts):,} documents, {count:,} tokens, ids {'equal' if same else 'DIFFER'}; {codec.describe()}"
    )
    for kind in ("fresh", "warm"):
        measured(making, texts, asked.pairs, kind)


if __name__ == "__main__":
    main()
