"""evaluate, of pretrained folders: what held-out text costs language models, beside one another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from pretune.cli.common import Notes, stdout
from pretune.errors import UsageError, choose

if TYPE_CHECKING:
    from rich.table import Table

    from pretune.data.sentence_files import Sentence
    from pretune.layers.continuous_cache import ContinuousCache
    from pretune.runs.language_modelling import HeldOut

Texts = Callable[[], Iterable["Sentence"]]


def evaluate_texts(
    folder: Path,
    beside: Sequence[Path],
    corpus: Sequence[Path],
    out: Path | None,
    *,
    text: Sequence[str],
    documents: str | None,
    file_format: str | None,
    encoding: str,
    state: str | None,
    cache: ContinuousCache | None,
    stride: int | None,
    batch_size: int,
    seed: int,
    device: str,
    quiet: bool,
) -> None:
    """Figures by word and character of each folder; with state carried, or a cache, perplexity alone."""
    from pretune.runs.files import write_json
    from pretune.runs.language_model import State

    if state is not None and state not in get_args(State):
        raise choose("--state", state, get_args(State))
    texts = texts_of(corpus, next(iter(text), None), len(text), documents, file_format, encoding)
    if cache is not None or state == "carry":
        said = {
            "--beside": bool(beside),
            "--stride": stride is not None,
            "--documents": documents is not None,
        }
        for option, given in said.items():
            if given:
                raise UsageError(
                    f"{option} is for texts that are read alone; leave it or --state carry and --cache out"
                )
        figures = _carried(folder, texts, cache, batch_size, device)
    else:
        from dataclasses import asdict

        from pretune.runs.language_modelling import held_out

        found = held_out(
            [folder, *beside],
            texts,
            batch_size=batch_size,
            stride=stride,
            device=device,
            seed=seed,
            quiet=Notes(quiet).quiet,
        )
        print_held_out(found, Notes(quiet))
        figures = {"perplexity": asdict(found.own[0]), "state": "zero", **found.to_dict()}
    if out is not None:
        write_json(out, figures)


def texts_of(
    paths: Sequence[Path],
    column: str | None,
    columns: int,
    documents: str | None,
    file_format: str | None,
    encoding: str,
) -> Texts:
    """Texts of files, a line or row each; of folders, and with `documents`, as a corpus is read."""
    from pretune.data.corpus import documents as read
    from pretune.data.document_files import Split
    from pretune.data.sentence_files import SentenceFile

    if columns > 1:
        raise UsageError("give one column of texts with --text")
    if documents is not None and documents not in get_args(Split):
        raise choose("--documents", documents, get_args(Split))
    if documents is None and not any(path.is_dir() for path in paths):
        files = [SentenceFile.find(path, file_format, column, encoding=encoding) for path in paths]
        return lambda: chain.from_iterable(files)
    if file_format is not None:
        raise UsageError("--format is for files whose lines or rows are texts; leave it or --documents out")
    return read(paths, encoding=encoding, split=cast(Any, documents), text=column)


def _carried(
    folder: Path, texts: Texts, cache: ContinuousCache | None, batch_size: int, device: str
) -> dict[str, Any]:
    """Perplexity of a model's own tokens, each text read on from the one before."""
    from dataclasses import asdict

    from rich.table import Table

    from pretune.runs.folders import read_config
    from pretune.runs.language_model import LanguageModel
    from pretune.runs.stream_perplexity import stream_perplexity

    if cache is not None or read_config(folder).get("method") == "ulmfit":
        found = stream_perplexity(folder, texts(), cache, batch_size, device)
    else:
        found = LanguageModel.load(folder, device).perplexity(texts(), "carry", batch_size)
    table = Table("perplexity", "")
    for name, value in (("of all", found.value), ("forward", found.forward), ("backward", found.backward)):
        if value is not None:
            table.add_row(name, f"{value:.4g}")
    said = f", cache of {cache.window}, lambda {cache.weight:g}, theta {cache.theta:g}" if cache else ""
    stdout().print(f"{found.targets:,} words and marks predicted, state carry{said}", soft_wrap=True)
    stdout().print(table)
    return {"perplexity": asdict(found), "state": "carry"} | ({"cache": asdict(cache)} if cache else {})


def print_held_out(found: HeldOut, notes: Notes) -> None:
    """What may be compared in one table, each model's own tokens in another."""
    counts = found.to_dict()
    stdout().print(
        f"{counts['documents']:,} documents, {counts['words']:,} words, {counts['characters']:,} characters",
        soft_wrap=True,
    )
    rows = counts["readings"]
    same = _table("bits a\ncharacter", "95 %", "perplexity\nper word", "per\ncharacter")
    further = _table("more than\nthe first", "95 %")
    own = _table("perplexity\nper token", "tokens", "unknown", "spelling", "capitals", "changed")
    for row in rows:
        name = row["model"], row["way"] + (" *" if row["pseudo"] else "")
        by_word, by_character = _said(row["perplexity_per_word"]), _said(row["perplexity_per_character"])
        sure = _span(row["interval"], ".3f")
        same.add_row(*name, f"{row['bits_per_character']:.4f}", sure, by_word, by_character)
        if row is not rows[0]:
            sure = _span(row["beyond_first_interval"], "+.3f")
            further.add_row(*name, f"{row['beyond_first']:+.4f}", sure)
        parts = (row["nats_of"][part] for part in ("spelling", "capitals"))
        shares = (f"{part / row['nats']:.1%}" if row["nats"] else "–" for part in parts)
        of_tokens = _said(row["perplexity_per_token"]), f"{row['tokens']:,}", f"{row['unknown_share']:.2%}"
        own.add_row(*name, *of_tokens, *shares, f"{row['changed_characters'] / counts['characters']:.2%}")
    stdout().print("the same text for all:", same, sep="\n")
    if len(rows) > 1:
        first = f"{rows[0]['model']} {rows[0]['way']}"
        said = f"bits a character beyond those of {first}, the same documents drawn for both:"
        stdout().print(said, further, sep="\n")
    stdout().print("each in tokens of its own, which compare with no others:", own, sep="\n")
    notes(*_explained(counts))


def _table(*columns: str) -> Table:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("model", "reads"):
        table.add_column(column, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _explained(counts: dict[str, Any]) -> Iterator[str]:
    yield f"{counts['units']}; spaces are taken as known"
    yield (
        "spelling, capitals: shares of the cost that are charged beside the softmax; changed: characters "
        "that the codec changes or drops, which are not charged"
    )
    if any(row["pseudo"] for row in counts["readings"]):
        yield (
            "* pseudo-likelihood: each piece given both sides (Salazar et al. 2020), no probability of the "
            "text; compare it with that of other masked models alone"
        )
    if counts["documents"] < 2:
        yield "a single document gives no interval; say what a document is with --documents line or blank"


def _said(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _span(interval: tuple[float, float] | None, form: str) -> str:
    return "–" if interval is None else " … ".join(format(end, form) for end in interval)


def cache_of(
    window: int | None, weight: float | None, theta: float | None, state: str | None
) -> ContinuousCache | None:
    """What --cache and its two settings ask for."""
    if window is None:
        if weight is not None or theta is not None:
            raise UsageError(
                "--cache-lambda and --cache-theta are settings of a cache; give --cache WORDS too"
            )
        return None
    from pretune.layers.continuous_cache import ContinuousCache

    if state == "zero":
        raise UsageError("a cache goes on from text to text, and so must the state; leave --state zero out")
    given = {"weight": weight, "theta": theta}
    return ContinuousCache(window, **{name: x for name, x in given.items() if x is not None})
