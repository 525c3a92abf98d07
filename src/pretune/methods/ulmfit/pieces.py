"""Pieces of words: unigram models, learned from a corpus or read from SentencePiece's files.

Reading text takes `tokenizers` alone. Learning takes SentencePiece's own trainer (extra `pieces`): the one in
`tokenizers` gives other numbers at every call.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final
from unicodedata import normalize

from pretune.data.segment import SURROGATES
from pretune.errors import UsageError, UserError
from pretune.methods.ulmfit.sentencepiece_file import NOTHING, parsed, tokenizer_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NAME: Final = "pieces"
MOST_PIECES: Final = 30_000  # fastai's default
FEWEST_PIECES: Final = 29  # fastai's too
LONGEST_RUN: Final = 1000  # characters; longer ones are cut for the trainer, which would skip them
MOST_CHARACTERS: Final = 2**24  # of distinct runs that the trainer sees: some minutes, about a gigabyte
THREADS: Final = 4  # fixed, for it decides in which order numbers are added up
EUROPEAN: Final = frozenset(
    "bg cs da de el en es et fi fr ga hr hu it lt lv mt nl pl pt ro sk sl sv".split()
)  # with few characters, of which nearly all are kept


class PieceSegmenter:
    """Runs between spaces -> their pieces; the first of a run starts with ▁. White space is not read."""

    name, by_run = NAME, True

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.described = "unigram pieces" if _model(tokenizer) == "Unigram" else "byte-pair pieces"
        # Scores may lose their last digit on the way through tokenizer.json.
        told = re.sub(r"-?\d+\.\d+", lambda score: f"{float(score[0]):.6f}", tokenizer.to_str())
        self.version = blake2b(told.encode(), digest_size=8).hexdigest()
        self._unknown = tokenizer.token_to_id(NOTHING)

    def of_run(self, run: str) -> list[tuple[str, int, int]]:
        """Pieces with the characters of `run` that each stands for; what is in no piece stands as it is."""
        read = self.tokenizer.encode(SURROGATES.sub("\ufffd", run), add_special_tokens=False)
        pieces: list[tuple[str, int, int]] = []
        before = 0
        for number, piece, (start, end) in zip(read.ids, read.tokens, read.offsets, strict=True):
            start = max(before, min(start, len(run) - 1))  # a ▁ of its own stands for the character after it
            end = max(end, start + 1)
            pieces.append((run[start:end] if number == self._unknown else piece, start, end))
            before = start
        return pieces

    def words(self) -> list[str]:
        """All pieces, in the order of their ids."""
        return [piece for piece in pieces_of(self.tokenizer) if piece != NOTHING]


def pieces_of(tokenizer: Tokenizer) -> list[str]:
    ids = tokenizer.get_vocab()
    return sorted(ids, key=ids.__getitem__)


def read_sentencepiece(path: Path) -> Tokenizer:
    """A `.model` file of SentencePiece as a tokenizer that gives the same pieces, under ids of its own.

    Raises UserError for files that are none, and for kinds of model that nobody published for ULMFiT.
    """
    return tokenizer_of(parsed(_bytes(path), str(path)), str(path))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def published_words(path: Path) -> list[str]:
    """All pieces of a `.model` file by their published ids, <unk> and <s> too, which no text gives."""
    return [piece for piece, _, _ in parsed(_bytes(path), str(path)).pieces]


def learn_pieces(counts: Mapping[str, int], most: int, language: str) -> Tokenizer:
    """A unigram model of runs of text and how often each occurs; at most `most` pieces.

    As fastai asks for it: a quarter as many as there are distinct runs if that is fewer, though not where
    runs are sentences, as in Chinese: a 128th of their characters then. Rare characters are left out. Signs
    stay as they were written (fastai's would fold ， into a comma). The same counts give the same model.
    """
    try:
        import sentencepiece
    except ImportError:
        raise UsageError(
            "segmenter 'pieces' learns with SentencePiece: pip install 'pretune[pieces]'"
        ) from None
    runs = _trainable(counts)
    characters = len({character for run, _ in runs for character in run})
    quarter = -(-len(counts) // 32) * 8
    wanted = max(FEWEST_PIECES, quarter, sum(len(run) for run, _ in runs) // 128, 2 * characters)
    if most <= characters + 1:
        raise UserError(
            f"max_vocab leaves room for {most} pieces, but the corpus has {characters} different characters; "
            "give more"
        )
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(f"{run}\t{count}" for run, count in runs),
            input_format="tsv",
            model_writer=model,
            model_type="unigram",
            vocab_size=min(most, wanted) + 1,  # one for what is unknown
            character_coverage=0.99999 if language in EUROPEAN else 0.9998,
            normalization_rule_name="identity",
            hard_vocab_limit=False,
            unk_piece=NOTHING,
            bos_id=-1,
            eos_id=-1,
            num_threads=THREADS,
            max_sentence_length=8 * LONGEST_RUN,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(f"too little text to learn pieces from ({error}); give more") from None
    return tokenizer_of(parsed(model.getvalue(), "the learned model"), "the learned model", composed=True)


def _trainable(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Runs that the trainer can read, the most frequent first, equal ones in an order that favours none."""
    order = sorted(counts.items(), key=lambda item: (-item[1], _digest(item[0]), item[0]))
    runs: dict[str, int] = {}
    characters = 0
    for run, count in order:
        if characters >= MOST_CHARACTERS:
            break
        if "▁" in run or "\0" in run or SURROGATES.search(run):
            continue
        run = normalize("NFC", run)
        for at in range(0, len(run), LONGEST_RUN):
            part = run[at : at + LONGEST_RUN]
            runs[part] = runs.get(part, 0) + count
        characters += len(run)
    return list(runs.items())


def _digest(run: str) -> bytes:
    return blake2b(run.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _model(tokenizer: Tokenizer) -> str:
    return type(tokenizer.model).__name__


def load_tokenizer(path: Path) -> Tokenizer:
    """A `tokenizer.json`."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: no pieces there ({error.strerror})") from None
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{path}: not a file of tokenizers ({error})") from None
