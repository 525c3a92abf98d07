"""evaluate, predict: commands that ask a model folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from pretune.cli.clusters import conll_text, print_clusters
from pretune.cli.common import (
    Choices,
    ConfigFile,
    Device,
    Documents,
    Encoding,
    Format,
    Kind,
    LabelSeparator,
    Notes,
    Quiet,
    Seed,
    stdout,
)
from pretune.cli.held_out import cache_of, evaluate_texts
from pretune.errors import UsageError, choose

if TYPE_CHECKING:
    from pretune.data.samples import Sample
    from pretune.runs.predictor import Evaluation
    from pretune.tasks.base import Answer

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="What `finetune` or `compare` left.")]
Text = Annotated[
    list[str] | None,
    typer.Option("--text", help="Column with the text; twice for pairs. As in training if not given."),
]
Label = Annotated[
    list[str] | None, typer.Option("--label", help="Column with the label. As in training if not given.")
]
BatchSize = Annotated[
    int, typer.Option("--batch-size", min=1, help="Samples at a time; answers do not depend on it.")
]


def evaluate(
    folder: Folder,
    test: Annotated[
        list[Path],
        typer.Argument(
            metavar="TEST…",
            help="Labelled file, read like the training file; for a pretrained folder text, a line or row "
            "a document, in one or more files, or folders of them.",
        ),
    ],
    out: Annotated[Path | None, typer.Option("--out", help="Write the scores as JSON as well.")] = None,
    text: Text = None,
    label: Label = None,
    choices: Choices = None,
    kind: Kind = None,
    label_separator: LabelSeparator = None,
    file_format: Format = None,
    encoding: Encoding = "utf-8",
    beside: Annotated[
        list[Path] | None,
        typer.Option(
            "--beside", metavar="DIR", help="Of pretrained folders: another to compare with; repeatable."
        ),
    ] = None,
    documents: Documents = None,
    stride: Annotated[
        int | None,
        typer.Option(
            "--stride",
            min=1,
            metavar="PIECES",
            help="Of a GPT, how far windows of long texts move: smaller is slower, and every piece has more "
            "before it. Half a context if not given.",
        ),
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(
            "--state",
            help="For perplexity. zero: each text alone; carry: on from the one before, as in training. zero "
            "if not given.",
        ),
    ] = None,
    cache: Annotated[
        int | None,
        typer.Option(
            "--cache",
            min=1,
            metavar="WORDS",
            help="For a ULMFiT's perplexity, state carried: words of the last positions are likelier, "
            "more so where the model was in a like state (Grave et al. 2017). So many; 500 is usual.",
        ),
    ] = None,
    cache_lambda: Annotated[
        float | None, typer.Option("--cache-lambda", help="Share of the cache, between 0 and 1; else 0.1.")
    ] = None,
    cache_theta: Annotated[
        float | None, typer.Option("--cache-theta", help="How much likeness counts; else 1.0.")
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size",
            min=1,
            help="Samples at a time; answers do not depend on it; with --state carry, the number of streams.",
        ),
    ] = 64,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    config: ConfigFile = None,
) -> None:
    """Score a model on labelled samples, with a 95 % bootstrap interval and the confusions.

    Columns have the names that the model was trained with, unless --text and --label say otherwise. Labels
    that the model never saw stay in and count as errors.

    What `pretrain`, `adapt` or `import` left is scored by what held-out text costs it: bits a character,
    perplexity per word and character, comparable between models of any tokens, and per token of its own.

    Example: pretune evaluate stars test.csv

    Language models: pretune evaluate models/elmo held-out.txt --beside models/gpt

    With a cache: pretune evaluate models/en text.txt --cache 500
    """
    from pretune.data.readers import LabelKind
    from pretune.runs.predictor import evaluate as run
    from pretune.runs.starts import is_pretrained

    if is_pretrained(folder):
        if label or kind or label_separator or choices:
            raise UsageError(f"{folder} knows no labels; it is scored by the perplexity of a text alone")
        evaluate_texts(
            folder,
            beside or [],
            test,
            out,
            text=text or [],
            documents=documents,
            file_format=file_format,
            encoding=encoding,
            state=state,
            cache=cache_of(cache, cache_lambda, cache_theta, state),
            stride=stride,
            batch_size=batch_size,
            seed=seed,
            device=device,
            quiet=quiet,
        )
        return
    if cache is not None or cache_lambda is not None or cache_theta is not None:
        raise UsageError(f"--cache is for the perplexity of a pretrained folder; {folder} has learned a task")
    if state is not None:
        raise UsageError(f"--state is for the perplexity of a pretrained folder; {folder} has learned a task")
    for option, given in {"--beside": beside, "--documents": documents, "--stride": stride}.items():
        if given:
            raise UsageError(f"{option} is for pretrained folders on text; {folder} has learned a task")
    if kind is not None and kind not in get_args(LabelKind):
        raise choose("--kind", kind, get_args(LabelKind))
    if len(test) > 1:
        raise UsageError(f"{folder} has learned a task; evaluate it on one labelled file at a time")
    evaluation = run(
        folder,
        test[0],
        text=text or (),
        label=label or (),
        choices=choices or (),
        kind=cast(Any, kind),
        label_separator=label_separator,
        format=file_format,
        encoding=encoding,
        batch_size=batch_size,
        device=device,
        seed=seed,
    )
    Notes(quiet)(*evaluation.notes)
    print_evaluation(evaluation)
    if out is not None:
        from pretune.runs.files import write_json

        write_json(out, evaluation.to_dict())


def print_evaluation(evaluation: Evaluation) -> None:
    """Scores, and for labels what was taken for what."""
    from rich.table import Table

    scores = Table("metric", "score", "95 % interval")
    for name, value in evaluation.scores.items():
        low, high = evaluation.intervals[name]
        scores.add_row(name, f"{value:.4f}", f"{low:.4f} … {high:.4f}")
    stdout().print(f"{evaluation.samples} samples")
    stdout().print(scores)
    if evaluation.labels:
        table = Table("label", "precision", "recall", "F1", "golds")
        for name, found in evaluation.labels.items():
            table.add_row(name, *(f"{x:.4f}" for x in found[:3]), f"{found.golds:,}")
        stdout().print(table)
    if evaluation.confusion is not None:
        names, counts = evaluation.confusion
        table = Table("gold ↓ answer →", *names)
        for name, row in zip(names, counts, strict=True):
            table.add_row(name, *(str(count) if count else "·" for count in row))
        stdout().print(table)


def predict(
    folder: Folder,
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="csv, tsv, jsonl, parquet, txt with a text a line, conll and conllu with a word a line; "
            "- is stdin.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Write JSON lines here, of coreference CoNLL's columns where it ends in .conll; else to the "
            "terminal.",
        ),
    ] = None,
    text: Text = None,
    choices: Choices = None,
    file_format: Format = None,
    encoding: Encoding = "utf-8",
    batch_size: BatchSize = 64,
    device: Device = "auto",
    quiet: Quiet = False,
    config: ConfigFile = None,
) -> None:
    """Answer every text: one JSON line each, in the order of the input; a table on a terminal.

    Example: pretune predict stars new.csv --out answers.jsonl

    From a pipe: echo "I loved it" | pretune predict stars -
    """
    from pretune.runs.predictor import Predictor, read_input

    notes = Notes(quiet)
    samples, found = read_input(folder, source, text or (), file_format, encoding, choices or ())
    notes(*found)
    predictor = Predictor.load(folder, device)
    answers = predictor.answer(samples, batch_size)
    if out is None and sys.stdout.isatty():
        _print_answers(samples, answers)
        return
    said = zip(samples, answers, strict=True)
    lines = "".join(json.dumps(answer_line(*each), ensure_ascii=False) + "\n" for each in said)
    if out is None:
        sys.stdout.write(lines)
        return
    if predictor.task.golds == "clusters" and out.suffix == ".conll":
        lines = conll_text(cast(Any, predictor.task), samples, answers)
    from pretune.runs.files import write_text

    write_text(out, lines)
    notes(f"{len(answers)} answers in {out}")


def answer_line(sample: Sample, answer: Answer) -> dict[str, Any]:
    """An answer that counts characters says of which text, and one that counts choices what it says.

    Of a question on a passage the line says its id and its words; the passage stays out.
    """
    if answer.choice is not None:
        return {"answer": sample.texts[1 + answer.choice]} | answer.to_dict()
    if answer.text is not None:
        return {"id": sample.key.partition(":")[2], "question": sample.texts[0]} | answer.to_dict()
    if answer.clusters is not None:
        return {"key": sample.key, "text": sample.texts[0]} | answer.to_dict()
    marked = {"predicate": [*sample.marks[0]]} if answer.spans is not None and sample.marks else {}
    return ({} if answer.spans is None else {"text": sample.texts[0]}) | marked | answer.to_dict()


def _print_answers(samples: list[Sample], answers: list[Answer]) -> None:
    from rich.table import Table

    if answers and answers[0].clusters is not None:
        print_clusters(samples, answers)
        return
    table = Table()
    table.add_column("text", no_wrap=True, ratio=1)
    table.add_column("answer")
    table.add_column("probability", justify="right")
    for sample, answer in zip(samples, answers, strict=True):
        if answer.text is not None:
            said, sure = answer.text or "–", f"{answer.scores['answer']:.2f}" if answer.text else ""
        elif answer.spans is not None:
            text, sure = sample.texts[0], ""
            said = ", ".join(f"{text[start:end]} {label}" for (start, end), label in answer.spans) or "–"
        elif answer.value is not None:
            said, sure = f"{answer.value:.4g}", ""
        elif answer.choice is not None:
            said, sure = sample.texts[1 + answer.choice], f"{answer.scores[str(answer.choice)]:.2f}"
        elif answer.labels is not None:
            said = ", ".join(answer.labels) or "–"
            sure = ", ".join(f"{answer.scores[name]:.2f}" for name in answer.labels)
        else:
            said = str(answer.label)
            sure = f"{answer.scores[said]:.2f}" if said in answer.scores else ""
        one = answer.choice is not None or answer.text is not None  # the question alone
        asked = sample.texts[:1] if one else sample.texts
        if answer.spans is not None and sample.marks:  # the predicate that is asked about, in brackets
            text, (start, end) = sample.texts[0], sample.marks[0]
            asked = (f"{text[:start]}[{text[start:end]}]{text[end:]}",)
        table.add_row(_plain(" / ".join(asked)), _plain(said), sure)
    stdout().print(table)


def _plain(text: str) -> Any:
    from rich.text import Text as Styled

    return Styled(" ".join(text.split()), overflow="ellipsis")
