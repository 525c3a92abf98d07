"""GPT and BERT, ours beside transformers': the same work in turn, in one process, at one thread, in float32.

    pip install 'pretune[hf]'
    python benchmarks/transformers.py                        # GPT and BERT-base: minutes
    python benchmarks/transformers.py --size tiny --pairs 3  # a smoke test
    python benchmarks/transformers.py --only bert16 generation --pairs 5

Prints CPU seconds of both and the ratio of each pair; the figure to quote is the median ratio. The weights
are random, for speed does not depend on them. Sentences are as long as the 32 of LENGTHS; transformers pads
them, as it must. What there is:

    bert16, bert32   BERT's layers and pooled vector of 16 or 32 sentences
    gpt16, gpt32     GPT's layers of 16 or 32 sentences
    bert512, gpt512  the same of 2 texts of 512 tokens: no padding
    bert-step        BERT's fine-tuning step on 16 sentences: forward, loss, backward, clipping, AdamW
    gpt-step         the same of GPT, with the language model's loss beside the classifier's
    generation       100 tokens after a prompt of 10, one at a time, the likeliest each
    generation8      the same of 8 prompts at once
    mlm              BERT's loss of masked words and its gradient, on 15% of 2 × 512 tokens: at these, where
                     transformers has logits everywhere
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretune.layers.softmax import softmax_loss
from pretune.methods.bert.encoder import BERT, BERTConfig
from pretune.methods.gpt.encoder import GPT, GPTConfig
from pretune.runs.writers import Decoder
from pretune.tasks.classification import Classification
from pretune.tasks.joint import Joint
from pretune.tasks.next_token import NextToken
from pretune.tensors.batch import Batch
from pretune.training.model import Model
from pretune.training.optimizers import AdamW

Step = Callable[[], Any]
Pair = tuple[Step, Step]  # ours, transformers'

# WordPiece tokens, marks included, of 32 sentences that follow one another in "The Adventures of Sherlock
# Holmes". Padding makes 2.4 times as many of the first 16, 2.8 of all; of 40 novels the medians are 2.3, 2.7.
LENGTHS = (
    *(6, 24, 29, 9, 22, 22, 12, 49, 6, 12, 7, 24, 30, 41, 12, 22),
    *(26, 32, 39, 34, 20, 61, 32, 12, 36, 16, 8, 15, 7, 15, 17, 12),
)
PROMPT, WRITTEN = 10, 100  # tokens
MASKED = 0.15  # of the tokens


@dataclass(frozen=True)
class Size:
    width: int
    layers: int
    heads: int
    gpt_words: int
    bert_words: int


SIZES = {"base": Size(768, 12, 12, 40478 + 3, 30522), "tiny": Size(32, 2, 4, 303, 300)}


# Models ---------------------------------------------------------------------


def our_bert(size: Size) -> BERT:
    return BERT(BERTConfig(size.width, size.layers, size.heads), size.bert_words, 0)


def our_gpt(size: Size) -> GPT:
    return GPT(GPTConfig(size.width, size.layers, size.heads), size.gpt_words, size.gpt_words - 1)


def their_bert(size: Size, kind: str = "BertModel", **options: Any) -> Any:
    import transformers

    config = transformers.BertConfig(
        vocab_size=size.bert_words,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.width,
        **options,
    )
    return getattr(transformers, kind)(config)


def their_gpt(size: Size, kind: str = "OpenAIGPTModel") -> Any:
    import transformers

    config = transformers.OpenAIGPTConfig(
        vocab_size=size.gpt_words, n_embd=size.width, n_layer=size.layers, n_head=size.heads
    )
    return getattr(transformers, kind)(config)


def texts(lengths: tuple[int, ...], words: int, last: int | None = None) -> Batch:
    """Rows of random tokens, each ending with `last`."""
    lengths_ = torch.tensor(lengths)[:, None]
    mask = torch.arange(max(lengths)) < lengths_  # (N, T)
    ids = torch.randint(1, words - 3, mask.shape) * mask
    if last is not None:
        ids = ids.scatter(1, lengths_ - 1, last)
    owner = torch.arange(len(ids))
    return Batch(ids, mask, torch.zeros_like(ids), owner, gold={"label": owner % 2})


# Reading --------------------------------------------------------------------


def bert_reads(size: Size, lengths: tuple[int, ...]) -> Pair:
    batch, model, other = texts(lengths, size.bert_words), our_bert(size).eval(), their_bert(size).eval()

    def theirs() -> Any:
        return other(batch.ids, batch.mask, batch.segments, output_hidden_states=True)

    return torch.no_grad()(lambda: model(batch)), torch.no_grad()(theirs)


def gpt_reads(size: Size, lengths: tuple[int, ...]) -> Pair:
    batch = texts(lengths, size.gpt_words, size.gpt_words - 1)
    model, other = our_gpt(size).eval(), their_gpt(size).eval()

    def theirs() -> Any:  # padded on the right, it needs no mask
        return other(batch.ids, output_hidden_states=True)

    return torch.no_grad()(lambda: model(batch)), torch.no_grad()(theirs)


# Training -------------------------------------------------------------------


def stepping(model: nn.Module, adam: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> Step:
    def step() -> None:
        loss().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad()

    return step


def bert_step(size: Size, lengths: tuple[int, ...]) -> Pair:
    batch = texts(lengths, size.bert_words)
    encoder = our_bert(size).for_task()
    model = Model(encoder, Classification("one", ("no", "yes"), dropout=0.1).head(encoder)).train()
    other = their_bert(size, "BertForSequenceClassification").train()

    def theirs() -> Tensor:
        return other(batch.ids, batch.mask, batch.segments, labels=batch.gold["label"]).loss  # type: ignore[no-any-return]

    ours = lambda: model(batch).loss / len(batch.ids)  # noqa: E731
    return stepping(model, our_adam(model), ours), stepping(other, their_adam(other), theirs)


def gpt_step(size: Size, lengths: tuple[int, ...]) -> Pair:
    batch = texts(lengths, size.gpt_words, size.gpt_words - 1)
    encoder = our_gpt(size)
    task = Joint(Classification("one", ("no", "yes"), dropout=0.1), 0.5)
    model = Model(encoder, task.head(encoder)).train()
    other = their_gpt(size, "OpenAIGPTLMHeadModel").train()
    other.classifier = nn.Linear(size.width, 2)
    labels = batch.ids.masked_fill(~batch.mask, -100)
    rows, ends = torch.arange(len(batch.ids)), batch.lengths - 1

    def theirs() -> Tensor:
        said = other(batch.ids, labels=labels, output_hidden_states=True)
        hidden = F.dropout(said.hidden_states[-1][rows, ends], 0.1)
        return F.cross_entropy(other.classifier(hidden), batch.gold["label"]) + 0.5 * said.loss

    ours = lambda: model(batch).loss / len(batch.ids)  # noqa: E731
    return stepping(model, our_adam(model), ours), stepping(other, their_adam(other), theirs)


def our_adam(model: nn.Module) -> torch.optim.Optimizer:
    groups = [{"params": list(model.parameters()), "lr": 1e-5, "weight_decay": 0.01}]
    return AdamW().build(groups)


def their_adam(model: nn.Module) -> torch.optim.Optimizer:
    """The default of transformers' Trainer."""
    return torch.optim.AdamW(model.parameters(), 1e-5, weight_decay=0.01, fused=True)


# Words ----------------------------------------------------------------------


def generation(size: Size, rows: int = 1) -> Pair:
    prompt = torch.randint(1, size.gpt_words - 3, (rows, PROMPT))
    model, other = our_gpt(size).eval(), their_gpt(size, "OpenAIGPTLMHeadModel").eval()
    decode = Decoder(Model(model, NextToken(0.0).head(model)).eval())

    def ours() -> None:
        ids, carry = prompt, None
        for _ in range(WRITTEN):
            top, carry = model.read_on(ids, carry)
            ids = decode(top[:, -1]).argmax(-1, keepdim=True)

    def theirs() -> None:
        other.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=WRITTEN,
            min_new_tokens=WRITTEN,
            do_sample=False,
            pad_token_id=0,
        )

    return torch.no_grad()(ours), torch.no_grad()(theirs)


def masked_words(size: Size) -> Pair:
    batch = texts((512, 512), size.bert_words)
    model, other = our_bert(size).train(), their_bert(size, "BertForMaskedLM").train()
    masked = torch.rand(batch.ids.shape) < MASKED  # (N, T)
    targets, labels = batch.ids[masked], batch.ids.masked_fill(~masked, -100)

    def ours() -> None:
        hidden = model.mlm_hidden(model(batch).layers[-1][masked])  # (K, D)
        assert model.mlm_bias is not None
        (softmax_loss(hidden, model.words.weight, model.mlm_bias, targets) / len(targets)).backward()
        model.zero_grad()

    def theirs() -> None:
        other(batch.ids, batch.mask, batch.segments, labels=labels).loss.backward()
        other.zero_grad()

    return ours, theirs


WORK: dict[str, tuple[Callable[..., Pair], tuple[int, ...]]] = {
    "bert16": (bert_reads, LENGTHS[:16]),
    "bert32": (bert_reads, LENGTHS),
    "gpt16": (gpt_reads, LENGTHS[:16]),
    "gpt32": (gpt_reads, LENGTHS),
    "bert512": (bert_reads, (512, 512)),
    "gpt512": (gpt_reads, (512, 512)),
    "bert-step": (bert_step, LENGTHS[:16]),
    "gpt-step": (gpt_step, LENGTHS[:16]),
    "generation": (generation, ()),
    "generation8": (lambda size: generation(size, 8), ()),
    "mlm": (masked_words, ()),
}


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
    parser.add_argument("--size", default="base", choices=SIZES)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=WORK, default=list(WORK))
    options = parser.parse_args()
    here = Path(__file__).parent  # where `import transformers` would find this very file
    sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != here.resolve()]
    try:
        import transformers
    except ImportError as error:
        sys.exit(f"transformers is not installed ({error}); pip install 'pretune[hf]'")
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    print(f"a large matrix product: {matrix_product():.0f} GFLOP/s; transformers {transformers.__version__}")
    for name in options.only:
        torch.manual_seed(0)
        make, lengths = WORK[name]
        pair = make(SIZES[options.size], *([lengths] if lengths else []))
        ours, theirs = zip(*timed(pair, options.pairs), strict=True)
        ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
        tokens = sum(lengths) or {"generation": WRITTEN, "generation8": 8 * WRITTEN, "mlm": 1024}[name]
        print(
            f"{name:11} {median(ratios):5.2f}× (from {min(ratios):.2f} to {max(ratios):.2f}): "
            f"{median(ours):.3f} against {median(theirs):.3f} CPU s, "
            f"{tokens / median(ours):,.0f} against {tokens / median(theirs):,.0f} tokens/s",
            flush=True,
        )


if __name__ == "__main__":
    main()
