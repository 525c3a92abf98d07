"""Whole releases: folders and archives, two directions, models that read pieces."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

import ulmfit_files as files
from pretune.errors import UsageError, UserError
from pretune.runs.importing import export
from pretune.runs.predictor import Predictor
from pretune.runs.run import load_start, load_trained
from pretune.runs.trained import Ensemble
from ulmfit_models import COUNT, IDS, WEIGHTS, close, next_logits, release, started, take


def test_a_release_is_found_in_a_folder_a_tar_or_a_zip(tmp_path: Path) -> None:
    folder = release(tmp_path / "wt103", lm_best=files.v2(WEIGHTS), enc_best=files.encoder(files.v2(WEIGHTS)))
    with tarfile.open(tmp_path / "wt103.tgz", "w:gz") as tar:
        tar.add(folder, "wt103")
    with zipfile.ZipFile(tmp_path / "wt103.zip", "w") as packed:
        for path in folder.iterdir():
            packed.write(path, f"a/b/{path.name}")
    for source in (folder, tmp_path / "wt103.tgz", tmp_path / "wt103.zip"):
        out = tmp_path / f"model of {source.name}"
        take(source, out)
        assert close(next_logits(started(out)[1]), files.next_logits(WEIGHTS, IDS))


def test_members_of_an_archive_stay_in_their_place(tmp_path: Path) -> None:
    path, vocab = files.write(tmp_path / "in", files.v2(WEIGHTS), files.words("v2"))
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as packed:
        packed.write(path, "../../evil.pth")
        packed.write(path, "/lstm.pth")
        packed.write(vocab, "itos.pkl")
    take(tmp_path / "evil.zip", tmp_path / "model")


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    folder = release(tmp_path / "whole", lm_fwd=files.v2(files.lstm(COUNT["v2"], hidden=40)))
    (tmp_path / "cut.tgz").write_bytes(b"rubbish")
    with tarfile.open(tmp_path / "cut.tar.xz", "w:xz") as tar:
        tar.add(folder, "lm")
    with zipfile.ZipFile(tmp_path / "cut.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.write(folder / "lm_fwd.pth", "lm_fwd.pth")
    for name in ("cut.tgz", "cut.tar.xz", "cut.zip"):
        data = bytearray((tmp_path / name).read_bytes())
        middle = len(data) // 2
        data[middle : middle + 400] = b"\xff" * len(data[middle : middle + 400])
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match="not an archive that can be read"):
            take(tmp_path / name, tmp_path / "model")


def trained_pieces(place: Path, **options: Any) -> Path:
    trainer = pytest.importorskip("sentencepiece", reason="needs SentencePiece's trainer (extra pieces)")
    model = io.BytesIO()
    trainer.SentencePieceTrainer.train(
        sentence_iterator=iter(["the film was good and bad", "a dull book but a great plot"] * 30),
        model_writer=model,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    place.write_bytes(model.getvalue())
    return place


@pytest.fixture(scope="module")
def spm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece model with fastai 1's special tokens, as MultiFiT trained them."""
    return trained_pieces(
        tmp_path_factory.mktemp("pieces") / "spm.model",
        vocab_size=60,
        user_defined_symbols=[f"▁{token}" for token in files.SPECIALS["v1"]],
        unk_id=len(files.SPECIALS["v1"]),
        pad_id=-1,
        bos_id=-1,
        eos_id=-1,
    )


def processor(spm: Path) -> Any:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(spm))


@pytest.mark.parametrize("listed", [False, True], ids=["pieces alone", "with itos.pkl"])
def test_multifits_release_reads_text_by_its_pieces(listed: bool, spm: Path, tmp_path: Path) -> None:
    known = processor(spm)
    itos = [known.id_to_piece(number) for number in range(known.get_piece_size())]
    weights = files.qrnn(len(itos))
    folder = tmp_path / "de"
    files.write(folder, files.multifit(weights), itos if listed else None, "lm_best.pth")
    (folder / "spm.model").write_bytes(spm.read_bytes())
    notes = take(folder, tmp_path / "model", codec={"language": "de"})
    assert "xxfld 1 stands before texts, as in MultiFiT; codec.mark_fields=false leaves it out" in notes
    codec, encoder = started(tmp_path / "model")
    assert (codec.config.segmenter, codec.config.rules) == ("pieces", "v1")
    text = "The film was good, xyz"
    wanted = known.encode("xxbos xxfld 1 xxmaj the film was good, xyz")
    assert codec.ids([text]) == [wanted] and known.unk_id() in wanted
    assert (codec.unknown_id, codec.pad_id) == (known.unk_id(), 1)
    assert close(next_logits(encoder, wanted), files.next_logits(weights, wanted))


def test_special_tokens_that_stand_there_twice_are_read_as_the_piece(spm: Path, tmp_path: Path) -> None:
    known = processor(spm)
    pieces = [known.id_to_piece(number) for number in range(known.get_piece_size())]
    itos = [*files.SPECIALS["v2"], *reversed(pieces)]  # fastai 2 counts its words anew
    folder = tmp_path / "nl"
    files.write(folder, files.v2(files.lstm(len(itos))), itos, "lm.pth")
    (folder / "spm.model").write_bytes(spm.read_bytes())
    take(folder, tmp_path / "model", codec={"language": "nl"})
    codec = started(tmp_path / "model")[0]
    assert (codec.unknown_id, codec.pad_id) == (0, 1)
    theirs = known.encode("xxbos xxmaj the film was good, xyz", out_type=str)
    wanted = [itos.index(piece) if piece in itos else 0 for piece in theirs]
    assert codec.ids(["The film was good, xyz"]) == [wanted] and 0 in wanted
    export(tmp_path / "model", "fastai", tmp_path / "out")
    assert pickle.loads((tmp_path / "out/itos.pkl").read_bytes()) == itos


def test_tf2_ulmfits_folder_has_what_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "en35k"
    for name in ("keras_weights/en.index", "saved_model/saved_model.pb", "spm_model/en.vocab"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"")
    spm = trained_pieces(folder / "spm_model/en.model", vocab_size=35, unk_id=0, pad_id=1, bos_id=2, eos_id=3)
    known = processor(spm)
    weights = files.lstm(known.get_piece_size())
    files.write(folder / "fastai_model", {"model": files.v2(weights), "opt": {}}, name="en.pth")
    take(folder, tmp_path / "model")
    codec, encoder = started(tmp_path / "model")
    wanted = known.encode("the film was Good, and bad", add_bos=True)
    assert codec.ids(["the film was Good, and bad"]) == [wanted] and codec.config.rules == "plain"
    assert close(next_logits(encoder, wanted), files.next_logits(weights, wanted))


def test_two_directions_of_a_release_become_one_folder(tmp_path: Path) -> None:
    back = files.lstm(COUNT["v2"], seed=5)
    folder = release(tmp_path / "de", fwd__model=files.v2(WEIGHTS), bwd__model=files.v2(back))
    notes = take(folder, tmp_path / "both")
    assert notes[0].startswith("forward: ") and any(note.startswith("backward: ") for note in notes)
    starts = load_start(tmp_path / "both")
    assert isinstance(starts, list) and [start.name for start in starts] == ["forward", "backward"]
    for way, weights in (("forward", WEIGHTS), ("backward", back)):
        take(folder, tmp_path / way, codec={"direction": way})
        codec, encoder = started(tmp_path / way)
        assert codec.config.direction == way
        assert close(next_logits(encoder), files.next_logits(weights, IDS))
    take(folder / "bwd/model.pth", tmp_path / "named", folder / "bwd/itos.pkl")
    assert started(tmp_path / "named")[0].config.direction == "backward"


def test_two_classifiers_answer_together(tmp_path: Path) -> None:
    over = files.head()
    for name, seed in (("one", 0), ("two", 5)):
        tensors = files.classifier(files.v2(files.lstm(COUNT["v2"], seed)), over, "v2")
        path, vocab = files.write(tmp_path, tensors, files.words("v2"), f"{name}.pth")
        take(path, tmp_path / name, vocab, codec={"direction": "backward" if seed else "forward"})
    take(tmp_path / "one.pth", tmp_path / "both", vocab, backward=tmp_path / "two.pth")
    assert isinstance(load_trained(tmp_path / "both"), Ensemble)
    said = {
        n: Predictor.load(tmp_path / n, "cpu").answer("a good film")[0].scores for n in ("one", "two", "both")
    }
    for label, share in said["both"].items():
        assert share == pytest.approx((said["one"][label] + said["two"][label]) / 2)
    lm, _ = files.write(tmp_path, files.v2(WEIGHTS), name="lm.pth")
    with pytest.raises(UserError, match="one of the two is a classifier"):
        take(lm, tmp_path / "other", vocab, backward=tmp_path / "two.pth")
    wider = {**over, **{name: torch.cat((x, x[:1])) for name, x in over.items() if name.startswith("n1")}}
    wider |= {"l0.weight": over["l0.weight"][[*range(files.INNER), 0]], "l1.weight": torch.ones(3, 6)}
    wider["l0.bias"] = over["l0.bias"][[*range(files.INNER), 0]]
    files.write(tmp_path, files.classifier(files.v2(WEIGHTS), wider, "v2"), name="wide.pth")
    with pytest.raises(UserError, match=r"has the widths \[5, 3\], the backward one \[6, 3\]"):
        take(tmp_path / "one.pth", tmp_path / "other", vocab, backward=tmp_path / "wide.pth")


def test_names_that_say_the_opposite_of_the_options_are_asked_about(tmp_path: Path) -> None:
    forward, vocab = files.write(tmp_path, files.v2(WEIGHTS), files.words("v2"), "lm_fwd.pth")
    backward, _ = files.write(tmp_path, files.v2(WEIGHTS), name="lm_bwd.pth")
    with pytest.raises(UsageError, match=r"lm_bwd.pth is named as if it read backward"):
        take(backward, tmp_path / "both", vocab, backward=forward)
    with pytest.raises(UsageError, match=r"lm_fwd.pth is named as if it read forward"):
        take(forward, tmp_path / "both", vocab, backward=forward)


def test_what_a_folder_leaves_open_is_asked(tmp_path: Path) -> None:
    folder = release(tmp_path / "two", lm_a=files.v2(WEIGHTS), lm_b=files.v2(WEIGHTS))
    with pytest.raises(UserError, match=r"holds lm_a.pth, lm_b.pth; give the one that is meant"):
        take(folder, tmp_path / "model")
    (folder / "lm_b.pth").unlink()
    (folder / "vocab.pkl").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds itos.pkl, vocab.pkl; say which one with --vocab"):
        take(folder, tmp_path / "model")
    with pytest.raises(UsageError, match="both wants two models"):
        take(folder, tmp_path / "model", folder / "itos.pkl", codec={"direction": "both"})
    (folder / "lm_a.pth").rename(folder / "lm_fwd.pth")
    with pytest.raises(UsageError, match="holds a forward model only, and --direction is backward"):
        take(folder, tmp_path / "model", folder / "itos.pkl", codec={"direction": "backward"})
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="holds no weights of ULMFiT"):
        take(empty, tmp_path / "model")
    (empty / "model.index").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds model.index, weights of Keras"):
        take(empty, tmp_path / "model")
