"""Classification and its joint form: labels in order, losses as sums, answers that gold never reaches."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tiny
from pretune.data.rows import Row
from pretune.data.samples import Part, Sample, Span, sample
from pretune.encoder import Encoded, Encoder
from pretune.errors import UsageError, UserError
from pretune.methods import METHODS
from pretune.runs.attributions import Explaining
from pretune.runs.explain import Explainer
from pretune.runs.predictor import Predictor
from pretune.runs.run import finetune, load_trained
from pretune.runs.trained import join
from pretune.tasks.base import Answer
from pretune.tasks.classification import Classification, SummaryNorm, in_order
from pretune.tasks.joint import Joint
from pretune.tasks.pairs import compared, sides
from pretune.tensors.batch import Batch
from pretune.training.loop import Fitting
from pretune.training.sources import task_batch


class Letters:
    """A codec of letters; a pair is read in both orders, as two rows."""

    pad_id, size = 0, 27

    def encode(self, samples_parts: Sequence[tuple[Part, ...]], unordered: bool = False) -> list[list[Row]]:
        return [[self._row(order) for order in {parts, parts[::-1]}] for parts in samples_parts]

    def _row(self, parts: Sequence[Part]) -> Row:
        text = "".join(part.text for part in parts)
        ids = [ord(c) - 96 for c in text]
        return Row(ids, [0] * len(ids), [0] * len(ids), [Span(i, i + 1) for i in range(len(ids))])

    def describe(self) -> str:
        return "letters"

    def save(self, folder: Path) -> None: ...


class Reader(Encoder):
    """A tiny encoder that reads from left to right."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(27, 6, padding_idx=0)
        self.decoder_bias = nn.Parameter(torch.randn(27))
        self.width, self.summary_width = 6, 6

    @property
    def embedding_weight(self) -> torch.Tensor:
        return self.embedding.weight

    def forward(self, batch: Batch, carry: Any = None) -> Encoded:
        x = self.embedding(batch.ids) * batch.mask[..., None]
        return Encoded((x,), batch.mask, x.sum(1) / batch.lengths[:, None])

    def groups(self) -> list[nn.Module]:
        return [self.embedding]


ONE = [
    sample("abc", key="1", gold="10"),
    sample("de", key="2", gold="2"),
    sample("abcd", "ea", key="3", gold="2"),
]
MANY = [sample("abc", gold=("x", "y")), sample("de", gold=()), sample("a", gold=("y",))]
NUMBER = [sample("abc", gold=1.0), sample("de", gold=3.0), sample("f", gold=8.0)]
KINDS = [("one", ONE), ("many", MANY), ("number", NUMBER)]


def batch_of(task: Any, samples: list[Sample], gold: bool = True) -> Batch:
    codec = Letters()
    return task_batch(task, codec, samples, task.rows(codec, samples), gold)


def test_labels_are_in_order_with_numbers_by_value():
    assert in_order({"10", "2", "-1", "0.5"}) == ("-1", "0.5", "2", "10")
    assert in_order({"level 10", "level 9", "b", "a"}) == ("a", "b", "level 9", "level 10")
    assert in_order({"nan", "1", "x"}) == ("1", "nan", "x")
    assert Classification.of(ONE, "one").labels == ("2", "10")


def test_the_task_does_not_depend_on_the_order_of_samples():
    for kind, samples in KINDS:
        assert Classification.of(samples, kind) == Classification.of(samples[::-1], kind)


@pytest.mark.parametrize(("kind", "samples"), KINDS)
@pytest.mark.parametrize("head_kind", ["linear", "two_layer"])
def test_losses_of_single_samples_add_up_to_the_loss_of_the_batch(kind, samples, head_kind):
    task = Classification.of(samples, kind, head_kind=head_kind)
    encoder = Reader().eval()
    head = task.head(encoder).eval()

    def loss(some: list[Sample]) -> tuple[float, int]:
        batch = batch_of(task, some)
        return head.loss(head(encoder(batch), batch), batch).item(), head.targets(batch)

    alone = [loss([one]) for one in samples]
    assert loss(samples)[0] == pytest.approx(sum(x for x, _ in alone), rel=1e-5)
    assert loss(samples)[1] == sum(n for _, n in alone)


@pytest.mark.parametrize(("kind", "samples"), KINDS)
def test_gold_never_leaks_into_scores_and_neighbours_are_not_felt(kind, samples):
    task = Classification.of(samples, kind, head_kind="two_layer")
    encoder = Reader().eval()
    head = task.head(encoder).eval()
    together = batch_of(task, samples)
    scores = head(encoder(together), together)["logits"]
    for b, one in enumerate(samples):
        alone = batch_of(task, [one], gold=False)
        torch.testing.assert_close(head(encoder(alone), alone)["logits"][0], scores[b], atol=1e-6, rtol=0)


def test_a_pair_read_in_both_orders_is_the_mean_of_its_rows():
    task = Classification.of(ONE, "one")
    encoder = Reader().eval()
    head = task.head(encoder).eval()
    batch = batch_of(task, ONE)
    assert len(batch.ids) == 4 and batch.samples == 3
    linear = head.layers[-1]
    summary = encoder(batch).summary
    torch.testing.assert_close(
        head(encoder(batch), batch)["logits"][2], linear(summary[2:].mean(0)), atol=1e-6, rtol=0
    )


def test_the_two_layer_head_is_the_published_one():
    layers = Classification("one", ("a", "b"), head_kind="two_layer").head(Reader()).layers
    assert [type(layer).__name__ for layer in layers] == [
        "SummaryNorm", "Dropout", "Linear", "ReLU", "SummaryNorm", "Dropout", "Linear",
    ]  # fmt: skip
    assert [layers[1].p, layers[5].p] == [0.4, 0.1]
    assert layers[2].out_features == 50


def test_a_training_batch_of_one_is_normed_by_the_running_statistics():
    norm = SummaryNorm(3)
    norm(torch.randn(20, 3) * 5 + 2)
    x = torch.randn(1, 3)
    kept = deepcopy(norm.state_dict())
    trained = norm(x)
    torch.testing.assert_close(trained, norm.eval()(x))
    assert all(torch.equal(kept[name], value) for name, value in norm.state_dict().items())


def test_running_statistics_start_as_the_mean_of_the_first_batches_then_move_by_momentum():
    norm, plain = SummaryNorm(2), nn.BatchNorm1d(2, momentum=None)
    batches = [torch.randn(8, 2) + 7 for _ in range(10)]
    for x in batches:
        torch.testing.assert_close(norm(x), plain(x))
    torch.testing.assert_close(norm.running_mean, plain.running_mean)
    before, x = norm.running_mean.clone(), torch.randn(8, 2)
    norm(x)
    torch.testing.assert_close(norm.running_mean, 0.9 * before + 0.1 * x.mean(0))


def test_answers_hold_a_probability_for_every_label():
    task = Classification("one", ("2", "10"))
    (answer,) = task.decode({"logits": torch.tensor([[0.0, 1.0]])}, ONE[:1], [])
    assert answer.label == "10"
    assert answer.scores == pytest.approx({"2": 0.26894, "10": 0.73106}, abs=1e-5)
    several = Classification("many", ("x", "y", "z"))
    (answer,) = several.decode({"logits": torch.tensor([[3.0, -0.1, 0.1]])}, MANY[:1], [])
    assert answer.labels == ("x", "z")


def test_numbers_are_learned_standardised_and_answered_as_they_were():
    task = Classification.of(NUMBER, "number")
    gold = task.gold(NUMBER, [])["value"]
    assert gold.mean() == pytest.approx(0, abs=1e-6) and gold.std(correction=0) == pytest.approx(1)
    answers = task.decode({"logits": gold[:, None]}, NUMBER, [])
    assert [answer.value for answer in answers] == pytest.approx([1.0, 3.0, 8.0], abs=1e-5)
    assert task.score([1.0, 3.0, 8.0], answers)["pearson"] == pytest.approx(1)


def test_models_are_averaged_by_probability():
    task = Classification("one", ("a", "b"))
    sure, unsure = Answer("a", scores={"a": 0.9, "b": 0.1}), Answer("b", scores={"a": 0.4, "b": 0.6})
    (both,) = task.average([[sure], [unsure]])
    assert both.label == "a" and both.scores == pytest.approx({"a": 0.65, "b": 0.35})
    (mean,) = Classification("number").average([[Answer(value=1.0)], [Answer(value=4.0)]])
    assert mean.value == 2.5


def test_labels_unknown_to_the_task_are_errors_in_training_and_wrong_in_scores():
    task = Classification.of(ONE, "one")
    with pytest.raises(UserError, match="'new'"):
        task.gold([sample("a", key="7", gold="new")], [])
    assert task.score(["new", "2"], [Answer("2"), Answer("2")])["accuracy"] == 0.5


def test_options_of_the_head_that_make_no_sense_are_usage_errors():
    for wrong in ({"dropout": 1.0}, {"summary_dropout": -0.1}, {"hidden": 0}):
        with pytest.raises(UsageError, match=f"task.{next(iter(wrong))}"):
            Classification.of(ONE, "one", **wrong)


def test_one_class_or_no_label_is_a_clear_error():
    with pytest.raises(UserError, match="at least two"):
        Classification.of(ONE[1:], "one")
    with pytest.raises(UserError, match="no sample has a label"):
        Classification.of([sample("a")], "one")


@pytest.mark.parametrize(
    ("kind", "metric"), [("one", "accuracy"), ("many", "micro_f1"), ("number", "pearson")]
)
def test_the_metric_that_models_are_chosen_by_is_among_the_scores(kind, metric):
    task = Classification(kind, () if kind == "number" else ("a", "b"))
    golds = {"one": ["a"], "many": [("a",)], "number": [1.0]}[kind]
    answers = [Answer(label="a", labels=("a",), value=1.0)]
    assert task.metric in task.score(golds, answers)


def joint_parts(samples: list[Sample], weight: float) -> tuple[float, float]:
    """The joint loss of a batch, and the same by the release's formula."""
    task = Joint(Classification.of(ONE, "one"), weight)
    encoder = Reader().eval()
    torch.manual_seed(1)
    head = task.head(encoder).eval()
    batch = batch_of(task, samples)
    encoded = encoder(batch)
    said = head.loss(head(encoded, batch), batch).item()
    main = head.main.loss(head.main(encoded, batch), batch).item()
    auxiliary = 0.0
    for owner in range(batch.samples):
        rows = []
        for n in (batch.owner == owner).nonzero()[:, 0]:
            ids = batch.ids[n, batch.mask[n]]
            logits = encoded.layers[-1][n, : len(ids) - 1] @ encoder.embedding_weight.T + encoder.decoder_bias
            rows.append(F.cross_entropy(logits, ids[1:]).item())
        auxiliary += sum(rows) / len(rows)
    return said, main + weight * auxiliary


def test_the_joint_loss_is_the_task_plus_weighted_next_tokens():
    assert joint_parts(ONE, 0.5)[0] == pytest.approx(joint_parts(ONE, 0.5)[1], rel=1e-5)
    assert joint_parts(ONE, 0.5)[0] != pytest.approx(joint_parts(ONE, 0.0)[0])


def test_joint_losses_of_single_samples_add_up_to_the_loss_of_the_batch():
    assert joint_parts(ONE, 0.5)[0] == pytest.approx(sum(joint_parts([one], 0.5)[0] for one in ONE), rel=1e-5)


def test_a_text_of_one_token_has_no_next_token_and_no_nan():
    said, _ = joint_parts([sample("a", gold="2"), ONE[0]], 0.5)
    assert said == said


def test_the_joint_task_answers_as_its_task_does():
    task = Classification.of(ONE, "one")
    joint, encoder = Joint(task), Reader().eval()
    torch.manual_seed(1)
    head = joint.head(encoder).eval()
    batch = batch_of(joint, ONE, gold=False)
    answers = joint.decode(head(encoder(batch), batch), ONE, [])
    assert answers == task.decode(head.main(encoder(batch), batch), ONE, [])
    assert (joint.metric, joint.higher_is_better) == (task.metric, task.higher_is_better)


def test_the_joint_head_trains_the_decoder_without_owning_it():
    task, encoder = Joint(Classification.of(ONE, "one")), Reader()
    head = task.head(encoder)
    assert {name.split(".")[0] for name, _ in head.named_parameters()} == {"main"}
    both = deepcopy(nn.ModuleList([encoder, head]))
    batch = batch_of(task, ONE)
    both[1].loss(both[1](both[0](batch), batch), batch).backward()
    assert both[0].decoder_bias.grad.abs().sum() > 0
    assert encoder.decoder_bias.grad is None


def test_chunks_of_the_vocabulary_do_not_change_the_joint_loss(monkeypatch):
    whole = joint_parts(ONE * 40, 0.5)[0]
    monkeypatch.setattr("pretune.layers.softmax.LOGITS_HELD", 1)
    assert joint_parts(ONE * 40, 0.5)[0] == pytest.approx(whole, rel=1e-5)


def test_an_auxiliary_objective_without_a_language_model_is_a_usage_error():
    class Bag(Reader):
        embedding_weight = None

    with pytest.raises(UsageError, match="auxiliary"):
        Joint(Classification.of(ONE, "one")).head(Bag())


# Pairs whose texts are read alone

SIAMESE = Classification(labels=("no", "yes"), pair="siamese", head_kind="two_layer")


def pairs(count: int, seed: int = 0) -> list[Sample]:
    """Two texts that praise alike or not."""
    chance, rest = Random(seed), ["film", "book", "plot", "the"]
    found = []
    for i in range(count):
        words = chance.choices(["good", "bad"], k=2)
        texts = (f"{word} {' '.join(chance.choices(rest, k=chance.randint(0, 4)))}".strip() for word in words)
        found.append(sample(*texts, key=str(i), gold="yes" if words[0] == words[1] else "no"))
    return found


@pytest.mark.parametrize("method", METHODS)
def test_texts_of_a_siamese_pair_are_rows_of_their_own(method):
    one = sample("good film", "very bad plot")
    codec = tiny.start(method).codec
    (rows,) = SIAMESE.rows(codec, [one])
    for number, row in enumerate(rows):
        ((single,),) = codec.encode([one.parts[number : number + 1]])
        assert (row.ids, row.segments, row.chars) == (single.ids, single.segments, single.chars)
        assert {part for part in row.part if part >= 0} == {number}
    assert sides([rows]).tolist() == [0, 1]
    for blank in (sample("", "good"), sample("good", ""), sample("", "")):
        assert sides(SIAMESE.rows(codec, [blank])).tolist() == [0, 1]


def test_the_head_sees_both_summaries_their_distance_and_their_product():
    batch = batch_of(SIAMESE, [sample("ab", "c", gold="yes"), sample("de", "fa", gold="no")])
    summary = torch.randn(4, 3)
    u, v = summary[0::2], summary[1::2]
    expected = torch.cat((u, v, (u - v).abs(), u * v), 1)
    torch.testing.assert_close(compared(summary, batch), expected)
    batch.given["side"] = 1 - batch.given["side"]  # the other way round
    swapped = compared(summary, batch)
    torch.testing.assert_close(swapped, torch.cat((v, u, (u - v).abs(), u * v), 1))


def test_a_text_of_several_rows_is_their_mean():
    batch = batch_of(SIAMESE, [sample("ab", "c", gold="yes")])
    some = torch.tensor([0, 0, 1])
    three = Batch(batch.ids[some], batch.mask[some], batch.segments[some], some * 0, {"side": some})
    summary = torch.randn(3, 5)
    expected = compared(torch.stack((summary[:2].mean(0), summary[2])), batch)
    torch.testing.assert_close(compared(summary, three), expected)


@pytest.mark.parametrize(("method", "recipe"), [("elmo", "features"), ("ulmfit", "full"), ("bert", "full")])
def test_answers_of_siamese_pairs_do_not_depend_on_batch_or_order(method, recipe):
    some = [*pairs(9), sample("", "good"), sample("bad", " ".join(tiny.WORDS * 3))]
    trained = join(tiny.start(method), SIAMESE, tiny.recipe(recipe), 0)
    trained.model.eval()
    each = [trained.answers([one])[0].scores for one in some]
    for size in (3, 11):
        together = trained.answers(some[::-1], size)[::-1]
        for found, said in zip(together, each, strict=True):
            assert found.scores == pytest.approx(said, abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_siamese_model_is_saved_answers_and_is_explained(method, tmp_path):
    train = pairs(16)
    task = Classification.of(train, pair="siamese")
    quiet = Fitting(device="cpu", quiet=True)
    trained, _ = finetune(tiny.start(method), task, tiny.recipe("full", epochs=2), train, train[:4], quiet)
    trained.save(tmp_path / "m", {})
    loaded = load_trained(tmp_path / "m")
    assert loaded.task == task and loaded.answers(train) == trained.answers(train)
    asked = ("good film", "bad")
    for way in ("integrated", "gradient", "occlusion"):
        explainer = Explainer(Predictor.load(tmp_path / "m", "cpu"), Explaining(way))
        said = explainer.explain(asked, "yes")
        assert [token.part for token in said.tokens] == [0, 0, 1]
        assert any(token.score for token in said.tokens)
        if way == "occlusion":  # a whole text left out leaves the other as it was
            without = explainer.explain((asked[0], ""), "yes").score
            assert said.tokens[2].score == pytest.approx(said.score - without, abs=1e-5)


def test_siamese_learns_what_needs_both_texts():
    train = pairs(80)
    task = Classification.of(train, pair="siamese")
    recipe = tiny.recipe("full", epochs=30)
    quiet = Fitting(device="cpu", quiet=True)
    _, fitted = finetune(tiny.start("wordvectors"), task, recipe, train, train, quiet)
    assert fitted.best["accuracy"] > 0.9


def test_a_single_text_is_no_siamese_pair():
    with pytest.raises(UserError, match=r"'7' has 1 text; task.pair is siamese, which compares two"):
        SIAMESE.rows(Letters(), [sample("a", key="7")])
    with pytest.raises(UsageError, match=r"task.pair is 'twin'"):
        Classification(pair="twin")
