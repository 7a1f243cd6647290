"""The formats of a report beside the page: Markdown, LaTeX, CSV, figures; and tables for a terminal."""

import csv
import io
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt
from PIL import Image
from rich.cells import cell_len
from rich.console import Console

from compared_row import BASE
from hostile_report import COUNTS, HOSTILE, PER_CLASS, PLAIN, row, sample
from poise import methods
from poise.errors import MissingExtraError
from poise.methods import descriptions
from poise.report.charts import paper_canvas, paper_figures, styles
from poise.report.charts.classes import binned
from poise.report.charts.gains import gains
from poise.report.charts.plotly_charts import figure
from poise.report.files import find_report, write_formats, write_report
from poise.report.text import score_tables
from poise.report.text.csv import classes_csv, formulas, methods_csv
from poise.report.text.latex import to_latex
from poise.report.text.markdown import cell, to_markdown
from poise.report.text.words import lines, one_line, shortened
from poise.results.contents import GROUPS, Contents, read
from poise.results.scores import Scores
from poise.values.wording import percent, signed
from report_samples import from_flat


def bare() -> Contents:
    """A report of nothing but class sizes."""
    alone = row("a", "a", 0.5, role="baseline", gain=None, per_class=(), magnitude={}, spread={}, scores={})
    return sample(rows=(alone,), closer=(), changes=(), paths=())


@pytest.fixture(scope="module")
def drawn() -> dict[str, bytes]:
    """The SVG files of the figures of the hostile report, by name."""
    return {name: paper_figures.render(figure, "svg") for name, figure in paper_figures.draw(sample()).items()}


# --- words -----------------------------------------------------------------------------------------------------------


def test_control_characters_are_shown_and_nothing_else_changes() -> None:
    assert one_line("a\nb\tc\r\x1b\x7f\x00\u2028\u202e") == "a␊b␉c␍␛␡␀␤\ufffd"
    assert one_line("<b>|`$é猫🐈") == "<b>|`$é猫🐈"


def test_long_names_end_in_an_ellipsis_and_wide_characters_count_twice() -> None:
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdefg", 6) == "abcde…"
    assert shortened("猫猫猫猫", 6) == "猫猫 …"
    assert shortened("a\nb", 6) == "a␊b"


def test_numbers_are_in_per_cent_and_a_difference_has_one_sign() -> None:
    assert [percent(0.12345), percent(0.12345, 2), percent(None)] == ["12.3", "12.35", "-"]
    assert [signed(0.05), signed(-0.05), signed(-0.0001)] == ["+5.0", "-5.0", "+0.0"]


def test_a_recipe_stands_beside_its_method_and_the_best_comes_first() -> None:
    assert [(line.row.method, line.stated) for line in lines(sample().rows)] == [
        ("los(delta=0.9,lr=0.1)", 0.3),
        ("stage1", None),
        ("crt(epochs=2,lr=9.0)", None),
    ]
    assert [line.row.method for line in lines(sample().rows[3:])] == ["los(delta=0.98)"]


# --- Markdown --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cat", "`cat`"),
        ("<b>&amp;", "`<b>&amp;`"),
        ("a|b", r"`a\|b`"),
        (r"a\|b", r"`a\\|b`"),
        ("`", "`` ` ``"),
        ("a``b`c", "```a``b`c```"),
        (" a", "`  a `"),
        ("a\nb", "`a␊b`"),
        ("", ""),
    ],
)
def test_a_name_in_a_table_is_a_code_span_that_shows_it_as_it_is(name: str, shown: str) -> None:
    assert cell(name) == shown


def test_the_page_has_its_parts_in_order_and_numbers_in_per_cent() -> None:
    text = to_markdown(sample(PLAIN))
    assert re.findall("^#+ .*", text, re.M) == [
        "# Birds, 2026",
        "## Methods",
        "## Classes that gained most",
        "## Classes that lost most",
        "## Most frequent confusions of `los`",
        "## What more labelled rows would give",
        "## Protocol",
    ]
    assert "| `los` | 50.0 | 40.0 | 30.0 | 70.0 | 40.0 | 12.5 | +15.0 ±4.0 | 30.0 | 6.0 | = ★ ^ |\n" in text
    assert "| `stage1` | 50.0 | 25.0 | - | 70.0 | 40.0 | 12.5 | - | 30.0 | 6.0 |  |\n" in text
    assert "| `crt` | 50.0 | 25.0 | - | 70.0 | 40.0 | 12.5 | +0.0 ±4.0 | 30.0 | 6.0 | T |\n" in text
    assert "| `class 11` | few | 0 | 10 | 50.0 | 61.0 | +11.0 ±9.8 |\n" in text
    assert "| `class 0` | `class 4` | 7 | 35.0 |\n" in text
    assert "- settings: chosen by balanced\\_accuracy\n- a remark\n" in text
    assert text.endswith("```sh\npoise compare 'a b.npz' --seeds 2\n```\n")


def test_hostile_names_and_titles_show_as_they_are_and_none_becomes_html() -> None:
    title = "# <img src=x> | *bold*\n[a](b) &amp; `c` @me $x$"
    parser = MarkdownIt("commonmark").enable("table")
    tokens = parser.parse(to_markdown(sample(title=title)))
    inline = [token.children or [] for token in tokens if token.type == "inline"]
    assert "".join(token.content for token in inline[0]) == one_line(title)
    assert {token.type for children in inline for token in children} == {"text", "code_inline"}
    assert not {"html_block", "code_block"} & {token.type for token in tokens}
    spans = {token.content for children in inline for token in children if token.type == "code_inline"}
    assert {one_line(name) for name in HOSTILE} <= spans


def test_parts_without_data_are_left_out_of_the_page() -> None:
    text = to_markdown(sample(closer=(), changes=(), advice=None))
    assert re.findall("^## .*", text, re.M) == ["## Methods", "## Protocol"]


# --- LaTeX -----------------------------------------------------------------------------------------------------------


def table_line(family: str) -> str:
    """The line of a method of that name in the LaTeX table."""
    text = to_latex(sample(rows=(row(family, family, 0.25, gain=None),)))
    return text.splitlines()[text.splitlines().index(r"    \midrule") + 1].strip()


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("tau_norm(tau=0.5)", r"tau\_norm(tau=0.5)"),
        (r"& % $ # _ { } ~ ^ \ ", r"\& \% \$ \# \_ \{ \} \textasciitilde{} \textasciicircum{} \textbackslash{} "),
        (r"\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}"),
        ("a<b>c|d", r"a\textless{}b\textgreater{}c\textbar{}d"),
        ("a--b", "a-{}-b"),
        ("''x``", "'{}'x`{}`"),
        ("?`", "?{}`"),
        ('"a', r"\symbol{34}a"),
        ("[1]*", "{[}1{]}{*}"),
        ("a\nb\r\tc\u202ed", "a b  cd"),
        ("猫 🐈 é", "猫 🐈 é"),
    ],
)
def test_text_is_escaped_so_that_latex_prints_it(name: str, printed: str) -> None:
    assert table_line(name) == printed + r" & 50.0 & 70.0 & 40.0 & -- & 25.0 & -- \\"


def test_the_latex_table_marks_the_tied_set_the_recommended_and_the_transductive() -> None:
    text = to_latex(sample(PLAIN))
    assert r"    los$^\star$ & 50.0 & 70.0 & 40.0 & 12.5 & \textbf{40.0} & $+15.0 \pm 4.0$ \\" in text
    assert r"    crt$^\dagger$ & 50.0 & 70.0 & 40.0 & 12.5 & 25.0 & $+0.0 \pm 4.0$ \\" in text
    assert r"    stage1 & 50.0 & 70.0 & 40.0 & 12.5 & 25.0 & -- \\" in text
    assert text.startswith("% Needs \\usepackage{booktabs}. Made by poise of: Birds, 2026\n\\begin{table}[tb]\n")
    assert r"\label{tab:birds-2026}" in text
    assert r"\label{tab:mine}" in to_latex(sample(PLAIN), label="tab:mine")
    (caption,) = re.findall(r"^  \\caption\{(.*)\}$", text, re.M)
    assert caption == (
        "Birds, 2026: accuracy in per cent on 120 rows of 12 classes, trained on 1146. Many, medium, few: classes with "
        "more than 100, 20 to 100, fewer than 20 training rows; balanced: mean over classes. Gain: balanced accuracy "
        r"over stage1, with the half width of a 95\,\% interval over images that holds for all methods at once. "
        r"Settings chosen by balanced\_accuracy. Seeds: 0, 1. Bold: cannot be told from the best. $^\star$: "
        r"recommended. $^\dagger$: reads the rows it is scored on."
    )


def test_a_hostile_title_stays_in_its_comment_and_caption() -> None:
    text = to_latex(sample(title="a\n\\input{x}%\r}"))
    assert text.splitlines()[0] == "% Needs \\usepackage{booktabs}. Made by poise of: a␊\\input{x}%␍}"
    assert r"  \caption{a \textbackslash{}input\{x\}\% \}: accuracy" in text
    assert r"\label{tab:a-input-x}" in text
    assert r"\label{tab:poise}" in to_latex(sample(title="猫"))


# --- CSV -------------------------------------------------------------------------------------------------------------


def parsed(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_names_come_back_from_the_csv_bit_for_bit(tmp_path: Path) -> None:
    assert [line["name"] for line in parsed(classes_csv(sample()))] == list(HOSTILE)
    for path in write_formats(tmp_path, sample(), ["csv"]):
        with path.open(encoding="utf-8", newline="") as file:
            found = list(csv.DictReader(file))
        names = HOSTILE if path.name == "classes.csv" else [each.method for each in sample().rows]
        assert [line[next(iter(line))] for line in found] == list(names)


def test_the_csv_has_every_number_of_the_report_and_nothing_for_what_is_unknown() -> None:
    first, second, third, fourth = parsed(methods_csv(sample()))
    assert [float(first[key]) for key in ("nll", "balanced_accuracy", "accuracy_low", "gain", "gain_low")] == [
        1.23457,
        0.4004,
        0.45,
        first_gain := 0.4004 - 0.25,
        0.4004 - 0.29,
    ]
    assert first_gain == sample().rows[0].gain.estimate
    assert (first["recommended"], first["tied"], fourth["tied"], fourth["role"]) == ("True", "True", "", "recipe")
    assert (third["gain"], third["gain_classes_low"], fourth["few"], second["balanced_accuracy_low"]) == ("",) * 4
    classes = parsed(classes_csv(sample()))
    assert [line["training_rows"] for line in classes] == [str(count) for count in COUNTS]
    assert [line["recall stage1"] for line in classes] == ["" if value is None else str(value) for value in PER_CLASS]
    assert {"recall los(delta=0.98) (recipe)", "magnitude_unit stage1", "norm stage1", "push stage1"} <= set(classes[0])


def test_for_a_spreadsheet_no_text_is_a_formula_and_numbers_stay_as_they_are() -> None:
    plain, safe = classes_csv(sample()), classes_csv(sample(), spreadsheet=True)
    assert safe.startswith("\ufeffname,")
    found = {line["\ufeffname"] for line in parsed(safe)}
    assert {"'+1", "'-1", "'@home", "'=HYPERLINK(\"http://x\",'go')", "<script>alert(1)</script>"} <= found
    assert not any(name.startswith(("=", "+", "-", "@", "\t", "\r")) for name in found)
    for before, after in zip(parsed(plain), parsed(safe), strict=True):
        assert list(before.values())[1:] == list(after.values())[1:]
    assert any(line["gain"].startswith("-0.0004") for line in parsed(methods_csv(sample(), spreadsheet=True)))
    assert formulas(sample()).number == 4
    assert formulas(sample(PLAIN)).number == 0


# --- figures ---------------------------------------------------------------------------------------------------------


def test_every_figure_is_drawn_of_a_hostile_report_as_well_formed_svg_of_a_columns_width(drawn) -> None:
    assert list(drawn) == list(paper_figures.DRAWINGS)
    for svg in drawn.values():
        root = ElementTree.fromstring(svg)
        assert root.attrib["width"] == f"{3.4 * 72:g}pt"
        tags = {element.tag.split("}")[1] for element in root.iter()}
        assert not tags & {"script", "text", "a", "foreignObject"}


def test_a_figure_has_the_same_bytes_again_and_says_neither_time_nor_version(drawn) -> None:
    again = paper_figures.draw(sample())["recall_by_size"]
    assert paper_figures.render(again, "svg") == drawn["recall_by_size"]
    png = paper_figures.render(again, "png")
    assert png == paper_figures.render(paper_figures.draw(sample())["recall_by_size"], "png")
    with Image.open(io.BytesIO(png)) as image:
        image.load()
        assert image.size == (1020, 690)
        assert set(image.info) == {"dpi"}
    assert not re.search(
        rb"matplotlib|20\d\d-\d\d", drawn["recall_by_size"].split(b"</metadata>")[0].split(b"<metadata>")[1]
    )


def test_settings_of_matplotlib_are_neither_read_nor_left_changed() -> None:
    import matplotlib as mpl

    svg = paper_figures.render(paper_figures.draw(bare())["class_frequency"], "svg")
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "text.usetex": True}):
        before = dict(mpl.rcParams)
        assert paper_figures.render(paper_figures.draw(bare())["class_frequency"], "svg") == svg
        assert dict(mpl.rcParams) == before


def test_figures_without_data_are_left_out() -> None:
    assert list(paper_figures.draw(bare())) == ["class_frequency"]


def test_a_page_and_a_paper_draw_the_same_numbers() -> None:
    chart = gains(sample())
    assert chart is not None
    axes = paper_figures.draw(sample())["gains"].axes[0]
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
    traces = figure(chart)["traces"]
    assert len(traces) == 3
    for trace in traces:
        assert (trace["x"], trace["y"]) in drawn
    assert axes.get_xlabel() == figure(chart)["layout"]["xaxis"]["title"]["text"]


def test_every_look_of_a_page_has_one_on_paper() -> None:
    assert {*styles.COLORS, "accent", "baseline", "ink", "muted", "paper", *GROUPS} <= set(paper_canvas.COLORS)
    assert {*styles.MARKS, *styles.SYMBOLS.values(), "line-ns"} <= set(paper_canvas.MARKERS)
    assert set(styles.DASHES) <= set(paper_canvas.DASHES)
    looks = [paper_canvas.COLORS[name] for name in ("accent", "baseline", *styles.COLORS)]
    assert len(set(looks)) == len(looks)


def test_heads_with_the_same_norms_are_one_curve() -> None:
    alike = tuple(head.model_copy(update={"norms": sample().closer[0].norms}) for head in sample().closer)
    legend = paper_figures.draw(sample(closer=alike))["weight_norms"].legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["los(delta=0.9,lr=0.1), stage1"]


def test_groups_are_panels_with_the_baseline_and_the_recommended_head_in_each() -> None:
    drawn = paper_figures.draw(sample())["reliability"]
    assert [axes.get_title(loc="left") for axes in drawn.axes if axes.axison] == ["all", "many", "few"]
    names = {text.get_text() for text in drawn.legends[0].get_texts()}
    assert names == {"los(delta=0.9,lr=0.1)", "stage1"}


def test_means_are_over_classes_of_like_size_and_never_divide_those_of_one_size() -> None:
    pairs = [(float(size), float(size == 3)) for size in [5] * 9 + [3, 2, 2, 9, 8, 7, 1]]
    sizes, means = binned(pairs)
    assert sizes == pytest.approx([72**0.5, (7 * 5**9) ** 0.1, 12 ** (1 / 3), 1.0])  # 9 8 | 7 and all 5 | 3 2 2 | 1
    assert means == pytest.approx([0.0, 0.0, 1 / 3, 0.0])


def test_without_matplotlib_the_command_that_installs_it_is_named(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"^figures need matplotlib: pip install 'poise\[figures\]'$"):
        write_formats(tmp_path, sample(), ["md", "svg"])
    assert list(tmp_path.iterdir()) == []


# --- the files of a report -------------------------------------------------------------------------------------------


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a" / "report.json"
    path.parent.mkdir()
    path.write_text(sample().to_json(), encoding="utf-8")
    assert read(path).to_json() == read(find_report(tmp_path)).to_json() == sample().to_json()
    assert find_report(path) == path


def test_all_formats_of_a_report_are_the_same_bytes_twice(tmp_path: Path) -> None:
    first, second = (
        {path.name: path.read_bytes() for path in write_formats(tmp_path, sample(), ["md", "latex", "csv"])}
        for _ in "ab"
    )
    assert first == second
    assert list(first) == ["report.md", "report.tex", "methods.csv", "classes.csv"]


def test_a_written_report_is_the_data_and_the_page(tmp_path: Path) -> None:
    paths = write_report(tmp_path, sample())
    assert [path.name for path in paths] == ["report.json", "report.html"]
    assert read(paths[0]).title == "Birds, 2026"
    assert "<!doctype html>" in paths[1].read_text(encoding="utf-8")


# --- tables for a terminal -------------------------------------------------------------------------------------------

TITLE = "猫" * 60 + "\x1b[31m[red]x[/red]\n🐈‍⬛.npz :smile:"
ALL_RIGHT = Scores(
    rows=10_000,
    accuracy=1.0,
    balanced_accuracy=1.0,
    many=1.0,
    medium=1.0,
    few=1.0,
    macro_f1=1.0,
    nll=0.0,
    ece=1.0,
    per_class=(1.0,),
)
LONG = "label_aware_smoothing(lr={}.0,shape='concave',smooth_head=0.3{},smooth_tail=0.0123,variant='paper')"
SETTINGS = [LONG.format(i, i) for i in range(3)]


def printed(table: object) -> list[str]:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(table, highlight=False, markup=False, emoji=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


COMPARED = {
    **BASE,
    "method": "猫(犬='" + "鳥" * 40 + "')",
    "family": "a",
    **dict.fromkeys(("balanced_accuracy", "many", "medium", "few"), 1.0),
    "gain": -0.1,
    "gain_low": -0.4,
    "gain_high": 0.2,
    "gain_classes_low": -0.5,
    "gain_classes_high": 0.3,
    "tied": True,
    "recommended": True,
    "edges": "x",
}


@pytest.mark.parametrize(
    ("table", "numbers"),
    [
        (score_tables.to_terminal([from_flat(COMPARED), from_flat({**COMPARED, "role": "recipe"})], title=TITLE), 5),
        (score_tables.trials([(name, ALL_RIGHT) for name in methods.told_apart(SETTINGS)], title=TITLE), 21),
        (score_tables.as_given(ALL_RIGHT, title=TITLE), 7),
        (
            score_tables.scores_by_part(
                {"test": ALL_RIGHT, "a part of a long name " * 3: ALL_RIGHT, "猫" * 40: ALL_RIGHT}, title=TITLE
            ),
            15,
        ),
    ],
)
def test_tables_fit_80_columns_cut_names_only_and_show_hostile_titles(table, numbers) -> None:
    shown = printed(table)
    assert max(map(cell_len, shown)) <= 80
    assert "␛[31m[red]x[/red]␊🐈‍⬛.npz :smile:".replace(" ", "") in "".join(shown).replace(" ", "")
    assert sum(len(re.findall(r"100\.0", line)) for line in shown) == numbers
    assert not any("\x1b" in line for line in shown)


def test_lists_fit_80_columns_and_cut_nothing() -> None:
    said = {"vit_large_patch14_reg4_dinov2.lvd142m": "描述" * 60, "b": "word " * 40}
    shown = printed(score_tables.listing(said))
    assert max(map(cell_len, shown)) <= 80
    assert "".join(shown).count("描") == 60
    assert " ".join(shown).count("word") == 40


def test_the_list_of_methods_and_each_explanation_fit_80_columns() -> None:
    for listing in (descriptions.describe_all(), *(descriptions.describe(name) for name in methods.available())):
        assert max(map(cell_len, printed(listing.text))) <= 80


def test_two_methods_of_a_cross_fit_stay_one_cell_of_the_summary() -> None:
    text = score_tables.to_markdown([from_flat({**BASE, "method": "tau_norm(tau=0.5) | tau_norm(tau=0.7)"})])
    assert r"| `tau_norm(tau=0.5) \| tau_norm(tau=0.7)` | 25.00 |" in text
