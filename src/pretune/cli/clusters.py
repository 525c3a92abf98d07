"""Coreference at the command line: documents to learn from, and clusters as people and files read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pretune.cli.common import Notes, stdout
from pretune.cli.dividing import divided, prints_of

if TYPE_CHECKING:
    from rich.text import Text

    from pretune.data.documents import Clusters
    from pretune.data.samples import Sample
    from pretune.tasks.base import Answer
    from pretune.tasks.coref import Coref

COLOURS: Final = ("cyan", "magenta", "green", "yellow", "blue", "red")
LONG: Final = 60  # characters of a mention that a list of clusters shows


def grouping(
    train: Path, valid: Path | None, share: float, reading: Mapping[str, Any], seed: int, notes: Notes
) -> tuple[list[Sample], list[Sample], dict[str, Any]]:
    """Documents to learn from, documents to validate on, and what run.json says of them."""
    from pretune.data.documents import read_documents

    columns = {name: reading[name] for name in ("text", "label", "format", "encoding")}
    _, learn, check = divided(
        lambda path, first: read_documents(path, **columns), train, valid, share, seed, notes, "documents"
    )
    return learn, check, {**prints_of(train, learn, valid, check), "kind": "clusters"}


def one_by_one(recipe: str | None, settings: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """A recipe's settings with a document a step, unless they say otherwise."""
    from pretune.recipes.variants import meant

    if "batch_size" in settings or "batch_size" in meant(recipe):
        return settings
    notes("a step learns from one document (recipe.batch_size=1)")
    return {**settings, "batch_size": 1}


def print_clusters(samples: Sequence[Sample], answers: Sequence[Answer]) -> None:
    """Each document with its mentions in numbered brackets, then what each cluster is made of."""
    from rich.text import Text

    for sample, answer in zip(samples, answers, strict=True):
        clusters, text = answer.clusters or (), sample.texts[0]
        if sample.key:
            stdout().print(Text(sample.key, style="bold"))
        stdout().print(bracketed(text, clusters), soft_wrap=True)
        for number, cluster in enumerate(clusters, 1):
            named = (" ".join(text[start:end].split()) for start, end in cluster)
            short = " · ".join(x if len(x) <= LONG else x[: LONG - 1] + "…" for x in named)
            stdout().print(
                Text(f"{number:>4}  {short}", style=COLOURS[number % len(COLOURS)]), soft_wrap=True
            )
        if not clusters:
            stdout().print("no clusters")


def bracketed(text: str, clusters: Clusters) -> Text:
    """The text with mentions as [1 …], coloured by cluster, longer ones outside."""
    from rich.text import Text

    marks: list[tuple[int, int, int, str, int]] = []  # place; closing first; the order there; sign, cluster
    for number, cluster in enumerate(clusters, 1):
        for start, end in cluster:
            marks.append((start, 1, start - end, f"[{number} ", number))
            marks.append((end, 0, -start, "]", number))
    shown, at = Text(), 0
    for place, _, _, sign, number in sorted(marks):
        shown.append(text[at:place])
        shown.append(sign, style=COLOURS[number % len(COLOURS)])
        at = place
    shown.append(text[at:])
    return shown


def conll_text(task: Coref, samples: Sequence[Sample], answers: Sequence[Answer]) -> str:
    """Answers in CoNLL's columns."""
    from pretune.data.documents import write_documents

    said = zip(samples, answers, strict=True)
    return write_documents(
        [(sample, task.words_of(sample), answer.clusters or ()) for sample, answer in said]
    )
