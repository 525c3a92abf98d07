"""Full fine-tuning: each setting does what its paper says, and every recipe works on GPT and BERT."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pretune.config import build, to_dict, update
from pretune.encoder import Encoder
from pretune.errors import UsageError
from pretune.recipes import NAMES, RECIPES, VARIANTS
from pretune.recipes.base import Recipe
from pretune.recipes.features import Features
from pretune.recipes.full import Full
from pretune.recipes.gradual import Gradual
from pretune.recipes.published_full import (
    BERT_FEW_LABELS,
    BERT_RECIPE,
    FEW_SAMPLE,
    FULL,
    GPT_FEW_LABELS,
    GPT_RECIPE,
)
from pretune.runs.run import TABLES, changed, finetune, load_start, load_trained, recipe_called, recipe_for
from pretune.runs.starts import Start
from pretune.tasks.classification import Classification
from pretune.tasks.joint import Joint
from pretune.training.loop import fit
from pretune.training.optimizers import AdamW
from pretune.training.published_optimizers import BERTAdam, OpenAIAdam
from pretune.training.schedules import (
    BERTLinear,
    Constant,
    OpenAIWarmup,
    WarmupCosine,
    WarmupLinear,
)
from pretune.training.sources import SampleSource
from pretune.training.stage import Stage, plan
from tiny import labelled, start
from tiny_training import quietly, weights_of
from transformer_tasks import (
    BERT_CODEC,
    GPT_CODEC,
    SAMPLES,
    TASK,
    answers,
    bert,
    codec_of,
    gpt,
    model_of,
    trained,
)

BOTH = pytest.mark.parametrize("build_encoder", [gpt, bert], ids=["gpt", "bert"])


def only_stage(recipe: Full, encoder: Encoder) -> Stage:
    (stage,) = recipe.stages(encoder, TASK.head(encoder))
    return stage


def test_gpts_recipe_is_section_4_1_and_the_release() -> None:
    stage = only_stage(GPT_RECIPE, gpt())
    assert {group.lr for group in stage.groups} == {6.25e-5}
    assert {group.weight_decay for group in stage.groups} == {0.01}
    assert (stage.epochs, stage.clip, GPT_RECIPE.batch_size) == (3, 1.0, 32)
    assert stage.schedule == OpenAIWarmup("linear", 0.002)
    assert stage.optimizer == OpenAIAdam()
    assert GPT_RECIPE.task(TASK) == Joint(TASK, 0.5)
    assert VARIANTS["full-gpt-no-auxiliary"] == replace(GPT_RECIPE, auxiliary=0.0)


def test_berts_recipe_is_appendix_a_3_and_the_release() -> None:
    stage = only_stage(BERT_RECIPE, bert())
    assert {group.lr for group in stage.groups} == {5e-5}
    assert (stage.epochs, stage.clip, BERT_RECIPE.batch_size) == (3, 1.0, 32)
    assert stage.schedule == BERTLinear(0.1)
    assert stage.optimizer == BERTAdam()
    assert BERT_RECIPE.task(TASK) is TASK


def decayed(recipe: Full, encoder: Encoder) -> tuple[set[str], set[str]]:
    """Names of the weights that decay, and of those that do not, as the optimizer has them."""
    stage = only_stage(recipe, encoder)
    names = {p: name for name, p in encoder.named_parameters()}
    made = stage.optimizer.build(stage.optimized())
    found: tuple[set[str], set[str]] = (set(), set())
    for group in made.param_groups:
        for p in group["params"]:
            if p in names:
                found[group["weight_decay"] == 0].add(names[p])
    return found


@BOTH
@pytest.mark.parametrize("optimizer", ["openai", "bert"])
def test_norms_and_biases_do_not_decay_with_either_release(build_encoder: Any, optimizer: Any) -> None:
    encoder = build_encoder()
    decays, spared = decayed(Full(optimizer=optimizer), encoder)
    assert decays | spared == {name for name, _ in encoder.named_parameters()}
    assert spared == {name for name, p in encoder.named_parameters() if p.dim() == 1}
    assert any("norm" in name for name in spared) and any(name.endswith("bias") for name in spared)
    assert any("positions" in name for name in decays)


def test_decay_of_norms_and_biases_is_a_setting_of_each_optimizer() -> None:
    assert not decayed(Full(), gpt())[1]
    for optimizer in ("adamw", "openai", "bert"):
        assert not decayed(Full(optimizer=optimizer, decay_all=True), gpt())[1]  # type: ignore[arg-type]
        assert decayed(Full(optimizer=optimizer, decay_all=False), gpt())[1]  # type: ignore[arg-type]


def test_bias_correction_is_the_optimizers_own_unless_said() -> None:
    found = {
        (optimizer, said): only_stage(Full(optimizer=optimizer, bias_correction=said), gpt()).optimizer  # type: ignore[arg-type]
        for optimizer in ("adamw", "openai", "bert")
        for said in (None, True, False)
    }
    assert found["adamw", None] == found["adamw", True] == AdamW()
    assert found["adamw", False] == BERTAdam(eps=1e-8)
    assert found["openai", None] == found["openai", True] == OpenAIAdam()
    assert found["openai", False] == OpenAIAdam(bias_correction=False)
    assert found["bert", None] == found["bert", False] == BERTAdam()
    assert found["bert", True] == BERTAdam(bias_correction=True)


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("warmup_linear", WarmupLinear(0.2)),
        ("warmup_cosine", WarmupCosine(0.2)),
        ("openai_linear", OpenAIWarmup("linear", 0.2)),
        ("openai_cosine", OpenAIWarmup("cosine", 0.2)),
        ("openai_constant", OpenAIWarmup("constant", 0.2)),
        ("bert_linear", BERTLinear(0.2)),
        ("constant", Constant()),
    ],
)
def test_a_named_schedule_is_that_schedule(name: Any, schedule: Any) -> None:
    assert only_stage(Full(rate_schedule=name, warmup=0.2), gpt()).schedule == schedule


def test_layer_decay_slows_each_group_below_the_head_by_the_same_factor() -> None:
    groups = only_stage(Full(lr=1.0, layer_decay=0.5), gpt()).groups
    assert [group.name for group in groups][1:] == [*(f"transformer.blocks.{n}" for n in range(3)), "head"]
    assert [group.lr for group in groups] == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]


def test_few_samples_are_seen_more_often_until_the_steps_are_enough() -> None:
    recipe = Full(epochs=2, least_steps=7, batch_size=2)
    _, fitted = trained(recipe, gpt())
    assert fitted.steps == 8 and len(fitted.history) == 4  # two a pass
    _, fitted = trained(recipe, gpt(), accumulate=2)
    assert fitted.steps == 7  # one a pass
    _, fitted = trained(replace(recipe, epochs=5), gpt())
    assert len(fitted.history) == 5
    assert plan(recipe.stages(gpt(), TASK.head(gpt())))[0]["least_steps"] == 7


def moved(encoder: Encoder, recipe: Full, seed: int = 1) -> set[int]:
    """Numbers of the groups whose weights `wrap` has changed."""
    before = [deepcopy(group.state_dict()) for group in encoder.groups()]
    torch.manual_seed(seed)
    assert recipe.wrap(encoder) is encoder
    return {
        n
        for n, (group, old) in enumerate(zip(encoder.groups(), before, strict=True))
        if any(not torch.equal(x, old[name]) for name, x in group.state_dict().items())
    }


@BOTH
def test_top_blocks_are_drawn_anew_and_no_others(build_encoder: Any) -> None:
    assert moved(build_encoder(), Full()) == set()
    assert moved(build_encoder(), Full(reinitialize_top=1)) == {3}
    assert moved(build_encoder(), Full(reinitialize_top=3)) == {1, 2, 3}


@BOTH
def test_transferred_layers_are_kept_and_those_above_drawn_anew(build_encoder: Any) -> None:
    for kept, wanted in ((3, set()), (1, {2, 3}), (0, {1, 2, 3}), (-1, {0, 1, 2, 3})):
        assert moved(build_encoder(), Full(n_transfer=kept)) == wanted


def test_berts_pooler_is_drawn_anew_with_the_block_below_it() -> None:
    encoder = bert()
    before = weights_of(encoder)
    Full(reinitialize_top=1).wrap(encoder)
    changed_weights = {name for name, x in encoder.state_dict().items() if not torch.equal(x, before[name])}
    assert "pooler.weight" in changed_weights and "words.weight" not in changed_weights


@BOTH
def test_drawn_weights_are_as_at_first_and_a_function_of_the_seed(build_encoder: Any) -> None:
    def drawn(seed: int) -> dict[str, torch.Tensor]:
        encoder = build_encoder(width=64, layers=2)
        with torch.no_grad():
            for p in encoder.parameters():
                p.add_(1)
        torch.manual_seed(seed)
        Full(n_transfer=0).wrap(encoder)
        return weights_of(encoder)

    one, again, other = drawn(1), drawn(1), drawn(2)
    name = "transformer.blocks.1.up.weight"
    assert all(torch.equal(x, again[n]) for n, x in one.items())
    assert not torch.equal(one[name], other[name])
    deviation = 0.02 * (768 / 64) ** 0.5 if build_encoder is gpt else 0.02
    assert one[name].mean().abs() < deviation / 20 and one[name].std() == pytest.approx(deviation, rel=0.15)
    assert torch.equal(one["transformer.blocks.1.output_norm.weight"], torch.ones(64))
    assert torch.equal(one["transformer.blocks.1.up.bias"], torch.zeros(256))


def test_the_head_is_drawn_the_same_however_many_blocks_are() -> None:
    heads = [weights_of(model_of(Full(n_transfer=n), gpt()).head) for n in (3, 1, -1)]
    for head in heads[1:]:
        assert all(torch.equal(x, head[name]) for name, x in heads[0].items())


@pytest.mark.parametrize("method", ["wordvectors", "ulmfit", "elmo"])
def test_every_methods_encoder_can_be_drawn_anew(method: str) -> None:
    encoder = start(method).encoder.for_task()
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(1)
    groups = len(encoder.groups())
    assert moved(encoder, Full(n_transfer=-1)) == set(range(groups))
    if groups > 2:
        assert moved(encoder, Full(reinitialize_top=1), seed=2) == {groups - 1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "sgd"}, "recipe.optimizer is 'sgd'.*adamw, openai, bert"),
        ({"rate_schedule": "slanted"}, "recipe.rate_schedule is 'slanted'"),
        ({"layer_decay": 1.5}, "recipe.layer_decay is 1.5"),
        ({"n_transfer": -2}, "recipe.n_transfer is -2"),
        ({"least_steps": -1}, "recipe.least_steps is -1"),
        ({"n_transfer": 1, "reinitialize_top": 1}, "both say which blocks"),
    ],
)
def test_settings_that_make_no_sense_are_usage_errors(settings: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Full(**settings)


@BOTH
def test_more_blocks_than_there_are_cannot_be_asked_for(build_encoder: Any) -> None:
    for setting in ("n_transfer", "reinitialize_top"):
        with pytest.raises(UsageError, match=f"recipe.{setting} is 4, and .* has 3 blocks"):
            Full(**{setting: 4}).wrap(build_encoder())


# By name


def test_published_recipes_have_names_and_names_stand_for_settings() -> None:
    assert {"full-gpt", "full-gpt-no-auxiliary", "full-bert", "full-few-sample"} <= set(NAMES)
    assert recipe_called("full-gpt", Gradual()) == GPT_RECIPE
    assert recipe_called("full-few-sample", Gradual()) == FEW_SAMPLE
    assert changed(GPT_RECIPE, "full-gpt", {"n_transfer": 2, "epochs": 5}) == replace(
        GPT_RECIPE, n_transfer=2, epochs=5
    )
    with pytest.raises(
        UsageError, match=r"recipe\.auxiliary is part of .*full-gpt-no-auxiliary.*recipe full$"
    ):
        changed(VARIANTS["full-gpt-no-auxiliary"], "full-gpt-no-auxiliary", {"auxiliary": 0.5})
    for name, (recipe, meant) in FULL.items():
        assert meant <= set(vars(recipe)), name


@pytest.mark.parametrize("recipe", [*(recipe for recipe, _ in FULL.values()), Full(n_transfer=1)])
def test_a_recipe_comes_back_from_its_saved_settings(recipe: Full) -> None:
    assert build(Recipe, to_dict(recipe, TABLES), "recipe", TABLES) == recipe  # type: ignore[type-abstract]


def test_settings_saved_before_there_were_optimizers_mean_what_they_meant() -> None:
    old = {
        "lr": 1e-3, "epochs": 10, "batch_size": 32, "warmup": 0.1, "weight_decay": 0.01, "clip": 1.0,
        "auxiliary": 0.0, "alpha": 0.0, "beta": 0.0,
    }  # fmt: skip
    encoder = gpt()
    stage = only_stage(build(Full, old, "recipe"), encoder)
    assert (stage.optimizer, stage.schedule) == (AdamW(), WarmupLinear(0.1))
    assert not decayed(build(Full, old, "recipe"), encoder)[1]
    assert update(Full(), {"n_transfer": "none"}, "recipe").n_transfer is None


# On Transformers


@BOTH
@pytest.mark.parametrize(
    "recipe",
    [
        Features(lr=0.05, epochs=40, bilstm=4, dropout=0.0),
        Full(lr=0.02, epochs=50, optimizer="openai", rate_schedule="openai_linear", auxiliary=0.1),
        Full(lr=0.02, epochs=50, optimizer="bert", rate_schedule="warmup_linear", bias_correction=True),
        Full(lr=0.02, epochs=50, reinitialize_top=1, layer_decay=0.9),
    ],
    ids=["bilstm", "openai", "bert", "steadied"],
)
def test_samples_are_learned_by_heart_with_other_settings(build_encoder: Any, recipe: Recipe) -> None:
    model, _ = trained(recipe, build_encoder())
    encoder = build_encoder()
    assert answers(model, codec_of(encoder)) == [one.gold for one in SAMPLES]


@BOTH
def test_gradual_thaws_blocks_from_the_top(build_encoder: Any) -> None:
    encoder = build_encoder()
    before = weights_of(encoder)
    recipe = Gradual(lr=0.1)
    model = model_of(recipe, encoder)
    source = SampleSource(TASK, codec_of(encoder), SAMPLES, 4, seed=0)
    fit(model, recipe.stages(encoder, model.head)[:2], source, quietly())
    changed_weights = {name for name, x in encoder.state_dict().items() if not torch.equal(x, before[name])}
    heads = ("mlm_", "nsp.")
    assert {name for name in changed_weights if "blocks" in name} == {
        name for name in before if name.startswith("transformer.blocks.2.")
    }
    assert not {name for name in changed_weights if "blocks" not in name} - {"pooler.weight", "pooler.bias"}
    assert not any(name.startswith(heads) for name in changed_weights)


@BOTH
def test_what_is_frozen_has_no_dropout(build_encoder: Any) -> None:
    encoder = build_encoder()
    recipe = Gradual()
    model = model_of(recipe, encoder)
    stage = recipe.stages(encoder, model.head)[1]  # the head and the last block
    stage.thaw(model)
    stage.train(model)
    blocks: Any = encoder.transformer.blocks
    assert [block.training for block in blocks] == [False, False, True]
    embeddings: Any = encoder.tokens if hasattr(encoder, "tokens") else encoder.embedding_norm
    assert not embeddings.training
    Full().stages(encoder, model.head)[0].thaw(model)
    Full().stages(encoder, model.head)[0].train(model)
    assert all(block.training for block in blocks) and embeddings.training


@BOTH
def test_features_mix_all_layers_of_a_transformer(build_encoder: Any) -> None:
    wrapped: Any = model_of(Features(), build_encoder()).encoder
    assert wrapped.mixed == [0, 1, 2, 3] and isinstance(wrapped.mix, nn.Module)


def test_few_label_recipes_train_and_keep_the_papers_optimizers() -> None:
    for recipe, encoder in ((GPT_FEW_LABELS, gpt()), (BERT_FEW_LABELS, bert())):
        short = replace(recipe, epochs=1, least_steps=3)
        model, fitted = trained(short, encoder)
        assert fitted.steps == 3 and type(model.encoder) is type(encoder)
    assert (GPT_FEW_LABELS.optimizer, BERT_FEW_LABELS.optimizer) == ("openai", "bert")
    assert {"full", "gradual", "features"} == set(RECIPES)
    assert GPT_CODEC.size and BERT_CODEC.size


# From a start to a folder


def test_the_name_gradual_means_rates_for_transformers_where_the_encoder_is_one() -> None:
    for method in ("gpt", "bert"):
        assert recipe_for(start(method), "gradual") == Gradual(schedule="transformer")
        assert recipe_for(start(method), "full") == recipe_for(start(method))
    assert recipe_for(start("elmo"), "gradual") == Gradual()


@pytest.mark.parametrize("method", ["gpt", "bert"])
def test_a_model_that_also_learned_its_texts_is_saved_answers_and_starts_again(
    method: str, tmp_path: Path
) -> None:
    begun = start(method, **({"pretraining_heads": True} if method == "bert" else {}))
    samples = labelled(12)
    recipe = Full(epochs=2, auxiliary=0.5, n_transfer=1)
    before = weights_of(begun.encoder)
    task = Classification.of(samples, "one")
    model, fitted = finetune(begun, task, recipe, samples, samples[:4], quietly())
    assert fitted.history[0]["losses"].keys() == {"task", NAMED[method]}
    assert all(torch.equal(x, before[name]) for name, x in begun.encoder.state_dict().items())
    model.save(tmp_path / "saved", {})
    again = load_trained(tmp_path / "saved")
    for one, other in zip(model.answers(samples), again.answers(samples), strict=True):
        assert one.label == other.label and one.scores == pytest.approx(other.scores, abs=1e-6)
    anew = load_start(tmp_path / "saved")
    assert isinstance(anew, Start)
    finetune(anew, task, replace(recipe, epochs=1), samples, [], quietly())  # it still predicts words


NAMED = {"gpt": "next_tokens", "bert": "masked_words"}


def test_a_start_that_lost_what_predicts_words_says_so() -> None:
    samples = labelled(8)
    task = Classification.of(samples, "one")
    with pytest.raises(UsageError, match="this BERT lacks"):
        finetune(start("bert"), task, Full(auxiliary=0.5), samples, [], quietly())
