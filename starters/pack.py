"""Pack pretrained folders as starters: weights as float16, paths of their making left out, with a card.

    python starters/pack.py models/ measured/

takes every folder of `models/` and writes it to `starters/src/pretune_starters/models/` under the same name,
METHOD-LANGUAGE. `measured/NAME.json` is what `pretune evaluate models/NAME texts/LANGUAGE-held.txt
--documents line --out measured/NAME.json` says; word vectors have none.
"""

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

from pretune.runs.files import write_json
from pretune.runs.folders import CONFIG, WEIGHTS, save_weights, write_folder, write_run
from pretune.runs.run import load_start
from pretune.runs.starts import Start, adjusted, describe

HERE = Path(__file__).parent
MODELS = HERE / "src" / "pretune_starters" / "models"
MOST_BYTES = 12_000_000

TASKS_DROPOUT = {  # of the papers; no text came twice in pretraining, which had none
    "gpt": {"embedding_dropout": 0.1, "attention_dropout": 0.1, "residual_dropout": 0.1},
    "bert": {"dropout": 0.1, "attention_dropout": 0.1},
}
ABOUT = tomllib.loads((HERE / "about.toml").read_text("utf-8"))


def command_of(name: str) -> str:
    """What made a starter; of a BERT two commands, the first of which reads short rows."""
    method, language, *rest = name.split("-")
    backward = " --direction backward" if rest == ["backward"] else ""
    settings, text = f"configs/starter-{method}-{language}", f"texts/{language}.txt"
    first = f"pretune pretrain {method} {text} --config {settings}.toml{backward} --out models/{name}"
    if method != "bert":
        return first
    second = f"pretune adapt models/{name}-short {text} --config {settings}-long.toml --out models/{name}"
    return f"{first}-short\n{second}"


def measured(name: str, figures: dict[str, Any] | None) -> tuple[str, str]:
    """What the card says of held-out text: a paragraph, and a line."""
    _, language, *_ = name.split("-")
    where = ABOUT["held_out"][language]
    if figures is None:
        return (
            "Word vectors give texts no probability, so there is no perplexity to tell.",
            "no language model",
        )
    (*_, row) = figures["readings"]  # of ELMo's three the mean of both ways
    low, high = row["interval"]
    bits = f"{row['bits_per_character']:.3f} bits a character (95 % over documents: {low:.3f}–{high:.3f})"
    word = "word" if language == "en" else "character"
    by_word = f"{row['perplexity_per_word']:,.0f} a {word}"
    size = f"{figures['documents']} documents, {figures['characters']:,} characters"
    if row["pseudo"]:
        where = ABOUT["held_out_masked"][language]
        text = (
            f"Each piece masked in turn (Salazar et al. 2020), on {where} ({size}): pseudo-perplexity "
            f"{row['perplexity_per_token']:.1f} a piece, {bits}. It sees both sides of each piece: these "
            "figures compare with no left-to-right model's."
        )
        return text, f"pseudo-perplexity {row['perplexity_per_token']:.1f} a masked piece"
    text = (
        f"On {where} ({size}), charged for all that its vocabulary leaves open, so that the figures compare "
        f"with other models': {bits}, perplexity {by_word}. Of its own tokens: "
        f"{row['perplexity_per_token']:.1f}, {row['unknown_share']:.1%} of them unknown."
    )
    return text, f"{row['bits_per_character']:.3f} bits a character, perplexity {by_word}"


def pack(folder: Path, figures: dict[str, Any] | None) -> Path:
    """One starter; its folder."""
    name = folder.name
    method, language, *_ = name.split("-")
    start = load_start(folder)
    if not isinstance(start, Start):
        raise SystemExit(f"{folder} holds several models; pack each by itself")
    start = adjusted(start, TASKS_DROPOUT.get(method, {}))
    run = json.loads((folder / "run.json").read_text("utf-8"))
    if (first := folder.with_name(f"{name}-short") / "run.json").exists():
        run["seconds"] += json.loads(first.read_text("utf-8"))["seconds"]
    text, line = measured(name, figures)
    card = {"held_out": line, "licence": "Apache-2.0", "measured": figures}
    fitting = {key: value for key, value in run["config"].pop("fitting").items() if key != "folder"}
    info = {
        "command": command_of(name),
        "parameters": start.parameters,
        "seed": run["seed"],
        "scores": run["scores"],
        "seconds": run["seconds"],
        "card": card,
        "config": {**run["config"], "fitting": fitting},
        "versions": {key: value for key, value in run["versions"].items() if key != "platform"},
    }
    out = MODELS / name

    def fill(new: Path) -> None:
        write_json(new / CONFIG, {"kind": "pretrained", **describe(start)})
        save_weights(start.encoder, new / WEIGHTS, halves=True)
        start.codec.save(new)
        write_run(new, info)
        (new / "README.md").write_text(
            (HERE / "card.md")
            .read_text("utf-8")
            .format(
                name=name,
                method=ABOUT["names"][method],
                language={"en": "English", "zh": "Chinese"}[language],
                paper=ABOUT["papers"][method],
                use=f"pretune compare train.csv --from {name} --out report",
                parameters=start.parameters,
                megabytes=(new / WEIGHTS).stat().st_size / 1e6,
                codec=start.codec.describe(),
                minutes=run["seconds"] / 60,
                licence=card["licence"],
                held_out=line,
                texts=ABOUT["texts"][language],
                command=info["command"],
                version=run["versions"]["pretune"],
                torch=run["versions"]["torch"].split("+")[0],
                measured=text,
                limits=ABOUT["limits"][language],
            ),
            "utf-8",
        )

    write_folder(out, fill)
    if (size := sum(path.stat().st_size for path in out.iterdir())) > MOST_BYTES:
        raise SystemExit(f"{out} has {size:,} bytes, more than {MOST_BYTES:,}; make its vocabulary smaller")
    return out


def main() -> None:
    """Pack every model that is there."""
    parser = argparse.ArgumentParser(description="Pack pretrained folders as starters.")
    parser.add_argument("models", type=Path, help="a folder of model folders")
    parser.add_argument("measured", type=Path, help="a folder with NAME.json of `pretune evaluate`")
    asked = parser.parse_args()
    for config in sorted(asked.models.glob(f"[!.]*/{CONFIG}")):
        folder = config.parent
        if folder.name.endswith("-short"):
            continue
        path = asked.measured / f"{folder.name}.json"
        if not path.exists() and not folder.name.startswith("wordvectors"):
            print(f"{folder.name}: left out, for there is no {path}")
            continue
        figures = json.loads(path.read_text("utf-8")) if path.exists() else None
        print(pack(folder, figures))


if __name__ == "__main__":
    main()
