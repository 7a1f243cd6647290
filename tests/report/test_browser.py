"""The report's page in a real browser: nothing fails, nothing is requested, and every control does what it says."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright import sync_api as playwright

from poise.report.page.page import render
from poise.results.contents import Classes, Contents, Named, Protocol
from report_samples import HOSTILE, almost_nothing, everything, fitted

CHROMIUM = shutil.which("chromium")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and "CI" not in os.environ, reason="chromium is not installed: apt-get install chromium"
)


class Log(NamedTuple):
    """What a page did that it should not."""

    errors: list[str]
    requests: list[str]
    dialogs: list[str]


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    assert CHROMIUM is not None, "chromium is missing and CI is set"
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(everything()), encoding="utf-8")
    return path


def visit(browser: "playwright.Browser", path: Path, **options: object) -> tuple["playwright.Page", Log]:
    page = browser.new_page(**options)
    log = Log([], [], [])
    page.on(
        "console", lambda message: log.errors.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: log.errors.append(str(error)))
    page.on("request", lambda request: log.requests.append(request.url))
    page.on("dialog", lambda dialog: (log.dialogs.append(dialog.message), dialog.dismiss()))
    page.set_default_timeout(10_000)
    page.goto(path.as_uri())
    return page, log


@pytest.fixture(scope="module")
def desktop(browser: "playwright.Browser", report: Path) -> Iterator[tuple["playwright.Page", Log]]:
    page, log = visit(browser, report, viewport={"width": 1280, "height": 900}, color_scheme="light")
    yield page, log
    page.close()


def drawn(page: "playwright.Page", name: str) -> "playwright.Locator":
    """A figure, once it has been drawn."""
    page.locator(f'[data-figure="{name}"]').scroll_into_view_if_needed()
    figure = page.locator(f'[data-figure="{name}"].drawn')
    figure.wait_for()
    return figure


def names(figure: "playwright.Locator") -> list[str]:
    """The names of the traces drawn."""
    return figure.evaluate("box => box.data.map((trace) => trace.name)")


def shown_methods(page: "playwright.Page") -> list[str]:
    return page.eval_on_selector_all(
        "#method-table tbody tr:not([hidden]) th code", "all => all.map((code) => code.textContent)"
    )


def test_every_figure_is_drawn_without_an_error_or_a_request(desktop: tuple["playwright.Page", Log]) -> None:
    page, log = desktop
    figures = page.eval_on_selector_all("[data-figure]", "all => all.map((box) => box.dataset.figure)")
    assert len(figures) == 15
    for name in figures:
        assert drawn(page, name).locator(".cartesianlayer .trace").count() > 0, name
    assert log.errors == []
    assert log.dialogs == []
    assert page.locator("a:not([href^='#'])[href]").count() == 0
    assert page.locator(".modebar").first.locator(".modebar-btn").count() == 6
    assert [url for url in log.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_figures_far_below_are_not_drawn_before_they_are_near(browser: "playwright.Browser", report: Path) -> None:
    page, _ = visit(browser, report, viewport={"width": 1000, "height": 600})
    page.locator('[data-figure="frequency"].drawn').wait_for()
    assert page.locator('[data-figure="ratio"].drawn').count() == 0
    page.close()


def test_hover_shows_a_hostile_name_literally(desktop: tuple["playwright.Page", Log]) -> None:
    page, log = desktop
    for name, index, shown in (("frequency", 0, 0), ("frequency", 2, 2), ("changes", 0, 0), ("norms", 1, 1)):
        label = drawn(page, name).locator(".hoverlayer .hovertext")
        drawn(page, name).locator(".point").nth(index).hover(force=True)
        label.first.wait_for()
        assert HOSTILE[shown][:40] in label.first.text_content()
        assert label.locator("a").count() == 0
        page.mouse.move(5, 5)
    assert log.dialogs == []
    assert log.errors == []


@pytest.mark.parametrize("name", ["gains", "recall", "tradeoff", "reliability", "coverage", "advice", "paths"])
def test_hover_shows_a_label(desktop: tuple["playwright.Page", Log], name: str) -> None:
    page, log = desktop
    figure = drawn(page, name)
    box = figure.locator(".nsewdrag").bounding_box()
    x, y = figure.evaluate("""figure => {
      const { _fullLayout: { xaxis, yaxis }, data } = figure;
      const trace = data.findLast((each) => each.hovertemplate && each.x.length);
      return [xaxis.d2p(trace.x[0]), yaxis.d2p(trace.y[0])];
    }""")
    page.mouse.move(box["x"] + x, box["y"] + y)
    page.mouse.move(box["x"] + x + 1, box["y"] + y)
    figure.locator(".hoverlayer .hovertext").first.wait_for()
    page.mouse.move(5, 5)
    assert log.errors == []


def test_a_click_and_a_key_on_a_heading_sort_the_table(desktop: tuple["playwright.Page", Log]) -> None:
    page, _ = desktop
    heading = page.locator("#method-table thead th", has_text="many")
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert shown_methods(page)[0] == "stage1"
    heading.locator("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert shown_methods(page)[-1] == "stage1"
    few = page.locator("#method-table thead th", has_text="few")
    for _ in range(2):
        few.locator("button").click()
        assert shown_methods(page)[-1] == "rebalance(power=1.0)"  # nothing was measured: last in either direction
    page.locator("#method-table thead th", has_text="balanced").locator("button").click()
    assert page.locator("#method-table [aria-sort]").count() == 1


def test_the_filter_and_the_recipes_change_the_rows_and_say_how_many(desktop: tuple["playwright.Page", Log]) -> None:
    page, _ = desktop
    count = page.locator("#count")
    assert count.text_content() == "4 of 5 rows"
    page.locator("#filter").fill("TIED")
    assert shown_methods(page) == ["logit_adjustment(tau=1.0)", "crt"]
    assert count.text_content() == "2 of 5 rows"
    page.locator("#filter").fill("")
    page.locator("#recipes").check()
    assert count.text_content() == "5 of 5 rows"
    page.locator("#recipes").uncheck()
    assert not page.locator("th.more").first.is_visible()
    page.locator("#more").check()
    assert page.locator("th.more").first.is_visible()
    page.locator("#more").uncheck()


def test_checked_methods_are_drawn_over_each_other(desktop: tuple["playwright.Page", Log]) -> None:
    page, _ = desktop
    figure = drawn(page, "recall")
    assert set(names(figure)) == {"stage1", "logit_adjustment(tau=1.0)"}
    page.locator("details.chooser summary").click()
    page.locator('[data-control="method"] label', has_text="rebalance").locator("input").check()
    assert set(names(figure)) == {"stage1", "logit_adjustment(tau=1.0)", "rebalance(power=1.0)"}


def test_selects_change_methods_readings_and_paths(desktop: tuple["playwright.Page", Log]) -> None:
    page, _ = desktop
    magnitude = drawn(page, "magnitude")
    assert names(magnitude) == ["logit_adjustment(tau=1.0)", "stage1"]
    page.locator('[data-control="a"]').select_option("2")
    assert names(magnitude) == ["crt", "stage1"]
    before = magnitude.evaluate("box => [...box.data[0].y]")
    page.locator('[data-control="reading"]').select_option("sample")
    assert magnitude.evaluate("box => [...box.data[0].y]") == [value / 2 for value in before]
    page.locator('[data-control="b"]').select_option("2")
    assert names(magnitude) == ["crt"]
    paths = drawn(page, "paths")
    page.locator('[data-control="path"]').select_option("1")
    assert paths.evaluate("box => box.layout.xaxis.title.text") == "epoch"
    assert paths.locator(".shapelayer path").count() == 0
    reliability = drawn(page, "reliability")
    page.locator('[data-control="head"]').select_option("0")
    assert reliability.evaluate("box => [...box.data[0].y]") == [25, 80]


def test_the_theme_button_changes_page_and_figures_and_is_remembered(
    browser: "playwright.Browser", report: Path
) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page = context.new_page()
    page.goto(report.as_uri())
    figure = drawn(page, "frequency")
    light = figure.evaluate("box => [getComputedStyle(document.body).backgroundColor, box.layout.font.color]")
    page.locator("#theme").click()
    assert page.locator("#theme").get_attribute("aria-pressed") == "true"
    dark = figure.evaluate("box => [getComputedStyle(document.body).backgroundColor, box.layout.font.color]")
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_in_one_direction_only(browser: "playwright.Browser", report: Path, scheme: str) -> None:
    page, log = visit(
        browser, report, viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True, is_mobile=True
    )
    for name in ("gains", "changes", "tradeoff", "norms"):
        drawn(page, name)
    page.eval_on_selector_all("details", "all => all.forEach((each) => { each.open = true; })")
    wide = page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth]")
    assert max(wide) <= 390
    assert page.locator('[data-figure="gains"]').evaluate("box => box.querySelector('.main-svg').clientWidth") <= 390
    assert log.errors == []
    page.close()


def test_text_and_tables_are_complete_without_scripts(browser: "playwright.Browser", report: Path) -> None:
    page, log = visit(browser, report, java_script_enabled=False, viewport={"width": 1000, "height": 800})
    assert page.locator(".headline").is_visible()
    assert page.locator("noscript p").is_visible()
    assert page.locator("#method-table tbody tr").count() == 5
    assert page.locator("#method-table tbody tr").last.is_visible()
    assert not page.locator("#filter").is_visible()
    assert log.errors == []
    page.close()


def test_tab_goes_from_the_skip_link_to_the_table(browser: "playwright.Browser", report: Path) -> None:
    page, _ = visit(browser, report, viewport={"width": 1280, "height": 900})
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["x"] >= 0
    found = []
    for _ in range(40):
        page.keyboard.press("Tab")
        found.append(page.evaluate("document.activeElement.id || document.activeElement.closest('table')?.id"))
    wanted = ["theme", "filter", "recipes", "more", "method-table"]
    assert [name for name in dict.fromkeys(found) if name in wanted] == wanted
    page.close()


def test_the_command_can_be_copied(desktop: tuple["playwright.Page", Log]) -> None:
    page, log = desktop
    page.locator("#copy").click()
    page.locator("#copied", has_text="op").wait_for()  # "Copied", or how to copy what is selected
    assert log.errors == []


def test_a_report_of_next_to_nothing_opens(browser: "playwright.Browser", tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(render(almost_nothing()), encoding="utf-8")
    page, log = visit(browser, path, viewport={"width": 1280, "height": 900})
    drawn(page, "frequency")
    assert log.errors == []
    assert shown_methods(page) == ["stage1"]
    page.close()


def test_a_report_of_one_fitted_method_shows_no_choices_between_methods(
    browser: "playwright.Browser", tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text(render(fitted()), encoding="utf-8")
    page, log = visit(browser, path, viewport={"width": 1280, "height": 900})
    for name in ("magnitude", "norms", "recall", "reliability"):
        assert drawn(page, name).locator(".legend .traces").count() >= 1
    assert names(drawn(page, "magnitude")) == ["logit_adjustment(tau=1.0)"]
    assert not page.locator('[data-control="a"], [data-control="b"], [data-control="close"]').first.is_visible()
    assert not page.locator("#filter").is_visible()
    assert log.errors == []
    page.close()


@pytest.mark.parametrize("width", [1280, 390, 320])
def test_values_of_tiles_stay_on_one_line(browser: "playwright.Browser", tmp_path: Path, width: int) -> None:
    verdict = everything().verdict.model_copy(update={"tied": 23, "contenders": 23, "gap_closed": 1.0})
    path = tmp_path / "report.html"
    path.write_text(render(everything().model_copy(update={"verdict": verdict})), encoding="utf-8")
    page, _ = visit(browser, path, viewport={"width": width, "height": 900})
    found = page.eval_on_selector_all(
        ".tile .value",
        """all => all.map((value) => [
          value.scrollWidth <= value.clientWidth,
          value.clientHeight < 1.6 * parseFloat(getComputedStyle(value).fontSize),
        ])""",
    )
    assert found == [[True, True]] * 5
    page.close()


def phone(browser: "playwright.Browser", tmp_path: Path, contents: Contents) -> "playwright.Page":
    """A report on a phone, with everything that can be unfolded unfolded."""
    path = tmp_path / "report.html"
    path.write_text(render(contents), encoding="utf-8")
    page, _ = visit(browser, path, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.eval_on_selector_all("details", "all => all.forEach((each) => { each.open = true; })")
    return page


def plainly_named(count: int) -> Contents:
    """A report of so many classes with short names, the last without training rows."""
    counts = (*(10 * (count - k) for k in range(count - 1)), 0)
    classes = Classes(
        names=tuple(f"class {k}" for k in range(count)),
        counts=counts,
        scored=(20,) * count,
        groups=tuple("many" if n > 100 else "medium" if n >= 20 else "few" for n in counts),
        edges=(100, 20),
    )
    head = everything().closer[0]
    shares = tuple(0.9 - 0.05 * k for k in range(count))
    rows = tuple(row.model_copy(update={"per_class": shares}) for row in everything().rows[:2])
    rows = tuple(row.model_copy(update={"magnitude": {"unit": shares}, "spread": {}}) for row in rows)
    closer = head.model_copy(update={"norms": shares, "pull": (), "push": (), "confusions": ()})
    update = {"classes": classes, "rows": rows, "closer": (closer,), "changes": (), "advice": None, "thumbnails": {}}
    return everything().model_copy(update=update)


def test_on_a_phone_nothing_covers_a_legend(browser: "playwright.Browser", tmp_path: Path) -> None:
    page = phone(browser, tmp_path, everything())
    for name in ("frequency", "gains", "recall", "changes", "tradeoff", "reliability", "kept"):
        figure = drawn(page, name)
        assert figure.locator(".modebar-btn").count() == 0, name
        over = figure.evaluate("""figure => {
          const legend = figure.querySelector(".legend")?.getBoundingClientRect();
          const area = figure.querySelector(".nsewdrag").getBoundingClientRect();
          return legend ? legend.bottom - area.top : 0;
        }""")
        assert over <= 1, name
    page.close()


def test_every_table_that_is_too_wide_says_that_it_scrolls(browser: "playwright.Browser", tmp_path: Path) -> None:
    page = phone(browser, tmp_path, everything())
    page.wait_for_timeout(300)
    found = page.eval_on_selector_all(
        ".scroll",
        """all => all.map((box) => {
          const hint = box.previousElementSibling;
          return [box.scrollWidth > box.clientWidth, hint.className.includes("sideways") && !hint.hidden];
        })""",
    )
    assert len(found) > 10
    assert any(wide for wide, _ in found)
    assert all(wide == said for wide, said in found)
    page.set_viewport_size({"width": 1280, "height": 900})
    page.wait_for_timeout(300)
    table = page.locator("#method-table").locator("xpath=..")
    assert table.evaluate("box => box.scrollWidth <= box.clientWidth && box.previousElementSibling.hidden")
    page.close()


def test_no_name_of_a_method_breaks_inside_a_word(browser: "playwright.Browser", tmp_path: Path) -> None:
    long = "label_aware_smoothing(lr_factor=0.2,weight_decay=0.0002,schedule='cosine_epoch_end')"
    recommended = everything().rows[1].model_copy(update={"method": long, "own": long})
    verdict = everything().verdict.model_copy(update={"recommended": long})
    facts = Protocol(facts=(Named(name="average of", text=f"42 % {long}, 7 % {long}"),), remarks=(long,), command=None)
    rows = (everything().rows[0], recommended, *everything().rows[2:])
    page = phone(
        browser, tmp_path, everything().model_copy(update={"verdict": verdict, "rows": rows, "protocol": facts})
    )
    torn = page.evaluate("""() => {
      const torn = [];
      for (const box of document.querySelectorAll(".headline code, #method-table th code, dd bdi, li bdi")) {
        const walker = document.createTreeWalker(box, NodeFilter.SHOW_TEXT);
        for (let node = walker.nextNode(); node; node = walker.nextNode()) {
          for (const word of node.data.matchAll(/[A-Za-z0-9]+/g)) {
            const range = document.createRange();
            range.setStart(node, word.index);
            range.setEnd(node, word.index + word[0].length);
            if (range.getClientRects().length > 1) torn.push(word[0]);
          }
        }
      }
      return torn;
    }""")
    assert torn == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


def test_axes_of_classes_are_alike_at_ten_and_at_thirteen_and_an_empty_class_has_no_point(
    browser: "playwright.Browser", tmp_path: Path
) -> None:
    for count in (10, 13):
        path = tmp_path / f"{count}.html"
        path.write_text(render(plainly_named(count)), encoding="utf-8")
        page, log = visit(browser, path, viewport={"width": 1280, "height": 900})
        for name in ("frequency", "magnitude", "norms"):
            figure = drawn(page, name)
            axis = figure.evaluate("box => [box.layout.xaxis.range, box.layout.xaxis.ticktext]")
            assert axis[0] == [0.5, count + 0.5]
            assert axis[1][0] == "class 0"
            assert 6 <= len(axis[1]) <= 12
        points = drawn(page, "frequency").evaluate("box => box.data.flatMap((trace) => [...trace.x])")
        assert sorted(points) == [*range(1, count)]  # but not the last, which has no rows
        dots = drawn(page, "recall").evaluate("box => [...box.data[0].x]")
        assert dots[-1] is None
        assert drawn(page, "recall").locator(".trace").first.locator(".point").count() == count - 1
        assert log.errors == []
        page.close()


def test_every_card_of_a_class_says_of_how_many_rows(browser: "playwright.Browser", tmp_path: Path) -> None:
    page = phone(browser, tmp_path, everything())
    cards = page.locator(".pictures li").all_text_contents()
    assert len(cards) == 2
    assert all("of 20 rows" in card for card in cards)
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_headline_of_a_folder_and_of_an_evaluation_fit_a_phone(
    browser: "playwright.Browser", tmp_path: Path, scheme: str
) -> None:
    kept = everything().verdict.model_copy(update={"decision": "keep", "held": "logit_adjustment(tau=1.0)"})
    done = fitted().verdict.model_copy(update={"decision": "evaluated"})
    for contents, words in (
        (everything().model_copy(update={"verdict": kept}), "In this folder: logit_adjustment(tau=1.0)"),
        (fitted().model_copy(update={"verdict": done}), "Evaluated: logit_adjustment(tau=1.0)"),
    ):
        page = phone(browser, tmp_path, contents)
        page.emulate_media(color_scheme=scheme)
        assert page.locator(".headline").count() == 1
        assert page.locator(".headline").text_content().startswith(words)
        assert page.locator(".headline").evaluate("line => line.scrollWidth <= line.clientWidth")
        page.close()
