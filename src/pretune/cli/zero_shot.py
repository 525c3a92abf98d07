"""zero-shot: questions that a pretrained language model answers without training on them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from pretune.cli.answer import answer_line, print_evaluation
from pretune.cli.common import (
    ConfigFile,
    Device,
    Encoding,
    Notes,
    Quiet,
    SampleFormat,
    Seed,
    score_lines,
    stderr,
)
from pretune.errors import UsageError, choose


def zero_shot(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A gpt or forward ulmfit of `pretrain`, `adapt` or `import`."),
    ],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="csv, tsv, jsonl, parquet; of texts alone also txt and label-first."
        ),
    ],
    kind: Annotated[
        str,
        typer.Option("--kind", help="What is asked of each row: acceptability, sentiment, choice or cloze."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Write answers here, a JSON line each; else to the terminal.")
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", help="Column with the text; for choice the context's, then the question's."),
    ] = None,
    choices: Annotated[
        list[str] | None,
        typer.Option("--choices", help="Column with a list of choices, or one column each, repeated."),
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", help="Column with the right answers, if it is called otherwise.")
    ] = None,
    fit: Annotated[
        Path | None,
        typer.Option("--fit", help="For acceptability: a labelled file on which the threshold is chosen."),
    ] = None,
    words: Annotated[
        list[str] | None,
        typer.Option(
            "--word",
            metavar="LABEL=WORD",
            help="For sentiment, once for each label: the word that stands for it. positive=positive and "
            "negative=negative if not given.",
        ),
    ] = None,
    append: Annotated[
        str | None, typer.Option("--append", help="For sentiment: what is read after the text; else very.")
    ] = None,
    blank: Annotated[
        str | None, typer.Option("--blank", help="For cloze: what stands where the choices may; else _.")
    ] = None,
    file_format: SampleFormat = None,
    encoding: Encoding = "utf-8",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Texts read at a time.")] = 32,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    config: ConfigFile = None,
) -> None:
    """Answer without training, by what a language model finds likely (section 5 of the GPT paper).

    **acceptability**: the mean log-probability of a text's tokens. With --fit labels as well: the threshold
    between two labels that suits a labelled file best.

    **sentiment**: reads the text and then `very`, and takes `positive` or `negative`, whichever is likelier
    as the next word. Other words for other labels: --word.

    **choice**: the choice whose tokens are likeliest on average after the question.

    **cloze**: a sentence with a blank; the choice with which the rest of the sentence is likeliest.

    Where a file says the right answers, accuracy is reported, with a 95 % bootstrap interval.

    Example: pretune zero-shot models/gpt dev.tsv --kind sentiment --word 1=positive --word 0=negative

    Acceptability: pretune zero-shot models/gpt dev.tsv --kind acceptability --fit train.tsv

    Winograd's schemas: pretune zero-shot models/gpt winogrande.jsonl --kind cloze --out answers.jsonl
    """
    from pretune.runs.files import write_text
    from pretune.runs.zero_shot import SENTIMENTS, ZeroShot
    from pretune.runs.zero_shot_files import Asking, Kind, ask, evaluated, read

    if kind not in get_args(Kind):
        raise choose("--kind", kind, get_args(Kind))
    _check(kind, {"acceptability": fit, "sentiment": words or append, "cloze": blank, "choice": None})
    if choices and kind not in ("choice", "cloze"):
        raise UsageError(f"--choices are for choice and cloze; leave it out for {kind}")
    asking = Asking(
        cast(Any, kind),
        tuple(text or ()),
        tuple(choices or ()),
        (label,) if label else (),
        file_format,
        encoding,
        dict(map(_pair, words)) if words else dict(SENTIMENTS),
        "very" if append is None else append,
        "_" if blank is None else blank,
        fit,
    )
    notes = Notes(quiet)
    samples, labelled, found = read(asking, file)
    notes(*found)
    answers, found = ask(ZeroShot.load(folder, device, batch_size), asking, samples)
    notes(*found)
    said = (answer_line(*each) for each in zip(samples, answers, strict=True))
    lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in said)
    if out is None:
        sys.stdout.write(lines)
    else:
        write_text(out, lines)
        notes(f"{len(answers)} answers in {out}")
    if not labelled or (kind == "acceptability" and fit is None):
        return
    evaluation = evaluated(asking, samples, answers, seed)
    if out is not None:
        print_evaluation(evaluation)
    else:
        stderr().print(f"{len(samples)} samples: {score_lines(evaluation.scores)}", soft_wrap=True)


def _check(kind: str, given: dict[str, object]) -> None:
    """Raise where an option of another kind is given."""
    options = {
        "acceptability": "--fit goes",
        "sentiment": "--word and --append go",
        "cloze": "--blank goes",
    }
    for of, value in given.items():
        if value is not None and of != kind:
            raise UsageError(f"{options[of]} with --kind {of} alone; leave that out for {kind}")


def _pair(said: str) -> tuple[str, str]:
    label, equals, word = said.partition("=")
    if not (label and equals and word):
        raise UsageError(f"--word is {said!r}; write it as LABEL=WORD, such as 1=positive")
    return label, word
