"""pretrain, adapt: commands that teach a network from raw text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from pretune.cli.common import (
    ConfigFile,
    Device,
    Documents,
    Encoding,
    Notes,
    Overwrite,
    Quiet,
    Resume,
    Seed,
    Workers,
    done,
    fitting,
    score_lines,
    setting,
    settings,
)
from pretune.cli.inputs import codec_config, corpora, directions
from pretune.cli.rates import FindStage, LrFind, check_out_of, rate_of, tell
from pretune.errors import choose

OutOrPlot = Annotated[
    Path | None, typer.Option("--out", help="Folder for the result; not needed with --lr-find.")
]
Paths = Annotated[
    list[Path], typer.Argument(metavar="CORPUS…", help="Text files or folders; .jsonl, .csv, .gz, .xz.")
]
CorpusText = Annotated[str | None, typer.Option("--text", help="Column with the text in tables of a corpus.")]
HeldOut = Annotated[
    int,
    typer.Option("--held-out", min=0, help="One in so many documents is kept for validation; 0: none."),
]
Size = Annotated[
    str,
    typer.Option(
        "--size",
        help="Of a new encoder. bert: tiny, small, medium, base, large; elmo: tiny, small, medium, original; "
        "gpt: tiny, small, medium, base; ulmfit: tiny, small, medium, base, multifit; wordvectors: tiny, "
        "small, base.",
    ),
]
Language = Annotated[
    str | None,
    typer.Option("--language", help="Of the texts: en, zh, …, to find words by; guessed if not given."),
]


def pretrain(
    context: typer.Context,
    method: Annotated[str, typer.Argument(metavar="METHOD", help="bert, elmo, gpt, ulmfit or wordvectors.")],
    corpus: Paths,
    out: OutOrPlot = None,
    size: Size = "small",
    language: Language = None,
    direction: Annotated[
        str, typer.Option("--direction", help="For ulmfit: forward, backward, or both, to be averaged.")
    ] = "forward",
    documents: Documents = None,
    text: CorpusText = None,
    held_out: HeldOut = 100,
    encoding: Encoding = "utf-8",
    seed: Seed = 0,
    device: Device = "auto",
    workers: Workers = 0,
    lr_find: LrFind = None,
    lr_find_stage: FindStage = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    config: ConfigFile = None,
    overrides: Annotated[
        list[str] | None,
        setting("pretraining.epochs=3, codec.max_vocab=20000 or fitting.precision=bf16"),
    ] = None,
) -> None:
    """Learn from raw text alone; what `adapt` and `finetune` start from.

    ulmfit learns to say the next word, with the AWD-LSTM and the regularisation of Merity et al. (2017); elmo
    the next word from the left and from the right, of words spelled out (Peters et al. 2018); gpt the next
    piece, in stretches of 512 (Radford et al. 2018); bert pieces masked out of pairs, and whether the second
    follows the first (Devlin et al. 2019); wordvectors learns word2vec. The vocabulary is learned first, in
    one pass; then texts are turned into ids once, in a file that is mapped into memory, so a corpus may be
    larger than memory.

    Example: pretune pretrain ulmfit books/ --size small --out models/en

    Others: pretune pretrain bert books/ --size tiny --out models/bert

    A rate first: pretune pretrain ulmfit books/ --lr-find rates.svg

    Chinese: pretune pretrain ulmfit zh.txt.xz --language zh --documents line --out models/zh
    """
    from pretune.config import update
    from pretune.runs.run import TABLES, is_main
    from pretune.runs.run import pretrain as run
    from pretune.runs.starts import method_to_begin

    notes = Notes(quiet)
    said = settings(context, overrides, ("pretraining", "encoder", "codec", "fitting"))
    out = check_out_of(out, lr_find, lr_find_stage, resume, overwrite)
    chosen = method_to_begin(method)
    if size not in chosen.sizes:
        raise choose("--size", size, chosen.sizes)
    codec = codec_config(chosen, said["codec"], language)
    read, valid, prints = corpora(corpus, documents, text, encoding, held_out, notes.quiet)
    how = fitting(
        out,
        said["fitting"],
        seed=seed,
        device=device,
        workers=workers,
        resume=resume,
        quiet=quiet,
        label=f"pretrain {method}",
    )
    pretraining = update(chosen.pretraining, said["pretraining"], "pretraining", TABLES)
    codecs = directions(chosen, codec, direction)
    shape = update(chosen.sizes[size], said["encoder"], "encoder", TABLES)
    if lr_find is not None:
        from pretune.runs.rates import pretraining_rates

        found = pretraining_rates(chosen, read, size, pretraining, codecs, shape, how, lr_find_stage or -1)
        name, now = rate_of(pretraining, found.stage)
        tell(found, lr_find, f"pretraining.{name}", now)
        return
    scores = run(
        chosen,
        read,
        valid,
        out,
        size=size,
        pretraining=pretraining,
        codec_config=codecs,
        encoder_config=shape,
        fitting=how,
        info={"data": prints},
    )
    if is_main():  # the others do not wait until it is written
        notes(codec_of(out), score_lines(scores))
    done(out, notes)


def adapt(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Of `pretrain`, `import`, `finetune` or `adapt`.")
    ],
    corpus: Paths,
    out: OutOrPlot = None,
    vocabulary: Annotated[
        str | None,
        typer.Option(
            "--vocabulary",
            help="Words to predict. target: those of this corpus (ulmfit's default); union: the old ones as "
            "well; keep: the old ones alone (elmo's).",
        ),
    ] = None,
    documents: Documents = None,
    text: CorpusText = None,
    held_out: HeldOut = 100,
    encoding: Encoding = "utf-8",
    seed: Seed = 0,
    device: Device = "auto",
    workers: Workers = 0,
    lr_find: LrFind = None,
    lr_find_stage: FindStage = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    config: ConfigFile = None,
    overrides: Annotated[
        list[str] | None, setting("adaptation.epochs=3, adaptation.lr=0.001 or fitting.precision=bf16")
    ] = None,
) -> None:
    """Go on learning from the target's own text, unlabelled (ULMFiT's second stage, ELMo's appendix A.1).

    For ulmfit the vocabulary is learned anew from this corpus; words that the old one knew keep their
    vectors, new ones begin with the mean (Howard & Ruder 2018, section 3.2). elmo reads any word and goes on
    predicting the old ones; one without a softmax, imported so or finetuned, learns one here. gpt and bert
    keep their pieces.

    Example: pretune adapt models/en reviews.csv --text review --out models/reviews
    """
    from pretune.config import update
    from pretune.methods.base import Vocabulary
    from pretune.runs.run import TABLES, is_main, load_start
    from pretune.runs.run import adapt as run

    notes = Notes(quiet)
    said = settings(context, overrides, ("adaptation", "fitting"))
    out = check_out_of(out, lr_find, lr_find_stage, resume, overwrite)
    if vocabulary is not None and vocabulary not in get_args(Vocabulary):
        raise choose("--vocabulary", vocabulary, get_args(Vocabulary))
    start = load_start(folder)
    one = start[0] if isinstance(start, list) else start
    if one.method.learner(one.encoder_config) != one.encoder_config:
        notes(f"{folder} has no softmax; a fresh one is learned")
    read, valid, prints = corpora(corpus, documents, text, encoding, held_out, notes.quiet)
    how = fitting(
        out,
        said["fitting"],
        seed=seed,
        device=device,
        workers=workers,
        resume=resume,
        quiet=quiet,
        label=f"adapt {folder.name}",
    )
    adaptation = update(one.method.adaptation, said["adaptation"], "adaptation", TABLES)
    words = cast(Vocabulary | None, vocabulary)
    if lr_find is not None:
        from pretune.runs.rates import adaptation_rates

        found = adaptation_rates(folder, read, adaptation, words, how, lr_find_stage or -1)
        name, now = rate_of(adaptation, found.stage)
        tell(found, lr_find, f"adaptation.{name}", now)
        return
    scores = run(
        folder, read, valid, out, adaptation=adaptation, vocabulary=words, fitting=how, info={"data": prints}
    )
    if is_main():  # the others do not wait until it is written
        notes(codec_of(out), score_lines(scores))
    done(out, notes)


def codec_of(folder: Path) -> str:
    """How a pretrained folder's codec splits text."""
    from pretune.runs.folders import read_config
    from pretune.runs.starts import member_folders

    config = read_config(folder)
    if config["kind"] == "ensemble":
        config = read_config(member_folders(folder, config)[0])
    return f"text is read as {config['codec']}"
