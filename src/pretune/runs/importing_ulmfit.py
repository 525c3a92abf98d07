"""Published ULMFiTs as model folders: language models, classifiers, either of them in two directions."""

from __future__ import annotations

from pretune.errors import UsageError, UserError
from pretune.methods import METHODS
from pretune.methods.ulmfit.heads import PublishedHead, fill
from pretune.methods.ulmfit.importing import Imported, import_ulmfit
from pretune.methods.ulmfit.release import Files, Way, models
from pretune.runs.imported_task import classification_of
from pretune.runs.published import Published
from pretune.runs.starts import Start
from pretune.runs.trained import Ensemble, Trained, TrainedModel, join
from pretune.tasks.classification import Classification
from pretune.tasks.summary_head import ClassificationHead

ULMFIT = METHODS["ulmfit"]


def ulmfit(published: Published) -> tuple[Start | list[Start] | Trained, list[str]]:
    """What a file, or a release with what lies beside, holds."""
    if published.source is None:
        raise UsageError("give the file of weights: pretune import ulmfit FILE --vocab itos.pkl --out DIR")
    asked = published.codec.get("direction")
    way: Way | None = asked if asked in ("forward", "backward") else None
    with models(published.source, published.vocab, published.pieces, way) as files:
        if published.backward is not None:
            return _pair(published, files)
        if asked == "both" and len(files) < 2:
            raise UsageError("--direction both wants two models: give the second as --backward FILE")
        return _models(published, files)


def _pair(published: Published, files: list[Files]) -> tuple[Start | list[Start] | Trained, list[str]]:
    assert published.backward is not None
    if len(files) > 1:
        raise UsageError(f"{published.source} holds a backward model itself; leave --backward out")
    if published.codec.get("direction", "both") != "both":
        raise UsageError("with --backward there are two directions; leave --direction out")
    (first,) = files
    if first.way == "backward":
        raise UsageError(
            f"{published.source} is named as if it read backward, and --backward names another; give the "
            "forward model as FILE"
        )
    vocab, pieces = published.vocab or first.vocab, published.pieces or first.pieces
    with models(published.backward, vocab, pieces, "backward") as more:
        (second,) = more
        if second.way == "forward":
            raise UsageError(
                f"--backward {published.backward} is named as if it read forward; give the other"
            )
        return _models(published, [first._replace(way="forward"), second._replace(way="backward")])


def _models(published: Published, files: list[Files]) -> tuple[Start | list[Start] | Trained, list[str]]:
    settings = {name: x for name, x in published.codec.items() if name != "direction" or x != "both"}
    read = [import_ulmfit(one, settings, published.encoder, published.encoder_only) for one in files]
    notes: list[str] = []
    for one, imported in zip(files, read, strict=True):
        lead = f"{one.way}: " if len(files) > 1 else ""
        notes += [f"{lead}{note}" for note in imported.notes]
    names = (
        [str(one.way) for one in files]
        if len(files) > 1
        else [published.source.name if published.source else ""]
    )
    starts = [
        Start(name, ULMFIT, one.codec, one.encoder, one.encoder.config)
        for name, one in zip(names, read, strict=True)
    ]
    heads = [one.head for one in read]
    if not any(heads):
        _check_unused(published)
        return starts if len(starts) > 1 else starts[0], notes
    if not all(heads):
        raise UserError("one of the two is a classifier, the other not; import them one by one")
    if heads[0] and heads[-1] and _widths(heads[0]) != _widths(heads[-1]):
        raise UserError(
            f"the head of the forward classifier has the widths {_widths(heads[0])}, the backward "
            f"one {_widths(heads[-1])}; such two cannot answer together"
        )
    task, more = _task(published, read[0])
    members = {
        start.name: _trained(start, task, head)
        for start, head in zip(starts, heads, strict=True)
        if head is not None
    }
    if len(members) > 1:
        return Ensemble(members), [*notes, *more]
    return next(iter(members.values())), [*notes, *more]


def _widths(head: PublishedHead) -> list[int]:
    """What its linear layers give; the last is one score a label."""
    return [len(linear["weight"]) for linear in head.linears]


def _check_unused(published: Published) -> None:
    if published.labels or published.task:
        raise UsageError("--labels and task.… are for classifiers; these weights have no head")


def _task(published: Published, read: Imported) -> tuple[Classification, list[str]]:
    assert read.head is not None
    head = {"hidden": read.head.hidden, "head_kind": "two_layer"}
    return classification_of(published, read.head.outputs, read.labels or (), head)


def _trained(start: Start, task: Classification, found: PublishedHead) -> TrainedModel:
    trained = join(start, task, start.method.recipe, 0)
    head = trained.model.head
    assert isinstance(head, ClassificationHead)
    fill(head, found)
    return trained
