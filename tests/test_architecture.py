"""The shape of the package, held as data and compared with the source."""

import ast
import importlib.util
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

import poise

ROOT = Path(poise.__file__).parent
MODULES = sorted(path.relative_to(ROOT).with_suffix("").as_posix() for path in ROOT.rglob("*.py"))
PURE = ("constraints", "folds", "metrics", "priors", "profiles", "sampling", "statistics")

# What the modules of a wing may import of Poise beside their own wing. `pure` stands for the public modules above,
# which are strangers to each other; `face` is the `__init__.py` of the package.
MAY_IMPORT: dict[str, str] = {
    "errors": "",
    "machine": "errors",
    "values": "errors machine",
    "results": "errors machine values",
    "pure": "errors results values",
    "losses": "errors results values",
    "heads": "errors losses machine pure results values",
    "methods": "errors heads losses machine pure results values",
    "decisions": "errors machine values",
    "data": "errors folds machine profiles values",
    "representation": "data errors heads losses machine sampling values",
    "selection": "errors heads losses machine methods pure results values",
    "deployment": "data decisions errors heads losses machine methods pure results selection values",
    "export": "data decisions deployment errors machine representation results values",
    "diagnosis": "decisions deployment errors machine methods metrics report results selection statistics values",
    "report": "errors machine results values",
    "commands": "data decisions deployment diagnosis errors export heads losses machine methods pure report"
    " representation results selection values",
    "cli": "commands data decisions deployment diagnosis errors export face heads losses machine methods pure report"
    " representation results selection values",
    "testing": "errors heads losses machine methods pure results values",
    "__main__": "cli",
    "face": "data deployment diagnosis errors heads losses machine methods pure results selection testing values",
}
WITHOUT_TORCH = ("cli", "data/tables", "report", "results")


def wing(module: str) -> str:
    """The row of a module: that of its folder, or its own."""
    return "face" if module == "__init__" else module.split("/")[0]


def row(name: str) -> set[str]:
    """What a wing may import, in names of folders and modules."""
    words = set(MAY_IMPORT["pure" if name in PURE else name].split())
    return words | {name} - set(PURE) | (set(PURE) if "pure" in words else set())


def imported(module: str) -> set[str]:
    """First names below `poise` that a module imports, wherever in its body."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "poise":
            below = node.module.split(".")[1:]
            names = {below[0]} if below else {alias.name for alias in node.names}
            found |= {"face" if name.startswith("__") else name for name in names}
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("poise.")}
    return found


@pytest.fixture(scope="module")
def house() -> ModuleType:
    """The script that counts."""
    spec = importlib.util.spec_from_file_location("house", Path(__file__).parent.parent / "benchmarks" / "house.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_wing_has_a_row_in_the_table() -> None:
    assert {wing(module) for module in MODULES} - set(PURE) | {"pure"} == set(MAY_IMPORT)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_wing_allows(module: str) -> None:
    assert imported(module) <= row(wing(module))


@pytest.mark.parametrize("within_functions", [False, True])
def test_no_imports_go_in_circles(house: ModuleType, within_functions: bool) -> None:
    assert house.circles(house.graph(house.modules(ROOT), within_functions)) == []


def test_the_page_on_architecture_shows_the_rules_and_has_a_paragraph_for_every_wing(house: ModuleType) -> None:
    page = (ROOT.parent.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert "\n".join(house.picture(MAY_IMPORT)) in page
    for name in set(MAY_IMPORT) - {"pure", "face", "testing", "__main__"}:
        assert f"**`{name}`**" in page, name
    assert all(f"`{name}`" in page for name in PURE)


def test_the_picture_leaves_out_what_follows(house: ModuleType) -> None:
    rules = {"errors": "", "pure": "errors", "values": "errors", "heads": "errors folds values", "face": "heads"}
    arrows = ["    heads --> pure", "    heads --> values", "    values --> errors", "    pure --> errors"]
    assert house.picture(rules) == ["```mermaid", "graph TD", *arrows, "```"]


def test_circles_and_chains_are_found(house: ModuleType) -> None:
    edges = {"a": {"b", "c"}, "b": {"c"}, "c": {"d"}, "d": {"c", "e"}, "e": set(), "f": {"f"}}
    assert house.circles(edges) == [["c", "d"]]
    assert house.longest_chain(edges) == ["a", "b", "c", "e"]


@pytest.mark.parametrize("folder", WITHOUT_TORCH)
def test_a_wing_can_be_imported_without_torch(folder: str) -> None:
    paths = [module for module in MODULES if module.startswith(f"{folder}/")]
    names = [f"poise.{path.removesuffix('/__init__').replace('/', '.')}" for path in paths]
    assert len(names) > 2
    program = f"""
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
    if "torch" in sys.modules:
        sys.exit(f"{{name}} imports torch")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_folders_are_small_enough_to_be_read() -> None:
    sizes = Counter(module.rpartition("/")[0] for module in MODULES)
    assert sizes[""] <= 12
    assert max(sizes.values()) <= 20


@pytest.mark.parametrize("module", MODULES)
def test_a_module_neither_prints_nor_names_a_device(module: str) -> None:
    source = (ROOT / f"{module}.py").read_text()
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    calls = {ast.unparse(node.func) for node in nodes}
    assert "print" not in calls
    assert not calls & {"pickle.load", "eval", "exec"}
    loads = [ast.unparse(node) for node in nodes if ast.unparse(node.func) == "torch.load"]
    assert all("weights_only=True" in load for load in loads)
    assert not any(call.endswith(".cuda") for call in calls)


def test_public_names_are_sorted_and_all_resolve() -> None:
    assert poise.__all__ == sorted(poise.__all__)
    assert set(poise.__all__) == set(poise._HOMES)
    for name in poise.__all__:
        assert getattr(poise, name) is not None


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["--version"], ["demo", "--sed", "1"]])
def test_help_and_usage_errors_import_no_torch(arguments: list[str]) -> None:
    program = f"""
import sys
from poise.cli import main
try:
    main({arguments!r})
except SystemExit:
    pass
heavy = {{"torch", "numpy", "sklearn", "scipy"}} & set(sys.modules)
sys.exit(f"imported {{sorted(heavy)}}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_imports_no_torch() -> None:
    program = "import sys, poise; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
