"""word2vec from the user's own text, trained by gensim."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal
from zlib import crc32

import torch

from pretune.data.corpus import token_file
from pretune.data.rows import Codec
from pretune.data.token_file import TokenFile
from pretune.encoder import Encoder
from pretune.errors import UsageError, UserError
from pretune.keys import key
from pretune.methods.raw_text import token_cache
from pretune.methods.wordvectors.encoder import WordVectorEncoder
from pretune.methods.wordvectors.tokens import WordCodec
from pretune.training.loop import Fitting
from pretune.training.progress import passed

LONGEST = 10_000  # gensim drops what a sentence has beyond this, so documents are cut


@dataclass(frozen=True)
class Word2Vec:
    """Mikolov et al. (2013): vectors that tell a word's neighbours from drawn words.

    One thread and a seed: the same text gives the same vectors, always.
    """

    algorithm: Literal["skip_gram", "cbow"] = "skip_gram"
    """Predict neighbours from the word, or the word from its neighbours."""
    window: int = 5
    """Neighbours on either side; each word draws a reach up to this."""
    negative: int = 5
    """Drawn words to tell from each true neighbour."""
    sample: float = 1e-3
    """Frequent words above this share of the text are thinned out."""
    epochs: int = 5
    """Passes over the text."""
    lr: float = 0.025
    """First rate; it falls in a line to a thousandth."""
    start: Literal["drawn", "encoder"] = "drawn"
    """Begin with drawn vectors, or with the encoder's own (adaptation)."""

    def __post_init__(self) -> None:
        for name in ("window", "negative", "epochs"):
            if getattr(self, name) < 1:
                raise UsageError(f"pretraining.{name} is {getattr(self, name)}; it must be at least 1")
        if self.lr <= 0:
            raise UsageError(f"pretraining.lr is {self.lr}; it must be above 0")

    def run(
        self,
        encoder: Encoder,
        codec: Codec,
        corpus: Callable[[], Iterable[str]],
        held_out: Callable[[], Iterable[str]] | None,
        fitting: Fitting,
    ) -> dict[str, float]:
        """Train the encoder's vectors in place; `loss` is per trained word in the last pass.

        word2vec gives texts no probability, so `held_out` is not read and no perplexity is told.
        """
        if not isinstance(encoder, WordVectorEncoder) or not isinstance(codec, WordCodec):
            raise UsageError("word2vec trains word vectors only; choose the method wordvectors")
        if fitting.resume:
            raise UsageError("word2vec keeps no checkpoints, so there is nothing to resume; run it again")
        with token_cache(fitting.folder) as cache:
            tokens = token_file(corpus, codec.ids, codec.fingerprint(), cache)
            return self._learned(encoder, _Sentences(tokens), fitting)

    def _learned(
        self, encoder: WordVectorEncoder, sentences: _Sentences, fitting: Fitting
    ) -> dict[str, float]:
        model = self._model(encoder.width, fitting.seed)
        model.build_vocab(sentences)
        if not len(model.wv):
            raise UserError("the text has no word that the codec knows, so no vector can be trained")
        places = torch.tensor([int(name) for name in model.wv.index_to_key])  # (W,) ids in gensim's order
        if self.start == "encoder":
            model.wv.vectors[:] = encoder.embedding.weight.detach().cpu()[places].numpy()
        loss, trained = 0.0, 1
        for epoch in range(self.epochs):
            label = f"word2vec · pass {epoch + 1} of {self.epochs}"
            trained, _ = model.train(
                _Passed(sentences, label, fitting.quiet),
                total_examples=model.corpus_count,
                epochs=1,
                start_alpha=self._rate(epoch),
                end_alpha=self._rate(epoch + 1),
                compute_loss=True,
            )
            loss = model.get_latest_training_loss() / max(1, trained)
        with torch.no_grad():
            encoder.embedding.weight[places] = torch.from_numpy(model.wv.vectors).to(encoder.embedding.weight)
        return {
            "words": float(len(places)),
            "trained_words": float(trained * self.epochs),
            "loss": float(loss),
        }

    def _rate(self, epoch: int) -> float:
        return self.lr * max(1e-3, 1 - epoch / self.epochs)

    def _model(self, width: int, seed: int) -> Any:
        try:
            from gensim.models import Word2Vec as Gensim
        except ImportError:
            raise UserError("word2vec needs gensim: pip install 'pretune[vectors]'") from None
        return Gensim(
            vector_size=width,
            sg=int(self.algorithm == "skip_gram"),
            window=self.window,
            negative=self.negative,
            sample=self.sample,
            min_count=1,  # the codec has already left rare words out
            seed=key(seed, "word2vec") % 2**31,
            workers=1,
            hashfxn=lambda word: crc32(word.encode()),  # Python's own changes from run to run
        )


@dataclass(frozen=True)
class _Sentences:
    """Documents as lists of ids in words' clothes; unknown words are left out."""

    tokens: TokenFile

    def __iter__(self) -> Iterator[list[str]]:
        for begin, end in pairwise(self.tokens.starts):
            ids = list(map(str, filter(None, self.tokens.ids[begin:end].tolist())))  # UNKNOWN is 0
            for start in range(0, len(ids), LONGEST):
                yield ids[start : start + LONGEST]


@dataclass(frozen=True)
class _Passed:
    """The same, with its progress on stderr: gensim asks for an iterable, not an iterator."""

    sentences: _Sentences
    label: str
    quiet: bool

    def __iter__(self) -> Iterator[list[str]]:
        return passed(self.sentences, self.label, self.quiet, len(self.sentences.tokens))


def adopt(old_encoder: Encoder, old_codec: Codec, new_encoder: Encoder, new_codec: Codec) -> None:
    """Words known to both codecs keep their vectors; other words keep the new encoder's own."""
    assert isinstance(old_encoder, WordVectorEncoder) and isinstance(new_encoder, WordVectorEncoder)
    assert isinstance(old_codec, WordCodec) and isinstance(new_codec, WordCodec)
    if old_encoder.width != new_encoder.width:
        raise UserError(f"vectors {old_encoder.width} wide do not fit an encoder {new_encoder.width} wide")
    theirs = old_codec.vocab.ids
    pairs = [(theirs[word], i) for word, i in new_codec.vocab.ids.items() if word in theirs]
    old, new = (torch.tensor(side) for side in zip(*pairs, strict=True))
    with torch.no_grad():
        new_encoder.embedding.weight[new] = old_encoder.embedding.weight[old].to(new_encoder.embedding.weight)
