"""The documentation says what the code does: blocks run, links lead somewhere, and nothing public is left out."""

import contextlib
import importlib.util
import inspect
import io
import json
import re
import runpy
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib as mpl
import pytest

import poise
from page_data import PREPARATIONS
from pages import Block, Page, blocks, check_words, shown_in
from poise import methods
from poise.cli import VERBS
from poise.methods import descriptions

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
MADE = {"adr", "gallery", "generated", "methods"}  # folders without blocks of their own
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if not MADE & set(page.relative_to(DOCS).parts)]
LINKED = [*sorted(ROOT.glob("*.md")), *PAGES, *sorted((DOCS / "adr").glob("*.md"))]
# The page that is read outside of these pages too names its preparations here, not in comments.
README = ("birds", "photos", "logits", "trained_model_numbered")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh working directory; modules written into it can be imported; tables are 80 columns wide."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["poise"])
    mpl.use("agg")
    return tmp_path


@pytest.fixture(scope="module")
def from_code() -> ModuleType:
    """docs/from_code.py, which makes pages of the code."""
    spec = importlib.util.spec_from_file_location("from_code", DOCS / "from_code.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- what is shown runs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=name_of)
def test_the_code_blocks_of_a_page_run(page: Path, folder: Path) -> None:
    for preparation in README if page.name == "README.md" else ():
        PREPARATIONS[preparation](folder)
    runner = Page(name_of(page))
    for block in blocks(page):
        runner.run(block)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_an_example_runs_and_says_something(path: Path, folder: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        runpy.run_path(str(path), run_name="__main__")
    assert out.getvalue()
    mpl.pyplot.close("all")


def test_the_notebook_is_kept_without_outputs_and_runs(folder: Path) -> None:
    cells = json.loads((DOCS / "notebook.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 3
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    names: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", poise.PoiseWarning)  # it says that there was no stage-1 head
        for cell in code:
            exec("".join(cell["source"]), names)
    mpl.pyplot.close("all")


def block(language: str, text: str, **said: str) -> Block:
    return Block(language, text, 1, {key.replace("_", " "): value for key, value in said.items()})


def test_a_block_that_fails_is_found(folder: Path) -> None:
    page = Page("page.md")
    page.run(block("python", "x = 1"))
    with pytest.raises(AssertionError, match="Expected"):
        page.run(block("python", ">>> x\n2"))
    with pytest.raises(AssertionError, match=r"page\.md, line 1: poise check nothing: exit code 2 instead of 0"):
        page.run(block("console", "$ poise check nothing"))
    with pytest.raises(AssertionError, match="neither run nor known"):
        page.run(block("console", "rm -r photos"))
    with pytest.raises(AssertionError, match="has no option --lable"):
        page.run(block("console", "poise fit birds.csv --lable species", not_run="an example"))
    with pytest.raises(AssertionError, match="there is no verb 'tain'"):
        check_words(["torchrun", "-m", "poise", "tain"], "page.md")
    with pytest.raises(ValueError, match="Expecting property name"):
        page.run(block("json", "{"))


def test_shown_output_must_have_been_printed(folder: Path) -> None:
    page = Page("page.md")
    page.run(block("python", "print('method: crt')\nprint('classes:  3')"))
    page.run(block("text", "method: ...\nclasses: 3", prints=""))
    with pytest.raises(AssertionError, match="but printed was"):
        page.run(block("text", "classes: 3\nmethod: crt", prints=""))
    assert shown_in("a ... c", "a b\nc")


# --- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_the_links_of_a_page_lead_somewhere(page: Path, from_code: ModuleType) -> None:
    text = re.sub(r"^(`{3,}).*?^\1`*$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    made = {DOCS / "methods" / f"{name}.md" for name in ("index", *from_code.method_names())}
    targets = re.findall(r"\]\((?!https?:|mailto:)([^)#\s]+)", text)
    targets += re.findall(r'<(?:a href|img src)="(?!https?:)([^"#]+)', text)
    for target in targets:
        path = (page.parent / target).resolve()
        written = path.with_suffix(".md") if path.suffix == ".html" else path
        assert path.exists() or written.exists() or written in made, f"{name_of(page)} links to {target}"


def test_every_page_is_in_a_table_of_contents() -> None:
    listed = set()
    for index in (DOCS / "index.md", DOCS / "reference" / "index.md"):
        for entries in re.findall(r"^```\{toctree\}\n(.*?)^```", index.read_text(), flags=re.MULTILINE | re.DOTALL):
            listed |= {(index.parent / line).resolve() for line in entries.splitlines() if line and line[0] != ":"}
    pages = {page.with_suffix("") for page in PAGES} - {DOCS / "index"}
    assert not {name_of(page) for page in pages - listed}


# --- nothing is left out ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", methods.METHODS)
def test_the_page_of_a_method_has_formula_use_and_where_paper_and_code_differ(name: str, from_code: ModuleType) -> None:
    factory = from_code.factory_of(name)
    said = descriptions.described(factory)
    page = from_code.method_page(name)
    assert said["formula"].replace("`", "")[:30] in page
    assert "## When to use it" in page
    assert len(said["use"].split()) >= 6
    doc = inspect.getdoc(factory) or ""
    if re.search(r"\b(the paper|released?|the authors)\b", doc.split("\n")[0] + said["notes"]) or "differs" in said:
        assert "## Where paper and code differ" in page or "Released values" in said["notes"]
    for parameter in methods.parameters(name):
        assert f"| `{parameter}` |" in page


def test_pages_made_of_the_code_name_every_method_verb_and_column(from_code: ModuleType, tmp_path: Path) -> None:
    from_code.write(tmp_path)
    index, verbs = (tmp_path / "methods" / "index.md").read_text(), (tmp_path / "generated" / "verbs.md").read_text()
    assert all(f"[`{name}`]({name}.md)" in index for name in methods.METHODS)
    assert re.findall(r"^## poise (\w+)$", verbs, flags=re.MULTILINE) == [verb.__name__ for verb in VERBS]
    assert "| `--unseen`" in verbs or "`--unseen`" in verbs
    report = (tmp_path / "generated" / "report.md").read_text()
    assert "`balanced_accuracy`" in report
    assert "#### Verdict" in report
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.md")}
    from_code.write(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.md")} == before


def test_every_public_name_is_in_the_reference() -> None:
    text = "".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    documented = set(re.findall(r"automodule:: ([\w.]+)", text))
    homes = {f"poise.{home or name}" for name, home in poise._HOMES.items()}
    assert homes <= documented


def test_exit_codes_are_documented() -> None:
    text = (DOCS / "exit_codes.md").read_text()
    assert re.findall(r"^\| (\d+) \|", text, flags=re.MULTILINE) == ["0", "2", "70", "130", "143"]
