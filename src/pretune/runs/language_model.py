"""LanguageModel: what a pretrained folder says of text: how likely it is, and what could stand in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

from pretune.errors import UsageError, UserError, choose
from pretune.methods.bert.encoder import BERT
from pretune.methods.bert.tokens import BERTCodec
from pretune.methods.elmo import ElmoCodec
from pretune.methods.gpt.language import PlainText
from pretune.methods.gpt.tokens import GPTCodec
from pretune.methods.ulmfit import UlmfitCodec
from pretune.runs.embedder import Embedder
from pretune.runs.folders import read_config
from pretune.runs.generation import Generated, Generating, generate, stream
from pretune.runs.gpt_scorer import GPTScorer
from pretune.runs.guests import resolved
from pretune.runs.left_to_right import LeftToRight, left_to_right
from pretune.runs.masked_scorer import MaskedScorer
from pretune.runs.neighbours import Neighbour, neighbours
from pretune.runs.readings import Sentence
from pretune.runs.run import load_start
from pretune.runs.scorers import RowScorer, Scorer
from pretune.runs.starts import Start
from pretune.runs.text_scores import Perplexity, Substitute, TextScore
from pretune.runs.writers import GPTWriter, UlmfitWriter, Writer
from pretune.tasks.base import Task
from pretune.tasks.both_ways import BothWays
from pretune.tasks.masked_words import MaskedWords
from pretune.tasks.next_token import NextToken
from pretune.training.devices import find_device
from pretune.training.model import Model

__all__ = ["LanguageModel", "Perplexity", "State", "Substitute", "TextScore"]

State = Literal["zero", "carry"]
WINDOW = 4096  # texts that are sorted by length together


@dataclass
class LanguageModel:
    """A pretrained folder that predicts words: ELMo with its softmax, ULMFiT, GPT, BERT.

    lm = LanguageModel.load("models/elmo")
    lm.perplexity(["It was a good film ."]).value
    lm.substitutes("It was a good film .", 3)[0].word
    """

    start: Start
    task: Task
    model: Model
    scorer: Scorer

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> LanguageModel:
        """A folder that `pretrain`, `adapt` or `import` left."""
        folder = resolved(folder)
        if read_config(folder)["kind"] == "model":
            raise UserError(
                f"{folder} has learned a task and is a language model no more; give the folder it came from"
            )
        start = load_start(folder)
        if isinstance(start, list):
            names = ", ".join(str(folder / one.name) for one in start)
            raise UserError(f"{folder} holds several language models; choose one of {names}")
        task = _task(folder, start)
        model = Model(start.encoder, task.head(start.encoder)).eval().to(find_device(device))
        return cls(start, task, model, _scorer(start, task, model))

    def score(self, texts: Sequence[Sentence], batch_size: int = 64) -> list[TextScore]:
        """Of each text or list of words, in order; each is read by itself.

        Words of GPT and BERT are pieces. Of a text longer than its context GPT gives each at least half a
        context of those before it. BERT reads both sides at once: see `TextScore.around`.
        """
        if isinstance(texts, str):
            raise UsageError("score takes a list of texts; this is one: write score([text])")
        return self.scorer.score(texts, batch_size)

    def perplexity(
        self, texts: Iterable[Sentence], state: State = "zero", batch_size: int = 64
    ) -> Perplexity:
        """Over both ways and all texts, as the release's `run_test.py` counts; blank texts are left out.

        For ELMo a text is a sentence. "zero" reads each from zeros; "carry", as the release, goes on from
        the sentence before in `batch_size` streams that share the texts: lower, for models that have
        learned so. Of a BERT it is the pseudo-perplexity (Salazar et al. 2020), which is comparable among
        masked models of one vocabulary alone.
        """
        if state not in get_args(State):
            raise choose("state", state, get_args(State))
        kept = (text for text in texts if (text.strip() if isinstance(text, str) else text))
        if state == "carry":
            return Perplexity.of(self.scorer.carried(list(kept), batch_size))
        return Perplexity.of(s for some in _windows(kept) for s in self.score(some, batch_size))

    def substitutes(self, text: Sentence, position: int, top: int = 10) -> list[Substitute]:
        """Words that could stand at `position` (from 0) of a text, the likeliest first.

        p(w) ∝ p(w | left) p(w | right), each of its own softmax, over the words of the vocabulary but its
        special ones; one side alone for a model that reads one way. The word that stands there counts too,
        but for BERT, which reads both sides at once and a mask in its place.
        """
        return self.scorer.substitutes(text, position, top)

    def neighbours(
        self,
        corpus: Iterable[Sentence],
        word: str,
        sentence: Sentence,
        position: int | None = None,
        top: int = 5,
        layer: int = -1,
        same_word: bool = False,
    ) -> list[Neighbour]:
        """See `runs/neighbours.py`; a model without softmax can be asked through `Embedder`."""
        embedder = Embedder.of(self.start)
        return neighbours(embedder, corpus, word, sentence, position, top, layer, same_word)

    def generate(
        self,
        prompt: str = "",
        max_tokens: int = 100,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        count: int = 1,
        seed: int = 0,
        beams: int | None = None,
        length_penalty: float = 0.0,
        stop: bool = True,
        unknown: bool = False,
        avoid: Sequence[str] = (),
    ) -> list[Generated]:
        """Texts that go on from `prompt`, or lead to it if the model reads from the right; see `Generating`.

        The prompt is read once and every token costs one step. Of a ULMFiT or a GPT.
        """
        how = Generating(
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            count=count,
            seed=seed,
            beams=beams,
            length_penalty=length_penalty,
            stop=stop,
            unknown=unknown,
            avoid=tuple(avoid),
        )
        return generate(self.writer(), prompt, how)

    def stream(self, prompt: str = "", how: Generating = Generating()) -> Iterator[str]:  # noqa: B008, frozen
        """The text of `generate`, piece by piece as it is written."""
        return stream(self.writer(), prompt, how)

    def writer(self) -> Writer:
        """The model as one that writes."""
        codec = self.start.codec
        if isinstance(codec, UlmfitCodec):
            return UlmfitWriter(self.model, codec)
        if isinstance(codec, GPTCodec):
            return GPTWriter(self.model, codec)
        raise UserError(
            f"{self.start.method.name} reads sentences both ways and writes no text; generate with ulmfit "
            "or gpt"
        )

    def left_to_right(self) -> LeftToRight:
        """The model as one that is asked about ids, see `runs/zero_shot.py`."""
        return left_to_right(self.model, self.start.codec)

    def words(self, text: Sentence) -> list[str]:
        """What the model takes as the words of a text, which `position` counts."""
        return self.scorer.words(text)


def _task(folder: Path, start: Start) -> Task:
    """What the model was pretrained to predict."""
    encoder: Any = start.encoder
    if isinstance(start.codec, ElmoCodec):
        if getattr(encoder, "softmax_weight", None) is None or start.codec.vocab is None:
            raise UserError(
                f"{folder} has no softmax, so it predicts no words; import it with --softmax and "
                f"--vocab, or let it learn one: pretune adapt {folder} CORPUS --out DIR"
            )
        return BothWays()
    if isinstance(start.codec, GPTCodec):
        return PlainText()
    if isinstance(encoder, BERT):
        if encoder.mlm_bias is None:
            raise UserError(
                f"{folder} has no heads of pretraining, so it predicts no words; import a checkpoint that "
                f"has them, or let it learn them: pretune adapt {folder} CORPUS --out DIR"
            )
        if encoder.causal:
            raise UserError(
                f"{folder} is a BERT that reads from left to right, made for comparing it with one that "
                "reads both ways (encoder.causal); to ask for probabilities of words pretrain gpt"
            )
        return MaskedWords()
    if getattr(encoder, "embedding_weight", None) is not None:
        return NextToken()
    raise UserError(
        f"{folder} holds {start.method.name}, which predicts no words; use elmo, ulmfit, gpt or bert"
    )


def _scorer(start: Start, task: Task, model: Model) -> Scorer:
    if isinstance(start.codec, GPTCodec):
        return GPTScorer(model, start.codec)
    if isinstance(start.codec, BERTCodec) and isinstance(start.encoder, BERT):
        return MaskedScorer(model, start.codec, start.encoder.config.context)
    return RowScorer(start, task, model)


def _windows(texts: Iterable[Sentence]) -> Iterable[list[Sentence]]:
    stream = iter(texts)
    while some := list(islice(stream, WINDOW)):
        yield some
