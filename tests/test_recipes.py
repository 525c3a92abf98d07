"""Recipes: the papers' rates and order, frozen weights equal to the bit, two samples learned by heart."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pretune.data.samples import sample
from pretune.encoder import Encoded, Encoder
from pretune.errors import UsageError
from pretune.layers.scalar_mix import ScalarMix
from pretune.methods.wordvectors import WordCodec, WordCodecConfig, WordVectorConfig, WordVectorEncoder
from pretune.recipes import RECIPES
from pretune.recipes.base import Recipe
from pretune.recipes.features import Features, FrozenFeatures
from pretune.recipes.full import Full
from pretune.recipes.gradual import Gradual
from pretune.tasks.classification import Classification
from pretune.tasks.joint import Joint
from pretune.tasks.next_token import NextToken
from pretune.tensors.batch import Batch
from pretune.training.loop import Fitted, Fitting, fit
from pretune.training.model import Model
from pretune.training.optimizers import AdamW
from pretune.training.schedules import SlantedTriangular, WarmupLinear
from pretune.training.sources import SampleSource, task_batch
from pretune.training.stage import plan

SAMPLES = [sample("a good cat", gold="yes"), sample("the bad dog sat", gold="no")]
CODEC = WordCodec.of_words(["a", "the", "good", "bad", "cat", "dog", "sat"], WordCodecConfig())
TASK = Classification.of(SAMPLES, "one")


class Stack(Encoder):
    """A tiny language model of four groups whose layers have the widths of an AWD-LSTM."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(CODEC.size, 6)
        self.embedding.bias = nn.Parameter(torch.zeros(CODEC.size))
        self.rnns = nn.ModuleList(nn.LSTM(i, o, batch_first=True) for i, o in [(6, 8), (8, 8), (8, 6)])
        self.width, self.summary_width = 6, 6

    @property
    def embedding_weight(self) -> Tensor:
        return self.embedding.weight

    @property
    def decoder_bias(self) -> Tensor:
        return self.embedding.bias

    def layer_widths(self) -> tuple[int, ...]:
        return (6, 8, 8, 6)

    def forward(self, batch: Batch, carry: Any = None) -> Encoded:
        layers = [self.embedding(batch.ids)]
        for rnn in self.rnns:
            layers.append(rnn(layers[-1])[0])
        layers = [h * batch.mask[..., None] for h in layers]
        return Encoded(tuple(layers), batch.mask, layers[-1].sum(1) / batch.lengths[:, None])

    def groups(self) -> list[nn.Module]:
        return [self.embedding, *self.rnns]


def vectors() -> WordVectorEncoder:
    torch.manual_seed(0)
    return WordVectorEncoder(WordVectorConfig(8), CODEC.size)


def model_of(recipe: Recipe, encoder: Encoder, task: Classification = TASK) -> Model:
    torch.manual_seed(1)
    wrapped = recipe.wrap(encoder)
    return Model(wrapped, recipe.task(task).head(wrapped), recipe.alpha, recipe.beta)


def trained(recipe: Recipe, model: Model, task: Classification = TASK) -> Fitted:
    source = SampleSource(recipe.task(task), CODEC, SAMPLES, recipe.batch_size, seed=0)
    stages = recipe.stages(model.encoder, model.head)
    return fit(model, stages, source, Fitting(device="cpu", quiet=True))


def answers(model: Model, task: Classification = TASK) -> list[str | None]:
    rows = task.rows(CODEC, SAMPLES)
    model.eval()
    scores = model(task_batch(task, CODEC, SAMPLES, rows, gold=False)).scores
    return [answer.label for answer in task.decode(scores, SAMPLES, rows)]


@pytest.mark.parametrize(("build", "head_kind"), [(vectors, "linear"), (Stack, "two_layer")])
@pytest.mark.parametrize(
    "recipe",
    [
        Features(lr=0.05, epochs=40, dropout=0.1),
        Features(lr=0.02, epochs=40, bilstm=4, dropout=0.1),
        Gradual(lr=0.02, epochs=60),
        Full(lr=0.02, epochs=40),
    ],
    ids=["features", "bilstm", "gradual", "full"],
)
def test_two_samples_are_learned_by_heart(build, head_kind, recipe):
    task = Classification.of(SAMPLES, "one", head_kind=head_kind)
    model = model_of(recipe, build(), task)
    trained(recipe, model, task)
    assert answers(model, task) == ["yes", "no"]


def test_two_samples_are_learned_by_heart_beside_their_next_tokens():
    recipe = Full(lr=0.02, epochs=40, auxiliary=0.5)
    model = model_of(recipe, Stack())

    def next_token_loss() -> float:
        rows = TASK.rows(CODEC, SAMPLES)
        batch = task_batch(NextToken(), CODEC, SAMPLES, rows, gold=True)
        head = NextToken(dropout=0).head(model.encoder)
        return head.loss(head(model.encoder(batch), batch), batch).item()

    before = next_token_loss()
    trained(recipe, model)
    assert answers(model) == ["yes", "no"]
    assert next_token_loss() < before / 2


@pytest.mark.parametrize("build", [vectors, Stack])
@pytest.mark.parametrize("bilstm", [0, 4])
def test_features_leave_the_encoder_as_it_is_to_the_bit(build, bilstm):
    encoder = build()
    before = deepcopy(encoder.state_dict())
    recipe = Features(lr=0.1, epochs=3, bilstm=bilstm)
    model = model_of(recipe, encoder)
    head = deepcopy(model.head.state_dict())
    trained(recipe, model)
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert not any(torch.equal(head[name], value) for name, value in model.head.state_dict().items())


def test_features_mix_the_layers_as_wide_as_the_top_and_train_the_mix():
    recipe = Features(lr=0.1, epochs=3)
    model = model_of(recipe, Stack())
    wrapped = model.encoder
    assert isinstance(wrapped, FrozenFeatures) and wrapped.mix is not None
    assert wrapped.mixed == [0, 3]
    assert wrapped.summary_width == 6 + 2 * 6
    trained(recipe, model)
    assert wrapped.mix.weights.abs().min() > 0 and wrapped.mix.gamma != 1


def test_features_of_one_layer_are_the_encoders_own_summary():
    wrapped = Features().wrap(vectors())
    batch = task_batch(TASK, CODEC, SAMPLES, TASK.rows(CODEC, SAMPLES), gold=False)
    assert torch.equal(wrapped(batch).summary, vectors()(batch).summary)
    assert wrapped.mix is None and wrapped.groups() == []


def test_a_frozen_encoder_has_no_dropout_in_training():
    wrapped = Features().wrap(Stack())
    wrapped.train()
    assert not any(module.training for module in wrapped.encoder.modules())
    assert wrapped.dropout.training


@pytest.mark.parametrize("bilstm", [0, 4])
def test_features_of_a_text_do_not_depend_on_its_batch(bilstm):
    torch.manual_seed(0)
    wrapped = Features(bilstm=bilstm).wrap(Stack()).eval()
    texts = [sample(" ".join(["a", "the", "good", "bad", "cat", "dog", "sat"][:n] * 3)) for n in (1, 3, 7)]
    batch = task_batch(TASK, CODEC, texts, TASK.rows(CODEC, texts), gold=False)
    together = wrapped(batch)
    assert together.summary.shape == (3, wrapped.summary_width)
    assert not together.layers[-1][~batch.mask].any()
    for text, summary in zip(texts, together.summary, strict=True):
        alone = task_batch(TASK, CODEC, [text], TASK.rows(CODEC, [text]), gold=False)
        torch.testing.assert_close(wrapped(alone).summary[0], summary, atol=1e-5, rtol=0)


def test_gradual_unfreezing_is_the_papers_schedule():
    encoder = Stack()
    recipe = Gradual()
    head = TASK.head(encoder)
    stages = recipe.stages(encoder, head)
    names = ["embedding", "rnns.0", "rnns.1", "rnns.2", "head"]
    thawed = [[group.name for group in stage.groups] for stage in stages]
    assert thawed == [names[k:] for k in (4, 3, 2, 1, 0)]
    assert [stage.epochs for stage in stages] == [1, 1, 1, 1, 8]
    for stage in stages:
        rates = [group.lr for group in stage.groups]
        assert rates == [0.01 / 2.6**depth for depth in reversed(range(len(rates)))]
        assert stage.schedule == SlantedTriangular(0.1, 32)
        assert stage.optimizer == AdamW(0.7, 0.99)
    assert (recipe.alpha, recipe.beta, recipe.batch_size) == (2, 1, 32)
    modules = [group.modules for group in stages[-1].groups]
    assert modules == [(encoder.embedding,), *((rnn,) for rnn in encoder.rnns), (head,)]


def test_gradual_moves_only_what_has_thawed():
    encoder = Stack()
    before = deepcopy(encoder.state_dict())
    recipe = Gradual(lr=0.1)
    model = model_of(recipe, encoder)
    source = SampleSource(TASK, CODEC, SAMPLES, 2, seed=0)
    fit(model, recipe.stages(encoder, model.head)[:2], source, Fitting(device="cpu", quiet=True))
    moved = {name for name, value in encoder.state_dict().items() if not value.equal(before[name])}
    assert moved == {f"rnns.2.{name}" for name, _ in encoder.rnns[2].named_parameters()}


def test_full_moves_everything_at_one_rate_up_and_down_in_lines():
    encoder = Stack()
    (stage,) = Full(lr=0.003).stages(encoder, TASK.head(encoder))
    assert {group.lr for group in stage.groups} == {0.003}
    assert stage.schedule == WarmupLinear(0.1)
    every = {id(p) for group in stage.groups for p in group.parameters()}
    assert {id(p) for p in encoder.parameters()} <= every


def test_only_an_auxiliary_weight_makes_a_joint_task():
    assert Full().task(TASK) is TASK
    assert Full(auxiliary=0.5).task(TASK) == Joint(TASK, 0.5)
    assert Features().task(TASK) is Gradual().task(TASK) is TASK


def test_word_vectors_have_no_next_token_to_learn_from():
    with pytest.raises(UsageError, match="WordVectorEncoder"):
        model_of(Full(auxiliary=0.5), vectors())


@pytest.mark.parametrize("name", ["features", "gradual", "full"])
def test_every_recipe_can_be_printed_before_a_run(name):
    recipe = RECIPES[name]()
    model = model_of(recipe, Stack())
    rows = plan(recipe.stages(model.encoder, model.head))
    assert rows[-1]["group"] == "head"
    assert all(isinstance(row["parameters"], int) and row["parameters"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("recipe", "name", "value"),
    [(Full, "lr", -1.0), (Full, "epochs", 0), (Gradual, "factor", 0.5), (Features, "dropout", 1.5)],
)
def test_a_number_outside_its_limits_is_a_usage_error(recipe, name, value):
    with pytest.raises(UsageError, match=f"recipe.{name} is {value}"):
        recipe(**{name: value})


def mixed(mix: ScalarMix, layers: Sequence[Tensor]) -> Tensor:
    return mix(layers, torch.ones(layers[0].shape[:2], dtype=torch.bool))


def test_an_untrained_mix_is_the_mean_and_a_trained_one_is_equation_1():
    layers = list(torch.randn(3, 2, 5, 4))
    mix = ScalarMix(3)
    torch.testing.assert_close(mixed(mix, layers), torch.stack(layers).mean(0))
    with torch.no_grad():
        mix.weights.copy_(torch.tensor([0.1, 0.3, 0.5]))
        mix.gamma.fill_(1.1)
    shares = torch.tensor([0.1, 0.3, 0.5]).softmax(0)
    expected = 1.1 * torch.einsum("l,lntd->ntd", shares, torch.stack(layers))
    torch.testing.assert_close(mixed(mix, layers), expected)


def test_layer_norm_of_the_mix_is_over_all_real_tokens_of_the_batch():
    layers = [torch.randn(2, 5, 4) * 3 + 7]
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    out = ScalarMix(1, layer_norm=True)(layers, mask)
    assert out[mask].mean().item() == pytest.approx(0, abs=1e-5)
    assert out[mask].var(correction=0).item() == pytest.approx(1, abs=1e-4)
    assert not out[~mask].any()


def test_a_mix_of_another_number_of_layers_is_an_error():
    with pytest.raises(ValueError, match="a mix of 3 layers was given 2"):
        mixed(ScalarMix(3), list(torch.randn(2, 1, 1, 1)))
