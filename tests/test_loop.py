from __future__ import annotations

import io
import os
import re
import signal
from typing import Any

import pytest
import torch
from torch import nn

from pretune.encoder import Encoded, Encoder
from pretune.errors import UsageError, UserError
from pretune.tensors.lengths import count_batches, length_batches
from pretune.training.devices import find_device, find_precision
from pretune.training.loop import Fitting, fit
from pretune.training.model import Model
from pretune.training.optimizers import SGD, Adagrad, AdamW, Optimizer
from pretune.training.progress import Bar, Lines
from pretune.training.stage import Group, Stage, plan
from tiny_training import (
    TinySource,
    everything,
    gradual,
    loss_of,
    quietly,
    tiny_model,
    weights_of,
)


def test_training_lowers_the_loss() -> None:
    model = tiny_model(dropout=0.0)
    fitted = fit(model, everything(model, epochs=12, lr=0.05), TinySource(20, carries=False), quietly())
    losses = [entry["loss"] for entry in fitted.history]
    assert losses[0] > 1.5
    assert losses[-1] < 0.3
    assert fitted.steps == 240


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    ends = []
    for seed in (0, 0, 1):
        model = tiny_model()
        fit(model, everything(model), TinySource(), quietly(seed=seed))
        ends.append(weights_of(model)["encoder.recurrent.weight_hh_l0"])
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_order_and_dropout_do_not_depend_on_the_global_generator() -> None:
    ends = []
    for workers in (0, 2):
        model = tiny_model()
        torch.manual_seed(workers + 17)
        fit(model, gradual(model), TinySource(), quietly(workers=workers))
        ends.append(weights_of(model))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize("accumulate", [2, 3])
def test_accumulated_batches_weigh_as_one_large_batch(accumulate: int) -> None:
    class Large:
        """The same text, `accumulate` batches at a time."""

        carries = False
        small = TinySource(6, carries=False)

        def steps(self, epoch: int) -> int:
            return 6 // accumulate

        def batch(self, epoch: int, step: int) -> Any:
            parts = [self.small.batch(epoch, step * accumulate + n) for n in range(accumulate)]
            joined = parts[0]
            for part in parts[1:]:
                joined.ids = torch.cat((joined.ids, part.ids))
                joined.mask = torch.cat((joined.mask, part.mask))
                joined.gold = {"next": torch.cat((joined.gold["next"], part.gold["next"]))}
            return joined

    ends = []
    for source, batches in ((Large.small, accumulate), (Large(), 1)):
        model = tiny_model(dropout=0.0)
        model.alpha = model.beta = 0.0  # a penalty is a mean over tokens, weighted by its batch's targets
        fit(model, everything(model, lr=0.5, optimizer=SGD()), source, quietly(accumulate=batches))
        ends.append([p.detach() for p in model.parameters()])
    for small, large in zip(*ends, strict=True):
        torch.testing.assert_close(small, large, rtol=1e-5, atol=1e-6)


def test_a_last_step_of_fewer_batches_is_taken_too() -> None:
    model = tiny_model()
    fitted = fit(model, everything(model), TinySource(7), quietly(accumulate=3))
    assert fitted.steps == 3
    assert fitted.tokens == sum(int(TinySource(7).batch(0, step).mask.sum()) for step in range(7))


def test_the_carry_goes_from_batch_to_batch_and_ends_with_the_epoch() -> None:
    class Watched(Model):
        def forward(self, batch: Any, carry: Any = None) -> Any:
            seen.append(carry)
            output = super().forward(batch, carry)
            given.append(output.carry)
            return output

    tiny = tiny_model()
    model = Watched(tiny.encoder, tiny.head)  # type: ignore[arg-type]
    seen: list[Any] = []
    given: list[Any] = []
    fit(model, everything(model, epochs=2), TinySource(4), quietly(accumulate=2))
    assert seen[0] is None
    assert seen[4] is None
    for n in (1, 2, 3, 5, 6, 7):
        assert torch.equal(seen[n][0], given[n - 1][0])
        assert not seen[n][0].requires_grad
    seen.clear()
    fit(model, everything(model), TinySource(4, carries=False), quietly())
    assert seen == [None] * 4


def test_frozen_weights_stay_equal_to_the_bit_and_frozen_modules_are_in_eval() -> None:
    model = tiny_model()
    before = weights_of(model.encoder)
    modes = []

    class Watched(TinySource):
        def batch(self, epoch: int, step: int) -> Any:
            modes.append({name: module.training for name, module in model.named_modules()})
            return super().batch(epoch, step)

    stages = gradual(model)
    fit(model, stages[:1], Watched(), quietly(), loss_of)
    assert all(torch.equal(x, before[name]) for name, x in weights_of(model.encoder).items())
    assert modes[-1][""]
    assert modes[-1]["head"]
    assert modes[-1]["head.norm"]
    assert not any(training for name, training in modes[-1].items() if name.startswith("encoder"))

    fit(model, stages[1:2], Watched(), quietly(), loss_of)
    assert modes[-1]["encoder.recurrent"]
    assert not modes[-1]["encoder"]
    assert not modes[-1]["encoder.below.dropout"]
    assert torch.equal(before["embedding.weight"], weights_of(model.encoder)["embedding.weight"])

    fit(model, stages[2:], Watched(), quietly(), loss_of)
    assert all(modes[-1].values())
    assert not any(module.training for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_validation_between_epochs_does_not_wake_frozen_modules() -> None:
    model = tiny_model()
    seen = []

    class Watched(TinySource):
        def batch(self, epoch: int, step: int) -> Any:
            seen.append((model.encoder.training, model.head.training))
            return super().batch(epoch, step)

    def validate(model: Model) -> dict[str, float]:
        assert not model.head.training
        model.train()  # as a careless validation would leave it
        return {"score": 1.0}

    head = Stage("head", (Group("head", (model.head,), 0.01),), epochs=3)
    fit(model, [head], Watched(2), quietly(), validate)
    assert seen == [(False, True)] * 6


def test_the_best_weights_of_all_stages_are_kept() -> None:
    model = tiny_model()
    scores = iter([0.1, 0.7, 0.3, 0.5])
    kept = []

    def validate(model: Model) -> dict[str, float]:
        kept.append(weights_of(model))
        return {"accuracy": next(scores)}

    stages = everything(model, epochs=2) + everything(model, epochs=2)
    fitted = fit(model, stages, TinySource(), quietly(), validate, "accuracy")
    assert fitted.best == {"accuracy": 0.7}
    assert [entry["scores"]["accuracy"] for entry in fitted.history] == [0.1, 0.7, 0.3, 0.5]
    assert all(torch.equal(x, kept[1][name]) for name, x in weights_of(model).items())


def test_the_last_weights_are_kept_where_asked_for() -> None:
    model = tiny_model()
    scores = iter([0.1, 0.7, 0.3])
    fitted = fit(
        model,
        everything(model, epochs=3),
        TinySource(),
        quietly(keep="last"),
        lambda model: {"accuracy": next(scores)},
        "accuracy",
    )
    alone = tiny_model()
    fit(alone, everything(alone, epochs=3), TinySource(), quietly())
    assert fitted.best == {"accuracy": 0.3}
    assert all(torch.equal(x, weights_of(alone)[name]) for name, x in weights_of(model).items())


def test_patience_ends_a_stage_but_not_the_next() -> None:
    model = tiny_model()
    losses = iter([3.0, 2.0, 2.5, 2.0, 2.4, 1.0, 0.9, float("nan"), 1.0])
    stages = everything(model, epochs=9) + everything(model, epochs=9)
    fitted = fit(
        model,
        stages,
        TinySource(2),
        quietly(patience=2),
        lambda model: {"loss": next(losses)},
        "loss",
        higher_is_better=False,
    )
    assert [entry["stage"] for entry in fitted.history] == [0] * 4 + [1] * 5
    assert [entry["epoch"] for entry in fitted.history] == list(range(9))
    assert fitted.best == {"loss": 0.9}


def test_rates_follow_the_schedule_and_their_group() -> None:
    model = tiny_model()
    rates = []

    class Watched(SGD):
        def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
            optimizer = super().build(groups)
            optimizer.register_step_pre_hook(
                lambda optimizer, *rest: rates.append([group["lr"] for group in optimizer.param_groups])
            )
            return optimizer

    groups = (Group("encoder", (model.encoder,), 0.1), Group("head", (model.head,), 1.0))
    stage = Stage("both", groups, 2, schedule=lambda step, steps: step / steps, optimizer=Watched())
    fit(model, [stage], TinySource(2), quietly())
    assert rates == [pytest.approx([0.1 * n / 4, n / 4]) for n in range(4)]


def test_a_tied_weight_moves_with_the_first_group_that_has_it() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    stage = Stage("tied", (Group("a", (first,), 1.0), Group("b", (second,), 2.0)))
    assert [[p.shape.numel() for p in group["params"]] for group in stage.optimized()] == [[9, 3], [3]]


def test_a_clipped_gradient_is_no_longer_than_asked() -> None:
    ends = []
    for clip in (None, 1e-4):
        model = tiny_model(dropout=0.0)
        before = weights_of(model)
        fit(model, everything(model, lr=1.0, optimizer=SGD(), clip=clip), TinySource(1), quietly())
        moved = [(x.detach() - before[name]).square().sum() for name, x in model.named_parameters()]
        ends.append(float(torch.stack(moved).sum().sqrt()))
    assert ends[0] > 0.01
    assert ends[1] == pytest.approx(1e-4, rel=1e-2)


@pytest.mark.parametrize("lr", [1e30, float("nan")])
def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_step(lr: float) -> None:
    model = tiny_model()
    with pytest.raises(UserError, match=r"not finite at step \d+ \(stage 'all'.*lower rate"):
        fit(model, everything(model, lr=lr, optimizer=SGD()), TinySource(), quietly())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "device is 'tpu'.*cpu"),
        ({"precision": "bf17"}, "did you mean 'bf16'"),
        ({"precision": "fp16"}, "fp16 needs a cuda device"),
        ({"accumulate": 0}, "accumulate is 0; give 1 or more"),
        ({"patience": 0}, "patience is 0"),
        ({"keep": "newest"}, "fitting.keep is 'newest'.*best, last"),
        ({"keep": "last", "patience": 2}, "leave one out"),
    ],
)
def test_options_that_make_no_sense_are_named(options: dict[str, Any], message: str) -> None:
    model = tiny_model()
    with pytest.raises(UsageError, match=message):
        fit(model, everything(model), TinySource(), quietly(**options))


def test_a_device_that_is_not_here_is_a_usage_error() -> None:
    lacking = [name for name in ("cuda", "mps") if name != find_device("auto")]
    for name in lacking:
        with pytest.raises(UsageError, match="this machine lacks"):
            find_device(name)
    assert find_device("cpu") == "cpu"
    assert find_precision("auto", "cpu") == "fp32"


def test_a_metric_that_validation_does_not_give_is_named() -> None:
    model = tiny_model()
    with pytest.raises(UsageError, match=r"metric is 'los'; did you mean 'loss'"):
        fit(model, everything(model), TinySource(), quietly(), loss_of, "los")


def test_a_stage_without_weights_and_a_source_without_batches_are_errors() -> None:
    model = tiny_model()
    with pytest.raises(UserError, match="no weights to train"):
        fit(model, [Stage("nothing", ())], TinySource(), quietly())
    with pytest.raises(UserError, match="epoch without batches"):
        fit(model, everything(model), TinySource(0), quietly())


def test_runs_of_different_precision_follow_one_another_and_leave_no_state() -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    theirs = Accelerator(cpu=True)
    for precision in ("bf16", "fp32", "auto"):
        model = Model(TinyLinear(), tiny_model().head)
        fit(model, everything(model), TinySource(2, carries=False), quietly(precision=precision))
        assert "forward" not in vars(model)  # nothing patched
        assert model.encoder.linear.weight.dtype == torch.float32  # type: ignore[union-attr]
    assert theirs.device.type == "cpu"
    assert AcceleratorState().mixed_precision == "no"


class TinyLinear(Encoder):
    """An encoder without recurrence: bf16 LSTMs need processors that have it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 6)
        self.linear = nn.Linear(6, 6)

    def forward(self, batch: Any, carry: Any = None) -> Any:
        x = self.linear(self.embedding(batch.ids))
        return Encoded((x,), batch.mask, x.float().mean(1))

    def groups(self) -> list[nn.Module]:
        return [self.embedding, self.linear]


def test_ctrl_c_without_a_folder_says_that_nothing_is_kept() -> None:
    from pretune.training.loop import Interrupted

    class Pressed(TinySource):
        def batch(self, epoch: int, step: int) -> Any:
            if step == 3:
                os.kill(os.getpid(), signal.SIGINT)
            return super().batch(epoch, step)

    before = signal.getsignal(signal.SIGINT)
    model = tiny_model()
    with pytest.raises(Interrupted, match="stopped at step 3; nothing is kept") as error:
        fit(model, everything(model), Pressed(), quietly())
    assert error.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is before


def test_without_a_terminal_progress_is_a_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_model()
    fit(model, gradual(model), TinySource(), Fitting(device="cpu", label="try"), loss_of, "loss", False)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert re.match(
        r"try · thaw 1 · epoch 1 · loss [\d.]+ · held out: loss [\d.]+ · rate [\d.e-]+ · .* tokens/s",
        lines[0],
    )


def test_long_epochs_say_how_long_they_will_take(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines("slow")
    lines.seconds_between = 0.0
    with lines:
        lines.stage("all", 10, 20)
        lines.step(2.0, 0.01, 1234.0)
    assert (
        capsys.readouterr().err
        == "slow · all · step 11/20 · loss 2 · rate 0.01 · 1,234 tokens/s · 0:00 left\n"
    )


def test_a_terminal_gets_a_bar_with_loss_metric_rate_speed_and_time_left() -> None:
    from rich.console import Console

    console = Console(file=io.StringIO(), force_terminal=True, width=140)
    bar = Bar("try", console)
    bar.seconds_between = 0.0
    with bar:
        bar.stage("all", 0, 20)
        bar.epoch({"epoch": 0, "loss": 3.0, "scores": {"accuracy": 0.5}})
        bar.step(2.0, 0.01, 1234.0)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for part in (
        "try · all",
        "1/20",
        "loss 2",
        "held out: accuracy 0.5",
        "rate 0.01",
        "1,234 tokens/s",
        "-:--:--",
    ):
        assert part in shown


def test_the_plan_lists_every_group_of_every_stage() -> None:
    rows = plan(gradual(tiny_model()))
    assert [(row["stage"], row["group"]) for row in rows] == [
        ("thaw 1", "head"),
        ("thaw 2", "recurrent"),
        ("thaw 2", "head"),
        ("thaw 3", "below"),
        ("thaw 3", "recurrent"),
        ("thaw 3", "head"),
    ]


@pytest.mark.parametrize(
    ("samples", "batch_size", "smallest"), [(10, 4, 1), (9, 4, 2), (803, 4, 2), (1, 4, 2)]
)
def test_every_index_is_once_in_an_epoch_and_no_batch_is_too_small(
    samples: int, batch_size: int, smallest: int
) -> None:
    lengths = [i % 7 + 1 for i in range(samples)]
    for epoch in range(3):
        batches = length_batches(lengths, batch_size, 0, epoch, smallest)
        assert sorted(i for batch in batches for i in batch) == list(range(samples))
        assert len(batches) == count_batches(samples, batch_size, smallest)
        assert min(map(len, batches)) >= min(smallest, samples)
    assert length_batches(lengths, batch_size, 0, 0) == length_batches(lengths, batch_size, 0, 0)


def test_batches_of_an_epoch_are_of_like_length() -> None:
    lengths = torch.randint(1, 100, (500,), generator=torch.Generator().manual_seed(0)).tolist()
    spread = [
        max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in length_batches(lengths, 10, 0, 0)
    ]
    assert sum(spread) / len(spread) < 10


@pytest.mark.parametrize("kind", [AdamW(), Adagrad(), SGD()])
def test_weights_say_that_a_step_has_changed_them(kind: Optimizer) -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = kind.build([{"params": [weight], "lr": 0.1}])
    weight.grad, before = torch.ones(3), weight._version
    optimizer.step()
    assert weight._version > before
