"""import, export: commands between published files and model folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pretune.cli.common import ConfigFile, Notes, Out, Overwrite, Quiet, setting, settings


def import_(
    context: typer.Context,
    method: Annotated[str, typer.Argument(metavar="METHOD", help="elmo or wordvectors.")],
    out: Out,
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILES",
            help="elmo: a folder or zip with options.json and weights; wordvectors: the file of vectors.",
        ),
    ] = None,
    options: Annotated[Path | None, typer.Option("--options", help="elmo: the model's options.json.")] = None,
    weights: Annotated[Path | None, typer.Option("--weights", help="elmo: its weights, .hdf5.")] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="elmo: or those of TensorFlow, model.ckpt-N without .index."),
    ] = None,
    softmax: Annotated[
        Path | None,
        typer.Option("--softmax", help="elmo: softmax weights, .hdf5, so that it predicts; needs --vocab."),
    ] = None,
    embedding: Annotated[
        Path | None, typer.Option("--embedding", help="elmo that reads words: their vectors, .hdf5.")
    ] = None,
    vocab: Annotated[Path | None, typer.Option("--vocab", help="The words, one a line; .txt or .gz.")] = None,
    language: Annotated[
        str | None, typer.Option("--language", help="Of the texts: en, zh, …, to find words by.")
    ] = None,
    segmenter: Annotated[
        str | None,
        typer.Option("--segmenter", help="What finds words: words, spaces (text already split), jieba, …"),
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    config: ConfigFile = None,
    overrides: Annotated[
        list[str] | None,
        setting("codec.split=lines (elmo), codec.max_vocab=50000 or encoder.pooling=mean_max (wordvectors)"),
    ] = None,
) -> None:
    """Published weights as a model folder, which `embed`, `finetune` and all others take.

    Every tensor is accounted for, every shape checked, every value finite; no pickle is read.

    Example: pretune import elmo --options options.json --weights lm_weights.hdf5 --out models/elmo

    That predicts as well: … --softmax softmax_weights.hdf5 --vocab vocab.txt

    From TensorFlow: … --options options.json --checkpoint model.ckpt-935588 --vocab vocab.txt
    """
    from pretune.runs.importing import Published, import_published, importer

    takes = importer(method).takes
    said = settings(context, overrides, [name for name in ("codec", "encoder") if name in takes])
    spoken = {"language": language, "segmenter": segmenter}
    codec = {**said["codec"], **{name: value for name, value in spoken.items() if value is not None}}
    encoder = said.get("encoder", {})
    published = Published(source, options, weights, checkpoint, softmax, embedding, vocab, codec, encoder)
    Notes(quiet)(*import_published(method, published, out, overwrite), f"saved in {out}")


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A model folder.")],
    to: Annotated[str, typer.Option("--to", help="bilm: options.json and lm_weights.hdf5 of ELMo.")],
    out: Out,
    quiet: Quiet = False,
    config: ConfigFile = None,
) -> None:
    """What a model learned from text, in the layout in which its method was published.

    Of a finetuned folder it is the encoder; task heads have no published layout.

    Example: pretune export models/elmo --to bilm --out bilm
    """
    from pretune.runs.importing import export as run

    Notes(quiet)(*run(folder, to, out), f"saved in {out}")
