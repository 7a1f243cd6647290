"""The report's page without a browser: its text, its policy, and the numbers of its charts."""

import base64
import gzip
import hashlib
import html as html_module
import json
import math
import re
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise
from typing import Any

import pytest

from poise.report.charts.chart import legible, signed
from poise.report.charts.classes import DRAWN, binned, count_axis, drawn_classes, shared
from poise.report.charts.default_rows import first_choices, pair
from poise.report.charts.gains import around, at_equal_many, interpolated, narrower, pareto
from poise.report.charts.plotly_charts import figure, plotly_text
from poise.report.charts.single_methods import charts
from poise.report.charts.styles import styles
from poise.report.page.page import library, render
from poise.report.page.view import choices, gain_tile, pair_remark
from poise.results.contents import Classes, Contents, Gain, Verdict
from report_samples import COUNTS, HOSTILE, PIXEL, almost_nothing, everything, fitted

PARTS = ("recall", "changes", "confusions", "tradeoff", "paths", "confidence", "labels", "inside")
VOID = {"meta", "link", "img", "input", "br", "wbr", "rect", "path"}


class Page(HTMLParser):
    """Elements with their attributes and texts, in order; complains about tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def having(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.elements if name == tag and wanted.items() <= found.items()]

    @property
    def ids(self) -> list[str]:
        return [str(found["id"]) for _, found in self.elements if "id" in found]


def data_of(page: Page) -> Any:
    """What the scripts draw."""
    packed = page.texts["script"][next(i for i, (_, a) in enumerate(scripts(page)) if a.get("id") == "figures")]
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def scripts(page: Page) -> list[tuple[str, dict[str, str | None]]]:
    return [element for element in page.elements if element[0] == "script"]


def policy_of(page: Page) -> dict[str, list[str]]:
    (meta,) = page.having("meta", **{"http-equiv": "Content-Security-Policy"})
    rules = [rule.split() for rule in str(meta["content"]).split(";")]
    return {rule[0]: rule[1:] for rule in rules}


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def without(**fields: Any) -> Contents:
    return everything().model_copy(update=fields)


def test_the_same_contents_give_the_same_bytes() -> None:
    assert render(everything()) == render(Contents.model_validate_json(everything().to_json()))


def test_the_page_is_small_and_in_one_piece() -> None:
    text = render(everything())
    assert text.startswith("<!doctype html>")
    assert len(text.encode()) < 1_200_000
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert len(page.having("h1")) == len(page.having("main")) == 1


def test_the_policy_allows_exactly_the_scripts_and_the_style_sheet_of_the_page() -> None:
    page = Page(render(everything()))
    texts = dict(zip(range(len(scripts(page))), page.texts["script"], strict=True))
    running = [texts[i] for i, (_, a) in enumerate(scripts(page)) if a.get("type") != "text/plain"]
    rules = policy_of(page)
    assert rules["script-src"] == [digest(text) for text in (*running, library())]
    assert rules["style-src"] == [digest("".join(page.texts["style"])), digest("")]
    assert rules["default-src"] == rules["connect-src"] == rules["base-uri"] == rules["form-action"] == ["'none'"]
    assert rules["img-src"] == ["data:", "blob:"]
    assert "unsafe" not in str(rules)


def test_nothing_on_the_page_asks_for_something_elsewhere() -> None:
    page = Page(render(everything()))
    for tag, found in page.elements:
        assert "style" not in found
        assert not [name for name in found if name.startswith("on")]
        for name in ("src", "href", "action", "data", "srcset", "poster", "xlink:href"):
            assert re.match(r"data:|#|$", found.get(name) or ""), (tag, found)
    assert "url(" not in "".join(page.texts["style"])
    assert "@import" not in "".join(page.texts["style"])


def test_the_bundle_and_its_licence_come_with_the_package() -> None:
    folder = files("poise.report").joinpath("page")
    assert library().startswith("/**\n* plotly.js (cartesian - minified) v4.1.1")
    notice = folder.joinpath("NOTICE").read_text()
    assert "plotly.js-cartesian-dist-min 4.1.1" in notice
    assert "Permission is hereby granted, free of charge" in notice
    assert folder.joinpath("plotly-cartesian.min.js.gz").read_bytes()[4:8] == b"\0\0\0\0"


def test_links_and_labels_lead_somewhere() -> None:
    for contents in (everything(), almost_nothing()):
        page = Page(render(contents))
        for _, found in page.elements:
            targets = [str(found.get("href"))[1:]] if str(found.get("href")).startswith("#") else []
            targets += (
                str(found.get("aria-labelledby") or "").split() + str(found.get("aria-describedby") or "").split()
            )
            assert set(targets) <= set(page.ids)


def test_headings_do_not_skip_a_level() -> None:
    levels = [int(tag[1]) for tag, _ in Page(render(everything())).elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_hostile_names_are_text_everywhere() -> None:
    text = render(everything())
    page = Page(text)
    assert not [a for a in page.having("img") if a["src"] == "x"]
    assert not page.having("a", href="javascript:alert(3)")
    assert len(scripts(page)) == 4
    cells = page.texts["th"]
    for name in HOSTILE:
        assert legible(name) in cells
    for name in data_of(page)["shared"]["name"]:
        assert not re.search(r"[<>%$\n\u202e]", name.replace("&#37;", "").replace("&#36;", ""))


def test_a_name_reads_the_same_after_plotly_has_decoded_it() -> None:
    assert plotly_text("<b>%{x}</b> & $y$") == "&lt;b&gt;&#37;{x}&lt;/b&gt; &amp; &#36;y&#36;"
    assert html_module.unescape(plotly_text(HOSTILE[0], 60)) == HOSTILE[0]
    assert plotly_text("x" * 300, 10) == "x" * 9 + "…"
    assert plotly_text(" \t") == "␉"
    assert plotly_text("") == "(no name)"


def test_only_images_in_the_page_become_pictures() -> None:
    images = [a["src"] for a in Page(render(everything())).having("img")]
    assert images == [PIXEL, PIXEL]


def test_a_report_of_next_to_nothing_has_no_empty_parts() -> None:
    page = Page(render(almost_nothing()))
    assert not set(PARTS) & set(page.ids)
    assert {"verdict", "classes", "methods", "protocol", "glossary"} <= set(page.ids)
    assert [a["data-figure"] for _, a in page.elements if "data-figure" in a] == ["frequency"]
    assert len(page.having("div", **{"class": "tile"})) == 1
    assert "None" not in render(almost_nothing()).split("</style>")[1].split('<script type="text/plain"')[0]


@pytest.mark.parametrize(
    ("missing", "part"),
    [
        ({"changes": ()}, "changes"),
        ({"paths": ()}, "paths"),
        ({"advice": None, "learning_curve": ()}, "labels"),
        ({"closer": ()}, "confidence"),
        ({"closer": ()}, "confusions"),
    ],
)
def test_a_part_without_data_is_left_out_and_the_others_stay(missing: dict[str, Any], part: str) -> None:
    full, less = Page(render(everything())), Page(render(without(**missing)))
    assert part in full.ids
    assert part not in less.ids
    assert not less.having("a", href=f"#{part}")
    assert set(PARTS) - {part, "confidence", "confusions"} <= set(less.ids)


def test_the_verdict_comes_as_a_headline_and_tiles() -> None:
    text = render(everything())
    shown = re.sub(r"<[^>]*>|\s+", " ", text.split('class="headline">')[1].split("</dl>")[0])
    shown = re.sub(r"\s+", " ", shown)
    for words in ("Change to logit_adjustment(tau=1.0)", "+10.0 points of balanced accuracy"):
        assert words in shown
    for words in ("95 % interval +9.0 to +11.0", "60.0 %", "from 50.0", "50 %", "2 of 4"):
        assert words in shown


@pytest.mark.parametrize(("decision", "words"), [("keep", "Keep"), ("none", "No verdict")])
def test_other_decisions_have_headlines_of_their_own(decision: str, words: str) -> None:
    verdict = Verdict.model_validate(everything().verdict.model_dump() | {"decision": decision})
    text = render(without(verdict=verdict))
    assert f'<p class="headline">{words}' in text


def headed(**told: object) -> str:
    """The headline of a report whose verdict says this, as text."""
    verdict = Verdict.model_validate(everything().verdict.model_dump() | told)
    shown = render(without(verdict=verdict)).split('class="headline">')[1].split("</p>")[0]
    return re.sub(r"<[^>]*>", "", shown)


@pytest.mark.parametrize(
    ("decision", "held", "words"),
    [
        ("change", "logit_adjustment(tau=1.0)", "+10.0 points of balanced accuracy"),
        ("keep", "logit_adjustment(tau=1.0)", "not better than stage1 beyond doubt on these rows"),
        ("keep", "stage1", "nothing was better on the rows that settings were chosen on"),
        ("change", "crt", "as asked; the comparison is about logit_adjustment(tau=1.0) and speaks for logit_ad"),
        ("keep", "crt", "as asked; the comparison is about logit_adjustment(tau=1.0) and speaks for stage1"),
        ("none", "crt", "no verdict"),
    ],
)
def test_the_headline_names_the_model_in_the_folder_whatever_the_verdict(decision: str, held: str, words: str) -> None:
    shown = headed(decision=decision, held=held)
    assert shown.startswith(f"In this folder: {held}: {words}")
    assert not {"Keep", "Change"} & set(shown.split())


def test_a_fitted_model_that_may_be_no_better_has_its_interval_in_the_headline() -> None:
    unsure = {"estimate": 0.1, "low": -0.02, "high": 0.22, "classes_low": -0.2, "classes_high": 0.4}
    assert headed(decision="fitted", gain=unsure).endswith(
        "+10.0 points of balanced accuracy (\N{MINUS SIGN}2.0 to +22.0)"
    )


def test_a_report_of_an_evaluation_is_headed_by_what_was_reached_on_the_labelled_rows() -> None:
    contents = fitted()
    told = contents.verdict.model_copy(update={"decision": "evaluated"})
    text = render(contents.model_copy(update={"verdict": told}))
    shown = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text.split("<main>")[1].split("</main>")[0]))
    assert "Evaluated: logit_ adjustment( tau= 1.0)" in shown
    assert "balanced accuracy 60.0 % (55.0 to 65.0) on 120 labelled rows" in shown
    assert "fitted" not in shown.lower()
    assert '<span class="mark recommended">evaluated</span>' in text


def test_a_model_without_a_test_split_is_fitted_and_nothing_is_said_of_comparisons() -> None:
    text = render(fitted())
    shown = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text.split("<main>")[1].split("</main>")[0]))
    assert "Fitted: logit_ adjustment( tau= 1.0)" in shown
    for word in ("No verdict", "recommended", "tied", "oracle", "gap", "baseline", "Pareto", "as stated"):
        assert word not in shown, word
    table = text.split('id="method-table"')[1].split("</table>")[0]
    assert '<span class="mark recommended">fitted</span>' in table
    assert "gain" not in table
    assert text.count('<div class="tile">') == 2


def test_a_loss_is_called_one_and_keeps_its_sign() -> None:
    lost = gain_tile(Gain(estimate=-0.011, low=-0.046, high=0.024, classes_low=-0.1, classes_high=0.1), 0.95, "stage1")
    assert lost is not None
    assert lost[:2] == ("Loss", "\N{MINUS SIGN}1.1")
    assert lost.note == "points against stage1, 95 % interval \N{MINUS SIGN}4.6 to +2.4"
    none = gain_tile(Gain(estimate=-0.0001, classes_low=-0.1, classes_high=0.1), 0.95, "stage1")
    assert none is not None
    assert none[:2] == ("Gain", "+0.0")


def words_of(contents: Contents) -> list[str]:
    """The words that a page explains."""
    return re.findall("<dt>(.*?)</dt>", render(contents).split('id="glossary-heading"')[1])


def test_only_words_that_occur_are_explained() -> None:
    full = set(words_of(everything()))
    assert {"tied", "oracle", "gap closed", "transductive", "recipe as stated", "Pareto front", "prior"} <= full
    assert words_of(almost_nothing()) == [
        "head",
        "many, medium, few",
        "recall, balanced accuracy",
        "Logits Magnitude",
        "ECE",
        "NLL",
        "prior",
    ]


def test_the_interval_of_the_table_is_told_from_that_of_the_verdict() -> None:
    words = "holds for all methods at once; that of the verdict is for one comparison"
    assert words in render(everything())
    assert words not in render(fitted())


def test_intervals_stay_between_none_and_all() -> None:
    rows = tuple(
        row.model_copy(
            update={"scores": row.scores | {"all": row.scores["all"].model_copy(update={"low": -0.02, "high": 1.03})}}
        )
        for row in everything().rows
        if row.scores["all"] is not None
    )
    assert "<small>0.0 to 100.0</small>" in render(without(rows=rows))


def test_every_method_is_in_the_table_with_its_marks_in_words() -> None:
    text = render(everything())
    table = text.split('id="method-table"')[1].split("</table>")[0]
    rows = [re.sub(r"<[^>]*>", "", row) for row in table.split("<tr class=")[1:]]
    assert len(rows) == 5
    for words in ("recommended", "tied with the best", "end of range", "60.0", "55.0 to 65.0", "+10.0"):
        assert words in rows[0]
    assert any("baseline" in row and "stage1" in row for row in rows)
    assert any("transductive †" in row for row in rows)
    assert any("as stated" in row for row in rows)
    values = [float(v) for v in re.findall(r'<td class="number" data-value="([\d.]+)">', table)]
    assert values[1] == pytest.approx(0.6)


def test_figures_have_a_sentence_and_a_table_of_their_numbers() -> None:
    page, figures = Page(render(everything())), charts(everything())
    shown = [a["data-figure"] for _, a in page.elements if "data-figure" in a]
    assert sorted(shown) == sorted(figures)
    for name, chart in figures.items():
        assert f"{name}-reading" in page.ids
        assert chart.table.rows
        assert {len(row) for row in chart.table.rows} == {len(chart.table.head)}


# Numbers of the charts.


def test_gains_stand_in_points_with_both_intervals_and_the_way_to_the_oracle() -> None:
    chart = charts(everything())["gains"]
    wide, tied, behind, recommended = figure(chart)["traces"]
    assert (tied["x"], behind["x"], recommended["x"]) == ([8.0], [3.0], [10.0])
    assert recommended["error_x"]["array"] == recommended["error_x"]["arrayminus"] == [1.0]
    assert wide["error_x"]["array"] == [3.0, 3.0, 3.0]
    assert [shape["x0"] for shape in figure(chart)["layout"]["shapes"]] == pytest.approx(
        [10.0, 20.0]
    )  # oracle 70 less 50
    assert chart.table.rows[0] == ("logit_adjustment(tau=1.0)", "+10.0", "+9.0 to +11.0", "+7.0 to +13.0", "50 %")


def test_an_oracle_below_a_method_draws_no_gap() -> None:
    verdict = Verdict.model_validate(everything().verdict.model_dump() | {"oracle": 0.55})
    assert figure(charts(without(verdict=verdict))["gains"])["layout"]["shapes"] == []


def test_bounds_beyond_all_points_are_cut_in_the_chart_of_gains() -> None:
    gain = Gain(estimate=-0.5, low=-0.6, high=-0.4, classes_low=-1.3, classes_high=0.2)
    rows = (everything().rows[0], everything().rows[2].model_copy(update={"gain": gain}))
    chart = charts(without(rows=rows))["gains"]
    assert figure(chart)["traces"][0]["error_x"]["arrayminus"] == [50.0]
    assert chart.table.rows[0][3] == "\N{MINUS SIGN}100.0 to +20.0"


def test_many_against_few_shows_whole_curves_and_no_impossible_recalls() -> None:
    assert around([0.01, 1.0]) == (0.0, 100.0)
    layout = figure(charts(everything())["tradeoff"])["layout"]
    assert layout["xaxis"]["range"][0] < 60.0  # where the curves end
    assert layout["yaxis"]["range"][1] > 60.0
    assert at_equal_many(fitted()) is None


def test_a_few_classes_are_named_on_the_axis_and_of_many_evenly_spaced_ones() -> None:
    names = figure(charts(everything())["frequency"])["layout"]["xaxis"]["ticktext"]
    assert names[0] == plotly_text(HOSTILE[0], 16) == "&lt;img src=x oner…"
    assert len(names) == 6
    size = 100
    classes = Classes(
        names=tuple(f"class {i}" for i in range(size)),
        counts=(5,) * size,
        scored=(1,) * size,
        groups=("few",) * size,
        edges=(100, 20),
    )
    contents = almost_nothing().model_copy(update={"classes": classes})
    axis = figure(charts(contents)["frequency"])["layout"]["xaxis"]
    assert axis["tickvals"] == [1, 10, 19, 28, 37, 46, 55, 64, 73, 82, 91, 100]
    assert axis["ticktext"][-1] == "class 99"
    assert axis["range"] == (0.5, 100.5)


def test_the_front_holds_places_that_nothing_beats() -> None:
    assert pareto([(0.9, 0.1), (0.8, 0.4), (0.8, 0.3), (0.7, 0.35), (0.6, 0.5)]) == [(0.6, 0.5), (0.8, 0.4), (0.9, 0.1)]


def test_few_recall_is_compared_at_equal_many_recall() -> None:
    assert interpolated([(0.6, 0.5), (0.8, 0.4), (0.9, 0.1)], 0.7) == pytest.approx(0.45)
    table = at_equal_many(everything())
    assert table is not None
    # From 90 to 60 in five steps; halfway between 80 and 90, the mean of 40 and 10.
    assert table.head[1:] == ("90.0", "82.5", "75.0", "67.5", "60.0")
    assert table.rows[0] == ("stage1", "10.0", "32.5", "42.5", "46.2", "50.0")
    assert at_equal_many(almost_nothing()) is None


def test_the_page_says_for_how_many_methods_the_interval_over_classes_is_the_narrower_one() -> None:
    contents = everything()
    assert narrower(contents) == ""
    assert "is the narrower one" not in render(contents)
    gain = contents.rows[1].gain.model_copy(update={"classes_low": 0.095, "classes_high": 0.105})
    rows = (contents.rows[0], contents.rows[1].model_copy(update={"gain": gain}), *contents.rows[2:])
    assert narrower(contents.model_copy(update={"rows": rows})) == (
        "For 1 of 3 methods the interval over classes is the narrower one."
    )
    assert "For 1 of 3 methods the interval over classes" in render(contents.model_copy(update={"rows": rows}))


def test_means_are_over_classes_of_similar_size() -> None:
    sizes, means = binned(zip(COUNTS, (0.9, 0.8, 0.6, 0.5, 0.4, None), strict=True))
    assert sizes == pytest.approx([1000, 300, 80, 40, 9])
    assert means == pytest.approx([0.9, 0.8, 0.6, 0.5, 0.4])
    assert binned([(30, 0.5), (0, 0.25), (None, 0.75)]) == ([pytest.approx(30)], [0.5])  # no place without rows
    # Sixteen classes: two in each part.
    sizes, means = binned((160 - 10 * i, i / 16) for i in range(16))
    assert len(sizes) == 8
    assert sizes[0] == pytest.approx(math.sqrt(160 * 150))
    assert means[0] == pytest.approx(1 / 32)


def test_classes_stand_by_falling_size_and_one_without_rows_has_no_point() -> None:
    classes = Classes(names=("a", "b", "c"), counts=(0, 7, 30), scored=(1,) * 3, groups=("few",) * 3, edges=(100, 50))
    lists = shared(almost_nothing().model_copy(update={"classes": classes}))
    assert lists["name"] == ["c", "b", "a"]
    assert lists["shown_count"] == [30, 7, None]
    assert lists["rank"] == [1, 2, 3]


@pytest.mark.parametrize(
    ("counts", "ticks"),
    [
        ((5, 120), [5, 10, 20, 50, 100]),
        ((0, 1, 3), [1, 2]),
        ((0, 3), [3]),
        ((2, 90_000), [10, 100, 1000, 10_000, 100_000]),
    ],
)
def test_axes_of_counts_have_round_ticks(counts: tuple[int, ...], ticks: list[int]) -> None:
    found = count_axis("rows", counts).ticks
    assert found is not None
    assert found.values == ticks


def test_of_thousands_of_classes_some_are_drawn_with_both_ends() -> None:
    size = 5000
    classes = Classes(
        names=tuple(f"class {i}" for i in range(size)),
        counts=tuple(range(size, 0, -1)),
        scored=(1,) * size,
        groups=("many",) * size,
        edges=(0, 0),
    )
    contents = almost_nothing().model_copy(update={"classes": classes})
    drawn = drawn_classes(contents)
    assert len(set(drawn)) == DRAWN
    assert (drawn[0], drawn[-1]) == (0, size - 1)
    table = charts(contents)["frequency"].table
    assert len(table.rows) == 200
    assert table.note.startswith("The 100 most and the 100 least frequent of 5,000 classes")
    assert "draw 1,500 of them" in render(contents)


def test_changes_say_which_are_beyond_chance() -> None:
    sure, unsure = figure(charts(everything())["changes"])["traces"]
    assert sure["x"] == pytest.approx([-5.0, 30.0])
    assert sure["error_x"]["array"] == pytest.approx([2.0, 20.0])
    assert sure["error_x"]["arrayminus"] == pytest.approx([2.0, 25.0])
    assert sure["customdata"][1] == "10.0 to 40.0 %<br>+5.0 to +50.0, 20 rows"
    assert unsure["x"] == pytest.approx([30.0])
    assert unsure["marker"]["pattern"]["shape"] == "/"


def test_empty_bins_are_left_out_of_reliability() -> None:
    first = figure(charts(everything())["reliability"])["traces"][0]
    assert (first["x"], first["y"], first["customdata"]) == ([50.0, 90.0], [25.0, 80.0], [40, 60])


def test_a_ratio_that_has_no_logarithm_is_left_out() -> None:
    assert figure(charts(everything())["ratio"])["traces"][0]["y"] == [0.5, 1.0, 2.0, 1.0, 0.25, None]


def test_paths_mark_the_value_taken_and_tell_the_rows() -> None:
    chart = charts(everything())["paths"]
    first, second = figure(chart)["variants"]["path"].values()
    assert first["shapes"][0]["x0"] == 1.0
    assert first["annotations"][0]["text"] == "selected: 1"
    assert second["shapes"] == []
    assert [t["name"] for t in figure(chart)["traces"] if t["show"] == {"path": "1"}] == ["balanced", "many", "few"]
    text = render(everything())
    assert "logit_adjustment: tau (selection rows)" in text
    assert "los: epoch (test rows)" in text


def test_the_baseline_and_the_recommended_head_are_drawn_first_and_look_like_no_other() -> None:
    contents = everything()
    assert first_choices(contents) == [0, 1]
    looks = styles(contents)
    assert len({(look.symbol, look.dash) for look in looks}) == len(looks)
    assert first_choices(almost_nothing()) == [0]


def test_inside_the_heads_the_recommended_one_stands_against_the_baseline() -> None:
    found = choices(everything())
    first = {name: [choice.number for choice in listed if choice.first] for name, listed in found.items()}
    assert (first["a"], first["b"], set(first["close"])) == ([1], [0], {0, 1})
    assert pair_remark(everything()) == ""


def test_a_recommended_head_with_the_same_spread_gives_way_and_the_page_says_so() -> None:
    rows = everything().rows
    alike = rows[1].model_copy(update={"spread": rows[0].spread})
    apart = rows[2].model_copy(update={"spread": {"unit": (0.9,) * 6}})
    contents = without(rows=(rows[0], alike, apart, *rows[3:]))
    assert [choice.number for choice in choices(contents)["a"] if choice.first] == [2]
    assert pair_remark(contents).startswith("logit_adjustment(tau=1.0) has the same Regularized Std as stage1")
    assert pair_remark(contents) in render(contents)


@pytest.mark.parametrize(("factor", "drawn"), [(1.019, 2), (1.021, 1)])
def test_two_spreads_are_the_same_within_two_per_cent(factor: float, drawn: int) -> None:
    rows = everything().rows
    spread = tuple(None if value is None else factor * value for value in rows[0].spread["unit"])
    near = rows[1].model_copy(update={"spread": {"unit": spread}})
    apart = rows[2].model_copy(update={"spread": {"unit": (0.9,) * 6}})
    assert pair(without(rows=(rows[0], near, apart, *rows[3:]))) == (drawn, 0)


def test_one_method_is_drawn_once_inside_the_heads() -> None:
    chart = charts(fitted())["magnitude"]
    assert [trace["show"] for trace in figure(chart)["traces"]] == [{"a": "0", "reading": "unit"}]
    assert re.search(r'<label class="needs-js" hidden>Second method', render(fitted()))


def test_colours_are_names_of_the_style_sheet() -> None:
    text = render(everything())
    data, style = data_of(Page(text)), text.split("<style>")[1].split("</style>")[0]
    names = set(re.findall(r'\{"css": "([\w-]+)"\}', json.dumps(data)))
    assert {"accent", "baseline", "many", "medium", "few"} <= names
    assert all(f"--{name}:" in style for name in names)


def test_signs_are_minus_signs_and_zero_has_a_plus() -> None:
    assert [signed(value) for value in (0.06, -0.008, -0.0001)] == ["+6.0", "\N{MINUS SIGN}0.8", "+0.0"]


def test_a_head_that_the_verdict_does_not_take_is_not_called_recommended() -> None:
    given = everything()
    kept = given.model_copy(update={"verdict": given.verdict.model_copy(update={"decision": "keep"})})
    assert "chosen without the test split</span>" in render(kept)
    assert 'class="mark recommended">recommended<' not in render(kept)
    assert 'class="mark recommended">recommended<' in render(given)
