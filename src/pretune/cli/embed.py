"""embed: vectors of every sentence of a file, into a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast, get_args

import typer

from pretune.cli.common import ConfigFile, Device, Encoding, Notes, Quiet, stderr
from pretune.errors import UsageError, choose

if TYPE_CHECKING:
    from pretune.runs.embedder import Embedded, Embedder

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0
OF_TOKENS = ("folder", "source", "out", "layers", "encoding", "device", "quiet", "config")  # --layers tokens
OF_FEATURES = (*OF_TOKENS, "batch_size", "layout", "text", "input_format")  # .jsonl


def embed(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What any other command left.")],
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="txt with a sentence a line, csv, tsv, jsonl or parquet; - is stdin."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="The file to write: .h5, .parquet, .safetensors; or .jsonl, as BERT's extract_features.py.",
        ),
    ],
    layers: Annotated[
        str,
        typer.Option(
            "--layers",
            help="all, top, average, mix (as a task has learned it), concat4 (the last four, top first), "
            "summary (one a sentence); or tokens: ELMo's vectors of words of a vocabulary, a word a line, "
            "without context.",
        ),
    ] = "all",
    state: Annotated[
        str,
        typer.Option(
            "--state",
            help="Where a sentence begins. zero: at zeros; warm: after a fixed text; carry: after the one "
            "before, row by row, as the original ELMo.",
        ),
    ] = "zero",
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Sentences at a time; 32 if not given.")
    ] = None,
    batch_tokens: Annotated[
        int | None, typer.Option("--batch-tokens", min=1, help="Or as many sentences as have so many words.")
    ] = None,
    pretokenized: Annotated[
        bool, typer.Option("--pretokenized", help="Words stand between spaces; keep to them.")
    ] = False,
    layout: Annotated[
        str | None,
        typer.Option("--format", help="Of an .h5: bilm (as dump_bilm_embeddings), or allennlp."),
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", help="Column with the text; 'text' if not given.")
    ] = None,
    align: Annotated[
        str | None, typer.Option("--align", help="words: a vector a word where a model reads other tokens.")
    ] = None,
    warm_text: Annotated[
        Path | None, typer.Option("--warm-text", help="For --state warm: a text file, in place of ours.")
    ] = None,
    token_vectors: Annotated[
        Path | None,
        typer.Option("--token-vectors", help="What --layers tokens wrote, to be used in place of the CNN."),
    ] = None,
    vocabulary: Annotated[
        Path | None,
        typer.Option("--vocabulary", help="The words of --token-vectors, where bilm-tf wrote them."),
    ] = None,
    forget_sentences: Annotated[
        bool, typer.Option("--forget-sentences", help="AllenNLP's format without sentence_to_index.")
    ] = False,
    input_format: Annotated[
        str | None,
        typer.Option(
            "--input-format", help="txt, csv, tsv, jsonl, parquet; by the file's ending if not given."
        ),
    ] = None,
    encoding: Encoding = "utf-8",
    precision: Annotated[
        str, typer.Option("--precision", help="Of an ELMo's LSTMs: float32, float16 or int8.")
    ] = "float32",
    device: Device = "auto",
    quiet: Quiet = False,
    config: ConfigFile = None,
) -> None:
    """Vectors of every sentence of a file, in its order; a file of any size, in little memory.

    Sentences are read by the thousand and sorted by length, which is quick and changes no number: with
    --state zero or warm a sentence's vectors depend on it alone. --state carry keeps the file's order.

    Example: pretune embed models/elmo sentences.txt --out vectors.h5 --layers average

    As AllenNLP did: pretune embed models/elmo tokens.txt --pretokenized --out elmo.h5 --format allennlp
    """
    from pretune.data.sentence_files import SentenceFile
    from pretune.layers.packing import Precision
    from pretune.runs.embedder import Align, Embedder, Layers, State
    from pretune.runs.embedding_files import check_blank, check_output, embedding_file

    notes = Notes(quiet)
    if batch_size is not None and batch_tokens is not None:
        raise UsageError("give --batch-size or --batch-tokens, not both")
    if forget_sentences and layout != "allennlp":
        raise UsageError("--forget-sentences is for --format allennlp")
    _choose("--layers", layers, (*get_args(Layers), "tokens"))
    _choose("--state", state, get_args(State))
    _choose("--align", align, (*get_args(Align), None))
    _choose("--precision", precision, get_args(Precision))
    if layers == "tokens":
        _check_given(context, OF_TOKENS, "--layers tokens")
    elif out.suffix == ".jsonl":
        _check_given(context, OF_FEATURES, "an --out called .jsonl")
    if state == "carry" and batch_tokens is not None:
        raise UsageError("--state carry goes on from row to row of like batches; give --batch-size instead")
    if warm_text is not None and state != "warm":
        raise UsageError(f"--warm-text is for --state warm; --state is {state}")
    if vocabulary is not None and token_vectors is None:
        raise UsageError("--vocabulary names the words of --token-vectors; give that as well")
    embedder = Embedder.load(
        folder,
        cast(Any, state),
        device,
        cast(Any, align),
        warm_text=_whole(warm_text, encoding),
        token_vectors=token_vectors,
        vocabulary=vocabulary,
        precision=precision,
    )
    if layers == "tokens":
        _tokens(embedder, source, out, encoding, notes)
        return
    wanted, form = cast(Any, layers), cast(Any, layout)
    if out.suffix == ".jsonl":
        _features(embedder, source, out, (layers, layout, input_format, text, encoding), batch_size, notes)
        return
    check_output(out, form, wanted, embedder)
    if layers == "mix":
        notes(embedder.mixing)
    with _file(source, input_format) as path:
        sentences = SentenceFile.find(path, input_format, text, pretokenized, encoding)
        count = check_blank(sentences, form, _name(source))

        def shapes() -> Iterator[tuple[int, ...]]:
            for number, sentence in enumerate(sentences, 1):
                yield embedder.shape(len(embedder.words(sentence, number)), wanted)

        with embedding_file(out, form, wanted, shapes, not forget_sentences) as writer:
            found = embedder.stream(sentences, wanted, batch_size or 32, batch_tokens)
            with _progress(found, count, notes) as watched:
                for sentence, one in zip(sentences, watched, strict=True):
                    writer.write(sentence, one)
    notes(f"{count:,} sentence{'s' * (count != 1)} in {out}")


def _choose(option: str, said: str | None, possible: tuple[str | None, ...]) -> None:
    if said not in possible:
        raise choose(option, str(said), filter(None, possible))


def _check_given(context: typer.Context, possible: tuple[str, ...], where: str) -> None:
    """Raise where an option is given that means nothing there."""
    for param in context.command.params:
        source = context.get_parameter_source(str(param.name))
        if param.name not in possible and source is not None and source.name != "DEFAULT":
            raise UsageError(f"{param.opts[0]} means nothing with {where}; leave it out")


def _tokens(embedder: Embedder, source: str, out: Path, encoding: str, notes: Notes) -> None:
    from pretune.runs.embedding_files import renamed
    from pretune.runs.token_vectors import read_words, write_token_vectors

    if out.suffix not in (".h5", ".hdf5"):
        raise UsageError(f"--out {out}: vectors of a vocabulary are written as .h5")
    with _file(source, None) as path:
        words = read_words(path, encoding)
    with renamed(out) as new:
        write_token_vectors(embedder.start, words, new)
    notes(f"{len(words):,} word{'s' * (len(words) != 1)} in {out}; use them with --token-vectors {out}")


def _features(
    embedder: Embedder,
    source: str,
    out: Path,
    said: tuple[str, str | None, str | None, str | None, str],
    batch_size: int | None,
    notes: Notes,
) -> None:
    """Every line's tokens with the layers asked for, as BERT's script wrote them; A ||| B is a pair."""
    from pretune.data.sentence_files import SentenceFile
    from pretune.runs.bert_features import LAST_FOUR, features, line_of
    from pretune.runs.embedding_files import check_blank, renamed

    layers, layout, input_format, text, encoding = said
    count = len(embedder.encoder.layer_widths()) - 1
    possible = {"all": range(-1, -count - 1, -1), "top": LAST_FOUR[:1], "concat4": LAST_FOUR}
    _choose("--layers, for .jsonl,", layers, tuple(possible))
    if layout is not None:
        raise UsageError(f"--format {layout} is a layout of .h5 files; leave it out for .jsonl")
    with _file(source, input_format) as path:
        sentences = SentenceFile.find(path, input_format, text, False, encoding)
        number = check_blank(sentences, None, _name(source))
        lines = (one if isinstance(one, str) else " ".join(one) for one in sentences)
        found = features(embedder.start, lines, list(possible[layers]), batch_size or 32)
        with renamed(out) as new, new.open("w", encoding="utf-8") as file:
            for one in _lines(found, number, notes):
                file.write(line_of(one))
    notes(f"{number:,} lines in {out}")


@contextmanager
def _file(source: str, form: str | None) -> Iterator[Path]:
    """The file itself; stdin as a file, for it is read more than once."""
    if source != "-":
        yield Path(source)
        return
    import shutil
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / f"stdin.{form or 'txt'}"
        with path.open("wb") as kept:
            shutil.copyfileobj(sys.stdin.buffer, kept)
        yield path


def _name(source: str) -> str:
    return "stdin" if source == "-" else Path(source).name


def _whole(path: Path | None, encoding: str) -> str | None:
    if path is None:
        return None
    from pretune.data.files import read_text

    return read_text(path, encoding)


@contextmanager
def _progress(found: Iterable[Embedded], total: int, notes: Notes) -> Iterator[Iterator[Embedded]]:
    """The same, shown on stderr: a bar on a terminal, a line every ten seconds elsewhere."""
    console = stderr()
    if notes.quiet or not console.is_terminal:
        yield _lines(found, total, notes)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = BarColumn(bar_width=None), MofNCompleteColumn(), TextColumn("sentences"), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("embed", total=total)

        def watched() -> Iterator[Embedded]:
            for one in found:
                yield one
                bar.advance(task)

        yield watched()


def _lines(found: Iterable[T], total: int, notes: Notes) -> Iterator[T]:
    begun = shown = monotonic()
    for number, one in enumerate(found, 1):
        yield one
        if (now := monotonic()) - shown > SECONDS_BETWEEN_LINES:
            shown = now
            speed = number / (now - begun)
            left = (total - number) / speed
            notes(f"{number:,} of {total:,} sentences · {speed:,.0f} a second · {left:.0f} s left")
