"""The projected, clipped recurrence: compiled, plain and written out as the equations say, all the same."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from pretune.layers import compiled
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


def gradients(case: Case, of: object) -> list[Tensor | None]:
    """Of a fixed mix of all outputs, by products, state and weights."""
    names = ["products", "h", "c", "weight_hh", "weight_proj"]
    leaves = {n: v.clone().requires_grad_() for n in names if (v := getattr(case, n)) is not None}
    outputs = of(replace(case, **leaves))  # type: ignore[operator]
    random = torch.Generator().manual_seed(1)
    total = sum((x * torch.randn(x.shape, generator=random).to(x)).sum() for x in outputs)
    return list(torch.autograd.grad(total, leaves.values()))


@pytest.mark.parametrize("name", CASES)
def test_its_gradients_are_those_of_the_equations(name: str, way: str) -> None:
    close(gradients(CASES[name], Case.run), gradients(CASES[name], loop), 1e-5)


def test_training_gives_the_numbers_of_inference(way: str) -> None:
    case = make(units=50, outputs=35)
    trained = replace(case, weight_hh=case.weight_hh.clone().requires_grad_()).run()
    close(tuple(x.detach() for x in trained), case.run(), 1e-6)
