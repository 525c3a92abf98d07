"""Explanations -> one page: texts with their words shaded by what they say for an answer or against it."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any, NamedTuple

from pretune.runs.explain import Explanation, Token

LEVELS = 5  # of shading
FAINT = 0.1  # of the strongest word's score: weaker words stay plain
LISTED = 12  # words in the table under a text
METHODS = {
    "integrated": "integrated gradients: what each word adds on the way from a text without words to this "
    "one; all words together make up the difference",
    "gradient": "gradient × input: how much the score would change with the length of each word's vector",
    "occlusion": "occlusion: how much the score falls when the word is left out, or unknown",
}


class Piece(NamedTuple):
    """A stretch of a text, shaded or plain."""

    text: str
    level: int = 0  # 1 to LEVELS for the answer, below 0 against it
    said: str = ""  # its score


def html(explanations: Sequence[Explanation], title: str) -> str:
    """One self-contained page: no script, no network."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pretune.runs", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    methods = dict.fromkeys(one.method for one in explanations)
    said = {
        "title": title,
        "documents": [_document(number, one) for number, one in enumerate(explanations, 1)],
        "methods": [METHODS[method] for method in methods],
        "numbers": any(one.label is None for one in explanations),
        "labels": any(one.label is not None for one in explanations),
    }
    return environment.get_template("explanations.html.j2").render(said)


def pieces(explanation: Explanation, part: int) -> list[Piece]:
    """One text of a sample cut into its words and what stands between them."""
    text, at = explanation.texts[part], 0
    found: list[Piece] = []
    for token in explanation.tokens:
        if token.part == part:
            found += [
                Piece(text[at : token.start]),
                Piece(token.text, level(explanation, token), number(token.score)),
            ]
            at = token.end
    return [piece for piece in (*found, Piece(text[at:])) if piece.text]


def level(explanation: Explanation, token: Token) -> int:
    """How strongly a word is shaded, and which way."""
    most = max((abs(one.score) for one in explanation.tokens), default=0.0)
    share = abs(token.score) / most if most else 0.0
    if share < FAINT:
        return 0
    return ceil(share * LEVELS) * (1 if token.score > 0 else -1)


def number(value: float) -> str:
    """With its sign."""
    return f"{value:+#.3g}".rstrip(".").replace("-", "\N{MINUS SIGN}")


def _document(place: int, one: Explanation) -> dict[str, Any]:
    strongest = [token for token in one.strongest(LISTED) if token.score]
    most = max((abs(token.score) for token in strongest), default=1.0)
    return {
        "place": place,
        "key": one.key,
        "answer": _answer(one),
        "label": one.label,
        "why": _why(one),
        "shares": _shares(one),
        "texts": [pieces(one, part) for part in range(len(one.texts))],
        "opening": _opening(one),
        "sum": _sum(one),
        "words": [
            {
                "text": " ".join(token.text.split()) or repr(token.text),
                "said": number(token.score),
                "side": "for" if token.score > 0 else "against",
                "width": f"{100 * abs(token.score) / most:.1f}",
                "where": f"{token.start}–{token.end}",
            }
            for token in strongest
        ],
    }


def _answer(one: Explanation) -> str:
    answer = one.answer
    if answer.value is not None:
        return f"{answer.value:.4g}"
    if answer.labels is not None:
        return ", ".join(answer.labels) or "none of the labels"
    return str(answer.label)


def _why(one: Explanation) -> str:
    """Where the label that is explained is not the answer."""
    said = one.answer.labels if one.answer.labels is not None else (one.answer.label,)
    return "" if one.label is None or said == (one.label,) else one.label


def _shares(one: Explanation) -> list[tuple[str, str, float]]:
    """The likeliest labels: name, probability as text and as a number."""
    ranked = sorted(one.answer.scores.items(), key=lambda item: -item[1])
    shown = ranked[:5]
    if one.label is not None and one.label not in dict(shown):
        shown.append((one.label, one.answer.scores[one.label]))
    return [(label, f"{100 * share:.1f} %", 100 * share) for label, share in shown]


def _opening(one: Explanation) -> str:
    text = " ".join(" / ".join(one.texts).split())
    return text if len(text) <= 90 else text[:88].rsplit(" ", 1)[0] + " …"


def _sum(one: Explanation) -> str:
    what = "log-odds" if one.label is not None else "predicted"
    if one.baseline is None:
        return f"{what} {number(one.score)}"
    total = number(sum(token.score for token in one.tokens))
    return f"{what} {number(one.score)} = {number(one.baseline)} without words, and {total} by them"
