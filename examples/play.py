"""What a language model makes of a word in its context: where else it is used so, and what could stand there.

python examples/play.py neighbours MODEL corpus.txt play "They gave a fine play last night ."
python examples/play.py substitutes MODEL play "They gave a fine play last night ."
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pretune import Embedder, LanguageModel
from pretune.data.sentence_files import SentenceFile
from pretune.errors import UserError
from pretune.runs.neighbours import neighbours


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    near = commands.add_parser("neighbours", help="words of a corpus that are used like this one (table 4)")
    like = commands.add_parser("substitutes", help="words that the model finds likely in its place")
    for command in (near, like):
        command.add_argument("model", type=Path, help="what `pretune pretrain elmo` or `import elmo` left")
        if command is near:
            command.add_argument("corpus", type=Path, help="a sentence a line; .csv, .jsonl, .parquet too")
        command.add_argument("word")
        command.add_argument("sentence", help="a sentence that has the word")
        command.add_argument("--position", type=int, help="which word of the sentence it is, from 0")
        command.add_argument("--top", type=int, default=5, help="how many to show")
    near.add_argument("--layer", type=int, default=-1, help="0 without context, 1 the first LSTM, -1 the top")
    near.add_argument("--same-word", action="store_true", help="look at occurrences of the word itself alone")
    said = parser.parse_args(arguments)
    try:
        if said.command == "neighbours":
            found = neighbours(
                Embedder.load(said.model),
                (text for text in SentenceFile.find(said.corpus) if text),
                said.word,
                said.sentence,
                said.position,
                said.top,
                said.layer,
                said.same_word,
            )
            for one in found:
                print(f"{one.similarity:.3f}  {one.word} ({one.position})  {one.sentence}")
        else:
            model = LanguageModel.load(said.model)
            words = model.words(said.sentence)
            if said.word not in words:
                raise UserError(f"{said.word!r} is no word of the sentence: {' '.join(words)}")
            place = words.index(said.word) if said.position is None else said.position
            for word in model.substitutes(said.sentence, place, said.top):
                print(f"{word.probability:.3f}  {word.word}")
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
