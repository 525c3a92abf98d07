"""finetune: the command that teaches a task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pretune.cli.clusters import grouping, one_by_one
from pretune.cli.common import (
    Choices,
    ConfigFile,
    Device,
    Encoding,
    Format,
    Kind,
    Label,
    LabelSeparator,
    Notes,
    Overwrite,
    Plan,
    Quiet,
    Resume,
    Seed,
    Set,
    Text,
    Workers,
    done,
    fitting,
    print_plan,
    score_lines,
    settings,
    stdout,
)
from pretune.cli.inputs import check_head, labelled, several, start_of, started_from, tagged
from pretune.cli.passages import answering
from pretune.cli.predicates import labelling_roles
from pretune.cli.questions import choosing
from pretune.cli.rates import FindStage, LrFind, check_out_of, tell
from pretune.cli.train import Language, Size
from pretune.errors import UsageError, choose

if TYPE_CHECKING:
    from pretune.tasks.base import Task

Vectors = Annotated[
    Path | None,
    typer.Option("--vectors", help="For wordvectors: a GloVe or word2vec file, also .gz or .xz."),
]


def finetune(
    context: typer.Context,
    task: Annotated[
        str, typer.Argument(metavar="TASK", help="classification, tagging, srl, choice, qa or coref.")
    ],
    train: Annotated[
        Path,
        typer.Argument(
            metavar="TRAIN",
            help="Labelled csv, tsv, jsonl, parquet, or a folder a class; for tagging CoNLL or CoNLL-U; "
            "for srl CoNLL with a column a predicate; "
            "for choice a table of questions, their choices and answers; for qa SQuAD's json, or a table of "
            "questions, passages and answers; for coref CoNLL 2012, a folder of such files, or jsonl with "
            "text and clusters.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the result; not needed with --plan or --lr-find.")
    ] = None,
    valid: Annotated[
        Path | None, typer.Option("--valid", help="Labelled file to choose the best epoch by.")
    ] = None,
    valid_share: Annotated[
        float,
        typer.Option("--valid-share", min=0.0, max=0.9, help="Held out of TRAIN where no --valid is given."),
    ] = 0.1,
    start: Annotated[
        str,
        typer.Option(
            "--from",
            help="A folder of pretrain, adapt, import or finetune; one of transformers, or hf:OWNER/NAME of "
            "the hub; a starter (`pretune starters`), or en, zh: the starter of --method; or scratch.",
        ),
    ] = "scratch",
    join: Annotated[
        str | None,
        typer.Option(
            "--join",
            help="A folder with both directions of ulmfit becomes one model that reads them side by side "
            "(concat, usual for tagging, srl, qa and coref), or two whose probabilities are averaged "
            "(average, usual else).",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", help="From scratch or a starter: bert, elmo, gpt, ulmfit or wordvectors."),
    ] = None,
    size: Size = "small",
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            help="features, gradual, full, or gradual by a schedule (gradual-paper, gradual-fastai2, …); "
            "else the method's own, from scratch full.",
        ),
    ] = None,
    vectors: Vectors = None,
    language: Language = None,
    text: Text = None,
    label: Label = None,
    choices: Choices = None,
    kind: Kind = None,
    label_separator: LabelSeparator = None,
    file_format: Format = None,
    encoding: Encoding = "utf-8",
    seed: Seed = 0,
    device: Device = "auto",
    workers: Workers = 0,
    plan: Plan = False,
    lr_find: LrFind = None,
    lr_find_stage: FindStage = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    config: ConfigFile = None,
    overrides: Set = None,
) -> None:
    """Teach an encoder a task from labelled samples; leaves a folder that `predict` and Python use.

    features freezes the encoder and learns a mix of its layers (Peters et al. 2018); gradual thaws from the
    top, slower below (Howard & Ruder 2018: rate 0.01 / 2.6 per layer, slanted triangles); full moves
    everything at one rate (Radford et al. 2018, Devlin et al. 2019). The best epoch by validation is kept.

    Example: pretune finetune classification train.csv --text review --label stars --from models/en --out m

    Tags of words: pretune finetune tagging train.conllu --from models/en --out tagger

    Semantic roles: pretune finetune srl train.conll --from models/elmo task.highway_layers=8 --out roles

    Multiple choice: pretune finetune choice train.jsonl --from models/en --out chooser

    Coreference: pretune finetune coref train.conll --valid dev.conll --from models/elmo --out coref

    Answers in passages: pretune finetune qa train.json --valid dev.json --from models/en --out reader
    """
    from pretune.config import update
    from pretune.runs.measure import Measure
    from pretune.runs.mixes import mix_lines
    from pretune.runs.run import finetune as run
    from pretune.runs.run import is_main, plan_of, recipe_for, report
    from pretune.runs.trained import mixes_of, task_class

    notes = Notes(quiet)
    said = settings(context, overrides, ("task", "recipe", "encoder", "codec", "fitting"))
    if plan and lr_find is not None:
        raise UsageError("--plan trains nothing and --lr-find a little; give one of them")
    asked, start = start, start_of(start, method)
    if not plan:
        out = check_out_of(out, lr_find, lr_find_stage, resume, overwrite)
    asks = task_class(task)
    reading = {"text": text or (), "label": label or (), "label_separator": label_separator}
    reading |= {"format": file_format, "encoding": encoding}
    if asks.golds != "labels" and (kind is not None or label_separator is not None):
        raise UsageError("--kind and --label-separator are for classification; leave them out")
    if asks.golds != "choices" and choices:
        raise UsageError(f"--choices are for the task choice, not for {task}; leave them out")
    if asks.golds == "choices":
        reading["choices"] = choices or ()
        learn, check, prints = choosing(train, valid, valid_share, reading, seed, notes)
    elif asks.golds == "answers":
        learn, check, prints = answering(train, valid, valid_share, reading, seed, notes)
    elif asks.golds == "clusters":
        learn, check, prints = grouping(train, valid, valid_share, reading, seed, notes)
        said["recipe"] = one_by_one(recipe, said["recipe"], notes)
    elif asks.golds == "roles":
        learn, check, prints = labelling_roles(train, valid, valid_share, reading, seed, notes)
    elif asks.golds == "tags":
        learn, check, prints = tagged(train, valid, valid_share, reading, seed, notes)
    else:
        learn, check, prints = labelled(train, valid, valid_share, kind, reading, seed, notes)
    if join is not None and join not in ("concat", "average"):
        raise choose("--join", join, ("concat", "average"))
    if join is not None and not several(start):
        raise UsageError(
            f"--join is for a folder with both directions, which --from {start} is not; "
            "for ulmfit from scratch there is encoder.directions=both"
        )
    if asks.golds == "clusters" and join == "average":
        raise UsageError("--join average: clusters of two models cannot be averaged; give concat, or nothing")
    usual = "concat" if asks.golds in ("tags", "answers", "roles", "clusters") else "average"
    started = started_from(start, join or usual, method, size, vectors, language, said, learn, seed, notes)
    one = started[0] if isinstance(started, list) else started
    question: Task = update(
        asks.of(
            learn if prints["kind"] == "number" else [*learn, *check],
            prints["kind"],
            **{name: x for name, x in one.method.task_options.items() if name in asks.__dataclass_fields__},
        ),
        said["task"],
        "task",
    )
    check_head(question, said["task"])
    way = recipe_for(one, recipe, said["recipe"])
    if plan:
        print_plan(plan_of(one, question, way))
        return
    assert out is not None
    how = fitting(
        out,
        said["fitting"],
        seed=seed,
        device=device,
        workers=workers,
        resume=resume,
        quiet=quiet,
        label=f"finetune {one.method.name}",
    )
    if lr_find is not None:
        from pretune.runs.rates import task_rates

        rates = task_rates(started, question, way, learn, how, lr_find_stage or -1)
        tell(rates, lr_find, "recipe.lr", getattr(way, "lr", None))
        return
    with Measure() as cost:
        trained, fitted = run(started, question, way, learn, check, how)
    if is_main():
        config_of: dict[str, Any] = {
            "method": one.method.name,
            "start": str(vectors or (start if start == asked else Path(start).name)),
            "recipe": way,
            "encoder": one.encoder_config,
            "codec": one.codec.describe(),
            "task": question,
            "fitting": how,
        }
        info = {"parameters": trained.parameters, "data": prints, "history": fitted.history}
        trained.save(out, report(cost, fitted.best, config_of, info))
        if fitted.best:
            stdout().print(f"validation: {score_lines(fitted.best)} ({len(check)} samples)", soft_wrap=True)
        if (threshold := getattr(trained.task, "null_threshold", None)) is not None:
            said_so = f"nothing is answered where the difference exceeds {threshold:.4g}"
            stdout().print(said_so, soft_wrap=True)
        for line in mix_lines(mixes_of(trained)):
            stdout().print(line, soft_wrap=True)
    done(out, notes)
