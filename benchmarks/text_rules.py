"""Text into ULMFiT's tokens: ours beside fastai's rules over spaCy, in one process, and where they differ.

    pip install 'pretune[spacy,pieces]' && pip install --no-deps fastai==2.8.12
    python benchmarks/text_rules.py                        # the text that needs no download
    python benchmarks/text_rules.py reviews.jsonl novels/  # yours; --documents 2000 of it

Prints CPU seconds, tokens a second, the median ratio of pairs, and how many tokens fastai has that we have
not, or the other way round. "fastai" is its TokenizeWithRules over SpacyTokenizer; "words" our built-in
splits, "spacy" that library's. "fresh" starts each time with no word seen before.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from difflib import SequenceMatcher
from itertools import islice
from pathlib import Path
from statistics import median

from pretune.data.corpus import documents
from pretune.data.demo import demo
from pretune.data.vocab import Vocab
from pretune.methods.ulmfit import UlmfitCodec, UlmfitCodecConfig
from pretune.methods.ulmfit.rules import SPECIALS

Read = Callable[[list[str]], list[list[str]]]


def fastai() -> Read:
    from fastai.text.core import SpacyTokenizer, TokenizeWithRules

    reader = TokenizeWithRules(SpacyTokenizer("en"))
    return lambda texts: [list(tokens) for tokens in reader(texts)]


def ours(name: str) -> Read:
    codec = UlmfitCodec(UlmfitCodecConfig(segmenter=name), Vocab(SPECIALS))
    return lambda texts: [codec.tokens(text) for text in texts]


def differing(one: list[list[str]], other: list[list[str]]) -> int:
    """Tokens of either side that stand against others, or against none."""
    count = 0
    for a, b in zip(one, other, strict=True):
        if a != b:
            blocks = SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
            count += sum(max(j - i, m - k) for kind, i, j, k, m in blocks if kind != "equal")
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpus", nargs="*", type=Path)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=5)
    asked = parser.parse_args()
    try:
        fastai()
    except ImportError as error:
        sys.exit(f"fastai or spaCy is not installed ({error}); nothing to compare with")
    corpus = documents(asked.corpus)() if asked.corpus else demo().unlabelled
    texts = list(islice(corpus, asked.documents))
    makers = {"fastai": fastai, "words": lambda: ours("words"), "spacy": lambda: ours("spacy")}
    warm = {name: make() for name, make in makers.items()}
    tokens = {name: read(texts) for name, read in warm.items()}
    total = sum(map(len, tokens["fastai"]))
    print(f"{len(texts):,} documents, {total:,} tokens")
    for kind in ("fresh", "warm"):
        seconds: dict[str, list[float]] = {name: [] for name in makers}
        for pair in range(asked.pairs):
            for name in sorted(makers, reverse=pair % 2 == 1):
                read = makers[name]() if kind == "fresh" else warm[name]
                began = time.process_time()
                read(texts)
                seconds[name].append(time.process_time() - began)
        for name, spent in seconds.items():
            ratios = [a / b for a, b in zip(seconds["fastai"], spent, strict=True)]
            print(
                f"{kind} {name:7} {median(spent):7.2f} CPU s {total / median(spent):10,.0f} tokens/s, fastai "
                f"/ it: {median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})"
            )
    for name in ("words", "spacy"):
        print(f"{name}: {differing(tokens['fastai'], tokens[name]):,} tokens differ from fastai's")


if __name__ == "__main__":
    main()
