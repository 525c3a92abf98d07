"""Published biLMs in and out: the datasets of bilm-tf's HDF5 files and checkpoints, and ours."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from pretune.data.files import listed
from pretune.data.hdf5 import Hdf5, write_hdf5
from pretune.data.tensor_bundle import TensorBundle
from pretune.data.vocab import Vocab, write_text
from pretune.errors import UsageError, UserError
from pretune.methods.elmo.config import ELMoConfig
from pretune.methods.elmo.encoder import ELMo
from pretune.methods.elmo.options import options_of, read_options
from pretune.methods.elmo.release import Release
from pretune.methods.elmo.tokens import ElmoCodec, ElmoCodecConfig, read_vocabulary

Shape = tuple[int, ...]


class Form(NamedTuple):
    """How our tensors lie in one dataset of theirs. Both ways only move values, so nothing is rounded."""

    read: Callable[[Tensor], tuple[Tensor, ...]]
    write: Callable[..., Tensor]


def gates(x: Tensor) -> Tensor:
    """TensorFlow's order of gates i, g, f, o (on the last axis) to torch's i, f, g, o; or back."""
    first, second, third, last = x.chunk(4, -1)
    return torch.cat((first, third, second, last), -1)


def with_padding(x: Tensor) -> Tensor:
    """Characters with the row of padded tokens, which is zero: files have 261 of them, TF-Hub's 262."""
    return x if len(x) == 262 else torch.cat((x.new_zeros(1, x.shape[1]), x))


SAME = Form(lambda x: (x,), lambda x: x)
TURNED = Form(lambda x: (x.t(),), lambda x: x.t())  # they multiply from the left
FILTER = Form(lambda x: (x[0].permute(2, 1, 0),), lambda x: x.permute(2, 1, 0)[None])  # (1, size, E, n)
ALPHABET = Form(lambda x: (with_padding(x),), lambda x: x[1:])
GATES = Form(lambda x: (gates(x),), gates)  # the 1 of the forget gate is in neither
KERNEL = Form(  # (I+D, 4H): what multiplies the input above what multiplies the state
    lambda x: gates(x).t().chunk(2, 1), lambda ih, hh: gates(torch.cat((ih, hh), 1).t())
)

SCOPE: Final = re.compile(r"^(module/)?(lm|bilm)/")  # of a checkpoint, of TF-Hub
CELL: Final = "RNN_{way}/RNN/MultiRNNCell/Cell{l}/LSTMCell"
# fmt: off
TABLE: Final = (
    # ours                                                   theirs                    form
    ("characters.embedding.weight",                          "char_embed",             ALPHABET),
    ("characters.convolutions.{i}.weight",                   "CNN/W_cnn_{i}",          FILTER),
    ("characters.convolutions.{i}.bias",                     "CNN/b_cnn_{i}",          SAME),
    ("characters.highways.{k}.carry.weight",                 "CNN_high_{k}/W_carry",   TURNED),
    ("characters.highways.{k}.carry.bias",                   "CNN_high_{k}/b_carry",   SAME),
    ("characters.highways.{k}.transform.weight",             "CNN_high_{k}/W_transform", TURNED),
    ("characters.highways.{k}.transform.bias",               "CNN_high_{k}/b_transform", SAME),
    ("characters.projection.weight",                         "CNN_proj/W_proj",        TURNED),
    ("characters.projection.bias",                           "CNN_proj/b_proj",        SAME),
    ("words.weight",                                         "embedding",              SAME),
    ("rnns.{l}.{side}.weight_ih rnns.{l}.{side}.weight_hh",  CELL + "/W_0",            KERNEL),
    ("rnns.{l}.{side}.bias",                                 CELL + "/B",              GATES),
    ("rnns.{l}.{side}.weight_proj",                          CELL + "/W_P_0",          TURNED),
    ("softmax.weight",                                       "softmax/W",              SAME),
    ("softmax.bias",                                         "softmax/b",              SAME),
)
VARIABLES: Final = (  # names in a checkpoint, or of a single layer, to datasets: what `dump_weights` does
    (SCOPE.pattern,                                          ""),
    (r"^(rnn|RNN)/",                                         "RNN_0/RNN/"),     # one direction
    (r"/rnn/",                                               "/RNN/"),
    (r"/multi_rnn_cell/cell_",                               "/MultiRNNCell/Cell"),
    (r"(/Cell\d+)/RNN/",                                     r"\1/"),           # TF-Hub
    (r"/lstm_cell/",                                         "/LSTMCell/"),
    (r"^(RNN_\d/RNN)/LSTMCell/",                             r"\1/MultiRNNCell/Cell0/LSTMCell/"),
    (r"/projection/kernel$",                                 "/W_P_0"),
    (r"/kernel$",                                            "/W_0"),
    (r"(/LSTMCell)/bias$",                                   r"\1/B"),
)
# fmt: on
NO_WEIGHTS: Final = re.compile(r"/(Adagrad|Variable)(_\d+)?$")  # slots of the optimiser, kept states


class Source(Protocol):
    """A file of arrays by name."""

    @property
    def shapes(self) -> Mapping[str, Shape]: ...

    def read(self, name: str) -> NDArray[Any]: ...


class Found(NamedTuple):
    """Where a dataset lies."""

    file: Path
    source: Source
    name: str  # there

    @property
    def shape(self) -> Shape:
        return self.source.shapes[self.name]


@dataclass(frozen=True)
class Piece:
    """A dataset of theirs as the model's parameters."""

    parameters: tuple[str, ...]
    form: Form
    shape: Shape


def dataset(name: str) -> str:
    """The name in a published HDF5 file of what is called `name` there or in a checkpoint."""
    for pattern, new in VARIABLES:
        name = re.sub(pattern, new, name)
    return name


def pieces(config: ELMoConfig, words: int) -> dict[str, Piece]:
    """Every dataset that a model has, by name."""
    with torch.device("meta"):
        tensors = dict(ELMo(config, words).named_parameters())
    found: dict[str, Piece] = {}
    for ours, theirs, form in TABLE:
        for places in _places(config):
            names = tuple(ours.format(**places).split())
            if all(name in tensors for name in names):
                shape = tuple(form.write(*(tensors[name] for name in names)).shape)
                found[theirs.format(**places)] = Piece(names, form, shape)
    return found


def _places(config: ELMoConfig) -> Iterator[dict[str, Any]]:
    """What may stand in the braces of `TABLE`."""
    most = max(len(config.filters), config.highways, config.layers)
    for way, side in enumerate(("forwards", "backwards")):
        yield from ({"i": n, "k": n, "l": n, "way": way, "side": side} for n in range(most))


def import_bilm(release: Release, settings: ElmoCodecConfig) -> tuple[ElmoCodec, ELMo, list[str]]:
    """A published model as codec and encoder, and what its reader should know.

    Every dataset is accounted for, every shape checked before anything is read, all values finite.
    """
    options = release.needed("options")
    found, left = _datasets(release)
    config, notes = read_options(options, any(name.startswith("RNN_1/") for name in found))
    if left:
        notes.append(f"variables that only training needs are left out: {listed(left, 2)}")
    vocab = None if release.vocab is None else read_vocabulary(release.vocab)
    if vocab is None and config.inputs == "words":
        raise UsageError(f"{options} has no char_cnn: the model reads words of a vocabulary; give --vocab")
    config, more = _with_softmax(config, found, vocab, release)
    size = 0 if vocab is None else len(vocab)
    wanted = pieces(config, size)
    if not any(name in found for name in wanted if not name.startswith("softmax/")):
        holds = listed(list(found), 2) or "nothing"
        raise UserError(f"{release.weights or release.checkpoint}: no biLM in this file; it holds {holds}")
    _check(wanted, found, config, options, vocab)
    settings = replace(settings, inputs=config.inputs, max_characters=config.max_characters)
    codec = ElmoCodec(settings, vocab)
    with torch.random.fork_rng(devices=[]):
        encoder = ELMo(config, size)
    parameters = dict(encoder.named_parameters())
    for name, piece in wanted.items():
        tensors = piece.form.read(_values(found[name]))
        with torch.no_grad():
            for parameter, tensor in zip(piece.parameters, tensors, strict=True):
                parameters[parameter].copy_(tensor)
    return codec, encoder, [_summary(encoder, wanted), *notes, *more, *_twice(vocab, release)]


def _datasets(release: Release) -> tuple[dict[str, Found], list[str]]:
    """All datasets of all files by published names, and names of what belongs to training alone."""
    if (release.weights is None) == (release.checkpoint is None):
        raise UsageError("give the weights: --weights FILE.hdf5, or --checkpoint model.ckpt-N of TensorFlow")
    files: list[tuple[Path, Source]] = [
        (path, Hdf5(path)) for path in (release.weights, release.softmax, release.embedding) if path
    ]
    if release.checkpoint is not None:
        files.insert(0, (release.checkpoint, TensorBundle(release.checkpoint)))
    found: dict[str, Found] = {}
    left: list[str] = []
    for path, source in files:
        scoped = any(map(SCOPE.match, source.shapes))
        for name in source.shapes:
            theirs = dataset(name)
            if NO_WEIGHTS.search(name) or (scoped and not SCOPE.match(name)):
                left.append(name)
            elif theirs in found and path == release.softmax and not theirs.startswith("softmax/"):
                raise UserError(f"{path}: --softmax is for softmax/W and softmax/b; this file holds a biLM")
            elif theirs in found:
                raise UserError(
                    f"{path}: {name} is given twice; {found[theirs].file} has {found[theirs].name}"
                )
            else:
                found[theirs] = Found(path, source, name)
    return found, left


def _with_softmax(
    config: ELMoConfig, found: dict[str, Found], vocab: Vocab | None, release: Release
) -> tuple[ELMoConfig, list[str]]:
    """With the softmax if there is one and its words are known; `found` loses one that is not used."""
    if "softmax/b" not in found:
        if release.softmax is not None:
            raise UserError(f"{release.softmax}: no softmax there, which is softmax/W and softmax/b")
        without = "no softmax: it gives vectors, and `pretune adapt` can learn one; perplexity needs one"
        return replace(config, tied=False), [without]
    if vocab is None:
        if release.softmax is not None:
            raise UsageError("a softmax needs the words of its rows; give --vocab vocab.txt")
        for name in ("softmax/W", "softmax/b"):
            found.pop(name, None)
        return replace(config, tied=False), ["the softmax is left out; with --vocab it is read as well"]
    if "softmax/W" in found:
        config = replace(config, tied=False)
    return replace(config, softmax=True), []


def _check(
    wanted: Mapping[str, Piece],
    found: Mapping[str, Found],
    config: ELMoConfig,
    options: Path,
    vocab: Vocab | None,
) -> None:
    """Raise where files and options do not fit, saying why, then each dataset with both shapes."""
    wrong = []
    for name, piece in wanted.items():
        if name not in found:
            hint = ", which --embedding can name" if name == "embedding" else ""
            wrong.append(f"{name} {list(piece.shape)} is missing{hint}")
        elif found[name].shape not in (piece.shape, _also(name, piece.shape)):
            wrong.append(f"{name} is {list(found[name].shape)}, expected {list(piece.shape)}")
    wrong += [f"{name} {list(found[name].shape)} is not expected" for name in found if name not in wanted]
    if not wrong:
        return
    file = next(iter(found.values())).file if found else options
    said, seen = _shape_of(config), _shape_seen(found)
    why = [f"{name} is {said[name]} there, {seen[name]} here" for name in said if said[name] != seen[name]]
    rows = [found[name].shape[0] for name in ("softmax/b", "embedding") if name in found]
    if vocab is not None and rows and rows[0] != len(vocab):
        why.append(f"the vocabulary has {len(vocab):,} words, the weights {rows[0]:,}")
    cause = f"it does not belong to {options} ({'; '.join(why)}): " if why else ""
    raise UserError(f"{file}: {cause}{'; '.join(wrong[:6])}{_more(len(wrong) - 6)}")


def _more(count: int) -> str:
    return f"; and {count} datasets more" if count > 0 else ""


def _also(name: str, shape: Shape) -> Shape:
    """The shape of characters with the row of padded tokens."""
    return (shape[0] + 1, *shape[1:]) if name == "char_embed" else shape


def _shape_of(config: ELMoConfig) -> dict[str, Any]:
    """The options that shapes depend on."""
    said: dict[str, Any] = {
        "lstm.n_layers": config.layers,
        "lstm.dim": config.dim,
        "lstm.projection_dim": config.projection_dim,
        "bidirectional": config.ways == 2,
        "char_cnn": config.inputs == "characters",
    }
    if config.inputs == "characters":
        said["char_cnn.n_highway"] = config.highways
        said["char_cnn.filters"] = [list(pair) for pair in config.filters]
        said["char_cnn.embedding.dim"] = config.char_dim
    return said


def _shape_seen(found: Mapping[str, Found]) -> dict[str, Any]:
    """The same as the datasets have it; None where they do not say."""

    def side(name: str, axis: int) -> int | None:
        shape = found[name].shape if name in found else ()
        return shape[axis] if axis < len(shape) else None

    def count(pattern: str) -> int:
        return len({match[1] for name in found if (match := re.match(pattern, name))})

    cell = CELL.format(way=0, l=0)
    bias = side(f"{cell}/B", 0)
    dim = None if bias is None else bias // 4
    filters = [
        [side(f"CNN/W_cnn_{i}", 1), side(f"CNN/W_cnn_{i}", 3)] for i in range(count(r"CNN/W_cnn_(\d+)"))
    ]
    return {
        "lstm.n_layers": count(r"RNN_0/RNN/MultiRNNCell/Cell(\d+)/"),
        "lstm.dim": dim,
        "lstm.projection_dim": side(f"{cell}/W_P_0", 1) or dim,
        "bidirectional": any(name.startswith("RNN_1/") for name in found),
        "char_cnn": "char_embed" in found,
        "char_cnn.n_highway": count(r"CNN_high_(\d+)/"),
        "char_cnn.filters": filters,
        "char_cnn.embedding.dim": side("char_embed", 1),
    }


def _values(found: Found) -> Tensor:
    array = found.source.read(found.name)
    if array.dtype.kind != "f":
        raise UserError(f"{found.file}: {found.name} is of type {array.dtype}; weights are float32")
    values = torch.from_numpy(array.astype("<f4", copy=False))
    if not torch.isfinite(values).all():
        raise UserError(f"{found.file}: {found.name} has values that are not finite; the file is damaged")
    if found.name.endswith("char_embed") and len(values) == 262 and values[0].any():
        raise UserError(f"{found.file}: {found.name} has 262 rows, but the first, of padding, is not zero")
    return values


def _summary(encoder: ELMo, read: Mapping[str, Piece]) -> str:
    config = encoder.config
    values = sum(torch.Size(piece.shape).numel() for piece in read.values())
    ways = "two directions" if config.ways == 2 else "one direction"
    return (
        f"{values:,} parameters in {len(read)} datasets: reads {config.inputs}; {config.layers} LSTMs of "
        f"{config.dim:,} cells and {config.projection_dim:,} outputs in {ways}; "
        f"{config.layers + 1} layers of {encoder.width:,} values a word"
        + (", and a softmax" if config.softmax else "")
    )


def _twice(vocab: Vocab | None, release: Release) -> list[str]:
    if vocab is None or len(vocab.ids) == len(vocab):
        return []
    return [
        f"{release.vocab}: {len(vocab) - len(vocab.ids)} words stand there twice; their first line counts"
    ]


def export_bilm(encoder: ELMo, codec: ElmoCodec, folder: Path) -> list[str]:
    """options.json and lm_weights.hdf5 as published, where it predicts softmax_weights.hdf5, and vocab.txt
    where it predicts or reads words; what was written.
    """
    config = encoder.config
    words = codec.vocab if config.softmax or config.inputs == "words" else None
    table = pieces(config, codec.size)
    tensors = dict(encoder.named_parameters())

    def arrays(softmax: bool) -> Iterator[tuple[str, NDArray[Any]]]:
        for name, piece in table.items():
            if name.startswith("softmax/") == softmax:
                own = [tensors[parameter].detach().cpu() for parameter in piece.parameters]
                yield name, piece.form.write(*own).contiguous().numpy()

    text = json.dumps(options_of(config, len(words or ())), indent=2)
    write_text(folder / "options.json", text + "\n")
    write_hdf5(folder / "lm_weights.hdf5", arrays(softmax=False))
    if config.softmax:
        write_hdf5(folder / "softmax_weights.hdf5", arrays(softmax=True))
    if words is not None:
        broken = [word for word in words.words if "\n" in word or "\r" in word]
        if broken:
            raise UserError(f"vocab.txt has a word a line, and {broken[0]!r} has line ends")
        write_text(folder / "vocab.txt", "".join(f"{word}\n" for word in words.words))
    return [_summary(encoder, table)]
