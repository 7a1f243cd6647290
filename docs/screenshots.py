"""Pictures of a report for the documentation: `python docs/screenshots.py [REPORT.html]`, of the demo's unless named.

Needs chromium and the package playwright. Writes docs/images/report-*.png with few colours, which keeps them small.
"""

import io
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

DEMO = Path("runs/demo/cifar100lt_r32_autoaugment/report.html")
IMAGES = Path(__file__).parent / "images"
COLORS = 128


class View(NamedTuple):
    """A picture: its name, the window, light or dark, and the section that it begins with, if not at the top."""

    name: str
    width: int
    height: int
    scheme: str = "light"
    section: str = ""


VIEWS = (
    View("report-desktop", 1280, 1240),
    View("report-dark", 1280, 700, "dark", "recall"),
    View("report-phone", 390, 1100),
    View("report-tradeoff", 1280, 960, "light", "tradeoff"),
)


def photograph(browser: Browser, report: Path, view: View) -> bytes:
    """A PNG of the report once everything in the window is drawn."""
    page = browser.new_page(
        viewport={"width": view.width, "height": view.height},
        color_scheme="dark" if view.scheme == "dark" else "light",
        reduced_motion="reduce",
        device_scale_factor=2 if view.width < 600 else 1,
    )
    page.goto(report.resolve().as_uri())
    if view.section:
        page.locator(f"#{view.section}").evaluate("section => section.scrollIntoView({ block: 'start' })")
    page.locator(".plot.drawn").first.wait_for()
    page.wait_for_timeout(1500)
    picture = page.screenshot()
    page.close()
    return picture


def small(picture: bytes) -> bytes:
    """The picture in few colours."""
    out = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(
        out, "PNG", optimize=True
    )
    return out.getvalue()


def main(report: Path) -> None:
    """Write every picture."""
    chromium = shutil.which("chromium")
    if chromium is None or not report.exists():
        missing = (
            "chromium is not installed" if chromium is None else f"{report} does not exist: run `poise demo` first"
        )
        sys.exit(missing)
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for view in VIEWS:
            (IMAGES / f"{view.name}.png").write_bytes(small(photograph(browser, report, view)))
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DEMO)
