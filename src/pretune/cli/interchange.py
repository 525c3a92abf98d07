"""import, export: commands between published files and model folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pretune.cli.common import ConfigFile, Notes, Out, Overwrite, Quiet, setting, settings


def import_(
    context: typer.Context,
    method: Annotated[
        str, typer.Argument(metavar="METHOD", help="bert, gpt, elmo, ulmfit, wordvectors or hub.")
    ],
    out: Out,
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILES",
            help="bert, gpt: the folder of Google's, OpenAI's or transformers' files; elmo: a folder or zip "
            "with options.json and weights; ulmfit: the weights (.pth, .h5, .pt, .safetensors), or a folder, "
            "tgz or zip of all files; wordvectors: the file of vectors; hub: any folder of transformers, or "
            "hf:OWNER/NAME.",
        ),
    ] = None,
    options: Annotated[Path | None, typer.Option("--options", help="elmo: the model's options.json.")] = None,
    weights: Annotated[Path | None, typer.Option("--weights", help="elmo: its weights, .hdf5.")] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="elmo, bert: weights of TensorFlow, model.ckpt-N without .index."),
    ] = None,
    softmax: Annotated[
        Path | None,
        typer.Option("--softmax", help="elmo: softmax weights, .hdf5, so that it predicts; needs --vocab."),
    ] = None,
    embedding: Annotated[
        Path | None, typer.Option("--embedding", help="elmo that reads words: their vectors, .hdf5.")
    ] = None,
    vocab: Annotated[
        Path | None,
        typer.Option(
            "--vocab", help="The words, one a line, also .gz; ulmfit: itos.pkl, or .json; bert: vocab.txt."
        ),
    ] = None,
    pieces: Annotated[
        Path | None, typer.Option("--pieces", help="ulmfit: the SentencePiece model, spm.model.")
    ] = None,
    backward: Annotated[
        Path | None,
        typer.Option("--backward", help="ulmfit: weights of the backward model, to go with FILES."),
    ] = None,
    direction: Annotated[
        str | None,
        typer.Option("--direction", help="ulmfit: forward, backward or both; by the names of files."),
    ] = None,
    rules: Annotated[
        str | None,
        typer.Option("--rules", help="ulmfit: whose text rules: v07, v1, v2 or plain; by the vocabulary."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels", help="A classifier's labels in order, as in neg,pos, if its file does not say them."
        ),
    ] = None,
    encoder_only: Annotated[
        bool, typer.Option("--encoder-only", help="Of a classifier: leave its head out.")
    ] = False,
    seed: Annotated[
        int, typer.Option("--seed", help="bert, gpt: draws the vectors that files lack, of special tokens.")
    ] = 0,
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
        setting(
            "codec.pretokenizer=original (gpt), encoder.activation=gelu_tanh (bert), codec.split=lines "
            "(elmo), task.kind=many or encoder.max_len=1000 (ulmfit), codec.max_vocab=50000 or "
            "encoder.pooling=mean_max (wordvectors)"
        ),
    ] = None,
) -> None:
    """Published weights as a model folder, which `embed`, `finetune` and all others take.

    Every tensor is accounted for, every shape checked, every value finite; no code in a file is ever run.

    Example: pretune import elmo --options options.json --weights lm_weights.hdf5 --out models/elmo

    That predicts as well: … --softmax softmax_weights.hdf5 --vocab vocab.txt

    From TensorFlow: … --options options.json --checkpoint model.ckpt-935588 --vocab vocab.txt

    ULMFiT: pretune import ulmfit lstm_fwd.pth --vocab itos_wt103.pkl --out models/wt103

    A whole release: pretune import ulmfit wt103-fwd.tgz --out models/wt103

    BERT, of transformers or Google: pretune import bert bert-base-uncased --out models/bert

    GPT, read as by its authors: pretune import gpt openai-gpt --out models/gpt codec.pretokenizer=original

    A classifier: pretune import ulmfit clas.pth --vocab itos.pkl --labels neg,pos --out models/reviews
    """
    from pretune.runs.importing import import_published, importer
    from pretune.runs.published import Published

    takes = importer(method).takes
    said = settings(context, overrides, [name for name in ("codec", "encoder", "task") if name in takes])
    spoken = {"language": language, "segmenter": segmenter, "direction": direction, "rules": rules}
    published = Published(
        source=source,
        options=options,
        weights=weights,
        checkpoint=checkpoint,
        softmax=softmax,
        embedding=embedding,
        vocab=vocab,
        pieces=pieces,
        backward=backward,
        labels=tuple(labels.split(",")) if labels else (),
        encoder_only=encoder_only,
        seed=seed,
        codec={**said["codec"], **{name: value for name, value in spoken.items() if value is not None}},
        encoder=said.get("encoder", {}),
        task=said.get("task", {}),
    )
    Notes(quiet)(*import_published(method, published, out, overwrite), f"saved in {out}")


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A model folder.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="transformers: a folder for its from_pretrained and pipeline; openai: arrays as GPT's "
            "release; tensorflow: a checkpoint as BERT's; bilm: options.json and lm_weights.hdf5 of ELMo; "
            "fastai: .pth and itos.pkl of ULMFiT.",
        ),
    ],
    out: Out,
    quiet: Quiet = False,
    config: ConfigFile = None,
) -> None:
    """What a model learned from text, in the layout in which its method was published.

    Of a finetuned model it is the classifier; openai and bilm have room for the encoder alone. What a layout
    cannot say is refused, or told of.

    Example: pretune export models/reviews --to transformers --out hf

    Example: pretune export models/elmo --to bilm --out bilm

    Example: pretune export models/reviews --to fastai --out fastai
    """
    from pretune.runs.importing import export as run

    Notes(quiet)(*run(folder, to, out), f"saved in {out}")
