"""Generation: text that a language model writes after a prompt, or before it if it reads from the right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from math import inf, isnan, nan
from typing import Any

from pretune.errors import UsageError
from pretune.keys import generator
from pretune.runs.search import Allowed, Sampling, Written, beam_search, draw
from pretune.runs.writers import Writer


@dataclass(frozen=True)
class Generating:
    """How text is written."""

    max_tokens: int = 100
    """Most tokens of a text, marks such as that of a capital included."""
    temperature: float = 1.0
    """Below 1 likely words are drawn more often, above 1 less; 0 always takes the likeliest."""
    top_k: int | None = None
    """Draw among so many of the likeliest words."""
    top_p: float | None = None
    """Draw among the fewest words that have this probability together."""
    min_p: float | None = None
    """Draw among words at least this likely, as a share of the likeliest one's probability."""
    count: int = 1
    """How many texts to write."""
    seed: int = 0
    """Text i of a seed is the same however many are written."""
    beams: int | None = None
    """Draw nothing: look for the likeliest texts with so many beginnings in sight."""
    length_penalty: float = 0.0
    """With beams, texts are compared by their log-probability over length to this power: 1 is the mean."""
    stop: bool = True
    """End where the model ends the document; else every text has `max_tokens`."""
    unknown: bool = False
    """Also write the word that stands for unknown ones."""
    avoid: tuple[str, ...] = ()
    """Words or marks of the vocabulary that are not to be written."""

    def __post_init__(self) -> None:
        for name in ("max_tokens", "count", "beams"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}; it must be at least 1")
        if not 0 <= self.length_penalty < inf:
            raise UsageError(f"length_penalty is {self.length_penalty}; give 0 or more")
        if self.beams is None:
            if self.length_penalty:
                raise UsageError("length_penalty compares what beams have found; give beams as well")
            if self.sampling.temperature == 0 and self.count > 1:
                raise UsageError(f"temperature 0 writes one text, always the same; count is {self.count}")
            return
        plain = Generating()
        for name in ("temperature", "top_k", "top_p", "min_p", "seed"):
            if getattr(self, name) != getattr(plain, name):
                raise UsageError(f"beams draw nothing, so {name} means nothing beside them; leave it out")
        if self.count > self.beams:
            raise UsageError(
                f"count is {self.count}; {self.beams} beams find no more than {self.beams} texts"
            )

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_k, self.top_p, self.min_p)


@dataclass(frozen=True)
class Generated:
    """A text that a model has written."""

    prompt: str
    text: str  # what was written, with the space between it and the prompt
    tokens: tuple[str, ...]  # in the order of the text, without the mark of the end
    log_probabilities: tuple[float, ...]  # of each token given the prompt and those written before it
    end: float = nan  # of the mark of the end; NaN where the text was cut at `max_tokens`
    leftwards: bool = False  # whether it stands before the prompt

    @property
    def whole(self) -> str:
        """The prompt and what was written, in the order of the text."""
        if self.leftwards:
            return self.text + (self.prompt.lstrip() if self.text[-1:].isspace() else self.prompt)
        return (self.prompt.rstrip() if self.text[:1].isspace() else self.prompt) + self.text

    @property
    def ended(self) -> bool:
        """Whether the model itself ended the text."""
        return not isnan(self.end)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        end = self.end if self.ended else None
        return {"whole": self.whole, **asdict(self), "end": end, "ended": self.ended}


def generate(writer: Writer, prompt: str, how: Generating) -> list[Generated]:
    """`how.count` texts; of beams the best first."""
    ids = writer.prompt(prompt)
    allowed = _allowed(writer, how)
    if how.beams is not None:
        found = beam_search(writer, ids, how.max_tokens, allowed, how.beams, how.length_penalty)[: how.count]
    else:
        found = [Written((), ())] * how.count
        for text, token, nats in draw(writer, ids, how.max_tokens, allowed, how.sampling, _chances(how)):
            found[text] = found[text].and_then(token, nats)
    return [_generated(writer, prompt, ids, one, allowed.ends) for one in found]


def stream(writer: Writer, prompt: str, how: Generating) -> Iterator[str]:
    """The one text of `generate`, piece by piece as it is written."""
    if how.count != 1 or how.beams is not None or writer.leftwards:
        raise UsageError("one text, drawn from left to right, can be streamed; generate the others whole")
    ids, allowed = writer.prompt(prompt), _allowed(writer, how)
    so_far, shown, text = Written((), ()), "", ""
    for _, token, nats in draw(writer, ids, how.max_tokens, allowed, how.sampling, _chances(how)):
        so_far = so_far.and_then(token, nats)
        text = _generated(writer, prompt, ids, so_far, allowed.ends).text
        if text.startswith(shown) and text != shown:
            yield text[len(shown) :]
            shown = text
    if not text.startswith(shown):  # a later piece has changed a word that was shown
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(text, shown, strict=False)))
        yield text[same:]


def _chances(how: Generating) -> list[Any]:
    return [generator(how.seed, "generate", text) for text in range(how.count)]


def _allowed(writer: Writer, how: Generating) -> Allowed:
    barred = [*writer.silent, *(() if how.stop else writer.ends)]
    if not how.unknown and writer.unknown is not None:
        barred.append(writer.unknown)
    for word in how.avoid:
        token = writer.id_of(word)
        if token is None:
            raise UsageError(f"avoid names {word!r}, which is no word of the vocabulary")
        barred.append(token)
    ends = tuple(end for end in writer.ends if end not in barred)
    return Allowed(ends, tuple(dict.fromkeys(barred)))


def _generated(
    writer: Writer, prompt: str, ids: Sequence[int], written: Written, ends: Sequence[int]
) -> Generated:
    tokens, nats = list(written.ids), list(written.nats)
    end = nan
    if tokens and tokens[-1] in ends:
        end = nats.pop()
        tokens.pop()
        if (marks := len(writer.closing)) and tuple(tokens[-marks:]) == writer.closing:
            del tokens[-marks:], nats[-marks:]
    text = _beside(writer, ids, tokens) if prompt.strip() else writer.text(tokens)
    found = Generated(prompt, text, writer.words(tokens), tuple(nats), end)
    if writer.leftwards:
        turned = found.tokens[::-1], found.log_probabilities[::-1]
        found = replace(found, tokens=turned[0], log_probabilities=turned[1], leftwards=True)
    return found


def _beside(writer: Writer, prompt: Sequence[int], tokens: Sequence[int]) -> str:
    """The text of the new tokens as it stands beside the prompt, with the space between if there is one."""
    said, whole = writer.text(prompt), writer.text([*prompt, *tokens])
    if writer.leftwards and whole.endswith(said):
        return whole[: len(whole) - len(said)]
    if not writer.leftwards and whole.startswith(said):
        return whole[len(said) :]
    alone = writer.text(tokens)
    if not alone:
        return ""
    return f"{alone} " if writer.leftwards else f" {alone}"
