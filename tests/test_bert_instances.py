"""BERT's pretraining data: the instances of Google's release, in files, in batches that follow from seeds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from pretune.data.corpus import Corpus
from pretune.errors import UsageError, UserError
from pretune.keys import key
from pretune.methods.bert.instances import Instance, Making, Marks, generated, instances
from pretune.methods.bert.reading import (
    LONGEST,
    AllInstances,
    InstanceSource,
    Leg,
    SentenceFile,
    instance_file,
    legs_of,
    marks_of,
)
from pretune.methods.bert.tokens import SPECIALS, BERTCodec, BERTCodecConfig
from pretune.tensors.streams import NO_TARGET

CLASSIFY, SEPARATOR, MASK = 2, 3, 4
INSIDE = [number % 3 == 0 and number > 4 for number in range(40)]  # pieces 6, 9, 12 ... go on with a word
MARKS = Marks(CLASSIFY, SEPARATOR, MASK, INSIDE)


class Scripted(Random):
    """Answers as written down, and checks that each question is the one that was expected."""

    def __init__(self, script: list[tuple[Any, ...]]) -> None:
        super().__init__()
        self.script = iter(script)

    def random(self) -> float:
        asked, answer = next(self.script)
        assert asked == "random"
        return float(answer)

    def randint(self, a: int, b: int) -> int:
        asked, *bounds, answer = next(self.script)
        assert (asked, *bounds) == ("randint", a, b)
        return int(answer)

    def shuffle(self, x: Any) -> None:
        asked, *order = next(self.script)
        assert asked == "shuffle" and sorted(order) == list(range(len(x)))
        x[:] = [x[i] for i in order]


def test_two_documents_become_the_instances_that_one_writes_down_by_hand() -> None:
    documents = [[[10], [11, 13]], [[14, 16, 17], [19, 20], [22, 23, 25]]]
    script = [
        ("shuffle", 1, 0),  # the longer document comes first
        ("random", 0.5),  # no short instances: 11 - 3 = 8 tokens are wanted
        ("randint", 1, 2, 1),  # the three sentences have 8; the first is segment A
        ("random", 0.4),  # B is from elsewhere, up to 8 - 3 = 5 tokens
        ("randint", 0, 1, 0),  # from this document? no:
        ("randint", 0, 1, 1),
        ("randint", 0, 1, 0),  # from its first sentence on: 10 11 13, which is all it has
        # [CLS] 14 16 17 [SEP] 10 11 13 [SEP]: 9 tokens, so round(1.35) = 1 of 6 is masked
        ("shuffle", 3, 0, 1, 2, 4, 5),  # which is the fourth, 10
        ("random", 0.79),  # as [MASK]
        # sentences 2 and 3 come again: 5 tokens, the document's end
        ("randint", 1, 1, 1),
        ("random", 0.5),  # B follows
        # [CLS] 19 20 [SEP] 22 23 25 [SEP]: one of 5
        ("shuffle", 4, 3, 2, 1, 0),
        ("random", 0.8),
        ("random", 0.5),  # as another word
        ("randint", 0, 39, 7),
        # the other document, short
        ("random", 0.05),
        ("randint", 2, 8, 2),
        ("randint", 1, 1, 1),  # 1 + 2 tokens are enough
        ("random", 0.1),  # B is from elsewhere, one token or more
        ("randint", 0, 1, 1),
        *[("randint", 0, 1, 1)] * 8,  # this document again and again; the tenth try stands
        ("randint", 0, 1, 1),
        ("randint", 0, 1, 1),  # from its second sentence on
        ("shuffle", 0, 1, 2),
        ("random", 0.9),
        ("random", 0.49),  # as itself
        # the second sentence comes again, alone, so B is from elsewhere without asking
        ("randint", 0, 1, 0),
        ("randint", 0, 2, 2),
        ("shuffle", 2, 0, 1, 3, 4),
        ("random", 0.0),
    ]
    chance = Scripted(script)
    found = list(generated(documents, Making(11, 20, 0.15), MARKS, chance))
    assert found == [
        Instance([2, 14, 16, 17, 3, 4, 11, 13, 3], 5, True, [5], [10]),
        Instance([2, 19, 20, 3, 22, 23, 7, 3], 4, False, [6], [25]),
        Instance([2, 10, 3, 11, 13, 3], 3, True, [1], [10]),
        Instance([2, 11, 13, 3, 4, 23, 25, 3], 4, True, [4], [22]),
    ]
    assert next(chance.script, None) is None


def test_whole_words_are_masked_as_one_writes_down_by_hand() -> None:
    documents = [[[10, 12, 11, 9, 6, 13, 15], [16, 17]]]
    script = [
        ("shuffle", 0),
        ("random", 0.5),
        ("randint", 1, 1, 1),
        ("random", 0.9),
        # [CLS] 10 ##12 11 ##9 ##6 13 ##15 [SEP] 16 17 [SEP], of which round(3.6) = 4, but 3 at most:
        # words 10 ##12; 11 ##9 ##6; 13 ##15; 16; 17
        ("shuffle", 2, 1, 3, 4, 0),
        ("random", 0.1),  # 13: [MASK]
        ("random", 0.9),  # ##15, on its own: another word
        ("random", 0.7),
        ("randint", 0, 39, 33),
        # 11 ##9 ##6 would be too many
        ("random", 0.1),  # 16
    ]
    making = Making(15, 3, 0.3, whole_words=True)
    chance = Scripted(script)
    (found,) = generated(documents, making, MARKS, chance)
    assert found.ids == [2, 10, 12, 11, 9, 6, 4, 33, 3, 4, 17, 3]
    assert found.places == [6, 7, 9] and found.labels == [13, 15, 16]
    assert next(chance.script, None) is None


def test_what_is_too_long_is_cut_at_either_end_of_the_longer_segment() -> None:
    documents = [[[10, 11, 13, 14, 16], [17, 19, 20, 22, 23]]]
    script = [
        ("shuffle", 0),
        ("random", 0.5),
        ("randint", 1, 1, 1),
        ("random", 0.5),
        ("random", 0.2),  # both have 5: the front of the second
        ("random", 0.7),  # the first has 5 of 9: its end
        ("random", 0.6),  # both have 4: the end of the second
        ("random", 0.3),  # the front of the first
        ("shuffle", 0, 1, 2, 3, 4, 5),
        ("random", 0.5),
    ]
    (found,) = generated(documents, Making(9, 1), MARKS, Scripted(script))
    assert found.ids == [2, 4, 13, 14, 3, 19, 20, 22, 3] and found.labels == [11]


class Release:
    """The release's recipe in its own words: lists of token strings, everything at once."""

    def __init__(self, texts: list[list[list[int]]], length: int, most: int, whole: bool, seed: int) -> None:
        self.chance, self.length, self.most, self.whole = Random(seed), length, most, whole
        names = [f"{'##' if inside else ''}w{number}" for number, inside in enumerate(INSIDE)]
        names[CLASSIFY], names[SEPARATOR], names[MASK] = "[CLS]", "[SEP]", "[MASK]"
        self.names = names
        self.texts = [[[names[i] for i in sentence] for sentence in text] for text in texts]

    def files(self, times: int) -> list[tuple[Any, ...]]:
        self.chance.shuffle(self.texts)
        out = [one for _ in range(times) for text in self.texts for one in self.of(text)]
        self.chance.shuffle(out)
        return out

    def of(self, text: list[list[str]]) -> Iterator[tuple[Any, ...]]:
        aim = limit = self.length - 3
        if self.chance.random() < 0.1:
            aim = self.chance.randint(2, limit)
        held: list[list[str]] = []
        todo = list(text)
        while todo:
            held.append(todo.pop(0))
            if todo and sum(map(len, held)) < aim:
                continue
            cut = self.chance.randint(1, len(held) - 1) if len(held) >= 2 else 1
            a, rest = [*chain(*held[:cut])], held[cut:]
            if len(held) == 1 or self.chance.random() < 0.5:
                drawn, b = True, self.elsewhere(text, aim - len(a))
                todo = rest + todo
            else:
                drawn, b = False, [*chain(*rest)]
            while len(a) + len(b) > limit:
                victim = a if len(a) > len(b) else b
                del victim[0 if self.chance.random() < 0.5 else -1]
            tokens = ["[CLS]", *a, "[SEP]", *b, "[SEP]"]
            yield *self.hide(tokens), len(a) + 2, drawn
            held = []

    def elsewhere(self, text: list[list[str]], aim: int) -> list[str]:
        for _ in range(10):
            other = self.texts[self.chance.randint(0, len(self.texts) - 1)]
            if other is not text:
                break
        found: list[str] = []
        for sentence in other[self.chance.randint(0, len(other) - 1) :]:
            found = found + sentence
            if len(found) >= aim:
                return found
        return found

    def hide(self, tokens: list[str]) -> tuple[list[str], dict[int, str]]:
        groups: list[list[int]] = []
        for i, token in enumerate(tokens):
            if token in ("[CLS]", "[SEP]"):
                continue
            if self.whole and groups and token.startswith("##"):
                groups[-1] += [i]
            else:
                groups += [[i]]
        self.chance.shuffle(groups)
        number = min(self.most, max(1, round(len(tokens) * 0.15)))
        out, hidden = list(tokens), dict[int, str]()
        for group in groups:
            if len(hidden) >= number:
                break
            if len(hidden) + len(group) > number:
                continue
            for i in group:
                hidden[i] = tokens[i]
                if self.chance.random() < 0.8:
                    out[i] = "[MASK]"
                elif self.chance.random() < 0.5:
                    out[i] = tokens[i]
                else:
                    out[i] = self.names[self.chance.randint(0, len(self.names) - 1)]
        return out, dict(sorted(hidden.items()))


def texts(count: int, seed: int) -> list[list[list[int]]]:
    chance = Random(seed)

    def sentence() -> list[int]:
        return [chance.randint(5, 39) for _ in range(chance.randint(1, 14))]

    return [[sentence() for _ in range(chance.randint(1, 9))] for _ in range(count)]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("documents", [1, 2, 25])
def test_the_same_seed_gives_the_instances_of_the_release(documents: int, whole: bool) -> None:
    for seed, length in ((12345, 32), (7, 12), (0, 128)):
        said = texts(documents, seed)
        most = 3 if length == 32 else 20
        release = Release(said, length, most, whole, seed)
        ours = instances(said, Making(length, most, whole_words=whole), MARKS, seed, dupe_factor=3)
        found = [
            ([release.names[i] for i in one.ids], [release.names[i] for i in one.labels], one) for one in ours
        ]
        theirs = release.files(3)
        assert len(found) == len(theirs) > documents
        for (ids, labels, one), (tokens, hidden, first, drawn) in zip(found, theirs, strict=True):
            assert (ids, one.places, labels) == (tokens, [*hidden], [*hidden.values()])
            assert (one.first, one.elsewhere) == (first, drawn)


def test_80_10_and_10_of_a_hundred_and_15_of_a_hundred_tokens() -> None:
    made = instances(texts(400, 1), Making(64, 20), MARKS, 3, 2)
    pairs = [(one.ids[place], label) for one in made for place, label in zip(one.places, one.labels)]
    assert 0.78 < np.mean([read == MASK for read, _ in pairs]) < 0.82
    assert 0.08 < np.mean([read == label for read, label in pairs]) < 0.12
    assert 0.14 < len(pairs) / sum(len(one.ids) for one in made) < 0.16
    long = [one for one in made if len(one.ids) > 30]
    assert 0.4 < np.mean([one.elsewhere for one in long]) < 0.8


def test_from_left_to_right_each_word_is_asked_for_where_the_one_before_it_stands() -> None:
    documents = texts(3, 1)
    making = Making(12, 10, 0.0, pairs=False)
    made = list(generated(documents, making, MARKS, Random(0)))
    assert {i for one in made for i in one.ids} <= {CLASSIFY, SEPARATOR} | {
        i for document in documents for sentence in document for i in sentence
    }
    for one in made:
        assert one.ids[0] == CLASSIFY and one.ids[-1] == SEPARATOR and len(one.ids) <= 12
        assert one.places == list(range(len(one.ids) - 2))
        assert one.labels == [one.ids[place + 1] for place in one.places]
    read = sorted(i for one in made for i in one.labels)
    assert read == sorted(i for document in documents for sentence in document for i in sentence)


def test_without_pairs_every_token_is_read_once_in_its_order() -> None:
    said = texts(12, 5)
    made = list(generated(said, Making(16, 3, short=0.5, pairs=False), MARKS, Random(1)))
    assert all(one.ids[0] == CLASSIFY and one.ids[-1] == SEPARATOR for one in made)
    assert all(one.first == len(one.ids) <= 16 and not one.elsewhere for one in made)
    read = []
    for one in made:
        whole = list(one.ids)
        for place, label in zip(one.places, one.labels):
            whole[place] = label
        read += whole[1:-1]
    order = list(range(12))
    Random(1).shuffle(order)
    assert read == [i for d in order for sentence in said[d] for i in sentence]


VOCAB = [*SPECIALS, *"abcdefghijklmnopqrstuvwxyz.,", *(f"##{x}" for x in "abcdefghijklmnopqrstuvwxyz")]
CODEC = BERTCodec(BERTCodecConfig(), VOCAB)


def corpus(count: int = 30, seed: int = 0) -> list[str]:
    chance = Random(seed)

    def sentence() -> str:
        return " ".join("".join(chance.choices("abcde", k=3)) for _ in range(4)).capitalize() + "."

    return [" ".join(sentence() for _ in range(chance.randint(2, 7))) for _ in range(count)]


def test_documents_are_kept_as_their_sentences(tmp_path: Path) -> None:
    said = ["Ab cd. Ef, no.\n\nGh", "\u200d", "Ij. \u200d Kl.", "ab\ncd ef\n\n", "Aa. Bb"]
    file = SentenceFile.of(Corpus.of(said), CODEC, "sentences", tmp_path)
    read = [[CODEC.decode(file[d][n]) for n in range(len(file[d]))] for d in range(len(file))]
    assert read == [["ab cd.", "ef, no.", "gh"], ["ij.", "kl."], ["ab cd ef"], ["aa.", "bb"]]
    lines = SentenceFile.of(Corpus.of(said), CODEC, "lines", tmp_path)
    assert [CODEC.decode(lines[2][n]) for n in range(len(lines[2]))] == ["ab", "cd ef"]
    assert file.sentences == sum(len(file[d]) for d in range(len(file)))


def test_sentences_without_an_end_are_cut_rather_than_lost(tmp_path: Path) -> None:
    said = ["ab " * 200]
    file = SentenceFile.of(Corpus.of(said), CODEC, "sentences", tmp_path)
    assert [len(file[0][n]) for n in range(len(file[0]))] == [LONGEST] * 3 + [400 - 3 * LONGEST]
    assert len(SentenceFile.of(Corpus.of(said), CODEC, "lines", tmp_path)[0]) == 1


def source(tmp_path: Path, **settings: Any) -> InstanceSource:
    documents = SentenceFile.of(Corpus.of(corpus()), CODEC, "sentences", tmp_path)
    making = Making(32, 5)
    legs = [Leg(making, 0, 9), Leg(making, 1, 9), Leg(Making(48, 8), 0, 3)]
    return InstanceSource(
        documents, marks_of(CODEC), CODEC.pad_id, **{"legs": legs, "rows": 8, "seed": 1} | settings
    )


def test_batches_hold_the_instances_of_the_file_as_they_were_made(tmp_path: Path) -> None:
    made = source(tmp_path)
    leg = made.legs[0]
    seed = key(1, "instances", leg.making, 0)
    expected = list(generated(made.documents, leg.making, made.marks, Random(seed)))
    order = made.instances(leg).order
    assert sorted(order.tolist()) == list(range(len(expected))) != order.tolist()
    batch = made.batch(0, 2)
    for n, i in enumerate(order[16:24]):
        one, size = expected[i], len(expected[i].ids)
        assert batch.ids[n].tolist() == one.ids + [CODEC.pad_id] * (batch.ids.shape[1] - size)
        assert batch.mask[n].tolist() == [t < size for t in range(batch.ids.shape[1])]
        assert batch.segments[n].tolist() == [int(one.first <= t < size) for t in range(batch.ids.shape[1])]
        assert [p for p in batch.given["places"][n].tolist() if p >= 0] == one.places
        assert [x for x in batch.gold["labels"][n].tolist() if x != NO_TARGET] == one.labels
        assert batch.gold["elsewhere"][n].item() == one.elsewhere


def test_batches_follow_from_seed_epoch_and_step_alone(tmp_path: Path) -> None:
    made = source(tmp_path / "a")
    first = {(e, s): made.batch(e, s).ids.tolist() for e in range(3) for s in range(made.steps(e))}
    again = source(tmp_path / "b")
    for (e, s), ids in reversed(first.items()):
        assert again.batch(e, s).ids.tolist() == ids
    assert first[0, 0] != first[1, 0]
    assert source(tmp_path / "b", seed=2).batch(0, 0).ids.tolist() != first[0, 0]


def test_processes_share_a_batch(tmp_path: Path) -> None:
    whole = source(tmp_path).batch(0, 1)
    halves = [source(tmp_path, rows=4, rank=rank, world=2).batch(0, 1) for rank in range(2)]
    read = [ids[mask].tolist() for half in halves for ids, mask in zip(half.ids, half.mask)]
    assert read == [ids[mask].tolist() for ids, mask in zip(whole.ids, whole.mask)]


def test_files_of_passes_that_are_over_go(tmp_path: Path) -> None:
    made = source(tmp_path)
    for epoch in range(3):
        made.batch(epoch, 0)
    assert len(list(tmp_path.glob("instances-*"))) == 1
    repeated = source(tmp_path, legs=[Leg(Making(32, 5), n % 2, 4) for n in range(4)])
    for epoch in range(3):
        repeated.batch(epoch, 0)
    assert len(list(tmp_path.glob("instances-*"))) == 3  # both are needed again; the third is the one above


def test_a_leg_longer_than_its_pass_begins_it_again(tmp_path: Path) -> None:
    made = source(tmp_path)
    size = len(made.instances(made.legs[0]))
    made.legs = [Leg(Making(32, 5), 0, 2 * size)]
    made.rows = size
    assert sorted(map(tuple, made.batch(0, 0).ids.tolist())) == sorted(
        map(tuple, made.batch(0, 1).ids.tolist())
    )


def test_evaluation_reads_every_instance_once(tmp_path: Path) -> None:
    documents = SentenceFile.of(Corpus.of(corpus(7)), CODEC, "sentences", tmp_path)
    making = Making(24, 4)
    found = instance_file(documents, making, marks_of(CODEC), 3, documents.beside("held out"))
    for rows in (1, 3, 100):
        every = AllInstances(found, CODEC.pad_id, True, rows)
        batches = [every.batch(0, step) for step in range(every.steps(0))]
        assert sum(batch.samples for batch in batches) == len(found)
        asked = sum(int((batch.gold["labels"] != NO_TARGET).sum()) for batch in batches)
        assert asked == found.records["asked"].sum()


def test_steps_are_shared_among_passes() -> None:
    making = Making()
    assert [leg.steps for leg in legs_of(25, 10, making, None)] == [8, 8, 9]
    assert [leg.number for leg in legs_of(45, 10, making, 2)] == [0, 1, 0, 1, 0]
    assert legs_of(0, 10, making, None) == []


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no room for two segments"):
        Making(4)
    with pytest.raises(UserError, match="holds no tokens"):
        SentenceFile.of(Corpus.of(["\u200d"]), CODEC, "sentences", tmp_path)
