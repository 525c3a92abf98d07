"""generate: text that a pretrained language model writes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pretune.cli.common import ConfigFile, Device, Notes, Quiet, Seed, stdout
from pretune.errors import UserError

if TYPE_CHECKING:
    from pretune.runs.generation import Generated, Generating
    from pretune.runs.language_model import LanguageModel


def generate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `pretrain`, `adapt` or `import` left.")],
    prompt: Annotated[
        str,
        typer.Argument(
            metavar="PROMPT",
            help="Text to go on from; - is stdin. The beginning of a document if left out, which a GPT "
            "cannot go on from.",
        ),
    ] = "",
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=1, help="Most tokens of a text, marks of capitals included.")
    ] = 100,
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature", min=0, help="Below 1 safer, above 1 bolder; 0: always the likeliest word."
        ),
    ] = 1.0,
    top_k: Annotated[
        int | None, typer.Option("--top-k", min=1, help="Draw among so many of the likeliest words.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option("--top-p", help="Draw among the fewest words that have this probability together."),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option("--min-p", help="Draw among words at least this share as likely as the likeliest."),
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="How many texts.")] = 1,
    seed: Seed = 0,
    beams: Annotated[
        int | None,
        typer.Option(
            "--beams", min=1, help="Look for the likeliest texts, so many beginnings in sight; draw nothing."
        ),
    ] = None,
    length_penalty: Annotated[
        float,
        typer.Option(
            "--length-penalty",
            min=0,
            help="With --beams: 0 compares sums of log-probabilities, which favours short texts, 1 means.",
        ),
    ] = 0.0,
    stop: Annotated[
        bool, typer.Option("--stop/--no-stop", help="End where the model ends the document, or never.")
    ] = True,
    unknown: Annotated[
        bool, typer.Option("--unknown", help="Also write xxunk or `<unk>`, which stands for what is unknown.")
    ] = False,
    avoid: Annotated[
        list[str] | None, typer.Option("--avoid", help="A word or mark not to be written; repeatable.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write JSON lines here, tokens and probabilities included.")
    ] = None,
    device: Device = "auto",
    quiet: Quiet = False,
    config: ConfigFile = None,
) -> None:
    """Go on with a text, word by word, as a ULMFiT or a GPT has learned to; a backward ULMFiT writes what
    stands before.

    The prompt is read once and its state carried along, so a text of any length takes one step a word; a GPT
    whose positions are full goes on from the later half of them. The same seed gives the same texts, the
    first three of ten being the three of `--count 3`.

    Example: pretune generate models/gpt "It was a dark and stormy night" --top-p 0.9

    The likeliest: pretune generate models/ulmfit "It was" --beams 5 --length-penalty 1 --max-tokens 20
    """
    from pretune.runs.generation import Generating
    from pretune.runs.generation import generate as write
    from pretune.runs.language_model import LanguageModel

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
        avoid=tuple(avoid or ()),
    )
    prompt = _stdin() if prompt == "-" else prompt
    model = LanguageModel.load(folder, device)
    notes = Notes(quiet)
    notes(*_unknown_words(model, prompt))
    if out is None and _streams(model, how):
        _print_stream(model, prompt, how)
        return
    found = write(model.writer(), prompt, how)
    if out is None:
        _print(found)
        return
    from pretune.runs.files import write_text

    write_text(out, "".join(json.dumps(one.to_dict(), ensure_ascii=False) + "\n" for one in found))
    notes(f"{len(found)} text{'s' * (len(found) != 1)} in {out}")


def _stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8").rstrip("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"stdin is not UTF-8 ({error})") from None


def _unknown_words(model: LanguageModel, prompt: str) -> list[str]:
    words = model.writer().unknown_words(prompt)
    if not words:
        return []
    shown = ", ".join(words[:8]) + (", …" if len(words) > 8 else "")
    are = "words are" if len(words) > 1 else "word is"
    return [f"of the prompt, {len(words)} {are} unknown to the model: {shown}"]


def _streams(model: LanguageModel, how: Generating) -> bool:
    return sys.stdout.isatty() and how.count == 1 and how.beams is None and not model.writer().leftwards


def _print_stream(model: LanguageModel, prompt: str, how: Generating) -> None:
    """The text as it comes."""
    sys.stdout.write(prompt)
    sys.stdout.flush()
    last = prompt
    for piece in model.stream(prompt, how):
        sys.stdout.write(piece.lstrip() if last[-1:].isspace() else piece)
        sys.stdout.flush()
        last = piece
    sys.stdout.write("\n")


def _print(found: list[Generated]) -> None:
    """One text as it is; several with their numbers, and a blank line between them, on a terminal."""
    if len(found) == 1 or not sys.stdout.isatty():
        sys.stdout.write("\n\n".join(one.whole for one in found) + "\n")
        return
    for number, one in enumerate(found, 1):
        stdout().print(f"{number}. log-probability {sum(one.log_probabilities):.2f}", style="dim")
        sys.stdout.write(f"{one.whole}\n\n")
