"""Files of published weights and vocabularies: read as data, no code of theirs is ever run."""

from __future__ import annotations

import io
import json
import pickle
import re
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from torch import Tensor

from pretune.data.files import check_exists, read_bytes, read_text, shown, suffix
from pretune.errors import UserError
from pretune.methods import tensor_files
from pretune.methods.tensor_files import DAMAGED

HDF5: Final = b"\x89HDF"
SAVING: Final = " (fastai: learn.model, salesforce: the first of the three)"


class Items:
    """Stands in for fastcore's list, and for the list of classes that fastai makes of it."""

    items: Any = ()


LISTS: Final = ("fastcore.foundation.L", "fastcore.basics.L", "fastai.data.transforms.CategoryMap")
PLAIN: Final[Mapping[str, Any]] = {  # all that a pickle may name
    **{f"builtins.{kind.__name__}": kind for kind in (dict, int, list, object, str, tuple)},
    "collections.OrderedDict": OrderedDict,
    "collections.defaultdict": defaultdict,
    **dict.fromkeys(LISTS, Items),
}


class Words(NamedTuple):
    """A vocabulary, and the labels where it is that of a classifier (fastai 2's `dls.vocab`)."""

    words: list[str]
    labels: tuple[str, ...] | None = None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A state dict: of torch in any of its formats whatever the ending says (fast.ai's .h5 are), or
    safetensors. The optimizer's state beside it is left out.
    """
    check_exists(path)
    if path.is_file():
        with path.open("rb") as stream:
            if stream.read(4) == HDF5:
                raise UserError(
                    f"{path}: HDF5, so weights of Keras; give the .pth of fastai that they were made from "
                    "(tf2-ulmfit keeps it in fastai_model)"
                )
    return tensor_files.read_tensors(path, [(Items, name) for name in LISTS], SAVING)


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)  # Python 2
        full = f"{module}.{name}"
        if full == "copyreg._reconstructor":
            return _reconstructed
        if full not in PLAIN:
            raise pickle.UnpicklingError(full)
        return PLAIN[full]


def _reconstructed(kind: type, base: type, state: Any) -> Any:
    """What the oldest protocols call to make an object: here only a stand-in."""
    if kind is not Items:
        raise pickle.UnpicklingError(f"{kind.__module__}.{kind.__qualname__}")
    return Items()


def read_words(path: Path) -> Words:
    """The words in the order of their ids: a pickled list, or dict of word to id; .json of either; .txt, a
    word a line; .vocab of SentencePiece. A pickle may hold lists, dicts, texts and numbers, nothing else.
    """
    ending = suffix(path)
    if ending in (".pkl", ".pickle"):
        found = _unpickled(path)
    elif ending == ".json":
        try:
            found = json.loads(read_text(path))
        except ValueError as error:
            raise UserError(f"{path}: not JSON ({error})") from None
    else:
        lines = [line.removesuffix("\r") for line in read_text(path).removesuffix("\n").split("\n")]
        pieces = ending == ".vocab" and all(line.count("\t") == 1 for line in lines)
        return Words([line.partition("\t")[0] for line in lines] if pieces else lines)
    found = _plain(found)
    if isinstance(found, list) and len(found) == 2 and all(isinstance(x, list) for x in found):
        words, labels = found
        return Words(_listed(words, path), tuple(map(str, labels)))
    return Words(_listed(found, path))


def _unpickled(path: Path) -> Any:
    data = read_bytes(path)
    try:
        return _Restricted(io.BytesIO(data)).load()
    except pickle.UnpicklingError as error:
        if not re.fullmatch(r"[\w.]+", str(error)):
            raise UserError(f"{path}: not a pickle, or damaged") from None
        raise UserError(
            f"{path}: a pickle of {error}, which is not read: its code would have to run; save the plain "
            "list of words, pickle.dump(list(itos), file), or write them to a .txt, one a line"
        ) from None
    except DAMAGED:
        raise UserError(f"{path}: not a pickle, or damaged") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Items):
        return _plain(value.items)
    if isinstance(value, (list, tuple)):
        return [_plain(x) if isinstance(x, (Items, list, tuple)) else x for x in value]
    return value


def _listed(found: Any, path: Path) -> list[str]:
    """Words by id, of a list or of a dict either way round."""
    if isinstance(found, Mapping):
        pairs = list(found.items())
        if pairs and all(isinstance(x, str) for _, x in pairs):
            pairs = [(word, number) for number, word in pairs]
        numbered = {number: word for word, number in pairs if type(number) is int}
        if sorted(numbered) != list(range(len(pairs))):
            raise UserError(f"{path}: its ids are not the numbers 0 to {len(pairs) - 1:,}, each once")
        found = [numbered[number] for number in range(len(pairs))]
    if not isinstance(found, list) or not found:
        raise UserError(f"{path}: holds {shown(found)}, no list of words")
    for number, word in enumerate(found):
        if not isinstance(word, str):
            raise UserError(f"{path}: id {number:,} is {shown(word)}, which is no word")
    return found
