from __future__ import annotations

import gzip
import json
import lzma
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pretune.data.corpus import Corpus, documents, hold_out, token_file
from pretune.errors import UsageError, UserError

Shared = Callable[[str], Path]


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def encode(texts: list[str]) -> list[list[int]]:
    return [list(text.encode()) for text in texts]


def test_a_named_text_file_is_read_by_paragraphs_and_a_folder_by_files(tmp_path: Path) -> None:
    named = write(tmp_path / "b.txt", "\n\none\ntwo\r\n \t\r\n\r\nthree\n")
    write(tmp_path / "sub" / "a.txt", "four\n\nfive")
    write(tmp_path / "a.md", "not a corpus file")
    write(tmp_path / ".hidden.txt", "not read")
    assert list(documents([named])()) == ["one\ntwo", "three"]
    assert list(documents([tmp_path])()) == ["one\ntwo\r\n \t\r\n\r\nthree", "four\n\nfive"]
    assert list(documents([tmp_path], split="line")()) == ["one", "two", "three", "four", "five"]
    assert list(documents([named], split="file")()) == ["one\ntwo\r\n \t\r\n\r\nthree"]


def test_a_corpus_can_be_read_again_and_says_what_it_is(tmp_path: Path) -> None:
    corpus = documents(
        [write(tmp_path / "a.txt", "one\n\ntwo"), write(tmp_path / "b.jsonl", '{"text": "three"}')]
    )
    assert list(corpus()) == list(corpus()) == ["one", "two", "three"]
    assert "2 files, a paragraph or a row is a document" in corpus.describe()


def test_rows_of_tables_are_documents(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "text": 'a "b"\nc'},
        {"id": 2, "text": " "},
        {"id": 3, "text": None},
        {"id": 4, "text": "null"},
    ]
    jsonl = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")
    table = write(tmp_path / "b.csv", 'id,text\r\n1,"a ""b""\nc"\r\n\r\n2,\r\n3,NA\r\n')
    tabs = write(tmp_path / "c.tsv", 'id\treview\n1\t"unclosed\n2\td\n')
    assert list(documents([jsonl])()) == ['a "b"\nc', "null"]
    assert list(documents([table])()) == ['a "b"\nc', "NA"]
    assert list(documents([tabs], text="review")()) == ['"unclosed', "d"]
    assert list(documents([write(tmp_path / "d.csv", "review\none\n")])()) == ["one"]


def test_long_fields_and_packed_files_are_read(tmp_path: Path) -> None:
    novel = "It was the best of times. " * 20_000
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(f'text\n"{novel}"\n'.encode(), mtime=0))
    (tmp_path / "b.txt.xz").write_bytes(lzma.compress("eins\n\nzwei".encode("utf-8-sig")))
    assert list(documents([tmp_path / "a.csv.gz", tmp_path / "b.txt.xz"])()) == [
        novel.strip(),
        "eins",
        "zwei",
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16", "utf-16-le"])
def test_encodings_are_read_when_they_are_named(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "a.txt", "一\r\n\r\n二三", encoding)
    assert list(documents([path], encoding=encoding)()) == ["一", "二三"]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        (
            "a.txt",
            b"fine\nna\xefve",
            "a.txt:2: byte 0xef is not UTF-8; give the file's true encoding with --enc",
        ),
        ("a.txt", "one\ntwo".encode("utf-16"), "a.txt:1: byte 0xff is not UTF-8"),
        ("a.txt", b"one\n\0two", "a.txt:2: NUL byte"),
        ("a.txt", b" \n\n\t\n", "no documents in"),
        ("a.txt", gzip.compress(b"one", mtime=0), "gzip data in spite of its name"),
        ("a.txt.gz", b"one", "not valid gz data"),
        ("a.txt.xz", lzma.compress(b"one" * 99)[:-20], "cut short"),
        ("a.jsonl", b'{"text": "one"}\n{"text": two}', "a.jsonl:2: not valid JSON"),
        ("a.jsonl", b'{"body": "one"}', "a.jsonl:1: no key 'text'; name the text's with --text: body"),
        ("a.jsonl", b'{"text": 1}', "a.jsonl:1: 'text' is '1', which is no text"),
        ("a.csv", b"id,body\n1,one", "a.csv:1: no column 'text'; name the text's with --text: id, body"),
        ("a.csv", b"id,text\n1,one\n2,two,three", "a.csv:3: 3 columns where the header has 2"),
        ("a.csv", b'id,text\n1,"one\n2,two', "a.csv:2: malformed row"),
        ("a.csv", b"", "a.csv:1: no column 'text'"),
        ("a.pdf", b"one", "a corpus file ends in .txt, .jsonl"),
    ],
)
def test_what_cannot_be_read_is_named_with_file_and_line(
    tmp_path: Path, name: str, data: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError) as caught:
        list(documents([tmp_path / name])())
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_empty_folders_and_idle_options_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "novels.txt", "one")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"nearest: novels\.txt"):
        documents([tmp_path / "novel.txt"])
    with pytest.raises(UserError, match="no corpus files in the folder"):
        documents([tmp_path / "empty"])
    with pytest.raises(UsageError, match="--text 'body' names a column"):
        documents([path], text="body")
    with pytest.raises(UsageError, match=r"--documents line is for \.txt files"):
        documents([write(tmp_path / "a.jsonl", '{"text": "one"}')], split="line")
    with pytest.raises(UsageError, match="no text encoding"):
        documents([path], encoding="utf-9")


def test_the_fingerprint_is_of_content_and_not_of_place(tmp_path: Path) -> None:
    here, there = write(tmp_path / "a.txt", "one\n\ntwo"), write(tmp_path / "x" / "b.txt", "one\n\ntwo")
    print_of = documents([here]).fingerprint()
    assert documents([there]).fingerprint() == print_of
    assert documents([there], split="line").fingerprint() != print_of
    write(there, "one\n\ntoo")
    assert documents([there]).fingerprint() != print_of
    assert Corpus.of(["ab", "c"]).fingerprint() != Corpus.of(["a", "bc"]).fingerprint()


@pytest.mark.parametrize(
    ("count", "every", "step"), [(250, 100, 100), (100, 100, 100), (50, 100, 10), (5, 5, 5)]
)
def test_held_out_documents_go_by_number(count: int, every: int, step: int) -> None:
    corpus = Corpus.of([f"document {d}" for d in range(1, count + 1)])
    rest, held = hold_out(corpus, every)
    assert list(held()) == list(held()) == [f"document {d}" for d in range(step, count + 1, step)]
    assert sorted([*rest(), *held()]) == sorted(corpus())
    assert len({corpus.fingerprint(), rest.fingerprint(), held.fingerprint()}) == 3


def test_of_few_documents_the_end_of_each_is_held_out() -> None:
    novel = "\n".join(f"Line {n} of a novel." for n in range(200))
    rest, held = hold_out(lambda: [novel, "字" * 1000])
    for whole, head, tail in zip([novel, "字" * 1000], rest(), held(), strict=True):
        assert (head + "\n" + tail == whole) or (head + tail == whole)
        assert 0.05 * len(whole) <= len(tail) <= 0.1 * len(whole)
    assert next(held()).startswith("Line ")
    with pytest.raises(UserError, match="too little text"):
        hold_out(Corpus.of(["word"]))
    with pytest.raises(UsageError):
        hold_out(Corpus.of(["word"] * 9), 1)


def test_a_token_file_holds_the_ids_of_every_document(tmp_path: Path) -> None:
    texts = [f"document {d} " + "x" * (d % 7) for d in range(2500)]
    done: list[int] = []
    tokens = token_file(Corpus.of(texts), encode, "bytes", tmp_path, done.append)
    assert (tokens.ids.dtype, len(tokens)) == (np.uint16, 2500)
    assert isinstance(tokens.ids, np.memmap)
    for d in (0, 999, 1000, 2499):
        assert (
            bytes(tokens.ids[tokens.starts[d] : tokens.starts[d + 1]].tolist()).decode() == texts[d].strip()
        )
    assert (done, tokens.starts[-1]) == ([1000, 2000, 2500], len(tokens.ids))


def test_ids_beyond_two_bytes_widen_the_whole_file(tmp_path: Path) -> None:
    texts = [str(number) for number in (1, 65_535, *[7] * 1000, 65_536, 2**31 - 1)]
    tokens = token_file(Corpus.of(texts), lambda found: [[int(text)] for text in found], "numbers", tmp_path)
    assert tokens.ids.dtype == np.int32
    assert tokens.ids.tolist() == [int(text) for text in texts]


def test_a_token_file_is_found_again_by_content_and_codec(tmp_path: Path) -> None:
    def refuse(texts: list[str]) -> list[list[int]]:
        raise AssertionError("encoded again")

    path = write(tmp_path / "a.txt", "one\n\ntwo")
    cache = tmp_path / "cache"
    first = token_file(documents([path]), encode, "bytes", cache)
    again = token_file(documents([path]), refuse, "bytes", cache)
    assert np.array_equal(first.ids, again.ids)
    assert np.array_equal(first.starts, again.starts)
    with pytest.raises(AssertionError):
        token_file(documents([path]), refuse, "other", cache)
    write(path, "one\n\ntoo")
    with pytest.raises(AssertionError):
        token_file(documents([path]), refuse, "bytes", cache)
    assert len(list(cache.iterdir())) == 1  # what failed left nothing behind


def test_a_damaged_token_file_is_not_trusted(tmp_path: Path) -> None:
    corpus = Corpus.of(["one", "two"])
    token_file(corpus, encode, "bytes", tmp_path)
    (ids,) = tmp_path.glob("*/ids.uint16")
    ids.write_bytes(ids.read_bytes()[:-2])
    with pytest.raises(UserError, match="is damaged; delete this folder"):
        token_file(corpus, encode, "bytes", tmp_path)
    with pytest.raises(UserError, match="no tokens"):
        token_file(lambda: [" "], encode, "bytes", tmp_path)


def test_writing_the_same_file_at_once_corrupts_nothing(tmp_path: Path) -> None:
    texts = [f"document {d}" for d in range(3000)]
    together = threading.Barrier(2)
    found = []

    def slow(chunk: list[str]) -> list[list[int]]:
        together.wait(10)
        return encode(chunk)

    def work() -> None:
        found.append(token_file(Corpus.of(texts), slow, "bytes", tmp_path))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [bytes(tokens.ids.astype(np.uint8)).decode() for tokens in found] == ["".join(texts)] * 2
    assert len(list(tmp_path.iterdir())) == 1


def test_memory_stays_flat(tmp_path: Path) -> None:
    line = json.dumps({"text": "It was the worst of times. " * 400}) + "\n"
    with (tmp_path / "a.jsonl").open("w") as stream:
        stream.writelines(line for _ in range(3000))
    assert (tmp_path / "a.jsonl").stat().st_size > 30e6
    tracemalloc.start()
    corpus, held_out = hold_out(documents([tmp_path / "a.jsonl"]))
    tokens = token_file(corpus, lambda texts: [list(t.encode()[::5]) for t in texts], "bytes", tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(tokens), sum(1 for _ in held_out())) == (2970, 30)
    assert peak < 12e6


def test_real_corpora_are_read(shared: Shared) -> None:
    folder = shared("data/litbank-novels")
    novels = documents([folder])
    assert len(next(iter(novels())).split()) > 10_000
