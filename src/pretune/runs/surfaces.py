"""Surfaces: what the tokens of a language model say of the characters that they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pretune.data.rows import Codec, Row
from pretune.data.samples import Part
from pretune.errors import UsageError
from pretune.methods.bert.tokens import NO_WORD, BERTCodec
from pretune.methods.bert.wordpiece import INSIDE
from pretune.methods.elmo import ElmoCodec
from pretune.methods.elmo.tokens import SPECIALS as ELMO_MARKS
from pretune.methods.gpt.bpe import END, LINE_BREAK
from pretune.methods.gpt.bpe import UNKNOWN as GPT_UNKNOWN
from pretune.methods.gpt.tokens import SPECIALS as GPT_MARKS
from pretune.methods.gpt.tokens import GPTCodec
from pretune.methods.ulmfit import UlmfitCodec
from pretune.methods.ulmfit.profiles import PROFILES
from pretune.methods.ulmfit.rules import CAPITAL, FIELD, REPEAT, REPEAT_WORD, START, UPPER
from pretune.methods.ulmfit.rules import SPECIALS as ULMFIT_MARKS
from pretune.runs.readings import part_of

SPACE = "▁"  # before a piece that begins a run


class Token(NamedTuple):
    """One token of a text, as `TextScore.words` has them."""

    spelled: str  # what has to be spelled if the vocabulary lacks it
    shown: str | None  # its characters of the text, as far as the codec keeps them; None: stands for none
    start: int
    end: int


class Kept(NamedTuple):
    """What a codec keeps of a text."""

    read: str  # the text with capitals where the codec has them; other changes are not shown
    changed: int  # characters that became others, or none; white space aside


def sentences_of(codec: ElmoCodec, document: str | Sequence[str]) -> list[str | Sequence[str]]:
    """What ELMo reads one after another, as in its pretraining; words that are given are one sentence."""
    return [*codec.sentences(document)] if isinstance(document, str) else [document]


def tokens_of(codec: Codec, document: str | Sequence[str]) -> list[Token]:
    """The tokens of a text, or of words with a space between each two, from left to right."""
    part = Part(document) if isinstance(document, str) else part_of(document)
    if isinstance(codec, ElmoCodec):
        return list(_elmo(codec, document, part))
    if isinstance(codec, UlmfitCodec):
        return list(_ulmfit(codec, part.text))
    if not isinstance(codec, GPTCodec | BERTCodec):
        raise UsageError(f"{type(codec).__name__} is the codec of no language model")
    ((row,),) = codec.unlimited().encode([(Part(part.text),)])
    spelled, small = _without_inside, codec.config.lowercase
    if isinstance(codec, GPTCodec):
        spelled, small = _without_end, small or codec.config.pretokenizer != "builtin"
    words = [spelled(codec.vocab.words[number]) if number != codec.unknown_id else None for number in row.ids]
    return list(_pieces(row, part.text, words, small))


def kept(text: str, tokens: Iterable[Token]) -> Kept:
    """Which characters of a text its tokens give back."""
    read, changed, at = list(text), 0, 0
    for token in tokens:
        if token.shown is None or token.start < at:
            continue
        changed += _visible(text[at : token.start])
        at = token.end
        said = text[token.start : token.end]
        if len(said) != len(token.shown):
            changed += _visible(said)
            continue
        for place, (had, wanted) in enumerate(zip(token.shown, said, strict=True), token.start):
            if had.lower() == wanted.lower():
                read[place] = had
            else:
                changed += not wanted.isspace()
    return Kept("".join(read), changed + _visible(text[at:]))


def vocabulary(codec: Codec) -> Iterator[str]:
    """The words that a codec knows, as they are spelled: without marks, of themselves or around others."""
    if isinstance(codec, ElmoCodec):
        return (word for word in codec.vocab.words if word not in ELMO_MARKS) if codec.vocab else iter(())
    if isinstance(codec, UlmfitCodec):
        return (word.removeprefix(SPACE) for word in codec.vocab.words if word not in ULMFIT_MARKS)
    if isinstance(codec, GPTCodec):
        marks = (*GPT_MARKS, GPT_UNKNOWN, LINE_BREAK)
        return (_without_end(word) for word in codec.vocab.words if word not in marks)
    if isinstance(codec, BERTCodec):
        return (_without_inside(word) for word in codec.vocab.words if not NO_WORD.fullmatch(word))
    raise UsageError(f"{type(codec).__name__} is the codec of no language model")


def _visible(text: str) -> int:
    return len("".join(text.split()))


def _without_end(piece: str) -> str:
    return piece.removesuffix(END)


def _without_inside(piece: str) -> str:
    return piece.removeprefix(INSIDE)


def _elmo(codec: ElmoCodec, document: str | Sequence[str], whole: Part) -> Iterator[Token]:
    at = 0
    for sentence in sentences_of(codec, document):
        part = Part(sentence) if isinstance(sentence, str) else whole
        at = whole.text.index(part.text, at)
        ((row,),) = codec.encode([(part,)])
        for of, (start, end) in zip(row.part, row.chars, strict=True):
            if of == 0:
                word = part.text[start:end]
                yield Token(word, word, at + start, at + end)
        at += len(part.text)


def _pieces(row: Row, text: str, words: Sequence[str | None], small: bool) -> Iterator[Token]:
    """A word that is None is unknown: read in small letters, if all are, and as it stands."""
    for word, of, (start, end) in zip(words, row.part, row.chars, strict=True):
        if of == 0:
            said = text[start:end].lower() if small else text[start:end]
            yield Token(word or said, word or said, start, end)


def _ulmfit(codec: UlmfitCodec, text: str) -> Iterator[Token]:
    """Marks of capitals show in the words after them: in one, or where runs are marked in all of the run."""
    ((row,),) = codec.encode([(Part(text),)])
    spans = row.chars if codec.config.direction == "forward" else row.chars[::-1]
    by_word = PROFILES[codec.config.rules].marks_words and codec.pieces is None
    mark, last, repeated = None, 0, 0
    for word, (start, end) in zip(codec.tokens(text)[1:], spans[1:], strict=True):
        spelled = word.removeprefix(SPACE) if codec.pieces is not None else word
        if word in (UPPER, CAPITAL):
            mark, last = word, start
            yield Token(word, None, start, end)
        elif word in (REPEAT, REPEAT_WORD):
            repeated = end
            yield Token(word, text[start:end], start, end)
        elif end <= repeated or word in (START, FIELD):  # how often what, which has been shown
            yield Token(spelled, None, start, end)
        else:
            if start > last:
                mark = None  # another run
            shown = spelled if mark is None else spelled.upper()
            if mark == CAPITAL:
                shown = spelled[:1].upper() + spelled[1:]
            yield Token(spelled, shown, start, end)
            mark, last = (None if by_word or mark == CAPITAL else mark), end
