"""How the documentation is built: `make docs`, or `sphinx-build -W -b html docs build/docs`. Needs no network."""

import re
import sys
from pathlib import Path
from typing import Any

from sphinx.util import logging

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import from_code  # noqa: E402, it lies beside this file

import poise  # noqa: E402

from_code.write(HERE)

project = "Poise"
author = "The Poise developers"
copyright = "the Poise developers, MIT licence"  # noqa: A001, Sphinx reads this name
version = release = poise.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "sphinx_gallery.gen_gallery",
]
# The gallery leaves notebooks and scripts beside its pages, which myst_nb would take for pages of its own.
smartquotes = False  # "--unseen" is an option
exclude_patterns = [
    "images/*.md",
    "generated/*",
    "gallery/*.ipynb",
    "gallery/*.py",
    "gallery/*.json",
    "gallery/*.md5",
    "gallery/*.zip",
]

# --- Markdown and notebooks ---
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 4
myst_fence_as_directive: list[str] = []
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE.parent / "build" / "notebooks")
nb_execution_timeout = 120
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"  # a kernel puts paths of its own into warnings
suppress_warnings = ["config.cache", "misc.highlighting_failure"]

# --- reference ---
default_role = "code"
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
toc_object_entries_show_parents = "hide"

# --- gallery ---
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "ignore_pattern": r"__init__\.py",
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 3600,
    "remove_config_comments": True,
    "within_subsection_order": "from_code.GalleryOrder",
    "write_computation_times": False,
    "plot_gallery": "True",
    "abort_on_example_error": True,
    "image_scrapers": ("matplotlib",),
}

# --- look ---
html_theme = "furo"
html_title = "Poise"
html_static_path = ["_static"]
html_css_files = ["poise.css"]
html_logo = "_static/mark.svg"
html_favicon = "_static/mark.svg"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "sidebar_hide_name": False,
    "navigation_with_keys": True,
    "light_css_variables": {"color-brand-primary": "#5d33a3", "color-brand-content": "#6d3fb5"},
    "dark_css_variables": {"color-brand-primary": "#b99bf0", "color-brand-content": "#c3aaf2"},
}
pygments_style = "friendly"
pygments_dark_style = "github-dark"


CODE = re.compile(r"`+([^`]+)`+")


def as_restructured(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are prose with `code` in single backticks: mark the code, and let no other character be markup."""
    paragraphs = re.split(r"(\n[ ]*\n)", "\n".join(lines))
    lines[:] = "".join(part if part.lstrip().startswith(">>>") else _escaped(part) for part in paragraphs).splitlines()


def _escaped(text: str) -> str:
    parts = [re.sub(r"([*_|\\])", r"\\\1", part) if i % 2 == 0 else part for i, part in enumerate(CODE.split(text))]
    # An empty escape ends the code where a letter follows, as in `Rung`s.
    marked = "".join(f"``{part}``\\ " if i % 2 else part for i, part in enumerate(parts))
    return re.sub(r"^( *)Raises: ", r"\1*Raises:* ", marked)


def leave_out(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool:
    """The fields of named tuples, which the docstring of the tuple explains."""
    return skip or (getattr(obj, "__doc__", None) or "").startswith("Alias for field number")


LINK = re.compile(r"\[([^\]]+)\]\((\.\./[^)\s]+)\)")


def as_page(app: Any, page: str, source: list[str]) -> None:
    """Pages are read in the repository too: what they link to outside of this folder is named, and not linked."""
    folder = (HERE / page).parent

    def named(link: re.Match[str]) -> str:
        target = (folder / link[2]).resolve()
        return link[0] if target.is_relative_to(HERE) else f"{link[1]} (`{target.relative_to(HERE.parent)}`)"

    source[0] = LINK.sub(named, source[0])
    if page == "adr/README":  # a list that has no table of contents of its own
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n0*\n```\n"


def unresolved(app: Any, env: Any, node: Any, shown: Any) -> None:
    """Types that Sphinx does not know stay words; the table of public names must lead somewhere."""
    if node.get("refdoc") == "reference/index":
        logging.getLogger(__name__).warning("the reference has no page for %s", node["reftarget"], location=node)


def setup(app: Any) -> None:
    """Docstrings are rewritten before napoleon sees them."""
    app.connect("autodoc-process-docstring", as_restructured, priority=400)
    app.connect("autodoc-skip-member", leave_out)
    app.connect("missing-reference", unresolved)
    app.connect("source-read", as_page)
