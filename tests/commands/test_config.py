"""A run as one YAML file: what it holds, what is refused and in which words, overrides, and identity."""

import json
import os
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poise.commands.config import Config, Data, config_hash, differences, dump_config, json_schema, load_config
from poise.commands.config.models import keys
from poise.commands.config.text import parsed, written
from poise.errors import InputError
from poise.representation.settings import Stage1


def loaded(folder: Path, text: str | bytes, *overrides: str) -> Config:
    path = folder / "run.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config(path, overrides)


def refusal(folder: Path, text: str | bytes, *overrides: str) -> str:
    """The message without the folder."""
    with pytest.raises(InputError) as caught:
        loaded(folder, text, *overrides)
    message = str(caught.value).replace(f"{folder}{os.sep}", "")
    assert "\n" not in message
    return message


# --- defaults and round trips ----------------------------------------------------------------------------------------


def test_an_empty_section_is_all_defaults(tmp_path: Path) -> None:
    assert loaded(tmp_path, "data: {}") == Config()


def test_the_keys_of_stage1_are_the_fields_of_the_dataclass_with_its_defaults() -> None:
    assert Config().stage1 == Stage1()
    assert {key for key in keys() if key.startswith("stage1.")} == {f"stage1.{field.name}" for field in fields(Stage1)}


FULL = """
recipe: mine
title: "ärger: #1 🦤"
unknown: [no, "1e-3", "010", "null", "<<", "2026-11-21", " a", "true"]
data: {train: images, held_out: hf:owner/name, profile: "step(imbalance=10)", class_order: 3, order: ldam, test_rows: 7}
backbone: {name: "timm:resnet50", weights: w.safetensors, size: 96, options: {mean: [0.5, 0.25, 1], depth: 3, x: null}}
stage1: {lr: 1e-3, weight_decay: 0, augment: ["crop(pad=4)", flip], milestones: [0.5], lr_batch_size: 64, deferred: 0.8}
extract: {views: 2, flip: true, dtype: float32}
heads: {methods: ["crt(lr=0.5, epochs=2)+tau_norm"], selection: paper}
trackers: [tensorboard]
"""


def test_what_is_dumped_loads_as_the_same_configuration_and_dumps_as_the_same_bytes(tmp_path: Path) -> None:
    config = loaded(tmp_path, FULL)
    text = dump_config(config)
    again = loaded(tmp_path, text)
    assert again == config
    assert dump_config(again) == text
    assert config_hash(again) == config_hash(config)


def test_a_dump_names_every_key(tmp_path: Path) -> None:
    found = parsed(dump_config(loaded(tmp_path, FULL)), "dump")
    flat = set(found) | {f"{k}.{inner}" for k, v in found.items() if isinstance(v, dict) for inner in v}
    assert flat == set(keys())


def test_values_arrive_as_they_were_meant(tmp_path: Path) -> None:
    config = loaded(tmp_path, FULL)
    assert config.unknown == ("no", "1e-3", "010", "null", "<<", "2026-11-21", " a", "true")
    assert config.stage1 is not None
    assert (config.stage1.lr, config.stage1.augment) == (1e-3, ("crop(pad=4)", "flip"))
    assert config.backbone.options == {"mean": (0.5, 0.25, 1), "depth": 3, "x": None}
    assert config.heads.methods == ("crt(epochs=2,lr=0.5)+tau_norm",)


def test_stage1_null_means_none_and_differs_from_leaving_it_out(tmp_path: Path) -> None:
    assert loaded(tmp_path, "stage1: null").stage1 is None
    assert loaded(tmp_path, dump_config(loaded(tmp_path, "stage1: null"))).stage1 is None


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().workers = 3  # type: ignore[misc]


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**16), 10**16)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(TEXTS, SCALARS | st.lists(SCALARS, max_size=3), max_size=4))
def test_any_plain_value_is_read_back_as_it_was_written(value: dict[str, object]) -> None:
    text = written(value)
    found = parsed(text, "text")
    assert found == value
    assert json.dumps(found) == json.dumps(value)  # 1, 1.0 and True are equal in Python
    assert written(found) == text


# --- YAML ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("-2.5E+2", -250.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("+7", 7),
        ("-0", 0),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("True", True),
        ("010", "010"),
        ("0x1F", "0x1F"),
        ("0o7", "0o7"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2026-11-21", "2026-11-21"),
        ("~", None),
        ("", None),
        ("-.inf", float("-inf")),
        ("'1'", "1"),
        ("nan", "nan"),
        ("&a b", "b"),
        ("[&a x, *a]", ["x", "x"]),
        ("{'<<': {a: 1}}", {"<<": {"a": 1}}),
        ("{<<: {a: 1}}", {"<<": {"a": 1}}),
    ],
)
def test_scalars_follow_yaml_1_2_and_nothing_is_octal(text: str, value: object) -> None:
    found = parsed(text, "text")
    assert found == value
    assert type(found) is type(value)


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)
)

YAML_REFUSALS = [
    ("workers: 1\nworkers: 2", "run.yaml, line 2: the key 'workers' is given twice; keep one of them"),
    ("data:\n  train: a\n  train: b", "run.yaml, line 3: the key 'train' is given twice; keep one of them"),
    ("1: 2", "run.yaml, line 1: the key 1 is no text; keys are words such as epochs"),
    ("? [a]\n: 2", "run.yaml, line 1: the key ['a'] is no text; keys are words such as epochs"),
    ("a: [", "run.yaml is not YAML: line 1: expected the node content, but found '<stream end>'"),
    ("a: *b", "run.yaml is not YAML: line 1: found undefined alias 'b'"),
    ("a: 1\n---\na: 2", "run.yaml is not YAML: line 2: but found another document"),
    (
        "a: !!int '1_0'",
        "run.yaml, line 1: the tag !!int is not allowed; write a plain value, a list or a mapping",
    ),
    (
        "a: !!set {b}",
        "run.yaml, line 1: the tag !!set is not allowed; write a plain value, a list or a mapping",
    ),
    (BOMB, "run.yaml, line 1: more than 20000 values or 20 levels, aliases repeated; write it plainly"),
    ("a: &a [*a]", "run.yaml, line 1: more than 20000 values or 20 levels, aliases repeated; write it plainly"),
    ("[" * 5000, "run.yaml is nested too deeply; a configuration has a few levels"),
    (b"title: caf\xe9", "run.yaml is not UTF-8 (byte 11); save it as UTF-8"),
    ("a: \0", "run.yaml is not YAML: unacceptable character #x0000: special characters are not allowed"),
    (r'a: "\0"', r"run.yaml, line 1: a text holds \0 or half a character (\ud800 to \udfff); leave it out"),
    (r'a: "\uD800"', r"run.yaml, line 1: a text holds \0 or half a character (\ud800 to \udfff); leave it out"),
    (f"a: {'9' * 5000}", "run.yaml, line 1: a number of 5000 characters is larger than any key takes; lower it"),
    ("- 1", "run.yaml holds no mapping of keys; write lines such as 'workers: 4'"),
    ("", "run.yaml holds no mapping of keys; write lines such as 'workers: 4'"),
    ("#" * 262_145, "run.yaml has 262145 characters, a configuration has at most 262144; shorten it"),
]


@pytest.mark.parametrize(("text", "message"), YAML_REFUSALS, ids=range(len(YAML_REFUSALS)))
def test_yaml_that_surprises_is_refused_in_one_sentence(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert refusal(tmp_path, text) == message


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['touch {canary}']",
        "!!python/object/new:os.system ['touch {canary}']",
        "!!python/name:os.system",
        "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{canary}']]",
    ],
)
@pytest.mark.parametrize("where", ["title: {tag}", "{tag}", "? {tag}\n: 1"])
def test_a_tag_never_makes_an_object(tmp_path: Path, tag: str, where: str) -> None:
    canary = tmp_path / "canary"
    message = refusal(tmp_path, where.format(tag=tag.format(canary=canary)))
    assert "is not allowed" in message or "is not YAML" in message
    assert not canary.exists()


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    assert loaded(tmp_path, b"\xef\xbb\xbfworkers: 3\r\ntitle: a\r\n").workers == 3


# --- what does not fit -----------------------------------------------------------------------------------------------


REFUSALS = [
    ("bogu: 3", "a configuration has no key 'bogu'; there are schema_version, recipe, title, source, unknown, data, "),
    ("work: 3", "a configuration has no key 'work', did you mean 'workers'?"),
    ("stage1: {lrr: 1}", "stage1 has no key 'lrr', did you mean 'lr'?"),
    ("data: {trian: x}", "data has no key 'trian', did you mean 'train'?"),
    ("stage1: {epochs: yes}", 'stage1.epochs must be a whole number; got "yes"'),
    ("stage1: {epochs: true}", "stage1.epochs must be a whole number; got true"),
    ("stage1: {epochs: 2.0}", "stage1.epochs must be a whole number; got 2.0"),
    ("stage1: {epochs: 010}", 'stage1.epochs must be a whole number; got "010"'),
    ("stage1: {epochs: 1_000}", 'stage1.epochs must be a whole number; got "1_000"'),
    ("stage1: {nesterov: no}", 'stage1.nesterov must be true or false; got "no"'),
    ("stage1: {nesterov: 1}", "stage1.nesterov must be true or false; got 1"),
    ("stage1: {lr: .nan}", "stage1.lr must be a number; got NaN"),
    ("stage1: {lr: -.inf}", "stage1.lr must be a number; got -Infinity"),
    ("stage1: {lr: '0.1'}", 'stage1.lr must be a number; got "0.1"'),
    ("stage1: {lr: -1}", "stage1.lr must be a finite number, 0 or more, got -1.0"),
    ("stage1: {schedule: cosin}", "stage1.schedule must be one of cosine, cosine_epoch_start, cosine_epoch_end, "),
    (
        "stage1: {warmup_epochs: 300}",
        "stage1.warmup_epochs must be at most epochs=200, got 300; lower it together with stage1.epochs",
    ),
    ("stage1: {seed: -1}", "stage1.seed must be a whole number, 0 or more, "),
    ("stage1: {loss: lost}", "stage1: there is no loss 'lost', did you mean 'los'?"),
    ("stage1: {loss: los(delta=2)}", "stage1: delta must lie in [0, 1), got 2; LOS uses values near 0.98"),
    ("stage1: {augment: [flop]}", "stage1.augment: no augmentation is called 'flop', did you mean 'flip'?"),
    ("stage1: {augment: flip}", 'stage1.augment must be a list of texts; got "flip"'),
    ("stage1: {lr_batch_size: x}", 'stage1.lr_batch_size must be a whole number or null; got "x"'),
    ("stage1: 3", "stage1 must be a mapping; got 3"),
    ("data: 3", "data must be a mapping; got 3"),
    ("data: {profile: exp(imbalance=3)}", "data.profile: no profile is called 'exp(imbalance=3)'; there are expone"),
    ("data: {profile: cifar100_lt_if100}", "data.profile: no profile is called 'cifar100_lt_if100', did you mean 'c"),
    ("data: {profile: a b}", "data.profile: cannot read the method 'a b'"),
    ("data: {held_out_rows: 0.7}", "data.held_out_rows must be a whole number per class, or a share of at most 0.5 "),
    ("data: {held_out_rows: -1}", "data.held_out_rows must be a whole number per class, or a share of at most 0.5 (0"),
    ("data: {class_order: nativ}", "data.class_order must be native, a whole number, 0 or more (seed), or a list of "),
    ("data: {order: -1}", "data.order must be first, ldam, a whole number, 0 or more (seed), or null (that of the "),
    ("data: {broken: maybe}", "data.broken must be one of error, skip (images that cannot be read); got "),
    ("backbone: {size: 0}", "backbone.size must be a whole number, 1 or more, or null (pixels per side; null is the "),
    ("backbone: {options: {a: {b: 1}}}", "backbone.options must be a mapping of names to plain values or lists of t"),
    ("extract: {views: -1}", "extract.views must be a whole number, 0 or more (augmented copies of each training im"),
    ("extract: {augment: [flop]}", "extract.augment: no augmentation is called 'flop', did you mean 'flip'?"),
    ("stage1: null\nextract: {views: 2}", "extract.augment must say how views differ where stage1 is null; list it"),
    ("heads: {methods: []}", "heads.methods must be auto or a list of methods such as los(delta=0.98); got []"),
    ("heads: {methods: crt}", 'heads.methods must be auto or a list of methods such as los(delta=0.98); got "crt"'),
    ("heads: {methods: [crt(lrr=3)]}", "heads.methods: crt has no parameter 'lrr', did you mean 'lr'?"),
    ("heads: {methods: [cr]}", "heads.methods: no method is called 'cr', did you mean 'crt'?"),
    ("stage1: {lr: 1e999}", "stage1.lr must be a number; got Infinity"),
    ("workers: -1", "workers must be a whole number, 0 or more (processes that read images); got -1"),
    ("device: tpu", 'device must be auto, cpu, cuda or cuda:N; got "tpu"'),
    ("trackers: [tensorbord]", "trackers must be a list of tensorboard, wandb, mlflow (where the log goes too); got "),
    (f"title: [{'x' * 80}]", 'title must be a text or null; got ["xxxxxxxxx'),
    ("schema_version: two", 'schema_version must be 1 (version of this layout); got "two"'),
]


@pytest.mark.parametrize(("text", "message"), REFUSALS, ids=[text for text, _ in REFUSALS])
def test_what_does_not_fit_is_named_by_its_dotted_key(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text).startswith(f"run.yaml: {message}")


def test_a_newer_layout_is_refused_with_both_versions(tmp_path: Path) -> None:
    expected = "run.yaml has schema_version 2, this version reads up to 1; update poise"
    assert refusal(tmp_path, "schema_version: 2\nnew_key: 1") == expected


def test_a_file_that_is_not_there_gives_the_nearest_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=r"^ce_cifar100_l is neither a file nor a recipe, did you mean 'ce_cifar100_lt'"
    ):
        load_config("ce_cifar100_l")
    with pytest.raises(InputError, match=r"^x\.yaml is neither a file nor a recipe; the recipes are ce_autoaug"):
        load_config("x.yaml")
    with pytest.raises(
        InputError, match=r" is a folder, where a recipe is expected: a YAML file, or a name such as ph"
    ):
        load_config(tmp_path)


def test_what_a_run_still_needs_is_said(tmp_path: Path) -> None:
    assert Config().missing() == ("data.train is not given; add -s data.train=PATH",)
    untrained = "resnet32 is not trained and stage1 is null; add -s backbone.weights=FILE"
    assert loaded(tmp_path, "data: {train: x}\nstage1: null").missing() == (untrained,)
    for rest in ("{pretrained: true}", "{weights: w}", "{name: 'hf:x'}", "{name: 'mine.nets:make'}"):
        assert loaded(tmp_path, f"data: {{train: x}}\nstage1: null\nbackbone: {rest}").missing() == ()
    assert len(loaded(tmp_path, "stage1: null\nbackbone: {name: 'timm:resnet50'}").missing()) == 2


# --- overrides and paths ---------------------------------------------------------------------------------------------


def test_overrides_are_yaml_values_and_the_last_one_holds(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        "workers: 1",
        "stage1.lr=0.05",
        "stage1.augment=[flip]",
        "workers=3",
        "workers=4",
        "title=a=b",
        "heads={methods: [los]}",
        "heads.budget=2",
        "backbone.options.depth=3",
        "data.label=",
    )
    assert config.stage1 == Stage1(lr=0.05, augment=("flip",))
    assert (config.workers, config.title, config.data.label) == (4, "a=b", None)
    assert (config.heads.methods, config.heads.budget) == (("los",), 2)
    assert config.backbone.options == {"depth": 3}


def test_an_override_below_null_starts_from_defaults(tmp_path: Path) -> None:
    assert loaded(tmp_path, "stage1: null", "stage1.lr=1").stage1 == Stage1(lr=1.0)
    assert loaded(tmp_path, "stage1: {lr: 1}", "stage1=null").stage1 is None


OVERRIDES = [
    ("lr=1", "-s lr=1: there is no key 'lr', did you mean 'stage1.lr'?"),
    ("stage1.lrr=1", "-s stage1.lrr=1: there is no key 'stage1.lrr', did you mean 'stage1.lr'?"),
    ("zzz=1", "-s zzz=1: there is no key 'zzz'; keys are such as stage1.lr or data.train"),
    ("=1", "-s =1: there is no key ''; keys are such as stage1.lr or data.train"),
    ("stage1.lr.x=1", "-s stage1.lr.x=1: there is no key 'stage1.lr.x', did you mean 'stage1.lr'?"),
    ("stage1.lr", "-s stage1.lr has no value; write -s KEY=VALUE, such as -s stage1.lr=0.05"),
    ("stage1.lr=x", 'run.yaml with -s stage1.lr=x: stage1.lr must be a number; got "x"'),
    ("stage1.epochs=2", "run.yaml with -s stage1.epochs=2: stage1.warmup_epochs must be at most epochs=2, got 5"),
    (
        "stage1.augment=[flip",
        "-s stage1.augment=[flip is not YAML: line 1: expected ',' or ']', but got '<stream end>'",
    ),
    ("title=!!python/name:os.system", "-s title=!!python/name:os.system, line 1: the tag !!python/name:os.system is "),
]


@pytest.mark.parametrize(("override", "message"), OVERRIDES, ids=[text for text, _ in OVERRIDES])
def test_an_override_that_does_not_fit_is_named(tmp_path: Path, override: str, message: str) -> None:
    assert refusal(tmp_path, "workers: 1", override).startswith(message)


def test_paths_start_from_the_file_and_those_of_overrides_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "with space ä"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    text = "data: {train: a/../b, test: hf:owner/name, root: /abs}\nbackbone: {weights: w.pt}"
    config = loaded(there, text, "data.held_out=c")
    assert config.data == Data(train=str(there / "b"), test="hf:owner/name", root="/abs", held_out=str(here / "c"))
    assert config.backbone.weights == str(there / "w.pt")
    (tmp_path / "dump.yaml").write_text(dump_config(config), encoding="utf-8")
    assert load_config(tmp_path / "dump.yaml") == config  # absolute: the same wherever it is read


# --- identity --------------------------------------------------------------------------------------------------------


def test_the_hash_ignores_words_and_speed_but_no_number() -> None:
    base = Config()
    assert config_hash(base) == config_hash(Config(title="x", workers=3, checkpoint_seconds=1.0, unknown=("y",)))
    assert len(config_hash(base)) == 16
    others = [
        Config(stage1=Stage1(seed=1)),
        Config(stage1=None),
        Config(data=Data(seed=1)),
        Config(data=Data(held_out_rows=0.2)),
        Config(device="cpu"),
    ]
    assert len({config_hash(config) for config in (base, *others)}) == 6


def test_whole_and_decimal_numbers_of_a_decimal_key_are_one_configuration(tmp_path: Path) -> None:
    one, two = loaded(tmp_path, "stage1: {lr: 1}"), loaded(tmp_path, "stage1: {lr: 1.0}")
    assert one == two
    assert config_hash(one) == config_hash(two) == config_hash(Config(stage1=Stage1(lr=1)))


def test_differences_are_dotted_keys_with_both_values(tmp_path: Path) -> None:
    one = loaded(tmp_path, "workers: 1\nbackbone: {options: {depth: 3}}")
    other = loaded(tmp_path, "stage1: {lr: 0.05, augment: [flip]}\nbackbone: {options: {width: 2}}")
    assert differences(one, other) == [
        ("backbone.options.depth", 3, None),
        ("backbone.options.width", None, 2),
        ("stage1.augment", ["crop", "flip"], ["flip"]),
        ("stage1.lr", 0.1, 0.05),
    ]
    assert differences(one, one) == []
    assert differences(one, loaded(tmp_path, "stage1: null"))[1][0] == "stage1"


def test_no_rows_is_written_in_one_way() -> None:
    assert differences(Config(data=Data(test_rows=0.0)), Config(data=Data(test_rows=0))) == []


def test_the_schema_names_every_key_and_what_it_must_be() -> None:
    schema = json_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert schema["additionalProperties"] is False
    stage1 = schema["properties"]["stage1"]["anyOf"][0]
    assert set(stage1["properties"]) == {field.name for field in fields(Stage1)}
    assert stage1["properties"]["lr"]["description"] == "a number"
    assert schema["$defs"]["Data"]["properties"]["broken"]["enum"] == ["error", "skip"]


def test_a_weight_file_takes_the_place_of_the_published_weights_of_a_shipped_recipe():
    weights = "backbone.weights=w.safetensors"
    assert load_config("photographs", [weights]).backbone.pretrained is False
    assert load_config("photographs", [weights, "backbone.pretrained=true"]).backbone.pretrained is True
    assert load_config("photographs", ["backbone.weights=null"]).backbone.pretrained is True


def test_pretrained_in_a_file_of_ones_own_stays_beside_a_weight_file(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(dump_config(load_config("photographs")), encoding="utf-8")
    assert load_config(path, ["backbone.weights=w.safetensors"]).backbone.pretrained is True


# --- titles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ([], "Plain cross-entropy, CIFAR-100-LT imbalance 100, ResNet-32"),
        (
            ["data.train=x", "data.label=y", "device=cpu", "workers=2"],
            "Plain cross-entropy, CIFAR-100-LT imbalance 100, ResNet-32",
        ),
        (["stage1.lr=0.1"], "Plain cross-entropy, CIFAR-100-LT imbalance 100, ResNet-32"),
        (
            ["stage1.loss=balanced_softmax", "stage1.seed=3"],
            "Plain cross-entropy, CIFAR-100-LT imbalance 100, ResNet-32; here loss balanced_softmax, seed 3",
        ),
        (
            ["data.order=null", "heads.budget=4"],
            "Plain cross-entropy, CIFAR-100-LT imbalance 100, ResNet-32; here heads.budget 4",
        ),
        (["stage1.loss=los", "title=mine"], "mine"),
        (
            [f"data.class_order={list(range(8))}"],
            "Plain cross-entropy, CIFAR-100-LT imbalance 100, ResNet-32; here data.class_order "
            "[0, 1, 2, 3, 4, 5, 6, 7]",
        ),
        (
            [f"data.class_order={list(range(9))}"],
            "Plain cross-entropy, CIFAR-100-LT imbalance 100, ResNet-32; here data.class_order a list of 9",
        ),
    ],
)
def test_a_title_says_what_is_run(changes, title):
    assert load_config("ce_cifar100_lt", changes).title == title


def test_a_file_without_a_title_gets_none(tmp_path):
    (tmp_path / "run.yaml").write_text("workers: 1\n")
    assert load_config(tmp_path / "run.yaml", ["stage1.lr=0.5"]).title is None
