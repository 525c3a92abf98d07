"""The texts that the starter models learn from and are measured on, out of the published files.

    python starters/prepare.py litbank-novels/novels.jsonl.xz niutrans-modern-zh/modern.jsonl.xz texts/

writes `en.txt`, `en-held.txt`, `zh.txt` and `zh-held.txt`, a document a line. Novels are cut between
paragraphs into stretches of 2,000 words or a little more, so that a pass meets all of them early; Chinese
chapters stay whole.
"""

import argparse
import json
import lzma
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

# Never read in training: for perplexity, and for coreference on LitBank, whose documents are their openings.
HELD_OUT_NOVELS = (
    "11_alices_adventures_in_wonderland",
    "1661_the_adventures_of_sherlock_holmes",
    "215_the_call_of_the_wild",
    "219_heart_of_darkness",
    "2641_a_room_with_a_view",
    "2814_dubliners",
    "32_herland",
    "36_the_war_of_the_worlds",
    "73_the_red_badge_of_courage_an_episode_of_the_american_civil_war",
    "974_the_secret_agent_a_simple_tale",
)
STRETCH = 2000  # words
MEASURED = 6  # stretches of a held-out novel
EVERY = 100  # one Chinese chapter in so many is held out


def rows(path: Path) -> Iterator[tuple[str, str]]:
    """The name and text of each row of a jsonl file, packed or not."""
    opener = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            yield row["name"], row["text"]


def stretches(text: str) -> Iterator[str]:
    """Cut `text` between paragraphs into lines of at least 2,000 words; the last may be shorter."""
    words: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        words += paragraph.split()
        if len(words) >= STRETCH:
            yield " ".join(words)
            words = []
    if words:
        yield " ".join(words)


def write(path: Path, lines: Iterable[str]) -> None:
    """Write `lines` and say how much that was."""
    texts = list(lines)
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    print(f"{path}: {len(texts):,} documents, {sum(map(len, texts)):,} characters")


def main() -> None:
    """Write the four files."""
    parser = argparse.ArgumentParser(description="Write the texts that the starter models learn from.")
    parser.add_argument("novels", type=Path, help="LitBank's novels: jsonl of name and text, .xz or not")
    parser.add_argument("chapters", type=Path, help="NiuTrans' modern chapters, likewise")
    parser.add_argument("out", type=Path, help="a folder")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)

    novels = dict(rows(asked.novels))
    if missing := [name for name in HELD_OUT_NOVELS if name not in novels]:
        parser.error(f"{asked.novels}: no novel named {', '.join(missing)}, which the starters hold out")
    read = [text for name, text in novels.items() if name not in HELD_OUT_NOVELS]
    write(asked.out / "en.txt", (line for text in read for line in stretches(text)))
    held = [islice(stretches(novels[name]), MEASURED) for name in HELD_OUT_NOVELS]
    write(asked.out / "en-held.txt", chain.from_iterable(held))

    chapters = [" ".join(text.split()) for _, text in rows(asked.chapters)]
    out = {index for index in range(len(chapters)) if index % EVERY == EVERY // 2}
    write(asked.out / "zh.txt", (text for index, text in enumerate(chapters) if index not in out))
    write(asked.out / "zh-held.txt", (text for index, text in enumerate(chapters) if index in out))


if __name__ == "__main__":
    main()
