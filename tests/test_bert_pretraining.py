"""BERT learns from raw text: its losses, two lengths of rows, resumed runs, weights taken over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import exp, log
from pathlib import Path
from random import Random
from typing import Any, get_args

import pytest
import torch
from torch.nn import functional as F

import tiny
from pretune.config import build, to_dict, update
from pretune.data.corpus import Corpus
from pretune.data.samples import sample
from pretune.errors import UsageError, UserError
from pretune.methods import METHODS
from pretune.methods.base import Vocabulary
from pretune.methods.bert.adopting import adopt
from pretune.methods.bert.encoder import BERT, BERTConfig
from pretune.methods.bert.instances import Making
from pretune.methods.bert.pretraining import ADAPTATION, PRETRAINING, BERTPretraining
from pretune.methods.bert.reading import InstanceSource, Leg, SentenceFile, marks_of
from pretune.methods.bert.tokens import BERTCodec, BERTCodecConfig
from pretune.runs.importing import export
from pretune.runs.language_model import LanguageModel
from pretune.runs.run import TABLES, adapt, load_start, pretrain
from pretune.runs.starts import Start
from pretune.tasks.classification import Classification
from pretune.tasks.joint import Joint
from pretune.tasks.masked_words import MaskedWords, MaskedWordsHead, masked_scores
from pretune.tensors.batch import Batch, collate
from pretune.tensors.streams import NO_TARGET
from pretune.training.loop import Fitting
from pretune.training.model import Model
from pretune.training.optimizers import AdamW
from pretune.training.published_optimizers import BERTAdam
from pretune.training.schedules import BERTLinear, WarmupLinear

QUIET = Fitting(device="cpu", quiet=True)
QUICK = BERTPretraining(epochs=6, rows=8, length=24, long_length=32, least_steps=1, lr=3e-3)
TOPICS = [("cat", "dog", "bird", "sees", "likes"), ("ship", "boat", "wind", "meets", "sinks")]


def documents(count: int, seed: int) -> list[str]:
    """Each of one topic, so that a segment from elsewhere can be told."""
    chance = Random(seed)

    def sentence(topic: tuple[str, ...]) -> str:
        one, two = chance.sample(topic[:3], 2)
        return f"The {one} {chance.choice(topic[3:])} the {two}."

    return [" ".join(sentence(TOPICS[n % 2]) for _ in range(chance.randint(4, 8))) for n in range(count)]


def corpus() -> Iterable[str]:
    return documents(40, 1)


def held_out() -> Iterable[str]:
    return documents(12, 2)


def codec(**settings: Any) -> BERTCodec:
    return BERTCodec.learn(corpus, BERTCodecConfig(vocab_size=120, context=32, **settings))


def encoder(of: BERTCodec, seed: int = 0, **changes: Any) -> BERT:
    torch.manual_seed(seed)
    shape = {"width": 16, "layers": 2, "heads": 2, "context": 32} | changes
    return BERT(BERTConfig(**shape), of.size, of.pad_id).eval()


def batches(of: BERTCodec, tmp_path: Path, rows: int = 8) -> InstanceSource:
    read = SentenceFile.of(Corpus.around(corpus), of, "sentences", tmp_path)
    return InstanceSource(read, marks_of(of), of.pad_id, [Leg(Making(32, 5), 0, 6)], rows, 0)


def bold(made: BERT) -> BERT:
    """Weights that make some words much likelier than others."""
    with torch.no_grad():
        for x in made.parameters():
            x.add_(torch.randn(x.shape, generator=torch.Generator().manual_seed(x.numel())), alpha=0.3)
    return made


def everywhere(made: BERT, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean losses of masked words and of pairs, from the logits of all tokens, as in the release's paper."""
    assert made.mlm_bias is not None and made.nsp is not None
    encoded = made(batch)
    top = encoded.layers[-1]
    logits = made.mlm_hidden(top.flatten(0, 1)).view_as(top) @ made.words.weight.t() + made.mlm_bias
    labels = torch.full_like(batch.ids, NO_TARGET)
    for n, (places, wanted) in enumerate(zip(batch.given["places"], batch.gold["labels"], strict=True)):
        for place, label in zip(places.tolist(), wanted.tolist(), strict=True):
            if place >= 0:
                labels[n, place] = label
    words = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=NO_TARGET)
    return words, F.cross_entropy(made.nsp(encoded.summary), batch.gold["elsewhere"])


def test_the_loss_is_the_mean_of_masked_words_plus_the_mean_of_pairs(tmp_path: Path) -> None:
    text = codec()
    made = bold(encoder(text))
    batch = batches(text, tmp_path).batch(0, 0)
    words, pairs = everywhere(made, batch)
    (words + pairs).backward()
    expected = {name: x.grad.clone() for name, x in made.named_parameters() if x.grad is not None}
    made.zero_grad()
    model = Model(made, MaskedWords(next_sentences=True).head(made))
    output = model(batch)
    targets = model.head.targets(batch)
    assert targets == int((batch.given["places"] >= 0).sum()) > 8
    assert output.loss is not None
    torch.testing.assert_close(output.loss / targets, words + pairs)
    torch.testing.assert_close(output.parts["masked_words"] / targets, words.detach())
    torch.testing.assert_close(output.parts["next_sentences"] / targets, pairs.detach())
    (output.loss / targets).backward()
    for name, x in made.named_parameters():
        torch.testing.assert_close(x.grad, expected[name], atol=1e-5, rtol=1e-4)


def test_without_pairs_the_loss_is_that_of_masked_words(tmp_path: Path) -> None:
    text = codec()
    made = bold(encoder(text))
    batch = batches(text, tmp_path).batch(0, 1)
    model = Model(made, MaskedWords().head(made))
    output = model(batch)
    assert output.loss is not None and output.parts == {}
    torch.testing.assert_close(output.loss / model.head.targets(batch), everywhere(made, batch)[0])


def test_scores_count_each_masked_word_and_each_pair_once_whatever_the_batches(tmp_path: Path) -> None:
    text = codec()
    made = bold(encoder(text))
    head = MaskedWords(next_sentences=True).head(made)
    found = []
    for rows in (4, 8, 24):
        source = batches(text, tmp_path, rows)
        source.legs = [replace(source.legs[0], steps=24 // rows)]
        found.append(masked_scores(Model(made, head).eval(), head, source))
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-5)
    source = batches(text, tmp_path, 24)
    batch = source.batch(0, 0)
    words, pairs = everywhere(made, batch)
    assert found[0]["loss"] == pytest.approx(float(words.detach()), rel=1e-5)
    assert found[0]["perplexity"] == pytest.approx(exp(found[0]["loss"]))
    assert found[0]["next_loss"] == pytest.approx(float(pairs.detach()), rel=1e-5)
    assert 0 <= found[0]["accuracy"] <= 1 and 0 <= found[0]["next_accuracy"] <= 1
    assert found[0]["tokens"] == head.targets(batch)


def test_a_sample_is_scored_by_masking_each_of_its_tokens_alone() -> None:
    text = codec()
    made = bold(encoder(text))
    task = MaskedWords()
    head = task.head(made)
    samples = [sample("The cat sees the dog."), sample("The ship", "the wind"), sample("")]
    rows = task.rows(text, samples)
    batch = collate(rows, text.pad_id, task.given(samples, rows))
    answers = task.decode(Model(made, head).eval()(batch).scores, samples, rows)
    for one, answer in zip(samples, answers, strict=True):
        ((row,),) = text.encode([one.parts])
        nats, tokens = 0.0, 0
        for t, part in enumerate(row.part):
            if part < 0:
                continue
            ids = torch.tensor([row.ids])
            ids[0, t] = text.mask_id
            alone = Batch(ids, ids >= 0, torch.tensor([row.segments]), torch.zeros(1, dtype=torch.long))
            logits = (
                made.mlm_hidden(made(alone).layers[-1][0, t][None]) @ made.words.weight.t() + made.mlm_bias
            )
            nats += float(F.cross_entropy(logits, torch.tensor([row.ids[t]])).detach())
            tokens += 1
        assert answer.scores["log_probability"] == pytest.approx(-nats, abs=1e-3)
        assert answer.scores["tokens"] == tokens
    scores = task.score([None] * 3, answers)
    assert scores["perplexity"] == pytest.approx(exp(scores["loss"])) and scores["tokens"] > 8
    output = Model(made, head)(replace(batch, gold=task.gold(samples, rows)))
    assert float(output.reported) == pytest.approx(scores["loss"] * scores["tokens"], rel=1e-4)


def test_settings_are_the_papers() -> None:
    wide = BERT.__new__(BERT)
    torch.nn.Module.__init__(wide)
    wide.width = 768
    wide.groups = lambda: [torch.nn.Linear(1, 1)]  # type: ignore[method-assign]
    stage = PRETRAINING.stage(wide, 40, 1_000_000)
    (group,) = stage.groups
    assert (group.lr, group.weight_decay, stage.clip) == (1e-4, 0.01, 1.0)
    assert stage.optimizer == BERTAdam(0.9, 0.999, 1e-6) and stage.schedule == BERTLinear(updates=10_000)
    assert PRETRAINING.stage(wide, 1, 300).schedule == BERTLinear(updates=30)  # a tenth of a short run
    assert ADAPTATION.stage(wide, 3, 300).groups[0].lr == 2e-5
    wide.width = 192
    assert PRETRAINING.stage(wide, 1, 300).groups[0].lr == pytest.approx(4e-4)
    wide.width = 16
    assert PRETRAINING.stage(wide, 1, 300).groups[0].lr == pytest.approx(1e-3)
    other = replace(PRETRAINING, schedule="linear_after_warmup", optimizer="adamw").stage(wide, 1, 300)
    assert other.schedule == WarmupLinear(0.1) and other.optimizer == AdamW(0.9, 0.999, 1e-6)
    assert PRETRAINING.making(128) == Making(128, 20, 0.15, 0.1)
    assert PRETRAINING.making(512).predictions == 77


def test_matrices_decay_and_vectors_do_not() -> None:
    made = encoder(codec())
    stage = QUICK.stage(made, 1, 10)
    spared = {p for group in stage.optimized() if not group["weight_decay"] for p in group["params"]}
    named = dict(made.named_parameters())
    assert sum(len(group["params"]) for group in stage.optimized()) == len(named)
    for name, x in named.items():
        assert (x in spared) == ("norm" in name or name.endswith("bias")), name


def test_nine_tenths_of_the_steps_are_on_short_rows_and_the_last_tenth_on_long_ones(tmp_path: Path) -> None:
    text = codec()
    setting = replace(QUICK, epochs=20)
    source = setting._source(encoder(text), text, Corpus.around(corpus), tmp_path, QUIET)
    steps = [(leg.making.length, leg.number, leg.steps) for leg in source.legs]
    total = sum(count for _, _, count in steps)
    of_pass = len(source.instances(source.legs[0])) // 8
    assert total == 20 * of_pass and steps[0][0] == 24 and steps[-1][0] == 32
    assert sum(count for length, _, count in steps if length == 32) == round(total / 10)
    assert [number for length, number, _ in steps if length == 24] == list(range(18))
    shortest, longest = source.batch(0, 0), source.batch(len(steps) - 1, 0)
    assert shortest.ids.shape[1] <= 24 < longest.ids.shape[1] <= 32
    fewer = replace(setting, max_steps=30, dupe_factor=2)
    legs = fewer._source(encoder(text), text, Corpus.around(corpus), tmp_path, QUIET).legs
    assert sum(leg.steps for leg in legs) == 30 and {leg.number for leg in legs} <= {0, 1}
    short = replace(setting, long_share=0.0)
    only = short._source(encoder(text), text, Corpus.around(corpus), tmp_path, QUIET)
    assert {leg.making.length for leg in only.legs} == {24}


@pytest.mark.parametrize("changes", [{}, {"objective": "mlm", "optimizer": "adamw", "whole_words": True}])
def test_a_tiny_bert_learns_a_tiny_text(changes: dict[str, Any]) -> None:
    text = codec()
    made = encoder(text, dropout=0.0, attention_dropout=0.0)
    setting = replace(QUICK, epochs=12, **changes)
    untrained = replace(setting, lr=0.0, epochs=1).run(encoder(text), text, corpus, held_out, QUIET)
    found = setting.run(made, text, corpus, held_out, QUIET)
    assert found["perplexity"] < 9 < text.size / 3 < untrained["perplexity"]
    assert found["accuracy"] > untrained["accuracy"] + 0.2
    assert ("next_accuracy" in found) == (setting.objective == "mlm+nsp")
    if "next_accuracy" in found:
        assert found["next_loss"] < untrained["next_loss"]
    assert not made.training


def test_a_causal_one_learns_the_next_word_and_nothing_tells_it_in_advance(tmp_path: Path) -> None:
    read = codec()
    made = encoder(read, width=32, causal=True)
    settings = replace(QUICK, objective="ltr", long_share=0.0, length=32, epochs=12)
    found = settings.run(made, read, Corpus.around(corpus), Corpus.around(held_out), QUIET)
    # "The A sees the B.", five choices of a topic's words of which no reader could tell more than that
    fewest = (log(2) + log(3) + log(2) + log(2)) / 6
    assert fewest - 0.1 < found["loss"] < 1.0
    source = batches(read, tmp_path)
    batch = replace(source.batch(0, 0), gold={})
    other = replace(
        batch, ids=torch.where(torch.arange(batch.ids.shape[1]) > 5, batch.ids.flip(0), batch.ids)
    )
    assert torch.equal(made(batch).layers[-1][:, :6], made(other).layers[-1][:, :6])


@pytest.mark.parametrize(("objective", "causal"), [("ltr", False), ("mlm", True), ("mlm+nsp", True)])
def test_what_is_predicted_must_not_be_seen(objective: Any, causal: bool) -> None:
    read = codec()
    with pytest.raises(UsageError, match=r"encoder\.causal=true"):
        replace(QUICK, objective=objective).run(
            encoder(read, causal=causal), read, Corpus.around(corpus), None, QUIET
        )


def test_what_asks_for_masked_words_refuses_one_that_reads_from_left_to_right(tmp_path: Path) -> None:
    pretrain(
        METHODS["bert"],
        Corpus.around(corpus),
        None,
        tmp_path / "causal",
        pretraining=replace(QUICK, objective="ltr", max_steps=2, long_share=0.0),
        codec_config=BERTCodecConfig(vocab_size=120, context=32),
        encoder_config=BERTConfig(16, 2, 2, context=32, causal=True),
        fitting=QUIET,
    )
    start = load_start(tmp_path / "causal")
    assert isinstance(start, Start) and start.encoder.config.causal
    with pytest.raises(UsageError, match="predicts no masked words"):
        Joint(Classification(labels=("a", "b"))).head(start.encoder)
    with pytest.raises(UserError, match="reads from left to right"):
        LanguageModel.load(tmp_path / "causal")
    for layout in ("transformers", "tensorflow"):
        with pytest.raises(UserError, match="no counterpart"):
            export(tmp_path / "causal", layout, tmp_path / layout)
        assert not (tmp_path / layout).exists()


def test_the_last_epoch_is_reported_where_nothing_is_held_out() -> None:
    text = codec()
    found = replace(QUICK, epochs=1).run(encoder(text), text, corpus, None, QUIET)
    assert found["train_perplexity"] == pytest.approx(exp(found["train_loss"]))
    assert 0.3 < found["train_next_loss"] < 1.5 and found["trained_tokens"] > 1000


def test_a_run_that_is_resumed_ends_where_one_that_was_not_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pretune.training import loop

    text, setting = codec(), replace(QUICK, epochs=4, long_share=0.4)
    whole = encoder(text)
    scores = setting.run(whole, text, corpus, held_out, QUIET)

    class StoppedError(Exception):
        pass

    calls, stop = 0, 0
    step = loop.train_step

    def stopping(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == stop:
            raise StoppedError
        step(*arguments)

    fitting = replace(QUIET, folder=tmp_path / "checkpoints", checkpoint_steps=5)
    monkeypatch.setattr(loop, "train_step", stopping)
    for at, resume in ((13, False), (20, True)):  # in an early pass, then in a later one
        calls, stop = 0, at
        with pytest.raises(StoppedError):
            setting.run(encoder(text), text, corpus, held_out, replace(fitting, resume=resume))
    monkeypatch.setattr(loop, "train_step", step)
    resumed = encoder(text)
    assert setting.run(resumed, text, corpus, held_out, replace(fitting, resume=True)) == scores
    for name, x in whole.state_dict().items():
        assert torch.equal(x, resumed.state_dict()[name]), name


def test_a_rate_is_found_and_the_encoder_left_alone() -> None:
    text = codec()
    made = encoder(text)
    before = {name: x.clone() for name, x in made.state_dict().items()}
    found = QUICK.find_rates(made, text, corpus, QUIET)
    assert found.stage == "all" and len(found.rates) > 5
    assert all(torch.equal(x, before[name]) for name, x in made.state_dict().items())


def test_old_weights_are_taken_over_by_their_pieces() -> None:
    text = codec()
    old, same = bold(encoder(text)), encoder(text, seed=1)
    adopt(old, text, same, text)
    assert all(torch.equal(x, old.state_dict()[name]) for name, x in same.state_dict().items())
    other = BERTCodec.learn(lambda: [*documents(5, 3), "Zebras quack. " * 3], text.config)
    union = text.with_vocab([*dict.fromkeys([*text.vocab.words, *other.vocab.words])])
    for wider in (other, union):
        new = encoder(wider, seed=1)
        adopt(old, text, new, wider)
        assert new.mlm_bias is not None and old.mlm_bias is not None
        for piece, i in wider.vocab.ids.items():
            known = text.vocab.ids.get(piece)
            for ours, theirs in ((new.words.weight, old.words.weight), (new.mlm_bias, old.mlm_bias)):
                torch.testing.assert_close(ours[i], theirs.mean(0) if known is None else theirs[known])
        assert set(wider.vocab.ids) - set(text.vocab.ids)
        assert torch.equal(new.positions.weight, old.positions.weight)


def test_a_model_of_a_task_or_without_a_pooler_gets_fresh_heads_to_go_on_with() -> None:
    text = codec()
    bare = encoder(text, pooler=False, pretraining_heads=False)
    old = bold(encoder(text)).for_task()
    for known in (bare, old):
        new = encoder(text, seed=1)
        fresh = {name: x.clone() for name, x in new.state_dict().items()}
        adopt(known, text, new, text)
        for name, x in new.state_dict().items():
            assert torch.equal(x, known.state_dict().get(name, fresh[name])), name
    with pytest.raises(UsageError, match="nothing to predict masked words with"):
        QUICK.run(old, text, corpus, None, QUIET)


def test_a_folder_is_pretrained_and_adapted_under_each_vocabulary(tmp_path: Path) -> None:
    settings = BERTCodecConfig(vocab_size=120, context=32)
    shape = BERTConfig(16, 2, 2, context=32)
    short = replace(QUICK, epochs=1)
    held = Corpus.around(held_out)
    pretrain(
        METHODS["bert"],
        Corpus.around(corpus),
        held,
        tmp_path / "old",
        pretraining=short,
        codec_config=settings,
        encoder_config=shape,
        fitting=QUIET,
    )
    old = load_start(tmp_path / "old")
    assert isinstance(old, Start) and isinstance(old.codec, BERTCodec)
    assert old.encoder.mask_id == old.codec.mask_id  # which a task's auxiliary objective masks words with
    other = Corpus.of([*documents(20, 3), "Zebras quack. Zebras like a quack. " * 3])
    for vocabulary in get_args(Vocabulary):
        out = tmp_path / vocabulary
        scores = adapt(
            tmp_path / "old", other, held, out, adaptation=short, fitting=QUIET, vocabulary=vocabulary
        )
        new = load_start(out)
        assert isinstance(new, Start) and isinstance(new.codec, BERTCodec)
        assert (new.codec.vocab == old.codec.vocab) == (vocabulary == "keep")
        assert set(old.codec.vocab.words) <= set(new.codec.vocab.words) or vocabulary == "target"
        assert ("zebras" in new.codec.vocab) == (vocabulary != "keep") and scores["perplexity"] > 1


def test_encoders_of_other_sizes_are_refused() -> None:
    text = codec()
    old = encoder(text)
    with pytest.raises(UserError, match=r"the encoders differ in positions\.weight"):
        adopt(old, text, encoder(text, context=40), text)
    with pytest.raises(UserError, match=r"the encoders differ in"):
        adopt(old, text, encoder(text, layers=1), text)
    with pytest.raises(UsageError, match="only one BERT"):
        adopt(tiny.start("ulmfit").encoder, text, old, text)


def test_settings_survive_a_file_and_mistakes_are_named() -> None:
    assert build(BERTPretraining, to_dict(QUICK), "pretraining", TABLES) == QUICK
    for changes, message in (
        ({"objective": "causal"}, "pretraining.objective"),
        ({"optimizer": "adam"}, "pretraining.optimizer"),
        ({"schedule": "cosine"}, "pretraining.schedule"),
        ({"split": "words"}, "pretraining.split"),
        ({"rows": 0}, "pretraining.rows is 0; give 1 or more"),
        ({"dupe_factor": 0}, "pretraining.dupe_factor is 0; give 1 or more"),
        ({"warmup_steps": -1}, "pretraining.warmup_steps is -1"),
        ({"masked": 1.5}, "pretraining.masked is 1.5; it must be between 0 and 1"),
        ({"length": 4}, "pretraining.length is 4; two segments need 5 tokens or more"),
        ({"weight_decay": -1.0}, "pretraining.weight_decay is -1.0; it must be at least 0"),
    ):
        with pytest.raises(UsageError, match=message):
            update(PRETRAINING, changes, "pretraining", TABLES)
    text = codec()
    start = tiny.start("ulmfit")
    with pytest.raises(UsageError, match="for BERT only"):
        QUICK.run(start.encoder, start.codec, corpus, None, QUIET)
    with pytest.raises(UsageError, match=r"long_length is 512, but .* 32 tokens .* or long_share=0"):
        replace(QUICK, long_length=512).run(encoder(text), text, corpus, None, QUIET)
    with pytest.raises(UserError, match=r"no document has a second sentence.*pretraining\.objective=mlm"):
        QUICK.run(encoder(text), text, lambda: ["One sentence.", "Another one."], None, QUIET)
    assert isinstance(MaskedWords().head(encoder(text)), MaskedWordsHead)
