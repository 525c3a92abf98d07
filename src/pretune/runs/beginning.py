"""What a task is begun from: a folder, a starter, a file of vectors, or fresh weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretune.errors import UsageError, choose

if TYPE_CHECKING:
    from pretune.data.corpus import Documents
    from pretune.data.samples import Sample
    from pretune.methods.base import Method
    from pretune.runs.starts import Start


def codec_config(method: Method, changes: Mapping[str, Any], language: str | None) -> Any:
    from pretune.config import build

    return build(method.codec_config, {"language": language or "auto", **changes}, "codec")


def texts_of(samples: Sequence[Sample]) -> Documents:
    """Their texts as a corpus to learn a vocabulary from."""
    return lambda: (text for sample in samples for text in sample.texts)


def check_head(task: object, said: Mapping[str, Any]) -> None:
    """Raise where settings are of another head than the task has."""
    from pretune.tasks.head_kinds import ONLY_OF, of_another_head

    kind = getattr(task, "head_kind", None)
    for name, heads in ONLY_OF.items():
        if kind is not None and name in said and kind not in heads:
            raise of_another_head(name, kind)


def start_of(said: str, method: str | None) -> str:
    """What --from means: of `en` or `zh` the folder of the starter of `method`, else as it is."""
    from pretune.runs.starters import is_language, of_language

    return str(of_language(said, [method or "ulmfit"])[0]) if is_language(said) else said


def started_from(
    name: str,
    join: str,
    method: str | None,
    size: str,
    vectors: Path | None,
    language: str | None,
    said: Mapping[str, Mapping[str, Any]],
    samples: Sequence[Sample],
    seed: int,
    notes: Callable[..., object],
) -> Start | list[Start]:
    """What finetuning starts from: a folder, a file of vectors, or fresh weights.

    `notes` is told, a line each, what a user may want to know.
    `join` says what becomes of a folder's two directions: "concat", one encoder, or "average", a list.
    """
    from pretune.config import update
    from pretune.data.segment import guess_language
    from pretune.runs.folders import read_config
    from pretune.runs.guests import hint
    from pretune.runs.run import TABLES, load_start, scratch
    from pretune.runs.starts import adjusted, method_to_begin, side_by_side, vectors_start

    if name != "scratch":
        given = [option for option, value in (("--vectors", vectors), ("--language", language)) if value]
        given += ["codec.…"] if said["codec"] else []
        if given:
            raise UsageError(f"{given[0]} cannot be chosen anew with --from {name}: the folder has its own")
        loaded = load_start(Path(name))
        some = [adjusted(x, said["encoder"]) for x in (loaded if isinstance(loaded, list) else [loaded])]
        found = some if isinstance(loaded, list) else some[0]
        one = found[0] if isinstance(found, list) else found
        if method is not None and one.method.name != method:
            raise UsageError(f"--method is {method}, but {name} holds {one.method.name}; leave --method out")
        notes(one.codec.describe(), *hint(name, read_config(Path(name))))
        if isinstance(found, list) and join == "concat":
            notes(f"{' and '.join(start.name for start in found)} are read side by side, as one model")
            return side_by_side(found, Path(name).name)
        return found
    chosen = method_to_begin(method or ("wordvectors" if vectors else "ulmfit"))
    codec = codec_config(chosen, said["codec"], language)
    if vectors is not None:
        if chosen.name != "wordvectors":
            raise UsageError(f"--vectors are for wordvectors; {chosen.name} starts with --from DIR")
        changes = {"language": language or guess_language(text for s in samples for text in s.texts)}
        start = vectors_start(vectors, {**changes, **said["codec"]}, said["encoder"])
    else:
        if size not in chosen.sizes:
            raise choose("--size", size, chosen.sizes)
        encoder = update(chosen.sizes[size], said["encoder"], "encoder", TABLES)
        start = scratch(chosen, size, texts_of(samples), seed, codec, encoder_config=encoder)
    notes(start.codec.describe())
    return start
