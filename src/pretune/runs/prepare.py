"""What a comparison makes once, before its cells: pretrained, adapted, imported starts; vocabularies."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal
from unicodedata import normalize

from pretune.data.samples import Sample
from pretune.errors import UserError
from pretune.runs.cells import digest, slug

Work = Literal["adapt", "pretrain", "vectors", "vocabulary"]
MOST_VECTORS = 100_000  # words of a file of vectors: the most frequent; codec.max_vocab says another number
EVERY = 100  # one document in so many is held out, to know the perplexity of what is learned


@dataclass(frozen=True)
class Texts:
    """Unlabelled text: files, or texts at hand; a new stream at every call, without the test's own texts."""

    paths: tuple[Path, ...] = ()
    texts: tuple[str, ...] = ()
    encoding: str = "utf-8"
    column: str | None = None  # with the text, where files are tables
    tested: frozenset[str] = frozenset()

    def __call__(self) -> Iterator[str]:
        from pretune.data.corpus import documents

        files = documents(self.paths, encoding=self.encoding, text=self.column)() if self.paths else ()
        yield from (text for text in self.texts if plain(text) not in self.tested)
        for text in files:
            kept = [line for line in text.splitlines() if not line.strip() or plain(line) not in self.tested]
            if any(line.strip() for line in kept) and plain(text) not in self.tested:
                yield "\n".join(kept)

    @cached_property
    def fingerprint(self) -> str:
        """Of every byte that is read."""
        total = blake2b(digest_size=8)
        for text in (*self.texts, *sorted(self.tested), self.encoding, str(self.column)):
            total.update(text.encode("utf-8", "surrogatepass") + b"\0")
        for file in files_of(self.paths):
            total.update(contents(file).encode())
        return total.hexdigest()


def texts_of(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Each text once: a passage comes with all its questions, a sentence with its predicates."""
    return tuple(dict.fromkeys(text for sample in samples for text in sample.texts))


def plain(text: str) -> str:
    """Texts that differ in case or white space alone are one."""
    return " ".join(normalize("NFC", text).casefold().split())


def files_of(paths: Sequence[Path]) -> list[Path]:
    found = []
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder of unlabelled text")
        found += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return found


def contents(file: Path) -> str:
    """A fingerprint of a file's bytes."""
    total = blake2b(digest_size=8)
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def folder_contents(folder: Path) -> str:
    """Of a model folder: all files but the accounts of how it came about."""
    files = [p for p in files_of([folder]) if p.name not in ("run.json", "README.md")]
    return digest([(p.relative_to(folder).as_posix(), contents(p)) for p in files])


@dataclass(frozen=True)
class Preparation:
    """A start to be made. `settings` has tables for encoder, codec, pretraining, adaptation and fitting."""

    name: str  # for people
    work: Work
    method: str
    seed: int
    source: Path | None = None  # the folder to adapt, the file of vectors
    texts: Texts | None = None
    size: str = "small"
    language: str = "en"
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        read = ""
        if self.source is not None:
            read = folder_contents(self.source) if self.source.is_dir() else contents(self.source)
        texts = self.texts.fingerprint if self.texts else ""
        used = {name: dict(table) for name, table in self.settings.items() if table}
        return digest([self.work, self.method, self.seed, read, texts, self.size, self.language, used])

    def folder(self, out: Path) -> Path:
        return out / "starts" / f"{slug(self.name)}-{self.fingerprint}"


def made(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def facts(folder: Path) -> dict[str, Any]:
    """Seconds and scores of a start that has been made."""
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return {"seconds": run["seconds"], "scores": run["scores"]}


def prepare(preparation: Preparation, folder: Path, threads: int | None = None) -> None:
    """Make the start in `folder`; a long training that was interrupted goes on from its checkpoint."""
    import shutil

    import torch

    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    checkpoints = folder.with_name(f"{folder.name}.checkpoints")
    try:
        _WORKS[preparation.work](preparation, folder, checkpoints)
    finally:
        torch.set_num_threads(before)
    shutil.rmtree(checkpoints, ignore_errors=True)


def _pretrain(preparation: Preparation, folder: Path, checkpoints: Path) -> None:
    from pretune.config import build, update
    from pretune.runs.run import TABLES, pretrain
    from pretune.runs.starts import method_named

    method, settings = method_named(preparation.method), preparation.settings
    corpus, held_out = _held_out(preparation)
    pretrain(
        method,
        corpus,
        held_out,
        folder,
        size=preparation.size,
        pretraining=update(method.pretraining, settings.get("pretraining", {}), "pretraining", TABLES),
        codec_config=build(method.codec_config, _codec(preparation), "codec"),
        encoder_config=update(method.sizes[preparation.size], settings.get("encoder", {}), "encoder", TABLES),
        fitting=_fitting(preparation, checkpoints),
        info={"data": {"corpus": preparation.texts.fingerprint if preparation.texts else ""}},
    )


def _adapt(preparation: Preparation, folder: Path, checkpoints: Path) -> None:
    from pretune.config import update
    from pretune.runs.run import TABLES, adapt
    from pretune.runs.starts import method_named

    assert preparation.source is not None and preparation.texts is not None
    method = method_named(preparation.method)
    changes = preparation.settings.get("adaptation", {})
    corpus, held_out = _held_out(preparation)
    adapt(
        preparation.source,
        corpus,
        held_out,
        folder,
        adaptation=update(method.adaptation, changes, "adaptation", TABLES),
        fitting=_fitting(preparation, checkpoints),
        info={"data": {"corpus": preparation.texts.fingerprint}},
    )


def _vectors(preparation: Preparation, folder: Path, checkpoints: Path) -> None:
    from pretune.runs.measure import Measure
    from pretune.runs.run import report
    from pretune.runs.starts import save_start, vectors_start

    assert preparation.source is not None
    codec: dict[str, Any] = {"max_vocab": MOST_VECTORS, **_codec(preparation)}
    with Measure() as cost:
        start = vectors_start(preparation.source, codec, preparation.settings.get("encoder", {}))
    save_start(start, folder, report(cost, {}, {"vectors": str(preparation.source)}))


def _vocabulary(preparation: Preparation, folder: Path, checkpoints: Path) -> None:
    """An encoder that has learned nothing, for its codec and sizes."""
    from pretune.config import build, update
    from pretune.runs.measure import Measure
    from pretune.runs.run import TABLES, report, scratch
    from pretune.runs.starts import method_named, save_start

    assert preparation.texts is not None
    method = method_named(preparation.method)
    encoder = update(
        method.sizes[preparation.size], preparation.settings.get("encoder", {}), "encoder", TABLES
    )
    codec: Any = build(method.codec_config, _codec(preparation), "codec")
    with Measure() as cost:
        start = scratch(
            method, preparation.size, preparation.texts, preparation.seed, codec, encoder_config=encoder
        )
    save_start(start, folder, report(cost, {}, {"size": preparation.size}))


_WORKS = {"adapt": _adapt, "pretrain": _pretrain, "vectors": _vectors, "vocabulary": _vocabulary}


def _codec(preparation: Preparation) -> dict[str, Any]:
    return {"language": preparation.language, **preparation.settings.get("codec", {})}


def _held_out(preparation: Preparation) -> tuple[Any, Any]:
    """(corpus, held out); a small corpus is learned from whole."""
    from pretune.data.corpus import hold_out

    assert preparation.texts is not None
    if not preparation.texts.paths and len(preparation.texts.texts) < 2 * EVERY:
        return preparation.texts, None
    corpus, held_out = hold_out(preparation.texts, EVERY)
    return corpus, held_out


def _fitting(preparation: Preparation, checkpoints: Path) -> Any:
    from pretune.config import update
    from pretune.training.loop import Fitting

    begun = any(path.name != "tokens" for path in checkpoints.glob("*"))  # more than the text's ids is there
    base = Fitting(seed=preparation.seed, folder=checkpoints, resume=begun, quiet=True)
    return update(base, preparation.settings.get("fitting", {}), "fitting")
