"""The shape of the package, held as data and compared with the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import poise

ROOT = Path(poise.__file__).parent
MODULES = sorted(path.relative_to(ROOT).with_suffix("").as_posix() for path in ROOT.rglob("*.py"))

VALUES = {"checks", "errors", "fields", "files", "libraries", "progress", "randomness", "types", "spec", "wording"}
ADAPTERS = (
    "arrays",
    "cifar",
    "delimited",
    "folder",
    "hub",
    "idx",
    "items",
    "lists",
    "parquet",
    "parts",
    "reading",
    "tables",
)
FAMILIES = ("bce", "focal", "gala", "gcl", "softmax")
PURE = {
    "augment",
    "losses",
    "sampling",
    "constraints",
    "folds",
    "operating",
    "params",
    "plan",
    "metrics",
    "priors",
    "profiles",
    "statistics",
}

# What each module may import of Poise. Layers: values; pure functions of values, strangers to each other; algorithms;
# shells; the command line and the public checks.
ALLOWED: dict[str, set[str]] = {
    "__init__": {"constraints", "losses", "methods", "metrics", "profiles", "sampling", "statistics", "testing"}
    | {
        "comparison",
        "errors",
        "estimator",
        "plan",
        "protocols",
        "readers",
        "selection",
        "solver",
        "spec",
        "store",
        "types",
    },
    "errors": set(),
    "wording": set(),
    "randomness": set(),
    "checks": {"errors"},
    "fields": {"checks", "errors"},
    "files": {"errors"},
    "libraries": {"errors"},
    "spec": {"errors"},
    "types": {"distributed", "errors", "files"},
    "crew": set(),
    "memory": set(),
    "progress": set(),
    "shards": set(),
    "record": {"types"},
    **{name: {"checks", "errors", "fields", "randomness", "types"} for name in PURE - {"augment", "losses"}},
    **{
        f"losses/{name}": {"checks", "errors", "losses", "randomness", "types"}
        for name in ("__init__", "loss", "weights", *FAMILIES)
    },
    **{
        f"augment/{name}": {"augment", "checks", "errors", "randomness", "spec", "wording"}
        for name in ("__init__", "augmentation", "batches", "operations", "policies", "texts")
    },
    "transforms": VALUES | {"augment"},
    "space": {"distributed", "types"},
    "memorised": {"errors", "metrics", "types"},
    "unseen": VALUES | {"folds", "priors"},
    "automatic": VALUES | {"converged", "losses", "methods", "priors", "unseen"},
    "fitting": VALUES | {"automatic", "converged", "memorised", "methods", "unseen"},
    "estimator": VALUES | {"__version__", "artefact", "fitting", "folds", "methods", "plan", "priors", "unseen"},
    "artefact": VALUES | {"operating", "priors"},
    "minimise": set(),
    "converged": VALUES | {"crew", "distributed", "losses", "methods", "minimise", "space"},
    "choose": VALUES | {"memorised", "operating"},
    "headroom": VALUES | {"folds", "memorised", "methods", "metrics", "plan", "report", "solver"},
    "advice": VALUES | {"headroom", "report", "statistics"},
    "solver": VALUES | PURE | {"crew", "distributed", "shards", "space", "step"},
    "step": PURE | {"crew", "distributed"},
    "methods/__init__": VALUES | PURE | {"methods", "solver"},
    "methods/method": {"types"},
    "methods/closed_form": VALUES | {"methods"},
    "methods/posthoc": VALUES | {"memorised", "methods", "metrics", "solver"},
    "methods/retrain": VALUES | PURE | {"solver"},
    "methods/published": {"spec"},
    "experiment": VALUES | {"distributed", "methods", "metrics", "record", "solver"},
    "elimination": VALUES | {"methods"},
    "grids": {"checks", "errors", "methods", "randomness", "spec"},
    "judging": VALUES | {"elimination", "experiment", "folds", "memorised", "methods", "solver"},
    "selection": VALUES | {"elimination", "experiment", "grids", "judging", "priors", "record", "statistics"},
    "schedule": VALUES | {"elimination", "grids", "judging", "methods", "selection", "solver"},
    "apart": VALUES,
    "journals": {"errors", "grids", "libraries", "randomness"},
    "studies": VALUES | {"experiment", "grids", "journals", "judging", "methods", "progress", "selection", "solver"},
    "comparison": {"experiment", "headroom", "methods", "record", "report", "spec", "statistics", "types", "wording"},
    "closer": {"comparison", "metrics", "operating", "report", "statistics", "types"},
    "paths": {"comparison", "experiment", "methods", "report", "solver", "spec", "types"},
    "diagnosis": {"artefact", "closer", "comparison", "deployment", "experiment", "methods", "metrics", "paths"}
    | {"report", "spec", "types"},
    "thumbnails": {"errors", "samples"},
    "reports": {"errors", "files", "report"},
    "protocols": VALUES
    | {"apart", "comparison", "elimination", "experiment", "folds", "grids", "judging", "methods", "record", "schedule"}
    | {"selection", "solver", "statistics"},
    "samples": VALUES,
    "decoding": {"errors"},
    "sources/__init__": VALUES | {"decoding", "readers", "samples", "sources"},
    **{f"sources/{name}": VALUES | {"decoding", "image_files", "readers", "samples", "sources"} for name in ADAPTERS},
    "text": VALUES,
    "config/__init__": VALUES | {"config"},
    "config/models": VALUES | {"config", "methods", "profiles", "stage1", "tails"},
    "config/refusals": VALUES,
    "config/stage1_keys": VALUES | {"augment", "config", "stage1", "transforms"},
    "config/text": {"errors"},
    "sources/demo": VALUES | {"glyphs", "sources"},
    "stage1": VALUES | {"losses", "plan", "sampling"},
    "network": VALUES | {"backbones", "stage1"},
    "distributed": {"errors"},
    "checkpoints": {"errors", "files"},
    "claims": {"errors"},
    "logs": {"checks", "errors", "files"},
    "feeds": VALUES | {"augment", "samples", "transforms"},
    "training": VALUES | {"augment", "backbones", "checkpoints", "distributed", "feeds", "losses", "network", "stage1"},
    "representation": VALUES | {"backbones", "samples"},
    "growing": {"errors", "files", "manifest", "shards", "types"},
    "extract": VALUES | {"augment", "backbones", "distributed", "feeds", "growing", "samples", "sources", "transforms"},
    "pipeline": VALUES
    | {"backbones", "checkpoints", "config", "claims", "distributed", "extract", "leakage", "logs", "metrics", "record"}
    | {"representation", "samples", "sources", "splits", "stage1", "store", "training"},
    "project": VALUES
    | {"grids", "selection", "sources"}
    | {"artefact", "backbones", "comparison", "config", "deployment", "extract", "headroom", "manifest", "methods"}
    | {"metrics", "pipeline", "predictions", "protocols", "representation", "runs", "samples", "splits", "store"}
    | {"diagnosis", "report", "reports", "thumbnails"},
    "tails": VALUES | {"profiles", "samples"},
    "splits": VALUES | {"folds", "profiles", "samples", "tails"},
    "leakage": {"checks", "errors", "progress", "samples"},
    "class_sizes": {"types", "wording"},
    "survey": {"class_sizes", "errors", "fields", "leakage", "progress", "samples", "types", "wording"},
    "glyphs": {"checks", "errors", "folds", "libraries", "samples", "sources", "splits"},
    "data": VALUES | {"profiles", "text"},
    "audit": VALUES | {"comparison", "experiment", "grids", "methods", "paths", "priors", "protocols", "report"},
    "inspection": {"class_sizes", "folds", "memorised", "metrics", "types", "wording"},
    "manifest": {"checks", "errors", "fields", "files", "types"},
    "store": {"errors", "fields", "files", "manifest", "shards", "types"},
    "readers/__init__": {"readers"},
    "readers/rows": {"errors", "readers", "store", "types", "wording"},
    **{
        f"readers/{name}": {"errors", "libraries", "readers", "types", "wording"}
        for name in ("arrays", "columns", "delimited", "heads", "labels", "logits", "parquet", "source")
    },
    "last_layer": VALUES,
    "checkpoint_copy": {"errors", "files", "last_layer"},
    "rebalancing": VALUES
    | {"artefact", "checkpoint_copy", "deployment", "experiment", "last_layer", "memorised", "metrics", "readers"},
    "answers": {"errors", "files", "libraries", "progress"},
    "pipelines": {"artefact", "errors", "estimator", "types"},
    "image_files": {"decoding", "errors"},
    "onnx_rows": {"decoding", "errors", "image_files", "readers", "wording"},
    "onnx_predict": {"answers", "checks", "decoding", "errors", "libraries", "progress", "onnx_rows", "wording"},
    "predictions": {"answers", "artefact", "errors", "operating", "progress"},
    "deployment": VALUES
    | {
        "artefact",
        "choose",
        "estimator",
        "experiment",
        "grids",
        "methods",
        "operating",
        "judging",
        "priors",
        "record",
        "schedule",
        "selection",
    }
    | {"unseen"},
    "backbones/__init__": {"backbones", "errors"},
    **{
        f"backbones/{name}": {"backbones", "checks", "errors", "libraries", "text", "types", "wording"}
        for name in (
            "backbone",
            "cifar",
            "factory",
            "hf_models",
            "hub",
            "probing",
            "small",
            "text",
            "timm_models",
            "weights",
        )
    },
    "checkup": {"artefact", "checkpoint_copy", "errors", "files", "representation", "store", "types"},
    "report/__init__": set(),
    **{
        f"report/{name}": {"report"}
        for name in ("canvas", "charts", "gain_charts", "html", "panels", "sheets", "styles", "view")
    },
    **{
        f"report/{name}": {"report", "wording"}
        for name in ("class_charts", "class_panels", "figure", "latex", "markdown", "words")
    },
    "report/contents": {"errors", "types"},
    "report/headroom": {"report", "wording"},
    "report/protocol": {"record"},
    "report/tables": {"plan", "report", "spec", "types", "wording"},
    "report/drawings": {"libraries", "report"},
    "runs": {"comparison", "errors", "files", "record", "report", "reports"},
    "catalogue": {"converged", "methods"},
    "demo": {
        "advice",
        "artefact",
        "comparison",
        "data",
        "deployment",
        "diagnosis",
        "experiment",
        "headroom",
        "methods",
        "progress",
        "protocols",
        "schedule",
        "spec",
    }
    | {"report"},
    "estimates": VALUES
    | {"automatic", "deployment", "elimination", "judging", "methods", "metrics", "plan", "schedule", "solver"},
    "testing": VALUES | {"methods", "plan", "solver"},
    "export/__init__": {"export"},
    "export/final": VALUES | {"artefact", "backbones", "extract", "operating", "record"},
    "export/checking": VALUES | {"artefact", "augment", "backbones", "export", "extract", "feeds", "samples"},
    "export/graphs": VALUES | {"artefact", "backbones", "export"},
    "export/tensors": VALUES | {"artefact", "export"},
    "export/card": {"artefact", "export", "report", "wording"},
    "export/hub": VALUES | {"artefact", "backbones", "export", "report", "representation"},
    "__main__": {"cli"},
    "cli/__init__": {"__version__", "cli", "errors"},
    "cli/completion": set(),
    "cli/options": {"cli", "deployment"},
    "cli/shared": {"cli", "errors", "estimates", "progress", "report", "runs", "types"},
    "cli/export": {"artefact", "backbones", "cli", "errors", "export", "project", "report", "representation", "runs"}
    | {"sources"},
    "cli/rebalance": {"checkpoint_copy", "cli", "errors", "last_layer", "rebalancing", "types"},
    "cli/inputs": {"cli", "errors", "folds", "manifest", "memorised", "onnx_rows", "priors", "readers"}
    | {"types", "wording"},
    "cli/deploy": {
        "answers",
        "artefact",
        "checkup",
        "cli",
        "deployment",
        "distributed",
        "errors",
        "estimates",
        "manifest",
        "onnx_predict",
        "onnx_rows",
        "operating",
        "pipeline",
        "predictions",
        "project",
    }
    | {"diagnosis", "readers", "reports", "runs", "samples", "sources", "wording"},
    "cli/images": {"claims", "cli", "config", "distributed", "errors", "extract", "memory", "pipeline", "project"}
    | {"report", "runs", "samples", "sources", "splits", "survey", "types", "wording"},
    "cli/report": {"checks", "cli", "errors", "report", "reports"},
    "cli/search": {"advice", "checks", "cli", "comparison", "diagnosis", "distributed", "elimination", "errors"}
    | {"estimates", "grids", "headroom", "judging", "methods", "protocols", "report", "runs", "schedule", "selection"}
    | {"record", "spec", "studies", "types"},
    "cli/study": {"audit", "catalogue", "checks", "cli", "data", "demo", "diagnosis", "estimates", "inspection"}
    | {"readers", "report", "runs", "samples", "schedule", "sources", "survey", "wording"},
}


def imported(module: str) -> set[str]:
    """First names below `poise` that a module imports, wherever in its body."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "poise":
            below = node.module.split(".")[1:]
            found |= {below[0]} if below else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("poise.")}
    return found


def test_every_module_has_a_row_in_the_table() -> None:
    assert set(ALLOWED) == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_layer_allows(module: str) -> None:
    assert imported(module) <= ALLOWED[module]


def test_pure_functions_are_strangers_to_each_other() -> None:
    for module in MODULES:
        if module.split("/")[0] in PURE:
            assert not imported(module) & PURE - {module.split("/")[0]}


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
