"""Config: frozen dataclasses from TOML files and dotted overrides; mistakes name place and choices."""

from __future__ import annotations

import sys
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import (
    Any,
    Literal,
    Protocol,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)

from pretune.errors import UsageError, choose

T = TypeVar("T")
# What may stand where a protocol or base class is wanted: its name in config -> a dataclass.
Tables = Mapping[type, Mapping[str, type]]


@runtime_checkable
class Said(Protocol):
    """A dataclass whose fields depend on one another where they are left out."""

    def said(self) -> Mapping[str, Any]:
        """The fields that it was made with."""
        ...


_WANTED: dict[Any, str] = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
_WANTED |= {Path: "a path", type(None): "none"}


def build(cls: type[T], mapping: Mapping[str, Any], where: str, tables: Tables | None = None) -> T:
    """An instance of `cls` from plain values; a `cls` that stands in `tables` is chosen by `kind`.

    build(Full, {"lr": 0.004}, "recipe"); build(Recipe, {"kind": "full"}, "recipe", {Recipe: RECIPES})
    """
    if cls in (tables or {}):
        mapping = dict(mapping)
        cls = _by_kind(cls, mapping, where, tables or {})
    return _make(cls, None, mapping, where, tables or {})


def override(instance: T, settings: Sequence[str], where: str = "", tables: Tables | None = None) -> T:
    """A copy of `instance` with ["lr=0.004", "optimizer.beta1=0.8"] put in."""
    return update(instance, parse(settings), where or type(instance).__name__.lower(), tables)


def update(instance: T, mapping: Mapping[str, Any], where: str, tables: Tables | None = None) -> T:
    """A copy of `instance` with the values of a nested mapping put in."""
    if "kind" in mapping and "kind" not in {field.name for field in fields(cast(Any, instance))}:
        for base, table in (tables or {}).items():
            if type(instance) in table.values():
                return cast(T, build(base, mapping, where, tables))
    return _make(type(instance), instance, mapping, where, tables or {})


def parse(settings: Sequence[str]) -> dict[str, Any]:
    """["recipe.lr=0.004", "text=review"] as a nested mapping; values are read as TOML, else as text."""
    whole: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        steps = name.strip().split(".")
        if not equals or not all(steps):
            raise UsageError(f"{setting!r} is no setting; write it as name=value, such as recipe.lr=0.004")
        place = whole
        for step in steps[:-1]:
            place = place.setdefault(step, {})
            if not isinstance(place, dict):
                raise UsageError(f"{name} is set below {step}, which has been given a value")
        place[steps[-1]] = _literal(text.strip())
    return whole


def load_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; a syntax error names file and line."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such config file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"{path}: {error}") from None


def merge(*mappings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings laid over one another, the last on top."""
    whole: dict[str, Any] = {}
    for mapping in mappings:
        for name, value in mapping.items():
            both = isinstance(value, Mapping) and isinstance(whole.get(name), Mapping)
            whole[name] = merge(whole[name], value) if both else value
    return whole


def to_dict(instance: Any, tables: Tables | None = None) -> dict[str, Any]:
    """Plain values for JSON, such that `build` makes an equal instance of them.

    With `tables`, every dataclass that stands in one says which by `kind`.
    """
    plain = {field.name: _plain(getattr(instance, field.name), tables or {}) for field in fields(instance)}
    kind = None if "kind" in plain else kind_of(instance, tables or {})
    return {"kind": kind, **plain} if kind else plain


def described(instance: Any, tables: Tables) -> dict[str, Any]:
    """`to_dict` of something chosen by `kind`; somebody else's class is named by its import path."""
    found = to_dict(instance, tables)
    foreign = f"{type(instance).__module__}:{type(instance).__qualname__}"
    return found if "kind" in found else {"kind": foreign, **found}


def kind_of(instance: Any, tables: Tables) -> str | None:
    """The name under which the type of `instance` stands in any of `tables`."""
    names = (name for table in tables.values() for name, cls in table.items() if cls is type(instance))
    return next(names, None)


def module_named(name: str) -> Any:
    """The module, from the working folder too, which a console command does not search by itself."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.split(".")[0] or str(Path.cwd()) in sys.path:
            raise
    sys.path.append(str(Path.cwd()))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(Path.cwd()))


def imported(name: str, where: str) -> Any:
    """Somebody else's `package.module:Name`."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(module_named(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{where} is {name!r}, which cannot be imported: {error}") from None


def _plain(value: Any, tables: Tables) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return to_dict(value, tables)
    if isinstance(value, Mapping):
        return {str(name): _plain(x, tables) for name, x in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(x, tables) for x in value]
    return str(value) if isinstance(value, Path) else value


def _literal(text: str) -> Any:
    if text.lower() == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _by_kind(base: type, mapping: dict[str, Any], where: str, tables: Tables) -> type:
    """The class that `mapping["kind"]` names, taken out of `mapping`."""
    table = tables[base]
    if "kind" not in mapping:
        raise UsageError(f"{where}.kind is missing; choose one of {', '.join(table)}")
    kind = mapping.pop("kind")
    if isinstance(kind, str) and ":" in kind:
        return cast(type, imported(kind, f"{where}.kind"))
    if kind not in table:
        raise choose(f"{where}.kind", str(kind), table)
    return table[kind]


def _make(cls: type[T], old: T | None, mapping: Mapping[str, Any], where: str, tables: Tables) -> T:
    """`old` with values of `mapping` put in, or a new `cls`."""
    if not is_dataclass(cls):
        raise TypeError(f"{cls} is no dataclass")
    possible = [field.name for field in fields(cls) if field.init]
    hints = _hints(cls)
    values = {}
    for name, value in mapping.items():
        if name not in possible:
            raise _unknown(where, name, possible)
        place, was = f"{where}.{name}", getattr(old, name, None)
        if isinstance(value, Mapping) and _is_instance(was) and "kind" not in value:
            values[name] = _make(type(was), was, value, place, tables)
        else:
            values[name] = _value(hints[name], value, place, tables)
    try:
        if isinstance(old, Said):
            return cls(**{**old.said(), **values})
        return cast(T, replace(cast(Any, old), **values)) if old is not None else cls(**values)
    except (TypeError, ValueError) as error:  # a field without default, or `__post_init__` objects
        raise UsageError(f"{where}: {error}") from None


def _unknown(where: str, name: str, possible: Sequence[str]) -> UsageError:
    near = get_close_matches(name, possible, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    choices = f"choose one of {', '.join(possible)}" if possible else f"{where} has no settings"
    return UsageError(f"{where}.{name} does not exist; {hint}{choices}")


def _value(hint: Any, value: Any, where: str, tables: Tables) -> Any:
    """`value` as the type `hint` asks for."""
    arms = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None and type(None) in arms:
        return None
    if isinstance(value, str) and value.lower() == "none" and type(None) in arms and str not in arms:
        return None  # TOML has no null
    if value is None and any(get_origin(arm) is Literal and "none" in get_args(arm) for arm in arms):
        value = "none"  # a choice that is called so: `recipe.thaw=none`
    for arm in arms:
        if arm in tables:
            if type(value) in tables[arm].values():
                return value
            if isinstance(value, str):
                value = {"kind": value}  # `recipe.schedule=constant`
            if isinstance(value, Mapping):
                return build(arm, value, where, tables)
        elif is_dataclass(arm):
            if isinstance(value, cast(type, arm)):
                return value
            if isinstance(value, Mapping):
                return _make(cast(type, arm), None, value, where, tables)
    return _leaf(hint, arms, value, where)


def _leaf(hint: Any, arms: Sequence[Any], value: Any, where: str) -> Any:
    """A value that is no table, by pydantic; but no text passes for a number, no truth for one."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError
    from pydantic.errors import PydanticSchemaGenerationError

    numbers = {int, float, bool} & set(arms)
    wrong = isinstance(value, bool) and numbers and bool not in arms  # True is no number here
    wrong = wrong or (isinstance(value, str) and str not in arms and numbers == set(arms) - {type(None)})
    wrong = wrong or any(map(is_dataclass, arms))
    try:
        if not wrong:
            return TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
    except PydanticSchemaGenerationError:
        raise UsageError(f"{where} cannot be set from here") from None
    except ValidationError:
        pass
    options = [x for arm in arms if get_origin(arm) is Literal for x in get_args(arm)]
    if options and isinstance(value, str):
        raise choose(where, value, [str(x) for x in options])
    raise UsageError(f"{where} is {value!r}; {' or '.join(map(_wanted, arms))} is wanted")


def _wanted(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if get_origin(hint) is dict:
        return f"a table of {_many(_wanted(get_args(hint)[1]))}"
    if get_origin(hint) in (tuple, list, Sequence):
        inner = [x for x in get_args(hint) if x is not Ellipsis]
        return f"a list of {_many(_wanted(inner[0]))}" if inner else "a list"
    if is_dataclass(hint):
        return "a table of settings"
    return _WANTED.get(hint, getattr(hint, "__name__", str(hint)))


def _many(wanted: str) -> str:
    """a list of numbers -> lists of numbers"""
    if not wanted.startswith("a "):
        return wanted
    name, of, rest = wanted.removeprefix("a ").partition(" of ")
    return f"{name}s{of}{rest}"


def _is_instance(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)
