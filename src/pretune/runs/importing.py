"""Published files in, published files out: between other people's formats and model folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pretune.config import build, to_dict
from pretune.errors import UsageError, UserError, choose
from pretune.methods import METHODS
from pretune.methods.elmo.encoder import ELMo
from pretune.methods.elmo.release import Release
from pretune.methods.elmo.tokens import ElmoCodec, ElmoCodecConfig
from pretune.methods.elmo.weights import export_bilm, import_bilm
from pretune.runs.folders import check_out, write_folder
from pretune.runs.measure import Measure
from pretune.runs.run import load_start, report
from pretune.runs.starts import Start, save_start, vectors_start


@dataclass(frozen=True)
class Published:
    """What `pretune import` was given; None where nothing was said."""

    source: Path | None = None  # a file, folder or zip that says all
    options: Path | None = None
    weights: Path | None = None
    checkpoint: Path | None = None
    softmax: Path | None = None
    embedding: Path | None = None
    vocab: Path | None = None
    codec: Mapping[str, Any] = field(default_factory=dict)  # settings
    encoder: Mapping[str, Any] = field(default_factory=dict)

    def given(self) -> dict[str, Any]:
        return {x.name: getattr(self, x.name) for x in fields(self) if getattr(self, x.name)}


def _elmo(published: Published) -> tuple[Start, list[str]]:
    settings = build(ElmoCodecConfig, published.codec, "codec")
    named = {x.name: getattr(published, x.name) for x in fields(Release)}
    with Release(**named).completed(published.source) as release:
        codec, encoder, notes = import_bilm(release, settings)
    name = published.source or published.weights or published.checkpoint or Path("elmo")
    return Start(name.name, METHODS["elmo"], codec, encoder, encoder.config), notes


def _wordvectors(published: Published) -> tuple[Start, list[str]]:
    if published.source is None:
        raise UsageError("give the file of word vectors: pretune import wordvectors glove.txt --out DIR")
    start = vectors_start(published.source, published.codec, published.encoder)
    return start, [f"{start.parameters:,} parameters"]


@dataclass(frozen=True)
class Importer:
    """How a method's published files become a start, and which of `Published` it can use."""

    make: Callable[[Published], tuple[Start, list[str]]]
    takes: tuple[str, ...]


IMPORTERS: dict[str, Importer] = {
    "elmo": Importer(_elmo, ("source", *(x.name for x in fields(Release)), "codec")),
    "wordvectors": Importer(_wordvectors, ("source", "codec", "encoder")),
}


def importer(method: str) -> Importer:
    if method not in IMPORTERS:
        raise choose("the method to import", method, IMPORTERS)
    return IMPORTERS[method]


def import_published(method: str, published: Published, out: Path, overwrite: bool = False) -> list[str]:
    """A pretrained folder from published files; what was read, as lines for the user."""
    check_out(out, overwrite)
    make, takes = importer(method).make, importer(method).takes
    for name in published.given():
        if name not in takes:
            said = {"source": "FILES", "encoder": "encoder.…"}.get(name, f"--{name}")
            raise UsageError(f"{said} means nothing for {method}, which takes {_options(takes)}")
    with Measure() as cost:
        start, notes = make(published)
    config = {
        "method": method,
        "from": {name: str(x) if isinstance(x, Path) else x for name, x in published.given().items()},
        "encoder": to_dict(start.encoder_config),
        "codec": start.codec.describe(),
        "parameters": start.parameters,
    }
    save_start(start, out, report(cost, {}, config, {"notes": notes}))
    return [*notes, f"text is read as {start.codec.describe()}"]


def _options(names: tuple[str, ...]) -> str:
    shown = {"source": "FILES", "codec": "codec.…, --language, --segmenter", "encoder": "encoder.…"}
    return ", ".join(shown.get(name, f"--{name}") for name in names)


def _bilm(start: Start, folder: Path) -> list[str]:
    if not isinstance(start.encoder, ELMo) or not isinstance(start.codec, ElmoCodec):
        raise UserError(f"--to bilm is a format of elmo; {start.name} holds {start.method.name}")
    config = start.codec.config
    again = f"import with --language {config.language} --segmenter {config.segmenter}"
    read = f"text was read by {config.segmenter} ({config.language}); {again}"
    return [*export_bilm(start.encoder, start.codec, folder), read]


EXPORTERS: dict[str, Callable[[Start, Path], list[str]]] = {"bilm": _bilm}


def export(folder: Path, to: str, out: Path) -> list[str]:
    """What a model folder learned from text, in a published format; what was written, as lines."""
    if to not in EXPORTERS:
        raise choose("--to", to, EXPORTERS)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already; choose another --out")
    start = load_start(folder)
    if isinstance(start, list):
        names = ", ".join(str(folder / one.name) for one in start)
        raise UserError(f"{folder} holds several models; export one of {names}")
    said: list[str] = []
    write_folder(out, lambda new: said.extend(EXPORTERS[to](start, new)))
    return [*said, f"written: {', '.join(sorted(path.name for path in out.iterdir()))}"]
