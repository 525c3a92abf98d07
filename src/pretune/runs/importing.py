"""Published files in, published files out: between other people's formats and model folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from pretune.config import build, to_dict
from pretune.errors import UsageError, UserError, choose
from pretune.methods import METHODS
from pretune.methods.elmo.encoder import ELMo
from pretune.methods.elmo.release import Release
from pretune.methods.elmo.tokens import ElmoCodec, ElmoCodecConfig
from pretune.methods.elmo.weights import export_bilm, import_bilm
from pretune.runs.exporting_transformers import openai, tensorflow, transformers
from pretune.runs.exporting_ulmfit import fastai
from pretune.runs.folders import check_out, write_folder
from pretune.runs.guests import is_guest_folder, resolved
from pretune.runs.importing_transformers import bert, gpt
from pretune.runs.importing_ulmfit import ulmfit
from pretune.runs.measure import Measure
from pretune.runs.published import Published
from pretune.runs.run import load_start, report
from pretune.runs.starts import Start, guest_start, save_start, vectors_start
from pretune.runs.trained import Ensemble, Trained, TrainedModel

Found = Start | list[Start] | Trained  # what a folder is made of


def _elmo(published: Published) -> tuple[Found, list[str]]:
    settings = build(ElmoCodecConfig, published.codec, "codec")
    named = {x.name: getattr(published, x.name) for x in fields(Release)}
    with Release(**named).completed(published.source) as release:
        codec, encoder, notes = import_bilm(release, settings)
    name = published.source or published.weights or published.checkpoint or Path("elmo")
    return Start(name.name, METHODS["elmo"], codec, encoder, encoder.config), notes


def _wordvectors(published: Published) -> tuple[Found, list[str]]:
    if published.source is None:
        raise UsageError("give the file of word vectors: pretune import wordvectors glove.txt --out DIR")
    start = vectors_start(published.source, published.codec, published.encoder)
    return start, [f"{start.parameters:,} parameters"]


def _hub(published: Published) -> tuple[Found, list[str]]:
    if published.source is None:
        raise UsageError(
            "give a folder of transformers, or hf:OWNER/NAME: pretune import hub FILES --out DIR"
        )
    folder = resolved(published.source)
    if not is_guest_folder(folder):
        raise UserError(f"{folder}: no config.json of transformers is there")
    start = guest_start(folder, published.codec, published.encoder)
    return start, [f"{start.parameters:,} parameters, summary: {start.encoder_config.pooling}"]


@dataclass(frozen=True)
class Importer:
    """How a method's published files become a model, and which of `Published` it can use."""

    make: Callable[[Published], tuple[Found, list[str]]]
    takes: tuple[str, ...]


IMPORTERS: dict[str, Importer] = {
    "elmo": Importer(_elmo, ("source", *(x.name for x in fields(Release)), "codec")),
    "ulmfit": Importer(
        ulmfit,
        ("source", "vocab", "pieces", "backward", "labels", "encoder_only", "codec", "encoder", "task"),
    ),
    "gpt": Importer(gpt, ("source", "labels", "encoder_only", "seed", "codec", "encoder", "task")),
    "bert": Importer(
        bert,
        ("source", "checkpoint", "vocab", "labels", "encoder_only", "seed", "codec", "encoder", "task"),
    ),
    "hub": Importer(_hub, ("source", "codec", "encoder")),
    "wordvectors": Importer(_wordvectors, ("source", "codec", "encoder")),
}


def importer(method: str) -> Importer:
    if method not in IMPORTERS:
        raise choose("the method to import", method, IMPORTERS)
    return IMPORTERS[method]


def import_published(method: str, published: Published, out: Path, overwrite: bool = False) -> list[str]:
    """A model folder from published files; what was read, as lines for the user."""
    check_out(out, overwrite)
    make, takes = importer(method).make, importer(method).takes
    for name in published.given():
        if name not in takes:
            raise UsageError(f"{_option(name)} means nothing for {method}, which takes {_options(takes)}")
    with Measure() as cost:
        found, notes = make(published)
    starts = _starts(found)
    config = {
        "method": method,
        "from": {name: str(x) if isinstance(x, Path) else x for name, x in published.given().items()},
        "encoder": to_dict(starts[0].encoder_config),
        "codec": starts[0].codec.describe(),
        "parameters": sum(start.parameters for start in starts),
    }
    info = report(cost, {}, config, {"notes": notes})
    if isinstance(found, (Start, list)):
        save_start(found, out, info)
    else:
        found.save(out, info)
    return [*notes, *dict.fromkeys(f"text is read as {start.codec.describe()}" for start in starts)]


def _starts(found: Found) -> list[Start]:
    if isinstance(found, Start):
        return [found]
    if isinstance(found, list):
        return found
    members = found.members.values() if isinstance(found, Ensemble) else [found]
    return [one.start for one in members if isinstance(one, TrainedModel)]


def _option(name: str) -> str:
    return {"source": "FILES", "encoder": "encoder.…", "task": "task.…"}.get(
        name, f"--{name.replace('_', '-')}"
    )


def _options(names: tuple[str, ...]) -> str:
    codec = "codec.…, --language, --segmenter"
    return ", ".join(codec if name == "codec" else _option(name) for name in names)


def _bilm(folder: Path, out: Path) -> list[str]:
    start = load_start(folder)
    if isinstance(start, list):
        names = ", ".join(str(folder / one.name) for one in start)
        raise UserError(f"{folder} holds several models; export one of {names}")
    if not isinstance(start.encoder, ELMo) or not isinstance(start.codec, ElmoCodec):
        raise UserError(f"--to bilm is a format of elmo; {start.name} holds {start.method.name}")
    config = start.codec.config
    again = f"import with --language {config.language} --segmenter {config.segmenter}"
    read = f"text was read by {config.segmenter} ({config.language}); {again}"
    return [*export_bilm(start.encoder, start.codec, out), read]


EXPORTERS: dict[str, Callable[[Path, Path], list[str]]] = {
    "bilm": _bilm,
    "fastai": fastai,
    "transformers": transformers,
    "openai": openai,
    "tensorflow": tensorflow,
}


def export(folder: Path, to: str, out: Path) -> list[str]:
    """What a model folder learned from text, in a published format; what was written, as lines."""
    if to not in EXPORTERS:
        raise choose("--to", to, EXPORTERS)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already; choose another --out")
    said: list[str] = []
    write_folder(out, lambda new: said.extend(EXPORTERS[to](resolved(folder), new)))
    written = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    return [*said, f"written: {', '.join(written)}"]
