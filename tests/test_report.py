"""The report: what it says, that it stands alone, and that its drawings hold together."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from made_up import CONTENDERS, SIZES, made_up
from pretune.errors import UserError
from pretune.runs import plots
from pretune.runs.comparison import Comparison, Mix, contender_names, p_text, seconds_text, style
from pretune.runs.report import headline, html, markdown, series, write


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_the_page_needs_neither_network_nor_script() -> None:
    page = html(made_up())
    parser = Tags()
    parser.feed(page)
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in parser.seen}
    assert not any({"src", "href"} & set(attributes) for _, attributes in parser.seen)
    assert "url(" not in page and "@import" not in page and "http" not in page


def test_the_answer_stands_first() -> None:
    page = html(made_up())
    first = re.search(r"<h1>(.*?)</h1>", page)
    assert first and first[1].startswith(
        "Use ULMFiT from novels, adapted: 80.0\N{NO-BREAK SPACE}% accuracy on the test data with 1,000 labels"
    )
    assert page.index("<h1>") < page.index("<table")


def test_texts_of_the_data_are_escaped() -> None:
    page = html(made_up())
    assert "<b>not</b>" not in page and "&lt;b&gt;not&lt;/b&gt;" in page
    odd = replace(made_up(), data={**made_up().data, "name": "<script>x</script>"})
    assert "<script>" not in html(odd)


def test_the_page_serves_phones_paper_and_the_dark() -> None:
    page = html(made_up())
    for what in ("width=device-width", "@media print", "prefers-color-scheme: dark", "max-width: 40rem"):
        assert what in page


def test_every_approach_is_in_table_curves_and_cost() -> None:
    page = html(made_up())
    for name in contender_names(list(CONTENDERS), made_up().titles).values():
        assert page.count(f">{name}") >= 3


def test_drawings_are_well_formed_and_named_for_readers_without_eyes() -> None:
    drawn = re.findall(r"<svg class=\"plot.*?</svg>", html(made_up()), re.DOTALL)
    assert len(drawn) == 6  # curves, training time and speed, for desks and phones
    for svg in drawn:
        root = ElementTree.fromstring(svg)
        assert root.attrib["role"] == "img" and "1,000" in root.attrib["aria-label"] + "1,000"
        assert root.find("title") is not None


def test_tables_have_captions_and_heads_and_what_scrolls_takes_the_keyboard() -> None:
    page, parser = html(made_up()), Tags()
    parser.feed(page)
    tags = [tag for tag, _ in parser.seen]
    assert tags.count("table") == tags.count("caption") == 5
    assert all("scope" in attributes for tag, attributes in parser.seen if tag == "th")
    assert all(
        (attributes.get("tabindex"), attributes.get("role")) == ("0", "region") and attributes["aria-label"]
        for _, attributes in parser.seen
        if attributes.get("class") == "scroll"
    )
    assert re.search(r"\.scroll {[^}]*position: relative", page)  # else unseen text widens the page
    heads = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert heads[0] == 1 and heads.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(heads))
    assert tags.count("details") == tags.count("summary") == 1


def test_reasons_are_a_list_under_the_headline() -> None:
    page, text = html(made_up()), markdown(made_up())
    listed = re.findall(r"<li>(.*?)</li>", page[page.index('class="reasons"') : page.index("</header>")])
    said = [one.replace("\N{NO-BREAK SPACE}", " ") for one in map(unescape, listed)]
    assert said == made_up().reasons and len(said) > 4
    assert all(f"- {reason}" in text for reason in said)


def test_the_front_the_choice_the_gains_and_the_labels_for_the_target_are_shown() -> None:
    page, text = html(made_up()), markdown(made_up())
    assert page.count(">recommended<") == 1 and page.count(">efficient<") == 3
    assert page.count("no better anywhere than TF-IDF") == 2 and text.count("| behind TF-IDF |") == 2
    (speed,) = re.findall(r"<svg class=\"plot speed.*?</svg>", page[: page.rindex("plot speed")], re.DOTALL)
    assert speed.count('class="ring') == 3 and "on the Pareto front" in speed
    assert "How many labels for 85.0 %?" in page
    assert "about 4,000 labels (95 % interval 2,500 to more than 10,000)" in page
    assert "TF-IDF</dt><dd>not within 10 times the labels (10,000)" in page
    gain = "| ULMFiT from novels, adapted | +20.0 (+8.0 to +30.0) | +10.0 (+3.0 to +15.0) |"
    assert gain in text and "<strong>+20.0</strong>" in page
    assert "9.0 ± 3.0" in page and "| 80.0 | 1.0 | best ✓ |" in text


def test_curves_go_on_dotted_to_four_times_the_labels() -> None:
    one = next(iter(series(made_up()).values()))
    assert [point.x for point in one.beyond] == [1000, 2000, 4000]
    drawn = plots.curves([one], style("accuracy"), "accuracy", target=0.85)
    assert drawn.count('class="line beyond c') == 1 and drawn.count('class="band haze') == 1
    assert 'class="target"' in drawn and "by its curve 8" in drawn


def test_a_comparison_of_an_earlier_version_still_makes_a_report() -> None:
    new = ("evidence", "reasons", "gains", "learning_curves", "standings")
    older = {name: value for name, value in made_up().to_dict().items() if name not in new}
    page = html(Comparison.from_dict(older))
    assert "Validation (200\N{NO-BREAK SPACE}samples" in page or "Validation (200 samples" in page
    assert "efficient" not in page[page.index("<table") :] and "pretrained start bring" not in page


def test_one_size_needs_no_curves() -> None:
    whole = made_up()
    largest = [r for r in whole.ranking if r.size == 1000]
    page = html(replace(whole, ranking=largest, rows=[r for r in whole.rows if r.size == 1000]))
    assert "How many labels" not in page


def test_many_labels_show_their_worst_confusions() -> None:
    labels = [f"label {i}" for i in range(20)]
    counts = [[int(i == j) * 9 for j in range(20)] for i in range(20)]
    counts[3][7] = 5
    page = html(replace(made_up(), confusion={"labels": labels, "counts": counts}))
    assert "most frequent confusions among 20 labels" in page
    assert re.search(
        r"<td>label 3</td><td>label 7</td><td class=\"right\">5</td><td class=\"right\">14</td>", page
    )


def test_markdown_tables_keep_their_columns() -> None:
    text = markdown(made_up())
    tables = [block.splitlines() for block in text.split("\n\n") if block.lstrip().startswith("|")]
    assert len(tables) == 5
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table if line}) == 1
    assert "tautly \\| orchestrated" in text and "\\*that\\*" in text


def test_json_has_the_promised_keys_and_comes_back_equal(tmp_path: Path) -> None:
    whole = made_up()
    paths = write(whole, tmp_path)
    assert [path.name for path in paths] == ["report.html", "report.md", "comparison.json"]
    said = json.loads((tmp_path / "comparison.json").read_text())
    assert {"task", "metric", "data", "rows", "ranking", "recommendation", "versions"} <= set(said)
    assert set(said["rows"][0]) == {
        *("method", "recipe", "start", "size", "seed", "score", "scores", "train_seconds"),
        *("peak_memory_bytes", "parameters", "predictions_per_second"),
    }
    assert set(said["ranking"][0]) == {
        *("method", "recipe", "start", "size", "mean", "sd", "low", "high", "p_value")
    }
    assert Comparison.load(tmp_path) == whole
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


def test_a_missing_comparison_is_a_clear_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        Comparison.load(tmp_path)


def test_a_method_from_scratch_has_the_colour_of_the_method_dashed() -> None:
    drawn = {who.method + "/" + who.start: one for who, one in series(made_up()).items()}
    assert drawn["ulmfit/scratch"].colour == drawn["ulmfit/novels, adapted"].colour
    assert drawn["ulmfit/scratch"].open and not drawn["ulmfit/novels, adapted"].open
    assert drawn["tfidf/scratch"].colour == "c0" and not drawn["tfidf/scratch"].open
    assert drawn["wordvectors/scratch"].colour != drawn["ulmfit/scratch"].colour


def test_names_beside_curves_never_overlap() -> None:
    placed = plots.spread([100.0, 101.0, 99.0, 300.0], 18, 0, 400)
    ordered = sorted(placed)
    assert all(b - a >= 17.9 for a, b in pairwise(ordered))
    assert placed[2] < placed[0] < placed[1] < placed[3]


def test_names_beside_curves_stay_on_the_page() -> None:
    assert min(plots.spread([1.0, 2.0, 3.0], 18, 10, 400)) >= 9.9
    assert max(plots.spread([398.0, 399.0], 18, 10, 400)) <= 400.1


def test_an_axis_holds_every_interval() -> None:
    low, high, ticks = plots.y_axis([plots.Point(1, 0.5, 0.437, 0.61)], style("accuracy"))
    assert low <= 0.437 and high >= 0.61 and ticks[0] == low and ticks[-1] == high
    low, high, _ = plots.y_axis([plots.Point(1, 1.0, 1.0, 1.0)], style("accuracy"))
    assert low < high


def mixed(weights: dict[int, list[float]], layers: int = 3, place: str = "input") -> list[Mix]:
    """A mix of one contender for each seed."""
    who = list(CONTENDERS)[1]
    return [Mix(*who, 1000, seed, place, list(range(layers)), said, 1.5) for seed, said in weights.items()]


def test_layers_that_mattered_are_drawn_and_written_as_means_over_seeds() -> None:
    whole = replace(made_up(), mixes=mixed({0: [0.1, 0.3, 0.6], 1: [0.3, 0.3, 0.4]}))
    page, text = html(whole), markdown(whole)
    assert (
        "Which layers matter?" in page
        and "word vectors from glove.6B.50d</span> at the input, γ 1.50" in page
    )
    (drawn,) = re.findall(r"<svg class=\"plot shares.*?</svg>", page, re.DOTALL)
    root = ElementTree.fromstring(drawn)
    assert "layer 0 20.0%, layer 1 30.0%, layer 2 50.0%" in root.attrib["aria-label"]
    widths = [float(bar.attrib["width"]) for bar in root.iter("rect")]  # the top layer first
    assert widths[0] / widths[2] == pytest.approx(2.5, abs=0.01)
    assert [place for place in root.iter("text") if place.text == "50 %"]
    (line,) = [line for line in text.splitlines() if "layer 0" in line and line.startswith("|")]
    assert line.endswith("| input | layer 0 20.0 %, layer 1 30.0 %, layer 2 50.0 % | 1.50 |")


def test_mixes_of_one_layer_or_none_have_no_picture() -> None:
    assert "Which layers matter" not in html(made_up())
    assert "Which layers matter" not in html(replace(made_up(), mixes=mixed({0: [1.0]}, 1)))


def test_mixes_come_back_from_json_and_an_older_file_has_none(tmp_path: Path) -> None:
    whole = replace(made_up(), mixes=mixed({0: [0.1, 0.3, 0.6]}, place="output"))
    write(whole, tmp_path)
    assert Comparison.load(tmp_path) == whole
    older = {name: value for name, value in whole.to_dict().items() if name != "mixes"}
    assert Comparison.from_dict(older).mixes == []


def test_numbers_are_written_for_people() -> None:
    assert style("accuracy")(0.8123) == "81.2 %" and style("pearson")(0.8123) == "0.812"
    assert seconds_text(0.2) == "0.20 s" and seconds_text(75) == "75 s" and seconds_text(600) == "10 min"
    assert p_text(0.0004) == "< 0.001" and p_text(None) == "–"


def test_the_first_sentence_ends_at_a_full_stop_not_in_a_name() -> None:
    assert headline("Use GloVe 6B.50d (p < 0.001). It leads.") == (
        "Use GloVe 6B.50d (p < 0.001).",
        "It leads.",
    )
    assert headline("Only this.") == ("Only this.", "")


def test_sizes_are_those_of_the_ranking() -> None:
    assert made_up().sizes == list(SIZES)
