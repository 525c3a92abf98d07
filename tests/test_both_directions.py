"""Both directions in one encoder: each half is the model alone, one from either end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import tiny
from pretune.cli import app
from pretune.data.samples import Sample, sample
from pretune.data.vocab import Vocab
from pretune.encoder import Encoded
from pretune.errors import UsageError, UserError
from pretune.methods.ulmfit import ULMFIT, TwoWayAWDLSTM, UlmfitPretraining
from pretune.methods.ulmfit.splitter import Splitter
from pretune.recipes import RECIPES
from pretune.runs.embedder import Embedder
from pretune.runs.run import finetune, load_start, load_trained
from pretune.runs.starts import Start, save_start, side_by_side
from pretune.runs.trained import Ensemble, TrainedModel, join
from pretune.tasks.classification import Classification
from pretune.tasks.tagging import Tagging
from pretune.tensors.batch import collate
from pretune.training.loop import Fitting

QUIET = Fitting(device="cpu", quiet=True)
TASK = Classification(labels=("a", "b", "c"), head_kind="two_layer")


def sides(**encoder: Any) -> list[Start]:
    """A forward and a backward model of the same words, weights of their own."""
    forward, other = tiny.start("ulmfit", 1, **encoder), tiny.start("ulmfit", 2, **encoder)
    codec: Any = other.codec
    forward.name, other.name = "forward", "backward"
    other.codec = type(codec)(replace(codec.config, direction="backward"), codec.vocab)
    return [forward, other]


def both(**encoder: Any) -> Start:
    return side_by_side(sides(**encoder), "models")


def texts(*lengths: int) -> list[Sample]:
    chance = Random(3)
    return [sample(" ".join(chance.choices(tiny.WORDS, k=k)), key=str(k)) for k in lengths]


def encoded(start: Start, some: list[Sample]) -> Encoded:
    rows = start.codec.encode([s.parts for s in some])
    start.encoder.eval().purpose("task")  # type: ignore[operator]
    with torch.no_grad():
        said: Encoded = start.encoder(collate(rows, start.codec.pad_id))
    return said


@pytest.mark.parametrize("cell", ["lstm", "qrnn"])
def test_each_half_is_its_model_alone(cell: str) -> None:
    start, some = both(cell=cell), texts(3, 60, 11)  # 60: longer than max_len
    whole = encoded(start, some)
    assert [h.shape[-1] for h in whole.layers] == list(start.encoder.layer_widths())
    forward, backward = sides(cell=cell)
    for n, one in enumerate(some):
        ahead, behind = encoded(forward, [one]), encoded(backward, [one])
        length = ahead.mask.shape[1]
        for h, left, right in zip(whole.layers, ahead.layers, behind.layers, strict=True):
            mine, rest = h[n, :length], h[n, length:]
            assert torch.allclose(mine, torch.cat((left[0], right[0].flip(0)), -1), atol=1e-6)
            assert not rest.any()
        summary = torch.cat((ahead.summary[0], behind.summary[0]), -1)
        assert torch.allclose(whole.summary[n], summary, atol=1e-6)


def test_vectors_lead_to_what_ids_do() -> None:
    start, some = both(), texts(4, 9)
    batch = collate(start.codec.encode([s.parts for s in some]), start.codec.pad_id)
    encoder = start.encoder.eval()
    with torch.no_grad():
        said, again = encoder(batch), encoder.read_vectors(encoder.vectors(batch), batch)
    assert torch.allclose(said.summary, again.summary, atol=1e-6)
    assert all(torch.allclose(x, y, atol=1e-6) for x, y in zip(said.layers, again.layers, strict=True))


def test_groups_hold_every_weight_once_and_pair_the_layers() -> None:
    encoder = both().encoder
    groups = encoder.groups()
    held = [p for group in groups for p in group.parameters()]
    assert len(held) == len(set(held)) and set(held) == set(encoder.parameters())
    assert isinstance(encoder, TwoWayAWDLSTM)
    assert len(groups) == len(encoder.forwards.groups())
    for group, one, other in zip(groups, encoder.forwards.groups(), encoder.backwards.groups(), strict=True):
        assert list(group.parameters()) == [*one.parameters(), *other.parameters()]


def test_gradual_unfreezing_thaws_both_sides_together() -> None:
    trained = join(both(), TASK, tiny.recipe("gradual"), 0)
    encoder = trained.start.encoder
    assert isinstance(encoder, TwoWayAWDLSTM)
    stage = trained.recipe.stages(trained.model.encoder, trained.model.head)[1]
    trained.model.eval()
    stage.thaw(trained.model)
    stage.train(trained.model)
    for side in (encoder.forwards, encoder.backwards):
        assert side.rnns[-1].training and all(p.requires_grad for p in side.rnns[-1].parameters())
        assert not side.rnns[0].training and not any(p.requires_grad for p in side.rnns[0].parameters())
        assert not side.embedding.training


@pytest.mark.parametrize("recipe", RECIPES)
def test_answers_do_not_depend_on_batch_or_order(recipe: str) -> None:
    trained = join(both(), TASK, tiny.recipe(recipe), 0)
    some = texts(1, 2, 9, 10, 11, 45, 3)
    alone = [trained.answers([one])[0].scores for one in some]
    for size in (2, 7):
        together = trained.answers(some[::-1], size)[::-1]
        for found, said in zip(together, alone, strict=True):
            assert found.scores == pytest.approx(said, abs=1e-5)


def test_both_are_saved_as_one_model(tmp_path: Path) -> None:
    train = tiny.labelled(12)
    start = both()
    task = Classification.of(train, head_kind="two_layer")
    trained, _ = finetune(start, task, tiny.recipe("gradual"), train, train[:4], QUIET)
    trained.save(tmp_path / "m", {})
    loaded = load_trained(tmp_path / "m")
    assert isinstance(loaded, TrainedModel) and loaded.answers(train) == trained.answers(train)
    again = load_start(tmp_path / "m")
    assert isinstance(again, Start) and isinstance(again.encoder, TwoWayAWDLSTM)
    (vectors,) = Embedder.load(tmp_path / "m", device="cpu").embed(["good film"], layers="top")
    assert vectors.shape[-1] == again.encoder.width
    with pytest.raises(UsageError, match="adapt the folder that they came from"):
        ULMFIT.adopt(again.encoder, again.codec, again.encoder, again.codec)


def test_models_that_do_not_fit_together_say_why() -> None:
    forward, backward = sides()
    codec: Any = backward.codec
    other = replace(backward, codec=type(codec)(codec.config, Vocab(codec.vocab.words[:-1])))
    with pytest.raises(UserError, match=r"forward and backward read text differently .*same vocabulary"):
        side_by_side([forward, other], "models")
    with pytest.raises(UserError, match=r"forward has encoder.hidden 7 and backward 8"):
        side_by_side([forward, sides(hidden=8)[1]], "models")
    with pytest.raises(UserError, match="a forward and a backward model"):
        side_by_side([forward, replace(forward, name="again")], "models")
    with pytest.raises(UserError, match="cannot stand side by side"):
        side_by_side([tiny.start("wordvectors")], "models")


def test_a_language_model_reads_one_way() -> None:
    start = both()
    with pytest.raises(UsageError, match="--direction both trains two"):
        UlmfitPretraining().run(start.encoder, start.codec, tiny.corpus, None, QUIET)
    with pytest.raises(UsageError, match="train each alone"):
        start.encoder.purpose("language_model")
    rows = start.codec.encode([texts(3)[0].parts])
    with pytest.raises(UsageError, match="no state to begin with"):
        start.encoder(collate(rows, start.codec.pad_id), ())


def test_no_gradient_of_a_word_is_missing() -> None:
    """What stands at either end of a text is felt by every word's vector, through one side or the other."""
    start = both()
    (row,) = start.codec.encode([texts(8)[0].parts])
    batch = collate([row], start.codec.pad_id)
    encoder = start.encoder.eval()
    vectors = encoder.vectors(batch).detach().requires_grad_()
    top = encoder.read_vectors(vectors, batch).layers[-1]
    (slope,) = torch.autograd.grad(top[0, 4].sum(), vectors)
    assert (slope[0].abs().sum(-1) > 0).all()


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(x) for x in arguments])
    return done.exit_code, done.stdout, done.stderr


def test_tagging_joins_a_folder_of_both_and_classification_averages(tmp_path: Path) -> None:
    save_start(sides(), tmp_path / "lm", {})
    (tmp_path / "tags.conll").write_text("the D\nfilm N\n\na D\nplot N\n\nthe D\nbook N\n\n" * 3)
    rows = "".join(f"{s.texts[0]},{s.gold}\n" for s in tiny.labelled(8))
    (tmp_path / "labels.csv").write_text("text,label\n" + rows)
    fast = ["--from", tmp_path / "lm", "--device", "cpu", "--quiet", "recipe.epochs=1"]
    for task, file, more, one in (
        ("tagging", "tags.conll", [], True),
        ("tagging", "tags.conll", ["--join", "average"], False),
        ("classification", "labels.csv", [], False),
        ("classification", "labels.csv", ["--join", "concat"], True),
    ):
        out = tmp_path / f"{task}{len(more)}"
        code, _, error = run("finetune", task, tmp_path / file, *fast, *more, "--out", out)
        assert code == 0, error
        model = load_trained(out)
        assert isinstance(model, TrainedModel if one else Ensemble)
        if isinstance(model, TrainedModel):
            assert isinstance(model.start.encoder, TwoWayAWDLSTM)
        assert isinstance(model.task, Tagging if task == "tagging" else Classification)
        assert run("evaluate", out, tmp_path / file, "--device", "cpu")[0] == 0


def test_join_without_two_directions_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "tags.conll").write_text("the D\nfilm N\n\na D\nplot N\n")
    call = ["finetune", "tagging", tmp_path / "tags.conll", "--out", tmp_path / "m", "--join"]
    code, _, error = run(*call, "concat")
    assert code == 2 and "--join is for a folder with both directions" in " ".join(error.split())
    save_start(sides(), tmp_path / "lm", {})
    code, _, error = run(*call, "cat", "--from", tmp_path / "lm")
    assert code == 2 and "choose one of concat, average" in " ".join(error.split())


def test_both_can_be_learned_from_scratch() -> None:
    start = tiny.start("ulmfit", directions="both")
    assert isinstance(start.encoder, TwoWayAWDLSTM)
    backward = sides()[1].codec
    with pytest.raises(UsageError, match="reads both ways itself"):
        ULMFIT.build(replace(start.encoder_config, directions="both"), backward)


@pytest.mark.parametrize("pair", ["joined", "siamese"])
def test_two_directions_that_answer_together_cut_a_text_into_tokens_once(
    pair: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = [sample(a, b) for a, b in (("the film", "a good plot"), ("a book", "the end of it"))]
    task = replace(TASK, pair=pair)
    members = {one.name: join(one, task, RECIPES["full"](), 0) for one in sides()}
    alone = task.average([member.answers(some) for member in members.values()])
    cut = []
    aligned = Splitter.aligned
    monkeypatch.setattr(Splitter, "aligned", lambda self, text: cut.append(text) or aligned(self, text))
    assert Ensemble(members).answers(some) == alone
    assert sorted(cut) == sorted(text for s in some for text in s.texts)


def test_directions_of_different_words_are_read_each_its_own_way() -> None:
    forward, backward = sides()
    codec: Any = backward.codec
    backward.codec = codec.with_vocab(Vocab([*codec.vocab.words[:-1], "another"]))
    members = {one.name: join(one, TASK, RECIPES["full"](), 0) for one in (forward, backward)}
    some = texts(3, 9)
    assert Ensemble(members).answers(some) == TASK.average([m.answers(some) for m in members.values()])
