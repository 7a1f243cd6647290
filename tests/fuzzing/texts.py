"""What people write by hand: methods, settings, options, counts."""

import json
import os
from pathlib import Path

from fuzzing.folders import NAMES, any_of, one_folder, text_in, texts_of
from fuzzing.verdict import Kind
from poise.commands.config import dump_config, load_config
from poise.data.samples.lists import read_counts
from poise.machine.processes import started
from poise.machine.reading import inflated_limit
from poise.methods import from_spec
from poise.representation.augment import parse
from poise.values.spec import Spec

SPECS = (
    "tau_norm(tau=0.5)",
    "crt(lr=0.1)+tau_norm(tau=0.5)",
    "los(delta=0.98,lr=0.1,epochs=2)+temperature",
    "logit_adjustment(tau=1.0)",
    "gala(lambda_pos=0.7)",
)


def _spec(folder: Path) -> None:
    from_spec(text_in(folder))


def _as_json(text: str) -> str:
    return json.dumps(Spec.parse(text).to_json())


def _spec_json(folder: Path) -> None:
    from_spec(Spec.from_json(text_in(folder, ".json")))


def _recipe(folder: Path) -> None:
    (folder / "config.yaml").write_text(dump_config(load_config("glyphs")), encoding="utf-8")


def _override(folder: Path) -> None:
    load_config("glyphs", [text_in(folder)])


def _prior(folder: Path) -> None:
    from poise.cli.inputs import class_prior

    class_prior(str(folder / "text.json"), NAMES)


def _costs(folder: Path) -> None:
    from poise.cli.inputs import per_class

    per_class(folder / "text.json", NAMES, default=1.0)


def _environment(folder: Path) -> None:
    """The variables of a table, for the functions that read them; a world of several would wait for the others."""
    text = text_in(folder)
    given = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    named = {key: value for key, value in given.items() if key in VARIABLES and "\x00" not in value}
    before = dict(os.environ)
    os.environ.update(named)
    try:
        try:
            alone = int(named.get("WORLD_SIZE", "1")) < 2
        except ValueError:
            alone = True
        if alone:
            with started():
                pass
        inflated_limit(100)
    finally:
        os.environ.clear()
        os.environ.update(before)


VARIABLES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "POISE_MEMORY_LIMIT")

PRIOR = json.dumps(dict(zip(NAMES, (0.2,) * 5, strict=True)))


TEXTS: tuple[Kind, ...] = (
    Kind("counts", texts_of("[9, 5, 3, 1]", suffix=".json"), lambda folder: read_counts(folder / "text.json")),
    Kind("prior", texts_of(PRIOR, suffix=".json"), any_of(_prior, _costs)),
    Kind("spec", texts_of(*SPECS), _spec),
    Kind("spec as json", texts_of(*map(_as_json, SPECS), suffix=".json"), _spec_json),
    Kind("augmentation", texts_of("crop(pad=4)", "flip", "cutout(size=4)"), lambda folder: parse([text_in(folder)])),
    Kind("recipe", one_folder(_recipe), lambda folder: load_config(folder / "config.yaml")),
    Kind("override", texts_of("stage1.lr=0.05", "heads.methods=[tau_norm]", "backbone.size=16"), _override),
    Kind("environment", texts_of("WORLD_SIZE=1\nRANK=0\nLOCAL_RANK=0", "POISE_MEMORY_LIMIT=1000000000"), _environment),
)
