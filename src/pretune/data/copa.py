"""COPA's questions (Roemmele et al. 2011), as published and as SuperGLUE has them -> a table of choices.

A premise asks for its cause or its effect. Methods read the premise up to its last word and a connective:
"The man broke his toe because", and each alternative as a choice after it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from pretune.data.conll import UNSPACED
from pretune.data.files import read_text, shown
from pretune.data.tables import Table, TableRow
from pretune.errors import UserError

CONNECTIVES: Final = {"cause": ("because", "因为"), "effect": ("so", "所以")}  # the second after Chinese
COLUMNS: Final = ("premise", "question", "choice1", "choice2", "label")  # as SuperGLUE calls them
ENDS: Final = ".!?。！？ "


def read_copa(path: Path, encoding: str, labelled: bool) -> Table:
    """`<item id asks-for most-plausible-alternative><p/><a1/><a2/></item>`; rows are "file:id"."""
    try:
        root = ElementTree.fromstring(read_text(path, encoding))
    except ElementTree.ParseError as error:
        raise UserError(f"{path.name}: not valid XML ({error}); write it again") from None
    rows = []
    for place, item in enumerate(root.iter("item"), 1):
        where = f"{path.name}:{item.get('id', place)}"
        texts = [
            "".join(found.itertext()) if (found := item.find(x)) is not None else ""
            for x in ("p", "a1", "a2")
        ]
        missing = next(
            (x for x, text in zip(("p", "a1", "a2"), texts, strict=True) if not text.strip()), None
        )
        if missing is not None:
            raise UserError(f"{where}: the item has no text in <{missing}>; it needs <p>, <a1> and <a2>")
        right = item.get("most-plausible-alternative")
        if right not in ("1", "2") and labelled and right is not None:
            raise UserError(f"{where}: most-plausible-alternative is {shown(right)}; it must be 1 or 2")
        label = int(right) - 1 if labelled and right is not None else None
        rows.append(TableRow(where, [texts[0], item.get("asks-for"), *texts[1:], label]))
    if not rows:
        raise UserError(f'{path.name}: holds no <item asks-for="cause"> as COPA has them; check the file')
    return Table(path.name, COLUMNS, rows)


def connected(table: Table) -> Table:
    """Where questions are "cause" or "effect": connectives for them, after premises without their stop."""
    if not {"premise", "question"} <= {*table.columns}:
        return table
    premise, question = (table.columns.index(name) for name in ("premise", "question"))
    asked = [str(row.cells[question]).strip().casefold() for row in table.rows]
    if not CONNECTIVES.keys() & {*asked}:
        return table
    rows = []
    for row, word in zip(table.rows, asked, strict=True):
        if word not in CONNECTIVES:
            raise UserError(
                f"{row.where}: asks for {shown(row.cells[question])}, others for cause or effect; correct it"
            )
        cells = list(row.cells)
        text = str(cells[premise] or "").strip().rstrip(ENDS)
        english, chinese = CONNECTIVES[word]
        cells[premise], cells[question] = text, chinese if UNSPACED.match(text[-1:]) else english
        rows.append(TableRow(row.where, cells))
    note = (
        f"{table.name}: cause and effect are read as a connective after the premise, such as because and so"
    )
    return replace(table, rows=rows, notes=[*table.notes, note])
