"""Config: dataclasses from TOML and overrides, and what mistakes are told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretune.config import build, load_toml, merge, override, parse, to_dict, update
from pretune.errors import UsageError


class Schedule(Protocol):
    def __call__(self) -> float: ...


@dataclass(frozen=True)
class Constant:
    factor: float = 1.0

    def __call__(self) -> float:
        return self.factor


@dataclass(frozen=True)
class Triangle:
    cut: float = 0.1

    def __call__(self) -> float:
        return self.cut


@dataclass(frozen=True)
class Inner:
    sizes: tuple[int, ...] = (1, 2)
    path: Path | None = None
    pairs: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Settings:
    lr: float = 0.01
    epochs: int = 3
    way: Literal["up", "down"] = "up"
    name: str = ""
    on: bool = False
    clip: float | None = None
    inner: Inner = Inner()
    schedule: Schedule = field(default_factory=Constant)


@dataclass(frozen=True)
class Strict:
    needed: int

    def __post_init__(self) -> None:
        if self.needed < 0:
            raise ValueError(f"needed is {self.needed}; give 0 or more")


TABLES: dict[type, dict[str, type]] = {Schedule: {"constant": Constant, "triangle": Triangle}}


def test_overrides_reach_nested_fields_and_leave_the_rest() -> None:
    before = Settings(epochs=7)
    after = override(before, ["lr=4e-3", "inner.sizes=[3,4]", "inner.path=a b/c", "on=true", "clip=2"])
    assert after == Settings(0.004, 7, on=True, clip=2.0, inner=Inner((3, 4), Path("a b/c")))
    assert before == Settings(epochs=7)


def test_none_takes_an_optional_value_away() -> None:
    assert override(Settings(clip=1.0), ["clip=none"]).clip is None
    assert build(Settings, {"clip": "none"}, "x").clip is None  # TOML has no null
    assert override(Settings(), ["name='none'"]).name == "none"


def test_a_kind_chooses_from_its_table() -> None:
    assert update(
        Settings(), {"schedule": {"kind": "triangle", "cut": 0.2}}, "x", TABLES
    ).schedule == Triangle(0.2)
    assert override(Settings(), ["schedule=triangle"], tables=TABLES).schedule == Triangle()
    assert override(Settings(), ["schedule.factor=2"], tables=TABLES).schedule == Constant(2.0)
    assert build(Schedule, {"kind": "constant"}, "x", TABLES) == Constant()  # type: ignore[type-abstract]


def test_a_kind_may_be_imported_from_elsewhere() -> None:
    made: Any = build(Schedule, {"kind": "test_config:Triangle", "cut": 0.3}, "x", TABLES)  # type: ignore[type-abstract]
    assert made.cut == 0.3
    with pytest.raises(UsageError, match=r"x\.kind is 'no\.such:Thing', which cannot be imported"):
        build(Schedule, {"kind": "no.such:Thing"}, "x", TABLES)  # type: ignore[type-abstract]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("lr=fast", "recipe.lr is 'fast'; a number is wanted"),
        ("lr=true", "recipe.lr is True; a number is wanted"),
        ("lr=nan", "recipe.lr is nan; a number is wanted"),
        ("epochs=2.5", "recipe.epochs is 2.5; a whole number is wanted"),
        ("epochs='2'", "recipe.epochs is '2'; a whole number is wanted"),
        ("on=3", "recipe.on is 3; true or false is wanted"),
        ("name=[1]", "recipe.name is [1]; a text is wanted"),
        ("clip=much", "recipe.clip is 'much'; a number or none is wanted"),
        ("way=dwon", "recipe.way is 'dwon'; did you mean 'down'? choose one of up, down"),
        ("way=3", "recipe.way is 3; one of up, down is wanted"),
        ("inner.sizes=3", "recipe.inner.sizes is 3; a list of whole numbers is wanted"),
        ("inner.pairs=a", "recipe.inner.pairs is 'a'; a list of lists of whole numbers is wanted"),
        ("inner=3", "recipe.inner is 3; a table of settings is wanted"),
        ("epoch=1", "recipe.epoch does not exist; did you mean 'epochs'? choose one of lr, epochs"),
        ("inner.size=1", "recipe.inner.size does not exist; did you mean 'sizes'?"),
        ("schedule=square", "recipe.schedule.kind is 'square'; choose one of constant, triangle"),
        ("schedule.cut=1", "recipe.schedule.cut does not exist; choose one of factor"),
    ],
)
def test_a_mistake_names_the_place_and_the_possible_values(said: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        override(Settings(), [said], "recipe", TABLES)
    assert str(caught.value).startswith(message)


def test_a_missing_or_refused_value_names_the_place() -> None:
    with pytest.raises(UsageError, match=r"^task: .*needed"):
        build(Strict, {}, "task")
    with pytest.raises(UsageError, match=r"^task: needed is -1; give 0 or more"):
        build(Strict, {"needed": -1}, "task")
    with pytest.raises(UsageError, match=r"x\.kind is missing; choose one of constant, triangle"):
        build(Schedule, {}, "x", TABLES)  # type: ignore[type-abstract]


@given(
    st.builds(
        Settings,
        lr=st.floats(allow_nan=False, allow_infinity=False),
        epochs=st.integers(),
        way=st.sampled_from(["up", "down"]),
        name=st.text(),
        on=st.booleans(),
        clip=st.none() | st.floats(0, 9),
        inner=st.builds(Inner, st.lists(st.integers()).map(tuple), st.none() | st.just(Path("a/b"))),
        schedule=st.builds(Constant, st.floats(0, 1)) | st.builds(Triangle, st.floats(0, 1)),
    )
)
def test_what_is_written_reads_back_equal(settings: Settings) -> None:
    assert build(Settings, to_dict(settings, TABLES), "x", TABLES) == settings


def test_settings_are_read_as_toml_else_as_text() -> None:
    said = parse(["a.b=1e-3", "a.c=review text", "a.d=[1, 2]", "e=", "f='7'", "a.g=x=y"])
    assert said == {"a": {"b": 1e-3, "c": "review text", "d": [1, 2], "g": "x=y"}, "e": "", "f": "7"}


@pytest.mark.parametrize("said", ["recipe.lr", "=3", "a..b=1"])
def test_what_is_no_setting_is_refused(said: str) -> None:
    with pytest.raises(UsageError, match="is no setting; write it as name=value"):
        parse([said])


def test_a_value_cannot_be_a_table_as_well() -> None:
    with pytest.raises(UsageError, match=r"a\.b is set below a, which has been given a value"):
        parse(["a=1", "a.b=2"])


def test_later_mappings_lie_on_top() -> None:
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}}) == {"a": {"b": 4, "c": 2}, "d": 3}


def test_a_broken_toml_file_names_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("[recipe]\nlr = = 3\n")
    with pytest.raises(UsageError, match=r"x\.toml: .*line 2"):
        load_toml(file)
    with pytest.raises(UsageError, match="no such config file"):
        load_toml(tmp_path / "y.toml")
