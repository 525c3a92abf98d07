"""Comparison -> report.html, report.md and comparison.json: one answer for eyes, terminals and programs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pretune.runs import plots
from pretune.runs.comparison import (
    Breakdown,
    Comparison,
    Contender,
    contender_names,
    p_text,
    seconds_text,
    style,
)
from pretune.runs.files import write_json, write_text
from pretune.runs.mixes import heard
from pretune.runs.report_scores import costs, curves, evidence, gains, ranking, series

WIDEST = 12  # labels of a confusion matrix that is drawn whole


def write(comparison: Comparison, out: Path) -> list[Path]:
    """All three files; returns their paths, the one for people first."""
    paths = [out / "report.html", out / "report.md", out / "comparison.json"]
    write_text(paths[0], html(comparison))
    write_text(paths[1], markdown(comparison))
    write_json(paths[2], comparison.to_dict())
    return paths


def html(comparison: Comparison) -> str:
    """One self-contained page: no script, no network."""
    return _render("report.html.j2", comparison, True)


def markdown(comparison: Comparison) -> str:
    return _render("report.md.j2", comparison, False)


def _render(template: str, comparison: Comparison, escaped: bool) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pretune.runs", "templates"),
        autoescape=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["cell"] = _cell
    said = context(comparison)
    if escaped:
        said |= {"headline": _unbroken(said["headline"]), "reasons": [*map(_unbroken, said["reasons"])]}
    return environment.get_template(template).render(said)


def _unbroken(text: str) -> str:
    """Numbers stay on one line with their units and signs."""
    return re.sub(r"(?<=\d) (?=(?:%|s|MB|GB|min|h)\b|%)|(?<=[<=p]) (?=[<=\d])", "\N{NO-BREAK SPACE}", text)


def context(comparison: Comparison) -> dict[str, Any]:
    """What the templates say, as words and finished drawings."""
    first, rest = headline(comparison.recommendation)
    largest = comparison.sizes[-1]
    return {
        "title": f"pretune compare: {comparison.data['name']}",
        "headline": first,
        "reasons": comparison.reasons or ([rest] if rest else []),
        "data": comparison.data,
        "facts": _facts(comparison),
        "metric": comparison.metric.replace("_", " "),
        "Metric": comparison.metric.replace("_", " ").capitalize(),
        "largest": f"{largest:,}",
        "tests": comparison.tests,
        "tests_line": _tests_line(comparison),
        "machine": comparison.data["machine"],
        "starts": ", ".join(
            f"{name} took {seconds_text(s)}" for name, s in comparison.data["starts"].items()
        ),
        "chosen": comparison.name(comparison.best.contender) if comparison.best else "",
        "confusion": _confusion(comparison),
        "lengths": [{**x, "f1": style("span_f1")(x["f1"])} for x in comparison.lengths],
        "breakdowns": list(map(_breakdown, comparison.breakdowns)),
        "counted": comparison.counted,
        "hardest": comparison.hardest,
        "hardest_how": _hardest_how(comparison),
        "notes": comparison.notes,
        "commands": comparison.commands,
        "versions": comparison.versions,
        **ranking(comparison),
        **evidence(comparison),
        **curves(comparison),
        **gains(comparison),
        **costs(comparison),
        "mixes": _mixes(comparison),
    }


def headline(recommendation: str) -> tuple[str, str]:
    """The first sentence, and the rest."""
    first, *rest = re.split(r"(?<=\.)\s+(?=[A-Z])", recommendation, maxsplit=1)
    return first, rest[0] if rest else ""


def _facts(comparison: Comparison) -> list[tuple[str, str]]:
    data = comparison.data
    facts = [
        ("labelled pool", f"{data['train']:,} samples"),
        ("test", f"{data['test']:,} samples"),
        ("metric", comparison.metric.replace("_", " ")),
        ("seeds", str(len({row.seed for row in comparison.rows}))),
        ("trainings", str(len(comparison.rows))),
    ]
    if data.get("valid"):
        facts.insert(1, ("validation", f"{data['valid']:,} a seed"))
    if data["labels"]:
        facts.insert(-3, ("labels", str(len(data["labels"]))))
    return facts


def _mixes(comparison: Comparison) -> list[dict[str, Any]]:
    """Which layers each scalar mix listens to, drawn and in words."""
    from markupsafe import Markup

    rows, all_series, found = [], series(comparison), heard(comparison)
    most = max((share for one in found for of_seed in one.seeds for share in of_seed), default=1)
    for one in found:
        drawn = all_series[one.contender]
        labels = [f"layer {layer}" for layer in one.layers]
        said = [f"{label} {share:.1%}" for label, share in zip(labels, one.mean, strict=True)]
        rows.append(
            {
                "name": drawn.name,
                "swatch": Markup(plots.swatch(drawn)),
                "place": one.place,
                "picture": Markup(plots.shares(labels, one.seeds, most, drawn.colour, ", ".join(said))),
                "shares": ", ".join(said).replace("%", " %"),
                "gamma": f"{one.gamma:.2f}",
            }
        )
    return rows


def _confusion(comparison: Comparison) -> dict[str, Any] | None:
    if comparison.confusion is None:
        return None
    labels, counts = comparison.confusion["labels"], comparison.confusion["counts"]
    if len(labels) > WIDEST:
        return {"labels": len(labels), "table": None, "pairs": _pairs(labels, counts)}
    rows = []
    for i, label in enumerate(labels):
        total = max(1, sum(counts[i]))
        cells = [
            {"count": count, "share": f"{count / total:.3f}", "right": i == j}
            for j, count in enumerate(counts[i])
        ]
        rows.append({"label": label, "cells": cells})
    return {"labels": len(labels), "heads": labels, "table": rows, "pairs": []}


def _pairs(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """The most frequent wrong answers."""
    wrong = [(counts[i][j], i, j) for i in range(len(labels)) for j in range(len(labels)) if i != j]
    worst = sorted(wrong, key=lambda one: (-one[0], one[1], one[2]))[:15]
    return [
        {"gold": labels[i], "said": labels[j], "count": n, "of": sum(counts[i])} for n, i, j in worst if n
    ]


def _breakdown(one: Breakdown) -> dict[str, Any]:
    """A table of errors as words; of shares also as numbers, for bars."""
    rows = [{"name": name, "cells": list(map(_counted, cells))} for name, *cells in one.rows]
    head, *columns = one.columns
    return {"title": one.title, "how": one.how, "head": head, "columns": columns, "rows": rows}


def _counted(value: int | float | None) -> dict[str, Any]:
    if isinstance(value, float):
        return {"text": style("accuracy")(value), "share": f"{value:.3f}"}
    return {"text": "–" if value is None else f"{value:,}", "share": None}


def _tests_line(comparison: Comparison) -> str:
    mcnemar = [test for test in comparison.tests if test.p_mcnemar is not None]
    if not mcnemar:
        return ""
    names = contender_names(comparison.contenders, comparison.titles)
    said = "; ".join(
        f"{names[Contender(t.method, t.recipe, t.start)]} {p_text(t.p_mcnemar)}" for t in mcnemar
    )
    return (
        "McNemar's exact test of the first row, on the answers that most seeds got right (uncorrected p): "
        + said
        + "."
    )


def _hardest_how(comparison: Comparison) -> str:
    if comparison.data["kind"] == "number":
        return "Farthest from the truth over all approaches and seeds, at the largest size."
    return "Answered wrongly by most trainings, over all approaches and seeds at the largest size."


def _cell(text: object) -> str:
    """Text inside a cell or list item of Markdown."""
    return (
        re.sub(r"\s+", " ", str(text))
        .replace("\\", "\\\\")
        .replace("|", "\\|")
        .replace("<", "&lt;")
        .replace("*", "\\*")
    )
