"""The shape of the package in a few numbers: folders, sizes, imports, functions.

    python benchmarks/house.py [--folder src/poise] [--rules tests/test_architecture.py] [--picture]

Nothing is imported; the source is read. An import counts for the module that it names, and for the faces
(`__init__.py`) of the folders on the way there that do not hold the importing module themselves. Imports for type
checkers are left out. A chain is a path of modules in which each imports the next; modules of one circle count once.
Parameters are all of a function's but self and cls; a body is its lines without the docstring.

--picture prints the import rules as a Mermaid graph instead, without the arrows that follow from others; it stands in
docs/architecture.md.
"""

import argparse
import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

MANY = 10  # parameters
Graph = Mapping[str, frozenset[str]]


class Function(NamedTuple):
    """A function, its number of parameters, and the lines of its body."""

    name: str
    parameters: int
    lines: int


class Module(NamedTuple):
    """A file by its dotted name."""

    name: str
    path: Path
    lines: int
    tree: ast.Module

    @property
    def is_face(self) -> bool:
        """Is it the `__init__.py` of a folder?"""
        return self.path.name == "__init__.py"


def modules(folder: Path) -> list[Module]:
    """All modules of a package, sorted by name."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        found.append(Module(name, path, len(text.splitlines()), ast.parse(text)))
    return sorted(found)


def graph(found: list[Module], within_functions: bool) -> Graph:
    """Module -> the modules of the package that it imports, at its top or anywhere."""
    names = {module.name for module in found}
    package = min(names, key=len)
    edges = {}
    for module in found:
        own = {module.name, *_folders(module.name)}
        targets: set[str] = set()
        for node in _imports(module.tree, within_functions):
            for target in _named(node, names, package):
                targets |= {target, *_folders(target)} - own
        edges[module.name] = frozenset(targets & names - {package, module.name})
    return edges


def _folders(name: str) -> set[str]:
    parts = name.split(".")
    return {".".join(parts[:end]) for end in range(1, len(parts))}


def _imports(tree: ast.AST, within_functions: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif within_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _imports(node, within_functions)


def _named(node: ast.Import | ast.ImportFrom, names: set[str], package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in names)
    elif node.module and node.module.split(".")[0] == package:
        for alias in node.names:
            below = f"{node.module}.{alias.name}"
            yield below if below in names else node.module


def circles(edges: Graph) -> list[list[str]]:
    """Sets of modules that import each other on some way, sorted; those of one module are left out."""
    return [sorted(part) for part in _parts(edges) if len(part) > 1]


def longest_chain(edges: Graph) -> list[str]:
    """The longest path; of the modules in a circle one stands for all."""
    parts = _parts(edges)  # a part comes after all that it imports
    best: dict[int, list[str]] = {}
    number = {name: i for i, part in enumerate(parts) for name in part}
    for i, part in enumerate(parts):
        below = {number[target] for name in part for target in edges[name]} - {i}
        longest = max((best[j] for j in below), key=len, default=[])
        best[i] = [sorted(part)[0], *longest]
    return max(best.values(), key=len)


def _parts(edges: Graph) -> list[list[str]]:
    """Strongly connected parts (Tarjan), in the order in which they can be loaded."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    done: set[str] = set()
    parts = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in sorted(edges[name]):
            if target not in index:
                visit(target)
            if target not in done:
                low[name] = min(low[name], low[target])
        if low[name] == index[name]:
            part = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            done.update(part)
            parts.append(part)

    for name in sorted(edges):
        if name not in index:
            visit(name)
    return parts


def functions(module: Module) -> Iterator[Function]:
    """All functions of a module, methods and inner ones too."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            yield Function(
                f"{module.name}.{node.name}", len([name for name in names if name not in ("self", "cls")]), lines
            )


def rules(path: Path, table: str = "MAY_IMPORT") -> dict[str, str] | None:
    """Wing -> what it may import, in words; None if the file has no such table."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else []:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == table and node.value is not None:
            found: dict[str, str] = ast.literal_eval(node.value)
            return found
    return None


DRAWN_APART = ("face", "testing", "__main__")  # they see nearly everything, and would hide the rest


def picture(found: Mapping[str, str]) -> list[str]:
    """The rules as a Mermaid graph from top to bottom; an arrow that two others make is left out."""
    # A word without a row is one of the public modules, which share the row `pure`.
    named = {wing: {word if word in found else "pure" for word in words.split()} for wing, words in found.items()}
    may = {wing: targets - {wing, *DRAWN_APART} for wing, targets in named.items() if wing not in DRAWN_APART}

    def below(wing: str) -> set[str]:
        return may[wing].union(*(below(target) for target in may[wing]))

    shown = {wing: targets.difference(*(below(target) for target in targets)) for wing, targets in may.items()}
    arrows = (f"    {wing} --> {target}" for wing in reversed(shown) for target in sorted(shown[wing]))
    return ["```mermaid", "graph TD", *arrows, "```"]


def report(folder: Path, rules_in: Path) -> list[str]:
    """The table, and below it what the largest numbers are."""
    found = modules(folder)
    per_folder = {f: len([m for m in found if m.path.parent == f]) for f in {m.path.parent for m in found}}
    widest = max(sorted(per_folder), key=lambda f: per_folder[f])
    top, anywhere = graph(found, within_functions=False), graph(found, within_functions=True)
    chains = longest_chain(top), longest_chain(anywhere)
    every = [function for module in found for function in functions(module)]
    wide = sorted((f for f in every if f.parameters > MANY), key=lambda f: -f.parameters)
    longest = max(every, key=lambda f: f.lines)
    biggest = max(found, key=lambda m: m.lines)
    table = rules(rules_in)
    statements = sum(isinstance(node, ast.stmt) for module in found for node in ast.walk(module.tree))
    rows = (
        ("modules in the package's own folder", per_folder[folder]),
        (f"most modules in one folder ({widest.relative_to(folder.parent).as_posix()})", per_folder[widest]),
        ("lines of Python", f"{sum(m.lines for m in found):,}"),
        ("statements of the syntax trees", f"{statements:,}"),
        (
            "longest chain of imports at the top of modules (within functions too)",
            f"{len(chains[0])} ({len(chains[1])})",
        ),
        ("circles at the top of modules (within functions too)", f"{len(circles(top))} ({len(circles(anywhere))})"),
        (f"functions with more than {MANY} parameters", len(wide)),
        (f"longest body ({longest.name})", longest.lines),
        (f"longest file ({biggest.name})", biggest.lines),
        ("rows of the import rules", "-" if table is None else len(table)),
    )
    lines = ["| what | number |", "|---|---|", *(f"| {what} | {number} |" for what, number in rows)]
    lines += ["", "longest chain: " + " > ".join(chains[0])]
    lines += ["within functions too: " + " > ".join(chains[1])]
    lines += [f"circle: {', '.join(circle)}" for circle in circles(top)]
    lines += [f"circle within functions: {', '.join(circle)}" for circle in circles(anywhere)]
    return [*lines, *(f"{f.parameters} parameters: {f.name}" for f in wide)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parent.parent
    parser.add_argument("--folder", type=Path, default=here / "src" / "poise")
    parser.add_argument("--rules", type=Path, default=here / "tests" / "test_architecture.py")
    parser.add_argument("--picture", action="store_true")
    asked = parser.parse_args()
    lines = picture(rules(asked.rules) or {}) if asked.picture else report(asked.folder.resolve(), asked.rules)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
