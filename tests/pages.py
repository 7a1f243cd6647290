"""Markdown pages as lists of code blocks, and how a block is run.

A block is a fence with the hidden comments before it: `<!-- prepare: birds -->` makes files (tests/page_data.py),
`<!-- file: NAME -->` writes the block instead of running it, `<!-- not run: reason -->` leaves it out, and
`<!-- prints -->` compares a text with what was printed last. In a shell block `# exit code 2` goes before a refusal.
"""

import contextlib
import doctest
import io
import json
import re
import shlex
import tomllib
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import typer

from page_data import PREPARATIONS
from poise.cli import app, main
from poise.commands.config import load_config
from poise.commands.predict import reads_samples

SHELL = {"", "bash", "console", "sh"}
COMMENT = re.compile(r"<!--\s*(prepare|file|not run|prints)\b:?\s*(.*?)\s*-->")
FENCE = re.compile(r"\s*(`{3,}|:{3,})\s*(\{?[\w-]*\}?)(.*)$")
# Commands that a page may show and that are not run: they install, or need a cluster, or are run by other tests.
SHOWN_ONLY = (
    r"(\S*python3? -m )?(uv )?pip install",
    r"python3? -m venv",
    r"make( \w+)*$",
    r"git clone",
    r"(cd|export|source|cat|ls|unzip|sbatch|srun|torchrun|tensorboard|optuna-dashboard|latexmk|pdflatex|open)\b",
    r"python3? (examples|benchmarks|experiments|docs)/",
    r"poise demo",
    r"poise (train|fit|extract) .*(cifar|imagenet|inat|places)",
    r"poise .*timm:",
    r"poise --(install|show)-completion",
    r"#SBATCH|#!",
)
# What makes a command of a page take a moment, where the page does not say otherwise.
SHORT_HEADS = ("heads.methods=[tau_norm]", "heads.budget=2")
SHORT_TRAINING = ("stage1.epochs=1", "stage1.warmup_epochs=0", "stage1.batch_size=16", "stage1.precision=float32")
SHORT_SEARCH = {"compare": ("--budget", "--folds"), "tune": ("--budget", "--folds"), "audit": ("--budget",)}


class Block(NamedTuple):
    """A fence: its language, text and first line, and the comments that precede it."""

    language: str
    text: str
    line: int
    said: dict[str, str]


def blocks(page: Path) -> list[Block]:
    """The fences of a page in order; a comment belongs to the next one."""
    found, said = [], {}
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), start=1))
    for number, line in lines:
        said |= dict(COMMENT.findall(line))
        fence = FENCE.match(line)
        if fence is None or fence[1].startswith(":"):
            continue
        indent = len(line) - len(line.lstrip())
        text = []
        for _, inner in lines:
            if inner.strip() == fence[1]:
                break
            text.append(inner[indent:])
        found.append(Block(fence[2].strip("{}"), "\n".join(text), number, said))
        said = {}
    return found


class Page:
    """Runs the blocks of one page in a folder, with one namespace and what was printed last."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.names: dict[str, Any] = {"__name__": "__page__"}
        self.printed = ""

    def run(self, block: Block) -> None:
        """Do what the language and the comments of a block ask for. Raises: AssertionError naming page and line."""
        for preparation in block.said.get("prepare", "").split():
            PREPARATIONS[preparation](Path.cwd())
        where = f"{self.name}, line {block.line}"
        if "file" in block.said:
            path = Path(block.said["file"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text + "\n")
        if block.language in SHELL:
            self.run_shell(block, where)
        elif block.language == "python" and not {"file", "not run"} & set(block.said):
            self.run_python(block, where)
        elif block.language == "python":
            compile(block.text, where, "exec")
        else:
            self.read(block, where)

    def read(self, block: Block, where: str) -> None:
        """Text that a program would read must be readable; shown output must be what was printed."""
        if block.language == "json":
            json.loads(block.text)
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "yaml" and "schema_version" in block.text:
            Path("page.yaml").write_text(block.text)
            load_config("page.yaml", [])
        elif "prints" in block.said:
            assert shown_in(block.text, self.printed), f"{where} shows\n{block.text}\nbut printed was\n{self.printed}"

    def run_python(self, block: Block, where: str) -> None:
        with captured() as out:
            if ">>>" in block.text:
                source = re.sub(r"\s*$", "\n\n", block.text)
                test = doctest.DocTestParser().get_doctest(source, self.names, where, self.name, block.line)
                said: list[str] = []
                failed = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(
                    test, out=said.append, clear_globs=False
                )
                self.names |= test.globs
                assert failed.failed == 0, "".join(said)
            else:
                exec(compile("\n" * block.line + block.text, where, "exec"), self.names)
        self.printed = out.getvalue()

    def run_shell(self, block: Block, where: str) -> None:
        script = block.text.startswith("#!")
        printed, code = "", 0
        for command in commands(block):
            if command.startswith("#") and not command.startswith(("#!", "#SBATCH")):
                stated = re.search(r"exit code (\d+)", command)
                code = int(stated[1]) if stated else code
                continue
            words = shlex.split(command, comments=True)
            check_words(words, where)
            plain = " ".join(words)
            if not (script or {"not run", "file"} & set(block.said) or any(re.match(p, plain) for p in SHOWN_ONLY)):
                assert words[0] == "poise", f"{where}: {command!r} is neither run nor known as one that is not"
                printed += run_poise(words[1:], code, where)
            code = 0
        self.printed = printed


def commands(block: Block) -> list[str]:
    """The commands of a block, continued lines joined; of a session with `$ `, only what was typed."""
    lines = re.sub(r"\\\n\s*", "", block.text).splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line.removeprefix("$ ") for line in lines if line.startswith(("$ ", "#"))]
    return [line.strip() for line in lines if line.strip()]


def check_words(words: list[str], where: str) -> None:
    """A `poise` command that is only shown must have a verb and options that exist."""
    if "poise" not in words[:1] and "-m poise" not in " ".join(words):
        return
    rest = words[words.index("poise") + 1 :]
    command = typer.main.get_command(app)
    verbs = getattr(command, "commands", {})
    if not rest or rest[0].startswith("-"):
        return
    assert rest[0] in verbs, f"{where}: there is no verb {rest[0]!r}"
    known = {option for p in verbs[rest[0]].params for option in (*p.opts, *p.secondary_opts)} | {"--help", "--debug"}
    for word in rest[1:]:
        if re.match(r"--?[a-z]", word):
            assert word.split("=")[0] in known, f"{where}: `poise {rest[0]}` has no option {word}"


def run_poise(words: list[str], code: int, where: str) -> str:
    """What the command line prints for these words, shortened. Raises: AssertionError for another exit code."""
    complaint = ""
    with captured() as out, warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()) as err:
        warnings.simplefilter("ignore")
        try:
            main([*words, *shortening(words)])
        except SystemExit as stop:
            complaint = "" if stop.code == code else f"exit code {stop.code} instead of {code}"
    assert not complaint, f"{where}: poise {shlex.join(words)}: {complaint}\n{err.getvalue()}"
    return out.getvalue()


def shortening(words: list[str]) -> list[str]:
    """Words that make a command short."""
    if not words or {"--help", "--dry-run"} & set(words):
        return []
    verb, *rest = words
    if (verb == "train" and rest) or (verb == "fit" and rest and trains(rest)):
        changes = SHORT_HEADS if "--text" in rest else (*SHORT_HEADS, *SHORT_TRAINING)
        return [word for change in changes for word in ("-s", change)]
    return [word for option in SHORT_SEARCH.get(verb, ()) if option not in rest for word in (option, "2")]


def trains(words: list[str]) -> bool:
    """Does `poise fit` with these words begin with images or texts?"""
    place = Path(words[0])
    asked = {"--image", "--text", "--recipe", "--backbone"} & set(words)
    return bool(asked) or (place.is_dir() and not (place / "manifest.json").exists() and not reads_samples(place))


def captured() -> contextlib.AbstractContextManager[io.StringIO]:
    """Standard output as text."""
    return contextlib.redirect_stdout(io.StringIO())


def shown_in(shown: str, printed: str) -> bool:
    """Does every line that is shown occur, in this order? `...` stands for anything, white space does not matter."""
    place, said = 0, " ".join(printed.split())
    for line in shown.splitlines():
        parts = [re.escape(" ".join(part.split())) for part in line.split("...")]
        found = re.compile(".*?".join(parts)).search(said, place)
        if found is None:
            return False
        place = found.end()
    return True
