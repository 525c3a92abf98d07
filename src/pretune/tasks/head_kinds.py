"""The heads of classification to choose among, and which options are whose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from pretune.errors import UsageError, choose
from pretune.tasks.bcn import BCN_DROPOUTS
from pretune.tasks.esim import ESIM_DROPOUT
from pretune.tasks.similarity import Orders

if TYPE_CHECKING:
    from pretune.tasks.classification import Classification

HeadKind = Literal["linear", "two_layer", "bcn", "esim"]
READERS: tuple[HeadKind, ...] = ("bcn", "esim")  # heads that read the vectors of tokens
ONLY_OF: dict[str, tuple[HeadKind, ...]] = {  # options that not every head has
    "hidden": ("two_layer", *READERS),
    "summary_dropout": ("two_layer",),
    "maxout": ("bcn",),
    "bilstm": READERS,
}
DROPOUTS: dict[HeadKind, tuple[float, ...]] = {"bcn": BCN_DROPOUTS, "esim": (ESIM_DROPOUT,)}


def widths_of(kind: HeadKind, hidden: int | tuple[int, ...] | None) -> tuple[int, ...]:
    """`task.hidden`, or what is usual for the head."""
    if hidden is None:
        return (300 if kind in READERS else 50,)
    return (hidden,) if isinstance(hidden, int) else hidden


def dropouts_of(kind: HeadKind, dropout: float | tuple[float, ...] | None, layers: int) -> tuple[float, ...]:
    """`task.dropout` of each place, or what is usual for the head."""
    if isinstance(dropout, tuple):
        return dropout
    usual = DROPOUTS.get(kind, (0.1,) * (layers if kind == "two_layer" else 1))
    return usual if dropout is None else (dropout,) * len(usual)


def reads_apart(task: Classification) -> str:
    """The setting by which the texts of a pair are read each alone."""
    return f"task.pair is {task.pair}" if task.pair else f"task.head_kind is {task.head_kind}"


def check_head(task: Classification) -> None:
    """Raise where the head and its options do not go together."""
    for name, possible in (
        ("head_kind", get_args(HeadKind)),
        ("pair", ("joined", "siamese", None)),
        ("orders", get_args(Orders)),
        ("of_rows", ("mean", "sum")),
    ):
        if getattr(task, name) not in possible:
            raise choose(f"task.{name}", getattr(task, name), [x for x in possible if x is not None])
    if task.head_kind == "esim" and task.pair == "joined":
        raise UsageError("task.head_kind is esim, which reads two texts each alone; leave task.pair out")
    if task.apart and task.orders == "both":
        raise UsageError(f"{reads_apart(task)}, which reads no text after another; leave task.orders out")
    _check_sizes(task)
    for name, wrong in (("maxout", task.maxout != 4), ("bilstm", not task.bilstm)):
        if wrong and task.head_kind not in ONLY_OF[name]:
            raise of_another_head(name, task.head_kind)


def _check_sizes(task: Classification) -> None:
    widths, dropouts, kind = task.widths(), task.dropouts(), task.head_kind
    if any(width < 1 for width in widths):
        raise UsageError(f"task.hidden is {said(task.hidden)}; it must be at least 1")
    if kind in READERS and len(widths) != 1:
        raise UsageError(f"task.hidden is {said(task.hidden)}; task.head_kind={kind} has one width")
    if task.maxout < 2:
        raise UsageError(f"task.maxout is {task.maxout}; the largest is taken of 2 or more")
    for name, values in (("dropout", dropouts), ("summary_dropout", (task.summary_dropout,))):
        if not all(0 <= p < 1 for p in values):
            raise UsageError(f"task.{name} is {said(getattr(task, name))}; it must be from 0 to below 1")
    wanted = len(dropouts_of(kind, None, len(widths)))
    if len(dropouts) != wanted:
        raise UsageError(f"task.dropout has {len(dropouts)} numbers, but {wanted} layers have such a dropout")


def of_another_head(name: str, kind: str) -> UsageError:
    """An option that this head has not."""
    heads = ONLY_OF[name]
    return UsageError(
        f"task.{name} is for task.head_kind {' or '.join(heads)}, and this head is {kind}; leave it out, or "
        f"add task.head_kind={heads[0]}"
    )


def said(value: Any) -> Any:
    """As a user writes it."""
    return list(value) if isinstance(value, tuple) else value
