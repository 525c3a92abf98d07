"""A folder of class folders as a table: each file one text, its class folder the label (as in IMDB)."""

from __future__ import annotations

from pathlib import Path

from pretune.data.files import listed, read_text, shown
from pretune.data.tables import Table, TableRow
from pretune.errors import UserError


def read_folder(path: Path, encoding: str, labelled: bool) -> Table:
    """FOLDER/CLASS/FILE -> (text, label). For prediction a flat folder of files will do.

    Every file that is not hidden is one text, whatever its ending; .gz and .xz are unpacked. Files come in
    the order of their names.
    """
    if not path.is_dir():
        raise UserError(f"{path.name}: a file where --format folder needs a folder with one folder a class")
    visible = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    classes = [entry for entry in visible if entry.is_dir()]
    if not labelled and not classes:
        rows = [TableRow(f"{path.name}/{file.name}", (document(file, encoding),)) for file in visible]
        return Table(path.name, ("text",), some(path, rows), fixed=True)
    if not classes:
        names = [entry.name for entry in visible]
        holds = f"it holds {listed(names, 4)}" if names else "it is empty"
        raise UserError(
            f"{path}: no class folders inside ({holds}); name a file, or make {path.name}/CLASS/*.txt"
        )
    notes = []
    loose = [entry.name for entry in visible if not entry.is_dir()]
    if loose:
        notes.append(f"{path.name}: files beside the class folders are not read ({listed(loose, 3)})")
    rows = []
    for folder in classes:
        files = sorted(file for file in folder.rglob("*") if file.is_file() and not hidden(file, folder))
        if not files:
            notes.append(f"{path.name}: class folder {shown(folder.name)} is empty and counts as no class")
        for file in files:
            where = f"{path.name}/{file.relative_to(path).as_posix()}"
            rows.append(TableRow(where, (document(file, encoding), folder.name)))
    return Table(path.name, ("text", "label"), some(path, rows), notes, fixed=True)


def document(file: Path, encoding: str) -> str:
    """A file's text without its last line end."""
    return read_text(file, encoding).removesuffix("\n").removesuffix("\r")


def hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def some(path: Path, rows: list[TableRow]) -> list[TableRow]:
    if not rows:
        raise UserError(f"{path}: no files inside; put one text a file into {path.name}/CLASS/")
    return rows
