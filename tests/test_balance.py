"""Labels smoothed, weighed and balanced, numbers in a range, heads of any depth: each by its formula."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tiny
from pretune.config import parse, update
from pretune.data.samples import Sample, sample
from pretune.errors import UsageError, UserError
from pretune.recipes.full import Full
from pretune.runs.run import finetune, load_trained, plan_of
from pretune.runs.trained import TrainedModel, task_config, task_from
from pretune.tasks.classification import Classification
from pretune.tasks.joint import Joint
from pretune.tasks.summary_head import SigmoidRange, SummaryNorm
from pretune.tensors.batch import Batch
from pretune.training.balanced import balanced
from pretune.training.loop import Fitting, Interrupted, fit
from pretune.training.model import Model
from pretune.training.sources import SampleSource
from test_classification import MANY, NUMBER, ONE, Letters, Reader, batch_of

QUIET = Fitting(device="cpu", quiet=True)
RARE = [sample("the film", key=str(i), gold="rare" if i % 10 == 3 else "often") for i in range(40)]
LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0]])


def loss_of(task: Classification, logits: Tensor, gold: dict[str, Tensor]) -> float:
    """By the task's own head, of logits that are given."""
    ids = torch.ones(len(logits), 1, dtype=torch.long)
    batch = Batch(ids, ids > 0, ids, torch.arange(len(logits)), {}, gold)
    return task.head(Reader()).loss({"logits": logits}, batch).item()


def one(**options: Any) -> Classification:
    return Classification("one", ("a", "b", "c"), **options)


def many(**options: Any) -> Classification:
    return Classification("many", ("a", "b", "c"), **options)


def test_a_smoothed_label_leaves_its_share_to_all_labels_alike():
    chances = LOGITS.log_softmax(-1)
    wanted = sum(
        -0.9 * chances[b, label].item() - 0.1 / 3 * chances[b].sum().item() for b, label in enumerate((0, 2))
    )
    gold = {"label": torch.tensor([0, 2])}
    assert loss_of(one(label_smoothing=0.1), LOGITS, gold) == pytest.approx(wanted, rel=1e-6)
    plain = F.cross_entropy(LOGITS, gold["label"], reduction="sum").item()
    assert loss_of(one(), LOGITS, gold) == pytest.approx(plain, rel=1e-6)


def test_smoothing_is_fastais():
    layers = pytest.importorskip("fastai.losses", reason="fastai is a test oracle, and not installed")
    label = torch.tensor([0, 2])
    theirs = layers.LabelSmoothingCrossEntropy(eps=0.1, reduction="sum")(LOGITS, label)
    assert loss_of(one(label_smoothing=0.1), LOGITS, {"label": label}) == pytest.approx(theirs.item())


def test_smoothed_decisions_on_many_labels_move_towards_a_half():
    gold = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    wanted = F.binary_cross_entropy(LOGITS.sigmoid(), gold * 0.8 + 0.1, reduction="sum").item()
    assert loss_of(many(label_smoothing=0.2), LOGITS, {"labels": gold}) == pytest.approx(wanted, rel=1e-5)


def test_a_sample_weighs_what_its_label_weighs():
    task = one(class_weights={"a": 5.0, "c": 0.5}, label_smoothing=0.1)
    alone = [
        loss_of(one(label_smoothing=0.1), LOGITS[:1], {"label": torch.tensor([label])}) for label in range(3)
    ]
    for label, weight in enumerate((5.0, 1.0, 0.5)):
        said = loss_of(task, LOGITS[:1], {"label": torch.tensor([label])})
        assert said == pytest.approx(weight * alone[label], rel=1e-6)


def test_of_many_labels_the_yes_weighs_and_the_no_does_not():
    gold = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    chances = LOGITS.sigmoid()
    yes = -(4 * chances[0, 0].log() + chances[1, 1].log())
    no = -sum((1 - chances[b, c]).log() for b, c in [(0, 1), (0, 2), (1, 0), (1, 2)])
    said = loss_of(many(class_weights={"a": 4.0}), LOGITS, {"labels": gold})
    assert said == pytest.approx((yes + no).item(), rel=1e-5)


def test_balanced_weights_are_those_of_the_training_samples():
    golds = ["a", "a", "a", "b"]
    task = one(class_weights="balanced").fitted_to([sample(x, gold=x) for x in golds])
    assert task.class_weights == pytest.approx({"a": 4 / 6, "b": 4 / 2, "c": 1})
    weights = [task.class_weights[x] for x in golds]
    assert sum(weights) == pytest.approx(len(golds))  # so the rate means what it meant
    several = [sample("x", gold=gold) for gold in [("a", "b"), ("a",), ("a",), ("a", "b"), ("a",)]]
    task = many(class_weights="balanced").fitted_to(several)
    assert task.class_weights == pytest.approx({"a": 1, "b": 3 / 2, "c": 1})


def test_weights_and_smoothing_leave_answers_and_saved_weights_as_they_are():
    plain, weighed = one(), one(class_weights={"a": 5.0}, label_smoothing=0.1)
    torch.manual_seed(3)
    first = plain.head(Reader()).eval()
    second = weighed.head(Reader()).eval()
    assert set(first.state_dict()) == set(second.state_dict())
    second.load_state_dict(first.state_dict())
    batch = batch_of(Classification.of(ONE), ONE, gold=False)
    encoded = Reader().eval()(batch)
    assert torch.equal(first(encoded, batch)["logits"], second(encoded, batch)["logits"])


@pytest.mark.parametrize(
    ("samples", "options"),
    [
        (ONE, {"kind": "one", "class_weights": {"2": 3.0}, "label_smoothing": 0.1}),
        (MANY, {"kind": "many", "class_weights": {"x": 3.0}, "label_smoothing": 0.1}),
        (NUMBER, {"kind": "number", "y_range": (0.0, 9.0)}),
    ],
    ids=["one", "many", "number"],
)
def test_losses_of_single_samples_still_add_up_and_gold_never_reaches_the_scores(samples, options):
    task = Classification.of(samples, head_kind="two_layer", hidden=(5, 4), **options)
    encoder = Reader().eval()
    torch.manual_seed(0)
    head = task.head(encoder).eval()

    def scored(some: list[Sample], gold: bool) -> tuple[Tensor, Batch]:
        batch = batch_of(task, some, gold)
        return head(encoder(batch), batch)["logits"], batch

    together, batch = scored(samples, gold=True)
    alone = 0.0
    for b, each in enumerate(samples):
        logits, single = scored([each], gold=True)
        alone += head.loss({"logits": logits}, single).item()
        torch.testing.assert_close(logits[0], together[b], atol=1e-6, rtol=0)
        assert torch.equal(scored([each], gold=False)[0], logits)
    assert head.loss({"logits": together}, batch).item() == pytest.approx(alone, rel=1e-5)


def taught(samples: list[Sample], **options: Any) -> TrainedModel:
    task = Classification.of(samples, **{"kind": "one", "head_kind": "linear", "dropout": 0.0, **options})
    recipe = Full(lr=0.05, epochs=30, batch_size=10, weight_decay=0.0)
    model, _ = finetune(tiny.start("wordvectors"), task, recipe, samples, [], QUIET)
    assert isinstance(model, TrainedModel)
    return model


@pytest.mark.parametrize(
    ("options", "chance"),
    [
        ({}, 0.1),
        ({"class_weights": "balanced"}, 0.5),
        ({"class_weights": {"rare": 18.0}}, 2 / 3),
        ({"sampling": "balanced"}, 0.5),
        ({"label_smoothing": 0.4}, 0.1 * 0.6 + 0.2),
    ],
    ids=["plain", "weights", "own weights", "sampling", "smoothing"],
)
def test_what_a_model_that_knows_nothing_says_of_a_rare_label(options, chance):
    """Forty times the same text, four of them rare: all there is to learn is the share."""
    (answer,) = taught(RARE, **options).answers([sample("the film")])
    assert answer.scores["rare"] == pytest.approx(chance, abs=0.02)


def test_a_model_says_the_weights_it_was_taught_with_and_comes_back_the_same(tmp_path):
    model = taught(RARE, class_weights="balanced")
    assert model.task.class_weights == pytest.approx({"often": 40 / 72, "rare": 40 / 8})
    model.save(tmp_path / "model", {})
    again = load_trained(tmp_path / "model")
    assert again.task == model.task
    assert again.answers(RARE[:3]) == model.answers(RARE[:3])


def test_balanced_weights_need_samples_for_the_loss_but_not_for_a_plan():
    task = Classification.of(RARE, class_weights="balanced")
    assert plan_of(tiny.start("wordvectors"), task, Full())
    with pytest.raises(UserError, match="by which samples"):
        loss_of(task, LOGITS[:, :2], {"label": torch.tensor([0, 1])})


CLASSES = [*"aaaaaaaaaaaaaaaaa", *"bbbb", *"cc"]  # 17, 4 and 2 of 23


def test_a_balanced_epoch_has_as_many_of_each_class_and_is_as_long():
    for epoch in range(4):
        chosen = balanced(CLASSES, 0, epoch)
        counts = Counter(CLASSES[i] for i in chosen)
        assert len(chosen) == 23
        assert counts == {"a": 8, "b": 8, "c": 7}
        assert chosen == balanced(CLASSES, 0, epoch)
    assert balanced(CLASSES, 0, 0) != balanced(CLASSES, 1, 0)


def test_over_the_epochs_no_sample_of_a_class_is_left_behind():
    seen: Counter[int] = Counter()
    for epoch in range(17):
        seen.update(balanced(CLASSES, 0, epoch))
    for name in "abc":
        times = [seen[i] for i, own in enumerate(CLASSES) if own == name]
        assert max(times) - min(times) <= 1


def source_of(task: Any, **options: Any) -> SampleSource:
    return SampleSource(task, Letters(), RARE, 6, seed=0, **options)


def test_processes_share_a_balanced_epoch_and_none_gets_another_sample():
    task = Classification.of(RARE, sampling="balanced")
    whole = SampleSource(task, Letters(), RARE, 12, seed=0, world=1)
    shares = [source_of(task, rank=rank, world=2) for rank in range(2)]
    assert whole.steps(3) == shares[0].steps(3) == shares[1].steps(3)
    for step in range(whole.steps(3)):
        together = Counter(shares[0].wanted(3, step) + shares[1].wanted(3, step))
        assert together == Counter(whole.wanted(3, step))


def test_without_balance_every_sample_comes_once_an_epoch():
    source = source_of(Classification.of(RARE))
    for epoch in range(2):
        seen = [i for step in range(source.steps(epoch)) for i in source.wanted(epoch, step)]
        assert sorted(seen) == list(range(len(RARE)))


def test_a_task_inside_another_is_balanced_too():
    task = Joint(Classification.of(RARE, sampling="balanced"))
    assert source_of(task).classes == [x.gold for x in RARE]
    weighed = Joint(Classification.of(RARE, class_weights="balanced")).fitted_to(RARE)
    assert isinstance(weighed.task, Classification)
    assert weighed.task.class_weights == pytest.approx({"often": 40 / 72, "rare": 5})


class Pressed(SampleSource):
    """Ctrl-C while a certain batch is being made."""

    def batch(self, epoch: int, step: int) -> Batch:
        if (epoch, step) == (1, 3):
            os.kill(os.getpid(), signal.SIGINT)
        return super().batch(epoch, step)


def test_a_resumed_run_with_balanced_samples_ends_as_the_uninterrupted_one(tmp_path: Path):
    task = Classification.of(RARE, sampling="balanced", label_smoothing=0.1, head_kind="two_layer")
    spelled = [sample("film" * (i % 3 + 1), gold=x.gold) for i, x in enumerate(RARE)]

    def weights(kind: type[SampleSource], **options: Any) -> dict[str, Tensor]:
        torch.manual_seed(0)
        encoder = Reader()
        model = Model(encoder, task.head(encoder))
        stages = Full(lr=0.1, epochs=3).stages(encoder, model.head)
        source = kind(task, Letters(), spelled, 6, seed=0)
        fit(model, stages, source, Fitting(device="cpu", quiet=True, **options))
        return model.state_dict()

    whole = weights(SampleSource)
    with pytest.raises(Interrupted):
        weights(Pressed, folder=tmp_path)
    resumed = weights(SampleSource, folder=tmp_path, resume=True)
    assert all(torch.equal(x, resumed[name]) for name, x in whole.items())


def test_a_number_in_a_range_is_a_sigmoid_between_its_ends():
    task = Classification.of(NUMBER, "number", y_range=(0.0, 10.0))
    head = task.head(Reader())
    *_, last = head.layers
    assert isinstance(last, SigmoidRange)
    logits = torch.tensor([[-50.0], [0.0], [1.0], [50.0]])
    answers = task.decode({"logits": last(logits)}, NUMBER, [])
    wanted = [0, 5, 10 * torch.tensor(1.0).sigmoid().item(), 10]
    assert [answer.value for answer in answers] == pytest.approx(wanted, abs=1e-5)
    assert all(0 <= answer.value <= 10 for answer in answers)  # not even by a rounding error
    gold = task.gold(NUMBER, [])["value"]
    batch = {"value": gold}
    assert loss_of(task, gold[:, None], batch) == 0  # loss and answer are on the same scale


def test_numbers_in_a_range_are_learned():
    samples = [sample(word, gold=value) for word, value in [("good", 4.0), ("bad", 1.0), ("not", 2.0)] * 4]
    model = taught(samples, kind="number", y_range=(0.5, 4.5))
    values = [answer.value for answer in model.answers(samples[:3])]
    assert values == pytest.approx([4, 1, 2], abs=0.2)


def test_a_training_number_outside_the_range_is_named():
    task = Classification.of(NUMBER, "number", y_range=(2.0, 9.0))
    with pytest.raises(UserError, match=r"has the number 1, outside task\.y_range \[2\.0, 9\.0\]"):
        task.fitted_to(NUMBER)


@pytest.mark.parametrize(
    ("options", "widths", "dropouts"),
    [
        ({}, [6, 50, 3], [0.4, 0.1]),
        ({"hidden": 20}, [6, 20, 3], [0.4, 0.1]),
        ({"hidden": (20, 9), "dropout": (0.3, 0.2), "summary_dropout": 0.5}, [6, 20, 9, 3], [0.5, 0.3, 0.2]),
        ({"hidden": (20, 9), "dropout": 0.2}, [6, 20, 9, 3], [0.4, 0.2, 0.2]),
        ({"hidden": ()}, [6, 3], [0.4]),
    ],
)
def test_a_head_has_as_many_blocks_as_widths_in_the_order_of_the_release(options, widths, dropouts):
    layers = list(one(head_kind="two_layer", **options).head(Reader()).layers)
    linear = [x for x in layers if isinstance(x, nn.Linear)]
    assert [linear[0].in_features, *(x.out_features for x in linear)] == widths
    assert [x.p for x in layers if isinstance(x, nn.Dropout)] == dropouts
    kinds = [SummaryNorm, nn.Dropout, nn.Linear, nn.ReLU] * len(linear)
    assert [type(x) for x in layers] == kinds[:-1]


def test_heads_of_several_widths_are_fastais():
    models = pytest.importorskip("fastai.text.models.core", reason="fastai is a test oracle, not installed")
    theirs = models.PoolingLinearClassifier([6, 20, 9, 3], [0.5, 0.3, 0.2], bptt=70)
    blocks = [list(block) for block in theirs.layers]
    ours = one(head_kind="two_layer", hidden=(20, 9), dropout=(0.3, 0.2), summary_dropout=0.5).head(Reader())
    shape = [(type(x).__name__, getattr(x, "p", None)) for block in blocks for x in block]
    mine = [
        (type(x).__name__.replace("SummaryNorm", "BatchNorm1d"), getattr(x, "p", None)) for x in ours.layers
    ]
    assert shape == mine


def test_a_threshold_decides_which_of_many_labels_are_said():
    scores = {"logits": torch.tensor([[3.0, -1.0, 0.1]])}  # probabilities 0.95, 0.27, 0.52
    for threshold, said in ((0.5, ("a", "c")), (0.2, ("a", "b", "c")), (0.9, ("a",))):
        task = many(threshold=threshold)
        (answer,) = task.decode(scores, MANY[:1], [])
        assert answer.labels == said
        assert task.average([[answer], [answer]])[0].labels == said


@pytest.mark.parametrize(
    "task",
    [
        one(
            class_weights={"a": 2.0},
            label_smoothing=0.1,
            hidden=(7, 5),
            dropout=(0.1, 0.2),
            head_kind="two_layer",
        ),
        one(sampling="balanced"),
        many(class_weights="balanced", threshold=0.3),
        Classification("number", y_range=(0.0, 5.0), center=2.0, spread=1.5),
    ],
    ids=["one", "sampling", "many", "number"],
)
def test_a_task_comes_back_from_its_saved_settings(task):
    assert task_from(task_config(task)) == task


def test_settings_on_the_command_line_reach_the_task():
    said = ["task.class_weights.a=3", "task.hidden=[100, 50]", "task.dropout=[0.1, 0.2]"]
    task = update(one(head_kind="two_layer"), parse(said)["task"], "task")
    assert (task.class_weights, task.hidden, task.dropout) == ({"a": 3.0}, (100, 50), (0.1, 0.2))
    task = update(Classification("number"), parse(["task.y_range=[0, 5]"])["task"], "task")
    assert task.y_range == (0.0, 5.0)
    assert update(one(), {"class_weights": "balanced"}, "task").class_weights == "balanced"


@pytest.mark.parametrize(
    ("task", "said", "message"),
    [
        (one(), "label_smoothing=1.0", r"task\.label_smoothing is 1\.0; it must be from 0 to below 1"),
        (one(), "class_weights=balance", "did you mean 'balanced'"),
        (one(), "class_weights=3", "balanced or a table of numbers or none is wanted"),
        (one(), "class_weights.d=3", "a label of task.class_weights is 'd'; choose one of a, b, c"),
        (one(), "class_weights.a=0", r"task\.class_weights has 0\.0 for 'a'; it must be above 0"),
        (
            one(),
            "threshold=0.3",
            r"task\.threshold is for golds that are several labels; these are one label",
        ),
        (one(), "y_range=[0,1]", r"task\.y_range is for golds that are a number"),
        (many(), "sampling=balanced", r"task\.sampling is for golds that are one label; these are several"),
        (many(), "threshold=0", r"task\.threshold is 0\.0; it must be between 0 and 1"),
        (Classification("number"), "label_smoothing=0.1", "golds that are one label or several labels"),
        (Classification("number"), "y_range=[5,1]", r"task\.y_range is \[5\.0, 1\.0\]; give the lowest"),
        (one(), "hidden=[50,0]", r"task\.hidden is \[50, 0\]; it must be at least 1"),
        (one(head_kind="two_layer"), "dropout=[0.1,0.2]", r"task\.dropout has 2 numbers, but 1 layers"),
        (one(sampling="balanced"), "class_weights=balanced", "counts rare labels twice; leave one out"),
    ],
)
def test_options_that_make_no_sense_say_so(task, said, message):
    with pytest.raises(UsageError, match=message):
        update(task, parse([said]), "task")
