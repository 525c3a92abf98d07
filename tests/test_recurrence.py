"""The projected, clipped recurrence: compiled, plain and written out as the equations say, all the same."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretune.errors import UsageError, UserError
from pretune.layers import compiled, fused, packing
from pretune.layers.linear import linear
from pretune.layers.lockstep import recur_together
from pretune.layers.recurrence import Clips, recur


def have_kernels() -> bool:
    """Whether this machine builds them; the tests that compare with them are skipped where it does not."""
    try:
        compiled._compiler()
    except OSError:
        return False
    return compiled.library() is not None


needs_kernels = pytest.mark.skipif(
    not have_kernels(), reason="needs a C compiler (or PRETUNE_COMPILED=0 is set)"
)


@dataclass
class Case:
    """One call of `recur`; both clips fire in it."""

    products: Tensor
    index: Tensor | None
    counts: tuple[int, ...]
    h: Tensor
    c: Tensor
    weight_hh: Tensor
    weight_proj: Tensor | None
    clips: Clips

    def run(self, **options: str) -> tuple[Tensor, Tensor, Tensor]:
        state = self.h, self.c
        return recur(
            self.products,
            self.index,
            self.counts,
            state,
            self.weight_hh,
            self.weight_proj,
            self.clips,
            **options,
        )

    def run_without_gradient(self) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            return self.run()


def make(
    units: int = 19,
    outputs: int = 11,
    counts: tuple[int, ...] = (5, 5, 4, 2, 2, 1),
    words: int | None = None,
    project: bool = True,
    clips: Clips = Clips(0.8, 0.6),  # noqa: B008
    rows: int | None = None,
) -> Case:
    random = torch.Generator().manual_seed(units * 1000 + outputs + len(counts))
    total, outputs = sum(counts), outputs if project else units

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=random)

    return Case(
        normal(total if words is None else words, 4 * units) * 1.5,
        None if words is None else torch.randint(words, (total,), generator=random),
        counts,
        normal(rows or counts[0], outputs) * 0.3,
        normal(rows or counts[0], units) * 0.3,
        normal(4 * units, outputs) * outputs**-0.5,
        normal(outputs, units) * 2 * units**-0.5 if project else None,
        clips,
    )


def loop(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """The equations, a row and a step at a time, in float64."""
    h, c = list(case.h.double().clone()), list(case.c.double().clone())
    y, at = [], 0
    for n in case.counts:
        for row in range(n):
            given = case.products[at if case.index is None else case.index[at]].double()
            i, f, g, o = (given + case.weight_hh.double() @ h[row]).chunk(4)
            c[row] = bound(f.sigmoid() * c[row] + i.sigmoid() * g.tanh(), case.clips.cell)
            h[row] = o.sigmoid() * c[row].tanh()
            if case.weight_proj is not None:
                h[row] = case.weight_proj.double() @ h[row]
            h[row] = bound(h[row], case.clips.projection)
            y.append(h[row])
            at += 1
    return torch.stack(y), torch.stack(h), torch.stack(c)


def bound(x: Tensor, most: float | None) -> Tensor:
    return x if most is None else x.clamp(-most, most)


CASES = {
    "plain": make(),
    "index": make(words=4),
    "no projection": make(project=False),
    "no clips": make(clips=Clips(None, None)),
    "no cell clip": make(clips=Clips(None, 0.6)),
    "no projection clip": make(clips=Clips(0.8, None)),
    "one row": make(counts=(1, 1, 1)),
    "one token": make(counts=(1,)),
    "one unit": make(units=1, outputs=1),
    "whole vectors": make(units=32, outputs=32),
    "more vectors": make(units=50, outputs=35, counts=(3, 2)),
    "many rows": make(units=17, outputs=33, counts=(37, 29, 15, 14, 13)),
    "rows without a token": make(rows=7),
    "long sums": make(units=600, outputs=300, counts=(3, 2, 2)),
}


@pytest.fixture(params=["compiled", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways in turn."""
    if request.param == "plain":
        monkeypatch.setenv(compiled.SWITCH, "0")
    elif not have_kernels():
        pytest.skip("needs a C compiler (or PRETUNE_COMPILED=0 is set)")
    return str(request.param)


def close(ours: tuple[Tensor, ...], right: tuple[Tensor, ...], within: float = 2e-6) -> None:
    for a, b in zip(ours, right, strict=True):
        torch.testing.assert_close(a, b.to(a.dtype), atol=within, rtol=within)


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_equations_of_the_cell(name: str, way: str) -> None:
    close(CASES[name].run(), loop(CASES[name]))


def test_what_is_given_stays_as_it_is(way: str) -> None:
    case, before = make(words=4), make(words=4)
    case.run()
    assert all(torch.equal(getattr(case, n), getattr(before, n)) for n in ("products", "h", "c", "weight_hh"))


def test_a_row_that_has_ended_keeps_its_state(way: str) -> None:
    case = make(counts=(3, 3, 2, 1))
    _, h, c = case.run()
    _, early_h, early_c = replace(case, products=case.products[:6], counts=(3, 3)).run()
    close((h[2], c[2]), (early_h[2], early_c[2]))


def test_nan_stays_nan_in_its_row_alone(way: str) -> None:
    case = make(units=40, outputs=20, counts=(3, 3))
    right, _, _ = case.run()
    for value in (float("nan"), float("inf"), -float("inf")):
        products = case.products.clone()
        products[1, ::7] = value
        y, h, c = replace(case, products=products).run()
        assert torch.equal(y[[0, 2]], right[[0, 2]])
        spoilt = value != value
        assert bool(y[1].isnan().all()) == bool(h[1].isnan().all()) == bool(c[1, ::7].isnan().all()) == spoilt


def test_both_clips_fire_in_these_tests() -> None:
    y, _, c = CASES["plain"].run()
    assert (y.abs() == torch.tensor(0.6)).any() and (c.abs() == torch.tensor(0.8)).any()


def test_float64_takes_the_plain_path_and_is_exact() -> None:
    case = make()
    wide = replace(
        case,
        products=case.products.double(),
        h=case.h.double(),
        c=case.c.double(),
        weight_hh=case.weight_hh.double(),
        weight_proj=case.weight_proj.double(),
    )
    for a, b in zip(wide.run(), loop(case), strict=True):
        torch.testing.assert_close(a, b, atol=1e-13, rtol=1e-13)


MOVED = ("products", "h", "c", "weight_hh", "weight_proj")  # what has a gradient


def gradients(case: Case, of: object) -> list[Tensor | None]:
    """Of a fixed mix of all outputs, by products, state and weights."""
    leaves = {n: v.clone().requires_grad_() for n in MOVED if (v := getattr(case, n)) is not None}
    outputs = of(replace(case, **leaves))  # type: ignore[operator]
    random = torch.Generator().manual_seed(1)
    total = sum((x * torch.randn(x.shape, generator=random).to(x)).sum() for x in outputs)
    return list(torch.autograd.grad(total, leaves.values()))


@pytest.mark.parametrize("name", CASES)
def test_its_gradients_are_those_of_the_equations(name: str, way: str) -> None:
    close(gradients(CASES[name], Case.run), gradients(CASES[name], loop), 1e-5)


def together(case: Case) -> tuple[Tensor, ...]:
    """The case in one direction, its mirror image (all signs turned) in the other, in lockstep."""
    products = case.products if case.index is None else case.products.index_select(0, case.index)

    def pair(x: Tensor, sign: int = -1) -> Tensor:
        return torch.stack((x, sign * x))

    project = None if case.weight_proj is None else pair(case.weight_proj)
    state = pair(case.h), pair(case.c)
    done = recur_together(pair(products), case.counts, state, pair(case.weight_hh), project, case.clips)
    return tuple(x[way] for x in done for way in range(2))


def apart(case: Case) -> tuple[Tensor, ...]:
    turned = {n: -v for n in MOVED if (v := getattr(case, n)) is not None}
    return tuple(x for both in zip(loop(case), loop(replace(case, **turned)), strict=True) for x in both)


@pytest.mark.parametrize("name", CASES)
def test_two_directions_in_lockstep_are_each_as_alone(name: str) -> None:
    close(together(CASES[name]), apart(CASES[name]))
    close(gradients(CASES[name], together), gradients(CASES[name], apart), 1e-5)


@needs_kernels
def test_the_number_of_threads_does_not_matter() -> None:
    case = make(units=20, outputs=10, counts=(37, 33, 18, 17, 2))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        right, alone = case.run(), gradients(case, Case.run)
        torch.set_num_threads(4)
        close(case.run(), right, 1e-6)
        close(gradients(case, Case.run), alone, 1e-6)
    finally:
        torch.set_num_threads(threads)


def test_training_gives_the_numbers_of_inference(way: str) -> None:
    case = make(units=50, outputs=35)
    trained = replace(case, weight_hh=case.weight_hh.clone().requires_grad_()).run()
    close(tuple(x.detach() for x in trained), case.run(), 1e-6)


def test_gradients_are_freed_of_the_clips_where_they_fire(way: str) -> None:
    case = make(units=5, counts=(2,), clips=Clips(1e-6, None))
    assert not gradients(case, Case.run)[2].any()  # c reaches nothing: its clip cuts all


@needs_kernels
def test_changed_weights_are_packed_anew() -> None:
    case = make()
    weight = nn.Parameter(case.weight_hh)
    changes = {
        "step": lambda: torch.optim.SGD([weight], 0.1).step(),
        "fused step": lambda: torch.optim.AdamW([weight], 0.1, fused=True).step(),
        "data": lambda: weight.data.mul_(1.5),
        "swap": lambda: setattr(weight, "data", weight.data * 0.5),
    }
    for change in changes.values():
        before = replace(case, weight_hh=weight).run_without_gradient()
        weight.grad = torch.ones_like(weight)
        change()
        after = replace(case, weight_hh=weight).run_without_gradient()
        assert not torch.equal(before[0], after[0])
        close(after, loop(replace(case, weight_hh=weight.detach())))


@needs_kernels
def test_packed_weights_are_freed_with_the_weights() -> None:
    weight = torch.randn(8, 3)
    memory = weakref.ref(fused.panels(compiled.library(), weight))
    assert memory() is fused.panels(compiled.library(), weight) and weight in packing._kept
    del weight
    assert memory() is None


def test_two_threads_at_once_give_the_same(way: str) -> None:
    cases = [
        make(units=64, outputs=32, counts=(9, 8, 8, 5, 2) * 1),
        make(units=70, outputs=33, counts=(12, 3)),
    ]
    right = [case.run() for case in cases]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            for ours, theirs in zip(pool.map(Case.run, cases), right, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@needs_kernels
@pytest.mark.parametrize(
    "wrong",
    [
        {"index": torch.tensor([0, 1, 2, 9, 0, 1])},
        {"index": torch.tensor([0, 1, 2, -1, 0, 1])},
        {"index": torch.tensor([0, 1])},
        {"counts": (2, 4)},
        {"counts": (6, 0)},
        {"weight_hh": torch.zeros(8, 3)},
        {"weight_proj": torch.zeros(3, 3)},
        {"weight_proj": None},
    ],
    ids=str,
)
def test_sizes_that_do_not_agree_are_refused(wrong: dict[str, Tensor]) -> None:
    case = make(units=5, outputs=3, counts=(2, 2, 2), words=4)
    with pytest.raises(ValueError, match="do not agree"):
        replace(case, **wrong).run()


# Low precision


@pytest.mark.parametrize(("precision", "error"), [("float16", 1e-3), ("int8", 0.03)])
def test_low_precision_stays_within_its_error(precision: str, error: float, way: str) -> None:
    for case in (
        make(units=96, outputs=48),
        make(units=33, outputs=17, words=5),
        make(units=20, project=False),
    ):
        ours, right = case.run(precision=precision), loop(case)
        for a, b in zip(ours, right, strict=True):
            assert (a - b).square().mean().sqrt() < error * b.square().mean().sqrt()
        assert not torch.equal(ours[0], case.run()[0])


@needs_kernels
@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_low_precision_is_the_same_rounding_on_both_ways(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make(units=50, outputs=35, counts=(7,))  # one step: later ones would round other numbers
    first = case.run(precision=precision)
    monkeypatch.setenv(compiled.SWITCH, "0")
    close(first, case.run(precision=precision), 1e-5)


def test_nan_and_zero_weights_survive_low_precision(way: str) -> None:
    case = make(units=20, outputs=10)
    zero = replace(case, weight_hh=torch.zeros_like(case.weight_hh))
    close(zero.run(precision="int8")[2], loop(zero)[2], 0.02)
    spoilt = case.weight_proj.clone()
    spoilt[3, 3] = float("nan")
    for precision in ("float16", "int8"):
        y, _, _ = replace(case, weight_proj=spoilt).run(precision=precision)
        assert y[:, 3].isnan().all() and y[: case.counts[0], :3].isfinite().all()


def test_low_precision_refuses_what_it_cannot_do(way: str) -> None:
    case = make()
    trained = replace(case, weight_hh=case.weight_hh.clone().requires_grad_())
    with pytest.raises(UsageError, match="cannot be trained"):
        trained.run(precision="int8")
    with pytest.raises(UsageError, match="choose one of float32, float16, int8"):
        case.run(precision="float6")
    with pytest.raises(UserError, match="beyond 65504"):
        replace(case, weight_hh=case.weight_hh * 1e6).run(precision="float16")


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 19, 70), (40, 300, 33), (15, 64, 64), (0, 5, 5)])
def test_linear_is_the_linear_layer(size: tuple[int, int, int], way: str) -> None:
    rows, depth, columns = size
    x, weight, bias = torch.randn(rows, depth), torch.randn(columns, depth), torch.randn(columns)
    close(
        (linear(x, weight), linear(x, weight, bias)), (F.linear(x, weight), F.linear(x, weight, bias)), 2e-5
    )
    out = torch.empty(rows, columns)
    assert linear(x, weight, bias, out=out) is out
    close((out,), (F.linear(x, weight, bias),), 2e-5)
    for precision, error in (("float16", 1e-3), ("int8", 0.03)):
        ours = linear(x, weight, bias, precision)
        assert (ours - out).square().sum().sqrt() <= error * (x @ weight.t()).square().sum().sqrt()


def test_linear_has_the_gradient_of_the_linear_layer(way: str) -> None:
    x, weight = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4)
    (ours,) = torch.autograd.grad(linear(x, weight).square().sum(), [x])
    (right,) = torch.autograd.grad(F.linear(x, weight).square().sum(), [x])
    assert torch.equal(ours, right)


# Building


PROBES = """
import json, os, sys, warnings, torch
from pretune.layers.recurrence import Clips, recur
from pretune.layers import compiled
torch.manual_seed(0)
state = torch.zeros(2, 3), torch.zeros(2, 5)
args = torch.randn(4, 20), None, (2, 2), state, torch.randn(20, 3), torch.randn(3, 5), Clips()
def tell():
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        y = [recur(*args)[0] for _ in range(2)][1]
    for note in notes:
        print("note:", note.message)
    print("kernels:", compiled.library() is not None)
    print("sum:", format(float(y.double().abs().sum()), ".4f"))
for name, settings in json.loads(sys.argv[1]).items():
    if not os.fork():
        os.environ |= settings
        for stream in (1, 2):
            os.dup2(os.open(name + ".txt", os.O_CREAT | os.O_APPEND | os.O_WRONLY), stream)
        try:
            tell()
        except Exception as error:
            print(type(error).__name__, error)
        sys.stdout.flush()
        os._exit(0)
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
"""
SETTINGS = {  # of processes that all run at once
    "as is": {},
    "no compiler": {"CC": "/nonexistent/cc"},
    "broken compiler": {"CC": "false"},
    "never": {compiled.SWITCH: "0", "CC": "/nonexistent/cc"},
    "always": {compiled.SWITCH: "1", "CC": "/nonexistent/cc"},
    "first": {},
    "second": {},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where processes, torch imported once for all, tell what they found; most have a cache of their own."""
    folder = tmp_path_factory.mktemp("probes")
    caches = {name: str(folder / ("both" if name in ("first", "second") else name)) for name in SETTINGS}
    settings = {
        name: {**said, **({} if name == "as is" else {"XDG_CACHE_HOME": caches[name]})}
        for name, said in SETTINGS.items()
    }
    known = {k: v for k, v in os.environ.items() if k not in ("CC", compiled.SWITCH)}
    command = [sys.executable, "-c", PROBES, json.dumps(settings)]
    subprocess.run(command, env=known, cwd=folder, check=True)
    return folder


@pytest.mark.parametrize("which", ["no compiler", "broken compiler"])
def test_without_a_compiler_that_works_there_is_one_note(which: str, place: Path) -> None:
    told = (place / f"{which}.txt").read_text()
    assert "kernels: False" in told and told.count("note:") == 1 and SETTINGS[which]["CC"] in told


@needs_kernels
def test_without_a_compiler_the_numbers_are_the_same(place: Path) -> None:
    with_kernels, without = ((place / f"{which}.txt").read_text() for which in ("as is", "no compiler"))
    assert "kernels: True" in with_kernels and "note:" not in with_kernels and "kernels: False" in without
    assert sums(with_kernels) == sums(without) != []


def sums(told: str) -> list[str]:
    return re.findall(r"sum: (\S+)", told)


def test_the_switch_says_never_or_always(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "kernels: False" in (place / "never.txt").read_text()
    assert not (place / "never").exists()
    assert "UserError" in (place / "always.txt").read_text()
    monkeypatch.setenv(compiled.SWITCH, "yes")
    with pytest.raises(UsageError, match="choose one of 0, 1"):
        compiled.library()


@needs_kernels
def test_processes_that_build_at_once_leave_one_library(place: Path) -> None:
    told = [(place / f"{which}.txt").read_text() for which in ("first", "second")]
    assert all("kernels: True" in each for each in told)
    assert [path.suffix for path in (place / "both" / "pretune").iterdir()] == [".so"]


def test_a_cache_that_cannot_be_written_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pretune").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = compiled._folder()
    assert folder.is_dir() and tmp_path not in folder.parents
    folder.rmdir()


def test_importing_builds_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", "import pretune.layers.recurrence"], env=environment, check=True)
    assert not list(tmp_path.iterdir())
