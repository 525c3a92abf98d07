"""compare: which way of using pretrained language models serves your data, in one command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pretune.cli.common import (
    Choices,
    ConfigFile,
    Device,
    Encoding,
    Kind,
    Label,
    LabelSeparator,
    Quiet,
    SampleFormat,
    Seed,
    Set,
    Text,
    settings,
    stderr,
    stdout,
)
from pretune.errors import UsageError


def compare(
    context: typer.Context,
    train: Annotated[
        Path | None,
        typer.Argument(
            metavar="TRAIN",
            help="Labelled file (csv, tsv, jsonl, parquet, conll, conllu, SQuAD's json) or folder per class.",
        ),
    ] = None,
    test: Annotated[
        Path | None, typer.Option("--test", help="Labelled test file; else a share of TRAIN is held out.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for the report and best model; needed unless --demo. The same again goes on.",
        ),
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Needs no file: documentation of installed libraries, told apart.")
    ] = False,
    task: Annotated[
        str,
        typer.Option(
            "--task",
            help="classification: one label, many labels or a number; choice: multiple choice; tagging: a "
            "tag for each word; qa: answers in passages; srl: semantic roles; coref: coreference.",
        ),
    ] = "classification",
    text: Text = None,
    label: Label = None,
    choices: Choices = None,
    kind: Kind = None,
    label_separator: LabelSeparator = None,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            help="Of tfidf, wordvectors, ulmfit, elmo, gpt, bert; commas between. In place of tfidf tagging "
            "has unigram (each word's most frequent tag), qa window (words nearest to the question's), srl "
            "rolecounts (by place and word), coref strings (the same words). If not given the first three "
            "and those of --from.",
        ),
    ] = None,
    recipes: Annotated[
        str | None,
        typer.Option(
            "--recipes",
            help="Of features, gradual, full, and gradual by a schedule (gradual-paper, gradual-fastai2, …); "
            "for every encoder; each its own if not given.",
        ),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(
            "--sizes",
            help="Numbers of labels (tagged sentences, questions, predicates, documents), such as "
            "100,500,all. If not given "
            "100,200,500,1000; a small pool whole.",
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", help="Trainings of each cell.  [default: 3]")
    ] = None,
    start: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            help="A pretrained folder, one of transformers, or hf:OWNER/NAME of the hub; repeat for more. "
            "Its method is read from it. en, zh: the starters of that language (`pretune starters`).",
        ),
    ] = None,
    vectors: Annotated[
        Path | None, typer.Option("--vectors", help="GloVe or word2vec file for wordvectors, also .gz, .xz.")
    ] = None,
    unlabelled: Annotated[
        list[str] | None,
        typer.Option(
            "--unlabelled",
            help="Text file or folder, beside the training texts: pretrained models are adapted to them, and "
            "where a method has none, one learns from them; repeat for more. none: neither.",
        ),
    ] = None,
    no_scratch: Annotated[
        bool, typer.Option("--no-scratch", help="Leave out the same encoders from random weights.")
    ] = False,
    language: Annotated[
        str | None, typer.Option("--language", help="en, zh, …; guessed from the characters and printed.")
    ] = None,
    encoder_size: Annotated[
        str | None,
        typer.Option(
            "--encoder-size",
            help="Of encoders that have no --from. All: tiny, small; all but elmo: base; all but "
            "wordvectors: medium; bert: large; elmo: original.  [default: small]",
        ),
    ] = None,
    valid_share: Annotated[
        float, typer.Option("--valid-share", help="Of the labels, to choose epochs and models by.")
    ] = 0.2,
    test_share: Annotated[
        float, typer.Option("--test-share", help="Held out of TRAIN without --test.")
    ] = 0.2,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", help="Trainings at a time; one a core, or one on a GPU, if not given."),
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(
            "--target",
            help="A score, such as 0.9: how many labels does it take, by learning curves of three sizes or "
            "more? The best score if not given.",
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            "--only", help="Run trainings called so: method/recipe/start/size/seed, with * for any."
        ),
    ] = None,
    file_format: SampleFormat = None,
    encoding: Encoding = "utf-8",
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    config: ConfigFile = None,
    overrides: Set = None,
) -> None:
    """Which way of using pretrained language models serves your data, from how many labels, at which cost?

    Trains methods × recipes × sizes × seeds on the same samples, beside a plain baseline (TF-IDF with
    logistic regression) and the same encoders from scratch. OUT gets report.html, report.md, comparison.json
    and best/, a model that `pretune predict` uses. Epochs and models are chosen by validation data, and so is
    the recommendation: the simplest approach within one standard error of the best, unless the test data say
    clearly that it is worse. Interrupted, the same command goes on; finished trainings are never run again.

    Example: pretune compare train.csv --text review --label stars --from models/en --out report

    Tags of words: pretune compare train.conll --test test.conll --task tagging --from models/en --out report

    Answers in passages: pretune compare train.json --test dev.json --task qa --from models/bert --out report

    Settings: recipe.epochs=4 for all, ulmfit.recipe.lr=0.005 for one method
    """
    from pretune.runs.compare import DEMO
    from pretune.runs.compare import compare as run
    from pretune.runs.entries import compared
    from pretune.runs.options import TABLES_OF_SETTINGS, Options
    from pretune.runs.report import headline
    from pretune.runs.starters import expanded
    from pretune.runs.watch import ranking, watcher

    default = Options()
    named = _names(methods) or (DEMO.methods if demo else ())
    folders = [Path(folder) for folder in expanded(start or (), named)]
    chosen = compared(named, folders, task)
    said = settings(context, overrides, (*TABLES_OF_SETTINGS, *chosen))
    given: dict[str, Any] = {
        "methods": chosen,
        "recipes": _names(recipes),
        "sizes": _sizes(sizes) or (DEMO.sizes if demo else ()),
        "seeds": seeds if seeds is not None else DEMO.seeds if demo else default.seeds,
        "encoder_size": encoder_size or (DEMO.encoder_size if demo else default.encoder_size),
        "settings": {name: table for name, table in said.items() if table},
    }
    if demo and task != "classification":
        raise UsageError(f"--task {task} cannot be given with --demo, whose texts are classified")
    if demo:
        given |= _demo(train, test, unlabelled, chosen, given["settings"])
    elif train is None:
        raise UsageError("TRAIN is missing: give a labelled file, or --demo")
    else:
        given |= {"train": train, "test": test, "unlabelled": _paths(unlabelled), "language": language}
    out = out or (DEMO.out if demo else None)
    if out is None:
        raise UsageError("--out is missing: give a folder for the report and the best model")
    console = stderr()
    console.quiet = quiet
    try:
        comparison = run(
            **given,
            text=text or (),
            label=label or (),
            choices=choices or (),
            kind=kind,
            label_separator=label_separator,
            format=file_format,
            encoding=encoding,
            task=task,
            seed=seed,
            from_=folders,
            vectors=vectors,
            scratch=not no_scratch,
            valid_share=valid_share,
            test_share=test_share,
            jobs=jobs,
            device=device,
            only=only,
            target=target,
            out=out,
            watch=watcher(console),
        )
    except KeyboardInterrupt:
        console.print("Finished trainings are kept; the same command goes on from here.", style="yellow")
        raise
    shown = stdout()
    shown.print(ranking(comparison))
    shown.print(headline(comparison.recommendation)[0], style="bold", markup=False, soft_wrap=True)
    shown.print(f"report: {out / 'report.html'}", markup=False, soft_wrap=True)
    shown.print(f"model: {out / 'best'}", markup=False, soft_wrap=True)


def _names(said: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in said.split(",") if name.strip()) if said else ()


def _sizes(said: str | None) -> tuple[Any, ...]:
    found: list[int | str] = []
    for name in _names(said):
        if name != "all" and not (name.isdecimal() and int(name)):
            raise UsageError(f"--sizes: {name!r} is no number of labels; write 100,500 or 100,all")
        found.append("all" if name == "all" else int(name))
    return tuple(found)


def _paths(said: Sequence[str] | None) -> Any:
    if not said:
        return None
    if "none" in said:
        if len(said) > 1:
            raise UsageError("--unlabelled none stands alone: it switches adaptation off")
        return "none"
    return [Path(name) for name in said]


def _demo(
    train: Path | None,
    test: Path | None,
    unlabelled: Sequence[str] | None,
    methods: Sequence[str],
    said: dict[str, Any],
) -> dict[str, Any]:
    """The built-in data set in place of files."""
    from pretune.config import merge
    from pretune.data.demo import demo
    from pretune.runs.compare import DEMO

    for option, value in (("TRAIN", train), ("--test", test), ("--unlabelled", unlabelled)):
        if value:
            raise UsageError(f"{option} cannot be given with --demo, which has its own data")
    data = demo()
    return {
        "train": data.train,
        "test": data.test,
        "unlabelled": data.unlabelled,
        "language": "en",
        "name": "which library does this documentation come from?",
        "settings": merge({name: x for name, x in DEMO.settings.items() if name in methods}, said),
    }
