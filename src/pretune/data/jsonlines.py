"""JSON lines as tables: one object a line, with file, line and column of what is wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from pretune.data.tables import Table, TableRow, blank_note, numbered, whole
from pretune.errors import UserError


def read_jsonl(path: Path, encoding: str, asked: Sequence[str]) -> Table:
    """One JSON object a line; the columns are all keys, in the order in which they first appear."""
    columns: dict[str, None] = dict.fromkeys(())
    objects, blank = [], []
    for line, text in numbered(whole(path, encoding)):
        if text.strip():
            record = json_object(f"{path.name}:{line}", text)
            columns.update(dict.fromkeys(record))
            objects.append((line, record))
        else:
            blank.append(f"{path.name}:{line}")
    if not columns:
        raise UserError(
            f'{path.name}: holds no JSON object with a key; write one such as {{"text": …}} a line'
        )
    rows = [TableRow(f"{path.name}:{line}", [record.get(c) for c in columns]) for line, record in objects]
    return Table(path.name, tuple(columns), rows, blank_note(path.name, blank))


def json_object(where: str, text: str) -> dict[str, object]:
    """The object of one line of JSON lines."""

    def refuse(constant: str) -> NoReturn:
        raise UserError(f"{where}: {constant} is not JSON; write null or a number")

    try:
        record = json.loads(text, parse_constant=refuse)
        if "\\u" in text:
            json.dumps(record, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where}: not valid JSON at column {error.colno} ({error.msg}); write one whole object a line"
        ) from None
    except UnicodeEncodeError:
        raise UserError(f"{where}: half a surrogate pair (\\ud8…) is no character; complete it") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not readable JSON ({str(error)[:80]}); write plain objects") from None
    if not isinstance(record, dict):
        kinds = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
        found = kinds.get(type(record), "a number")
        raise UserError(
            f'{where}: {found} where an object such as {{"text": …}} is needed; write one object a line'
        )
    return record
