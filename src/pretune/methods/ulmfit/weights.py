"""Published AWD-LSTMs in and out: the names of salesforce's, fastai's and MultiFiT's files, and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from pretune.config import build
from pretune.data.files import listed
from pretune.errors import UsageError, UserError
from pretune.methods.ulmfit.encoder import AWDLSTM, AWDLSTMConfig
from pretune.methods.ulmfit.generations import Layout

# fmt: off
START: Final = r"^(?:0\.(?:module\.)?)?"       # nothing, 0. of a whole model, 0.module. of a classifier
RNN: Final = START + r"rnns\.(?P<l>\d+)\."
LINEAR: Final = RNN + r"(?:layers\.0\.)?linear\."  # old files have no layers.0.
TABLE: Final = (
    # theirs                                                         ours
    (START + r"encoder\.weight$",                                    "embedding.weight"),
    (START + r"encoder_with_dropout\.embed\.weight$",                "embedding.weight"),   # 0.7
    (START + r"encoder_dp\.emb\.weight$",                            "embedding.weight"),   # 1 and 2
    (r"^(?:1\.)?decoder\.weight$",                                   "embedding.weight"),
    (r"^(?:1\.)?decoder\.bias$",                                     "embedding.decoder_bias"),
    (RNN + r"(?:module\.)?weight_ih_l0$",                            "rnns.{l}.lstm.weight_ih"),
    (RNN + r"(?:module\.)?weight_hh_l0(?P<raw>_raw)?$",              "rnns.{l}.lstm.weight_hh"),
    (RNN + r"(?:module\.)?bias_ih_l0$",                              "rnns.{l}.lstm.bias_ih"),
    (RNN + r"(?:module\.)?bias_hh_l0$",                              "rnns.{l}.lstm.bias_hh"),
    (LINEAR + r"(?:module\.)?weight(?P<raw>_raw)?$",                 "rnns.{l}.qrnn.weight"),
    (LINEAR + r"(?:module\.)?bias$",                                 "rnns.{l}.qrnn.bias"),
)
EXPORT: Final = (  # of fastai 2; {at} is 0. of a language model, 0.module. of a classifier
    ("embedding.weight",          "{at}encoder.weight"),
    ("embedding.weight",          "{at}encoder_dp.emb.weight"),
    ("rnns.{l}.lstm.weight_hh",   "{at}rnns.{l}.weight_hh_l0_raw"),
    ("rnns.{l}.lstm.weight_ih",   "{at}rnns.{l}.module.weight_ih_l0"),
    ("rnns.{l}.lstm.bias_ih",     "{at}rnns.{l}.module.bias_ih_l0"),
    ("rnns.{l}.lstm.bias_hh",     "{at}rnns.{l}.module.bias_hh_l0"),
)
# fmt: on
HEAD: Final = re.compile(r"^1\.layers\.")
NAMES: Final[Mapping[Layout, str]] = {"salesforce": "salesforce", "v07": "0.7", "v1": "1", "v2": "2"}
FIXED: Final = ("embedding", "hidden", "layers", "cell")  # settings of the encoder that the file says


@dataclass(frozen=True)
class Published:
    """A state dict under our names, float32, every tensor once."""

    file: Path
    layout: Layout
    encoder: Mapping[str, Tensor]
    head: Mapping[str, Tensor]  # of a classifier, as the file names them; empty elsewhere
    notes: list[str]

    @property
    def words(self) -> int:
        return len(self.encoder["embedding.weight"])


def published(tensors: Mapping[str, Tensor], file: Path) -> Published:
    """Every tensor accounted for: copies are compared, stale ones dropped, all others named in an error."""
    while tensors and all(name.startswith("module.") for name in tensors):  # DataParallel
        tensors = {name.removeprefix("module."): x for name, x in tensors.items()}
    head = {name: _checked(x, name, file) for name, x in tensors.items() if HEAD.match(name)}
    copies: dict[str, dict[str, Tensor]] = {}  # ours -> theirs
    raw, unknown = set(), []
    for name, tensor in tensors.items():
        if name in head:
            continue
        ours, is_raw = _ours(name)
        if ours is None:
            unknown.append(name)
            continue
        if is_raw:
            raw.add(ours)
        copies.setdefault(ours, {})[name] = tensor
    _refuse(unknown, copies, file)
    found, stale = {}, 0
    for ours, several in copies.items():
        if ours in raw:  # what weight drop left behind of the last training step is no weight
            stale += sum(not name.endswith("_raw") for name in several)
            several = {name: x for name, x in several.items() if name.endswith("_raw")}
        found[ours] = _one(several, file)
    notes = [f"{stale} stale copies of dropped weights are left out"] if stale else []
    if any(x.dtype != torch.float32 for several in copies.values() for x in several.values()):
        kinds = sorted({str(x.dtype).removeprefix("torch.") for s in copies.values() for x in s.values()})
        notes.append(f"values are of {' and '.join(kinds)}; from here on float32")
    return Published(file, layout_of(tensors, bool(stale)), found, head, notes)


def _ours(name: str) -> tuple[str | None, bool]:
    for pattern, ours in TABLE:
        if match := re.match(pattern, name):
            said = match.groupdict()
            return ours.format(l=int(said.get("l") or 0)), said.get("raw") is not None
    return None, False


def _refuse(unknown: list[str], copies: Mapping[str, Any], file: Path) -> None:
    if "embedding.weight" not in copies:
        names = listed([*unknown, *copies], 4) or "nothing"
        raise UserError(f"{file}: no AWD-LSTM: there is no encoder.weight among its tensors, {names}")
    if any(name.endswith("_reverse") for name in unknown):
        raise UserError(f"{file}: a bidirectional model, which cannot predict words; AWD-LSTMs read one way")
    if unknown:
        raise UserError(f"{file}: an AWD-LSTM has no place for {listed(unknown, 6)}")


def _one(several: Mapping[str, Tensor], file: Path) -> Tensor:
    """The tensor that is there under one name or more."""
    (first, tensor), *others = ((name, _checked(x, name, file)) for name, x in several.items())
    for name, other in others:
        if not torch.equal(tensor, other):
            why = "the decoder is not tied to the embedding" if "decoder" in name + first else "damaged"
            raise UserError(f"{file}: {first} and {name} should be equal and are not: {why}")
    return tensor


def _checked(tensor: Tensor, name: str, file: Path) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return tensor
    if not tensor.is_floating_point():
        raise UserError(f"{file}: {name} is of {tensor.dtype}; weights are floating-point numbers")
    if not torch.isfinite(tensor).all():
        raise UserError(f"{file}: {name} has values that are not finite; the file is damaged")
    return tensor.to(torch.float32)


def layout_of(tensors: Mapping[str, Tensor], stale: bool = False) -> Layout:
    """Whose file it is, by the names that differ."""

    def some(pattern: str) -> bool:
        return any(re.search(pattern, name) for name in tensors)

    if some(r"encoder_with_dropout\.") or some(r"^1\.layers\.\d+\.(bn|lin)\."):
        return "v07"
    if some(r"^1\.layers\.\d+\.\d+\."):
        return "v2"
    if not some(r"encoder_dp\.") and not some(r"^0\."):
        return "salesforce"
    return "v1" if some(r"^1\.layers\.\d+\.\w+$") or some(r"linear\.") or stale else "v2"


def shape_of(encoder: Mapping[str, Tensor], file: Path) -> dict[str, Any]:
    """The settings that the shapes say: widths, layers, cell."""
    numbers = sorted({int(match[1]) for name in encoder if (match := re.match(r"rnns\.(\d+)\.", name))})
    if numbers != list(range(len(numbers))) or not numbers:
        raise UserError(
            f"{file}: has the layers {listed(list(map(str, numbers))) or 'of nothing'}; from 0 on"
        )
    width = encoder["embedding.weight"].shape[1]
    cell = "qrnn" if any(".qrnn." in name for name in encoder) else "lstm"
    gates = {"lstm": ("weight_hh", 4), "qrnn": ("bias", 3)}[cell]
    name = f"rnns.0.{cell}.{gates[0]}"
    if name not in encoder:
        raise UserError(f"{file}: {_theirs(name)} is missing")
    hidden = encoder[name].shape[0] // gates[1] if len(numbers) > 1 else width
    return {"embedding": width, "hidden": hidden, "layers": len(numbers), "cell": cell}


def encoder_of(found: Published, settings: Mapping[str, Any], added: int = 0) -> tuple[AWDLSTM, list[str]]:
    """The network of a file; `added` words more than it has, each the mean of all, as those that are new
    to a vocabulary.
    """
    for name in settings:
        if name in FIXED:
            raise UsageError(f"encoder.{name} is said by the file; leave it out")
    if settings.get("cutoffs"):
        raise UsageError("encoder.cutoffs is for a softmax that no published file has; leave it out")
    config = build(AWDLSTMConfig, {**shape_of(found.encoder, found.file), **settings}, "encoder")
    with torch.random.fork_rng(devices=[]):
        encoder = AWDLSTM(config, found.words + added)
    tensors, notes = dict(found.encoder), []
    if "embedding.decoder_bias" not in tensors:
        tensors["embedding.decoder_bias"] = torch.zeros(found.words)
        whole = "the decoder has no bias" if found.layout == "v07" else "there is no bias of a decoder"
        notes.append(f"{whole}; zeros stand in its place")
    _check_shapes(tensors, encoder.state_dict(), added, found.file)
    for name in ("embedding.weight", "embedding.decoder_bias"):
        mean = tensors[name].mean(0, keepdim=True)
        tensors[name] = torch.cat((tensors[name], *[mean] * added))
    encoder.load_state_dict(tensors)
    cells = f"{config.layers} {config.cell.upper()}s of {config.hidden:,} cells"
    whose = NAMES[found.layout]
    said = f"{sum(x.numel() for x in found.encoder.values()):,} parameters, laid out as " + (
        "by salesforce" if whose == "salesforce" else f"by fastai {whose}"
    )
    return encoder, [f"{said}: {found.words:,} words of {config.embedding:,} values, {cells}", *notes]


def _check_shapes(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], added: int, file: Path
) -> None:
    wrong = [f"{_theirs(name)} is missing" for name in wanted if name not in tensors]
    wrong += [f"{_theirs(name)} is not expected" for name in tensors if name not in wanted]
    for name in wanted.keys() & tensors.keys():
        want, have = list(wanted[name].shape), list(tensors[name].shape)
        if name.startswith("embedding"):
            want[0] -= added
        if want != have:
            wrong.append(f"{_theirs(name)} is {have}, expected {want}")
    if wrong:
        more = f"; and {len(wrong) - 6} more" if len(wrong) > 6 else ""
        raise UserError(f"{file}: {'; '.join(sorted(wrong)[:6])}{more}")


def _theirs(name: str) -> str:
    """Our name as fastai would say it, for messages."""
    for ours, theirs in EXPORT:
        pattern = re.escape(ours).replace(r"\{l\}", r"(?P<l>\d+)")
        if match := re.fullmatch(pattern, name):
            return theirs.format(at="", l=match.groupdict().get("l"))
    return name.replace(".qrnn.", ".layers.0.linear.").replace("embedding.decoder_bias", "decoder.bias")


def exported(encoder: AWDLSTM, order: Tensor, at: str = "") -> dict[str, Tensor]:
    """fastai 2's names and tensors of an encoder, its words in the order that is given. They stand in
    fastai's own order too, for its loader of pretrained weights goes by that.
    """
    config = encoder.config
    if config.cell != "lstm":
        raise UserError("fastai 2.8 has no QRNN, so there is no file of one that it could read")
    tensors = {name: x.detach().cpu() for name, x in encoder.state_dict().items()}
    tensors["embedding.weight"] = tensors["embedding.weight"][order]
    names = {theirs.format(at=at, l=0): ours for ours, theirs in EXPORT if "{l}" not in ours}
    for number in range(config.layers):
        of_layer = [pair for pair in EXPORT if "{l}" in pair[0]]
        names |= {theirs.format(at=at, l=number): ours.format(l=number) for ours, theirs in of_layer}
    return {theirs: tensors[ours].contiguous() for theirs, ours in names.items()}


def language_model(encoder: AWDLSTM, order: Tensor) -> dict[str, Tensor]:
    """What `get_language_model(AWD_LSTM, …)` of fastai 2 loads strictly."""
    if encoder.adaptive is not None:
        raise UserError("fastai has no adaptive softmax, so a language model with encoder.cutoffs stays here")
    found = exported(encoder, order, "0.")
    bias = encoder.decoder_bias.detach().cpu()[order].contiguous()
    return {**found, "1.decoder.weight": found["0.encoder.weight"], "1.decoder.bias": bias}
