"""Figures for papers, drawn with matplotlib (extra `figures`): one column wide, without titles, as SVG or PNG.

Captions belong to the paper. Colours are those of Okabe and Ito, which people with any colour vision tell apart, and
they never speak alone: markers and line styles differ too. The same report gives the same bytes (with one version of
matplotlib); a matplotlibrc changes nothing, and no state of pyplot is read or made.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from poise.machine.libraries import needed
from poise.report.charts.classes import shared
from poise.report.charts.paper_canvas import drawn
from poise.report.charts.paper_panels import DRAWINGS
from poise.results.contents import Contents

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # names may hold dollars
    "font.size": 7,
    "axes.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelpad": 2,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.fontsize": 6,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "lines.linewidth": 1,
    "lines.markersize": 3,
    "svg.hashsalt": "poise",
}

# Asked in this order for characters that the font of matplotlib does not have, where they are installed.
FALLBACKS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans JP",
    "Noto Sans SC",
    "Source Han Sans",
    "WenQuanYi Zen Hei",
    "Hiragino Sans",
    "PingFang SC",
    "Yu Gothic",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Apple SD Gothic Neo",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Arial Unicode MS",
)


def draw(contents: Contents) -> "dict[str, Figure]":
    """The figures by name, such as "gains"; those for which the report holds nothing are left out.

    Raises: MissingExtraError without matplotlib.
    """
    lists = shared(contents)
    with _style():
        found = {name: panels for name, drawing in DRAWINGS.items() if (panels := drawing(contents))}
        return {name: drawn(panels, lists) for name, panels in found.items()}


def render(figure: "Figure", kind: Literal["svg", "png"]) -> bytes:
    """The file of a figure: SVG with text as outlines, which looks the same everywhere, or PNG of 300 dots per inch."""
    out = io.BytesIO()
    # What would tell when and by which version a file was made is left out.
    metadata: dict[str, Any] = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with _style():
        figure.savefig(out, format=kind, dpi=300, metadata=metadata)
    return out.getvalue()


@contextmanager
def _style() -> Iterator[None]:
    """The defaults of matplotlib with ours. Raises: MissingExtraError."""
    mpl = needed("matplotlib", "figures", "figures need")
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    family = ["DejaVu Sans", *(name for name in FALLBACKS if name in installed)]
    kept = {key: value for key, value in mpl.rcParamsDefault.items() if not key.startswith("backend")}
    with mpl.rc_context({**kept, **STYLE, "font.family": family}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # drawn as a box
        yield
