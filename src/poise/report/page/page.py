"""The report as one HTML file that needs nothing else: text and tables by a template, charts by a bundled plotly.

The page opens without a network and cannot use one: its content security policy allows exactly the scripts and the
style sheet written into it, by their hashes. The plot library is in the file as compressed text; its hash is that of
the unpacked script, which the page inserts as it is. Without JavaScript, text and tables are complete.
"""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from poise.report.charts.chart import MINUS, Chart, legible, percent, short, signed
from poise.report.charts.classes import DRAWN, READINGS, shared
from poise.report.charts.default_rows import best_first
from poise.report.charts.gains import at_equal_many, narrower
from poise.report.charts.plotly_charts import figure, literal
from poise.report.charts.single_methods import charts
from poise.report.charts.styles import best_word
from poise.report.page import view
from poise.report.page.headline import headline
from poise.results.contents import Contents

SCRIPTS = ("unpack.js", "figures.js", "methods.js", "main.js")  # one after another, as one module
NO_STYLE = ""  # plotly makes an empty style element and adds its rules to it, which policies by hash allow


def render(contents: Contents) -> str:
    """The page; the same contents give the same text."""
    figures = charts(contents)
    first, script, style = source("theme.js"), "\n".join(map(source, SCRIPTS)), source("report.css")
    template = environment().get_template("report.html")
    page = template.render(
        contents=contents,
        policy=policy((first, script, library()), (style, NO_STYLE)),
        first_script=first,
        script=script,
        style=style,
        library=base64.b64encode(packed_library()).decode(),
        data=pack(figure_data(contents, figures)),
        figures=figures,
        headline=headline(contents),
        tiles=view.tiles(contents),
        methods=[contents.rows[i] for i in best_first(contents)],
        best_word=best_word(contents),
        said=view.spoken(contents),
        readings=READINGS,
        most_drawn=DRAWN,
        has_intervals=any(score and score.low is not None for row in contents.rows for score in row.scores.values()),
        choices=view.choices(contents),
        pair_remark=view.pair_remark(contents),
        narrower=narrower(contents),
        equal_many=at_equal_many(contents),
        confusions=view.confusions(contents),
        pictures=view.pictures(contents),
        sections=view.sections(contents, figures),
    )
    return page.lstrip() + "\n"


# Files of the page.


@cache
def packed_library() -> bytes:
    """The plot library, compressed."""
    return page_file("plotly-cartesian.min.js.gz")


@cache
def library() -> str:
    """The plot library as the browser will run it."""
    return gzip.decompress(packed_library()).decode()


def page_file(name: str) -> bytes:
    """A file that comes with this package."""
    return files("poise.report").joinpath("page", name).read_bytes()


def source(name: str) -> str:
    """The text of a file that comes with this package."""
    return page_file(name).decode()


@cache
def environment() -> Environment:
    """The templates: everything that is filled in is escaped, and a name that does not exist is an error."""
    found = Environment(
        loader=FunctionLoader(source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (legible, short, percent, signed, minus, breakable, plain, sortable)
    found.filters.update({each.__name__: each for each in filters})
    return found


def breakable(text: str) -> Markup:
    """A name that may be broken where its parts meet."""
    return Markup(re.sub(r"([(,+_=])", r"\1<wbr>", str(escape(text))))


def plain(value: float | None) -> str:
    """A number with three digits after the point."""
    return percent(None) if value is None else f"{value:.3f}"


def sortable(value: float | None) -> str:
    """A number for scripts to sort by."""
    return "" if value is None else f"{value:.6g}"


def minus(text: str) -> str:
    """Text with hyphens before digits as minus signs."""
    return re.sub(r"(?<![\w)])-(?=\d)", MINUS, text)


def policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """The content security policy under which only these scripts and style sheets run, and nothing is requested."""
    rules = {
        "default-src": "'none'",
        "script-src": " ".join(map(digest, scripts)),
        "style-src": " ".join(map(digest, styles)),
        "img-src": "data: blob:",
        "connect-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def digest(text: str) -> str:
    """The hash of an inline script or style sheet."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def figure_data(contents: Contents, figures: dict[str, Chart]) -> dict[str, Any]:
    """What the scripts draw."""
    lists = shared(contents)
    drawn = {name: figure(chart) for name, chart in figures.items()}
    return {"shared": lists | {"name": [literal(name) for name in lists["name"]]}, "figures": drawn}


def pack(data: Any) -> str:
    """JSON, compressed, as text of letters and digits that no HTML parser can misread."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()
