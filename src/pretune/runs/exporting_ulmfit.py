"""ULMFiT's folders as files of fastai 2: language model or classifier, encoder, vocabulary, how to load."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pretune.data.vocab import write_text
from pretune.errors import UserError
from pretune.methods.ulmfit.encoder import AWDLSTM
from pretune.methods.ulmfit.generations import fastai_words
from pretune.methods.ulmfit.heads import exported_head
from pretune.methods.ulmfit.tokens import UlmfitCodec
from pretune.methods.ulmfit.weights import exported, language_model
from pretune.runs.folders import read_config
from pretune.runs.run import load_start, load_trained
from pretune.runs.starts import Start, member_folders
from pretune.runs.trained import TrainedModel
from pretune.tasks.classification import Classification
from pretune.tasks.head_kinds import READERS
from pretune.tasks.summary_head import ClassificationHead

SHORT = {"forward": "fwd", "backward": "bwd"}
LANGUAGE_MODEL = """\
{name}: a language model; encoder_{way}.pth: the same without its decoder; itos.pkl: its words.

    import pickle, torch
    from fastai.text.all import *

    words = pickle.load(open("itos.pkl", "rb"))
    config = awd_lstm_lm_config | dict(emb_sz={embedding}, n_hid={hidden}, n_layers={layers})
    model = get_language_model(AWD_LSTM, len(words), config)
    model.load_state_dict(torch.load("{name}"))

Or, with these files in the learner's folder of models:

    language_model_learner(dls, AWD_LSTM, config=config, pretrained_fnames=["{stem}", "itos"])
"""
CLASSIFIER = """\
{name}: a classifier; encoder_{way}.pth: its encoder; vocab.pkl: its words and its labels.

    import pickle, torch
    from fastai.text.all import *

    words, labels = pickle.load(open("vocab.pkl", "rb"))
    config = awd_lstm_clas_config | dict(emb_sz={embedding}, n_hid={hidden}, n_layers={layers})
    model = get_text_classifier(AWD_LSTM, len(words), {outputs}, config=config, lin_ftrs={width},
                                seq_len={bptt}, max_len={max_len}{range})
    model.load_state_dict(torch.load("{name}"))
"""
READING = """
Texts were read as {codec}. Give fastai the words as text_vocab, so that ids stay what they are{backward}.
"""


def fastai(folder: Path, out: Path) -> list[str]:
    """Both of a forward and a backward model go into folders of their own."""
    config = read_config(folder)
    if config["kind"] == "ensemble":
        notes: list[str] = []
        for member in member_folders(folder, config):
            place = out / SHORT.get(member.name, member.name)
            place.mkdir()
            notes += [f"{member.name}: {note}" for note in fastai(member, place)]
        return notes
    if config["kind"] == "model":
        trained = load_trained(folder)
        if isinstance(trained, TrainedModel):
            return _classifier(trained, folder, out)
    start = load_start(folder)
    assert isinstance(start, Start)
    encoder, codec = _checked(start, folder)
    words, order = _words(codec)
    name = f"lstm_{SHORT[codec.config.direction]}.pth"
    torch.save(language_model(encoder, order), out / name)
    _write(out / "itos.pkl", words)
    return _rest(encoder, codec, order, out, name, LANGUAGE_MODEL, {})


def _classifier(trained: TrainedModel, folder: Path, out: Path) -> list[str]:
    encoder, codec = _checked(trained.start, folder)
    words, order = _words(codec)
    head, task = trained.model.head, trained.task
    if not isinstance(head, ClassificationHead) or not isinstance(task, Classification):
        raise UserError(f"{folder}: fastai has no such head for AWD-LSTM; export the folder it started from")
    if trained.model.encoder is not encoder:
        raise UserError(
            f"{folder}: its head reads a mix of layers, which fastai's does not; export the folder that it "
            "started from"
        )
    for what, wrong in (
        ("reads the vectors of tokens (task.head_kind)", task.head_kind in READERS),
        ("compares two texts (task.pair)", task.apart),
        ("reads pairs both ways (task.orders)", task.orders == "both"),
        ("takes the mean of levels (task.levels)", task.levels is not None),
    ):
        if wrong:
            raise UserError(
                f"{folder}: its head {what}, which fastai's does not; export the folder that it started from"
            )
    tensors, notes = exported_head(head)
    name = f"classifier_{SHORT[codec.config.direction]}.pth"
    torch.save({**exported(encoder, order, "0.module."), **tensors}, out / name)
    _write(out / "vocab.pkl", [words, list(task.labels)])
    more: dict[str, Any] = {"outputs": len(task.labels) or 1, "width": list(task.widths())}
    low_high = [task.standardised(x) for x in task.y_range or ()]
    more |= {"range": f", y_range=({low_high[0]:g}, {low_high[1]:g})" if low_high else ""}
    more |= {"bptt": encoder.config.bptt, "max_len": encoder.config.max_len}
    if task.kind == "number" and (task.center, task.spread) != (0.0, 1.0):
        notes.append(f"its score times {task.spread:g} plus {task.center:g} is the number")
    return [*_rest(encoder, codec, order, out, name, CLASSIFIER, more), *notes]


def _words(codec: UlmfitCodec) -> tuple[list[str], Tensor]:
    words, order = fastai_words(codec.vocab.words, codec.config.segmenter == "pieces")
    return words, torch.tensor(order)


def _checked(start: Start, folder: Path) -> tuple[AWDLSTM, UlmfitCodec]:
    if not isinstance(start.encoder, AWDLSTM) or not isinstance(start.codec, UlmfitCodec):
        held = "both directions side by side" if hasattr(start.encoder, "backwards") else start.method.name
        raise UserError(f"--to fastai is a format of ulmfit, one direction a file; {folder} holds {held}")
    return start.encoder, start.codec


def _rest(
    encoder: AWDLSTM, codec: UlmfitCodec, order: Tensor, out: Path, name: str, text: str, more: dict[str, Any]
) -> list[str]:
    """The encoder and how to load it all."""
    config, way = encoder.config, SHORT[codec.config.direction]
    torch.save(exported(encoder, order), out / f"encoder_{way}.pth")
    shape = {"embedding": config.embedding, "hidden": config.hidden, "layers": config.layers}
    said = text.format(name=name, stem=name.removesuffix(".pth"), way=way, **shape, **more)
    backward = ", and read backwards (backwards=True)" if way == "bwd" else ""
    write_text(out / "README.txt", said + READING.format(codec=codec.describe(), backward=backward))
    notes = [
        f"{sum(p.numel() for p in encoder.parameters()):,} parameters for fastai 2; "
        "README.txt says how to load them"
    ]
    if not torch.equal(order, torch.arange(len(order))):
        notes.append("xxunk and xxpad are moved to the ids 0 and 1, where fastai has them")
    return notes


def _write(path: Path, words: list[Any]) -> None:
    with path.open("wb") as stream:
        pickle.dump(words, stream, protocol=4)
