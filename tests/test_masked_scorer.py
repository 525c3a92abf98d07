"""BERT scores text: each piece given all the others, whatever the batch and the length of the text."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

import tiny
from pretune.data.rows import NOTHING, Row
from pretune.data.samples import sample
from pretune.errors import UsageError, UserError
from pretune.methods import METHODS
from pretune.methods.bert.encoder import BERT, BERTConfig
from pretune.methods.bert.tokens import BERTCodec, BERTCodecConfig
from pretune.runs.language_model import LanguageModel
from pretune.runs.masked_scorer import MaskedScorer
from pretune.runs.starts import Start, for_task, save_start
from pretune.runs.text_scores import Perplexity
from pretune.runs.trained import answer
from pretune.tasks.masked_words import MaskedWords
from pretune.tensors.batch import collate
from pretune.training.model import Model

TEXTS = ["It was a good film.", "the book", "", "a dull unheard-of plot", *tiny.texts(4, 3, 8)]
CONTEXT = 12


def scorer(context: int = 64) -> MaskedScorer:
    codec = BERTCodec.learn(tiny.corpus, BERTCodecConfig(vocab_size=60, context=64))
    torch.manual_seed(0)
    encoder = BERT(BERTConfig(width=16, layers=2, heads=2, context=64), codec.size, codec.pad_id)
    with torch.no_grad():
        encoder.words.weight.mul_(30)
        assert encoder.mlm_bias is not None
        encoder.mlm_bias.normal_()
    return MaskedScorer(Model(encoder, MaskedWords().head(encoder)).eval(), codec, context)


def by_hand(of: MaskedScorer, ids: list[int], place: int) -> torch.Tensor:
    """Log-probabilities (V,) of what could stand behind a mask there."""
    encoder = of.model.encoder
    assert isinstance(encoder, BERT) and encoder.mlm_bias is not None
    read = [of.codec.cls_id, *ids, of.codec.sep_id]
    read[place + 1] = of.codec.mask_id
    row = Row(read, [0] * len(read), [0] * len(read), [NOTHING] * len(read))
    with torch.no_grad():
        top = encoder(collate([[row]], of.codec.pad_id)).layers[-1][0, place + 1]
        logits = encoder.mlm_hidden(top[None])[0] @ encoder.words.weight.t() + encoder.mlm_bias
        return logits.log_softmax(0)


def test_each_piece_is_scored_given_all_the_others() -> None:
    lm = scorer()
    (score,) = lm.score([TEXTS[0]], 8)
    (ids,) = lm.codec.ids([TEXTS[0]])
    assert score.around is not None and score.words == tuple(lm.words(TEXTS[0]))
    wanted = [float(by_hand(lm, ids, t)[ids[t]]) for t in range(len(ids))]
    np.testing.assert_allclose(score.around, wanted, atol=1e-4)
    assert score.targets == (0, 0) and score.mean == pytest.approx(float(np.mean(wanted)), abs=1e-4)


def test_scores_are_what_the_pretraining_task_says_and_do_not_depend_on_the_batch() -> None:
    lm = scorer()
    kept = [text for text in TEXTS if text]
    alone = [lm.score([text], 1)[0] for text in kept]
    samples = [sample(text) for text in kept]
    task = MaskedWords()
    answers = answer(lm.model, task, lm.codec, samples, task.rows(lm.codec, samples))
    for one, many, said in zip(alone, lm.score(kept, 3), answers, strict=True):
        assert one.around is not None and many.around is not None
        np.testing.assert_allclose(one.around, many.around, atol=1e-4)
        assert one.around.sum() == pytest.approx(said.scores["log_probability"], abs=1e-3)
    found = Perplexity.of(lm.score(TEXTS, 4))
    assert found.value == pytest.approx(task.score([], answers)["perplexity"], rel=1e-4)
    assert found.forward is None and found.backward is None


def test_of_a_long_text_as_much_is_read_on_both_sides_as_fits() -> None:
    lm = scorer(CONTEXT)
    chance = Random(0)
    text = " ".join(chance.choices(tiny.WORDS, k=40))
    (ids,) = lm.codec.ids([text])
    (score,) = lm.score([text], 7)
    room = CONTEXT - 2
    assert score.around is not None and len(ids) > 3 * room
    for place in (0, 3, room, 20, len(ids) - 1):
        first = min(max(0, place - room // 2), len(ids) - room)
        said = by_hand(lm, ids[first : first + room], place - first)
        assert score.around[place] == pytest.approx(float(said[ids[place]]), abs=1e-4)


def test_substitutes_are_what_could_stand_behind_a_mask() -> None:
    lm = scorer()
    (ids,) = lm.codec.ids(["it was a good film"])
    found = lm.substitutes("it was a good film", 3, 1000)
    said = by_hand(lm, ids, 3)
    words = [lm.codec.vocab.ids[x.word] for x in found]
    assert not {x.word for x in found} & {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    torch.testing.assert_close(
        torch.tensor([x.probability for x in found]), said[words].softmax(0), atol=1e-5, rtol=0
    )
    assert len(found) == lm.codec.size - 5
    with pytest.raises(UsageError, match=f"the text has {len(ids)} words"):
        lm.substitutes("it was a good film", len(ids), 3)
    with pytest.raises(UsageError, match="carries nothing"):
        lm.carried(["a"], 2)


def test_a_folder_is_loaded_as_the_kind_of_model_that_it_is(tmp_path: Path) -> None:
    lm = scorer()
    encoder = lm.model.encoder
    assert isinstance(encoder, BERT)
    start = Start("bert", METHODS["bert"], lm.codec, encoder, encoder.config)
    save_start(start, tmp_path / "bert", {})
    loaded = LanguageModel.load(tmp_path / "bert", "cpu")
    assert loaded.perplexity(TEXTS).value == pytest.approx(Perplexity.of(lm.score(TEXTS, 8)).value, rel=1e-5)
    assert loaded.substitutes(TEXTS[0], 1, 3)[0] == lm.substitutes(TEXTS[0], 1, 3)[0]
    with pytest.raises(UserError, match="bert reads sentences both ways and writes no text"):
        loaded.generate("it was")
    with pytest.raises(UserError, match="give a gpt or a ulmfit"):
        loaded.left_to_right()
    save_start(for_task(start), tmp_path / "bare", {})
    with pytest.raises(UserError, match="no heads of pretraining"):
        LanguageModel.load(tmp_path / "bare", "cpu")
