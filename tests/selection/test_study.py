"""Studies that processes share: what is found, what is refused, and what becomes of the trials of the dead."""

import csv
import json
import multiprocessing
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from poise import testing
from poise.cli import main
from poise.errors import InputError, MemorisedRowsError, MissingExtraError, PoiseWarning
from poise.machine.folders import differences, sealed
from poise.selection import shared_trials
from poise.selection import study as studies
from poise.selection.grids import Axis, axes
from poise.selection.rules import Judging
from poise.selection.study import Studied, study
from poise.selection.tune import pick, tune
from poise.selection.validation import judge
from poise.values.problem import Problem
from poise.values.spec import Spec

optuna = pytest.importorskip("optuna")

NCM = 9  # settings of ncm: three transforms, three distances
KILLED = -signal.SIGKILL


def world(**changes: Any) -> Problem:
    return testing.world(**{"counts": (60, 20, 8, 4), "held_out": 8, **changes})


def quietly(spec: str, folder: Path, problem: Problem | None = None, **options: Any) -> Studied:
    """`study` on a small problem, with the remarks about ends of ranges left aside; options also of `Judging`."""
    judging = Judging(**{field.name: options.pop(field.name) for field in fields(Judging) if field.name in options})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the best of the study", category=PoiseWarning)
        return study(spec, problem or world(), folder, judging, **options)


def states(folder: Path) -> list[str]:
    """The states of all trials of the one study of a journal, as Optuna reads them without any of our code."""
    return [trial.state.name for trial in trials_of(folder)]


def trials_of(folder: Path) -> list[Any]:
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "journal.log"))
    storage = optuna.storages.JournalStorage(backend)
    (found,) = storage.get_all_studies()
    return storage.get_all_trials(found._study_id)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about power cuts, and a journal is flushed for every change of a trial."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


# --- other processes --------------------------------------------------------------------------------------------------


def dies(folder: Path, at: int, trials: int) -> None:
    """A worker that is killed when it has taken its `at`-th batch of four trials."""
    calls = iter(range(at))

    def progress(done: int, of: int) -> None:
        if next(calls) == at - 1:
            os.kill(os.getpid(), signal.SIGKILL)

    quietly("tau_norm", folder, trials=trials, together=4, progress=progress)


def waits(folder: Path, taken: Any, leave: Any) -> None:
    """A worker that holds four trials until it may go on."""

    def progress(done: int, of: int) -> None:
        taken.set()
        leave.wait(30)

    quietly("tau_norm", folder, trials=4, together=4, progress=progress)


def works(folder: Path, ready: Any, trials: int) -> None:
    """A worker that begins when all do."""
    ready.wait(30)
    found = quietly("tau_norm", folder, trials=trials, together=3)
    (folder.parent / f"{os.getpid()}.json").write_text(json.dumps([found.own, found.repeated]))


def started(task: Callable[..., None], *arguments: Any) -> BaseProcess:
    process = CONTEXT.Process(target=_begin, args=(task, arguments))
    process.start()
    return process


def _begin(task: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.fsync = lambda descriptor: None
    task(*arguments)


def ended(process: BaseProcess) -> int | None:
    process.join(60)
    if process.is_alive():
        process.kill()
    return process.exitcode


CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["optuna", "pytest", "poise.selection.study", "poise.testing"])  # the slow imports, once


@contextmanager
def a_worker_with_four_trials(folder: Path) -> Iterator[None]:
    taken, leave = CONTEXT.Event(), CONTEXT.Event()
    process = started(waits, folder, taken, leave)
    assert taken.wait(60)
    yield
    leave.set()
    assert ended(process) == 0


# --- what is found ----------------------------------------------------------------------------------------------------


def test_the_best_is_what_picking_by_hand_among_the_same_settings_gives(tmp_path: Path) -> None:
    found = quietly("crt(epochs=2)", tmp_path / "s", trials=20, together=8)
    specs = tuple(tried.spec for tried in found.trials)
    judgement = judge(specs, world())
    assert found.best == pick(judgement, specs)[0]
    for tried in found.trials:
        scores = judgement.trials[tried.spec].measured.scores
        assert tried.value == tried.scores.balanced_accuracy == scores.balanced_accuracy
        # Heads of another batch differ by the rounding of float32.
        assert tried.scores.nll == pytest.approx(scores.nll, rel=1e-4)


def test_ties_go_to_the_lower_nll_then_to_less_stated(tmp_path: Path) -> None:
    found = quietly("tau_norm", tmp_path / "s", trials=16)
    level = [tried._replace(value=0.5) for tried in found.trials]
    assert studies._best_first(level)[0].scores.nll == min(tried.scores.nll for tried in level)
    scores = level[0].scores
    a, b = (level[0]._replace(spec=Spec.parse(text), scores=scores) for text in ("tau_norm(tau=0.5)", "ncm"))
    assert studies._best_first((a, b))[0] == b


def test_a_worker_alone_finds_the_same_for_the_same_seed_and_other_settings_for_another(tmp_path: Path) -> None:
    def specs(name: str, seed: int) -> list[tuple[Spec, float]]:
        found = quietly("crt(epochs=1)", tmp_path / name, trials=40, seed=seed)
        return [(tried.spec, tried.value) for tried in found.trials]

    one, same, other = specs("a", 0), specs("b", 0), specs("c", 1)
    assert one == same
    assert len(one) == 40
    assert not {spec for spec, _ in one} & {spec for spec, _ in other}


def test_settings_lie_in_the_ranges_and_zero_is_one_where_the_axis_says_so(tmp_path: Path) -> None:
    spec = Spec.parse("crt(epochs=1)+tau_norm")
    found = quietly(str(spec), tmp_path / "s", trials=48)
    assert len({tried.spec for tried in found.trials}) == 48
    for number, axis in axes(spec):
        values = [dict(tried.spec.steps[number].params)[axis.parameter] for tried in found.trials]
        factor = 3.0 if axis.relative else 1.0  # the learning rate of crt by default
        inside = [value for value in values if not (axis.with_zero and value == 0)]
        assert all(axis.low * factor <= value <= axis.high * factor for value in inside)
        assert bool(len(inside) < 48) == axis.with_zero


def test_the_first_trials_cover_every_range_evenly(tmp_path: Path) -> None:
    found = quietly("tau_norm", tmp_path / "s", trials=16)
    tau = sorted(dict(tried.spec.params)["tau"] for tried in found.trials)
    assert [int(value / 1.875 * 16) for value in tau] == list(range(16))


def test_listed_choices_are_tried_with_every_combination_once(tmp_path: Path) -> None:
    first = quietly("ncm", tmp_path / "s", trials=4)
    rest = quietly("ncm", tmp_path / "s", trials=64)
    assert (first.own, rest.own, len(rest.trials)) == (4, NCM - 4, NCM)
    assert len({tried.spec for tried in rest.trials}) == NCM
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PoiseWarning)
        assert rest.best == tune([tried.spec for tried in rest.trials], world()).best


def test_a_method_without_open_settings_is_measured_once(tmp_path: Path) -> None:
    found = quietly("tau_norm(tau=0.5)", tmp_path / "s")
    assert [tried.spec for tried in found.trials] == [found.best] == [Spec("tau_norm", tau=0.5)]


def test_folds_choose_as_tune_does(tmp_path: Path) -> None:
    problem = world(counts=(30, 20, 15), held_out=0, head=False)
    problem = replace(problem, train=replace(problem.train, seen_by_backbone=False))
    how: dict[str, Any] = {"select": "kfold", "folds": 2, "metric": "macro_f1"}
    found = quietly("ncm", tmp_path / "s", problem, groups=list(range(65)), **how)
    best, records = tune([tried.spec for tried in found.trials], problem, groups=list(range(65)), **how)
    assert found.best == best
    assert [tried.value for tried in found.trials] == [record.scores.macro_f1 for record in records]


def test_a_best_value_at_the_end_of_its_range_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = {opening.name: opening for opening in studies._openings(Spec.parse("crt+lda+tau_norm"))}
    assert ends["1.lr"].end(29.0) == 30.0
    assert ends["1.lr"].end(0.31) == 0.3
    assert ends["1.lr"].end(3.0) is None
    assert ends["1.weight_decay"].end(0.0) is None
    assert ends["1.weight_decay"].end(2.1e-5) is None  # zero, below it, was tried too
    assert ends["2.shrinkage"].end(0.99) is None  # no shrinkage is stronger
    assert ends["3.tau"].end(0.01) is None
    said = studies._edge(Spec("tau_norm", tau=1.874), studies._openings(Spec("tau_norm")))
    assert said == [
        "the best of the study, tau_norm(tau=1.874), lies at the end of its range: try values beyond tau=1.875"
    ]
    monkeypatch.setattr(studies, "EDGE", 0.6)
    with pytest.warns(PoiseWarning, match=r"^the best of the study, tau_norm\(tau=.* try values beyond tau=1.875$"):
        study("tau_norm", world(), tmp_path, trials=4)


def test_the_table_holds_every_finished_trial(tmp_path: Path) -> None:
    found = quietly("tau_norm", tmp_path / "a folder ü", trials=5, together=2)
    rows = list(csv.DictReader(found.written.read_text().splitlines()))
    assert [row["method"] for row in rows] == [tried.method for tried in found.trials]
    assert [float(row["value"]) for row in rows] == [tried.value for tried in found.trials]
    assert {row["many"] for row in rows} == {""}
    assert {row["worker"] for row in rows} == {found.trials[0].worker}
    assert sorted(path.name for path in found.written.parent.iterdir()) == [
        "SHA256SUMS",
        "journal.log",
        "study.lock",
        "trials.csv",
    ]
    assert sorted(sealed(found.written.parent)) == ["journal.log", "trials.csv"]
    assert differences(found.written.parent) == []


def test_progress_counts_all_trials(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    quietly("crt(epochs=2)", tmp_path / "s", trials=6, together=4, progress=lambda *now: seen.append(now))
    shares = [done / of for done, of in seen]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    assert 4 / 6 in shares


def test_a_value_that_is_no_number_is_the_worst_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judged(specs, *arguments, **options):
        found = judge(specs, *arguments, **options)
        lost = found.trials[specs[0]]
        scores = replace(lost.measured.scores, balanced_accuracy=float("nan"), nll=float("inf"))
        return found._replace(
            trials={**found.trials, specs[0]: lost._replace(measured=lost.measured._replace(scores=scores))}
        )

    monkeypatch.setattr(studies, "judge", judged)
    found = quietly("tau_norm", tmp_path / "s", trials=24, together=12)
    assert [tried.number for tried in found.trials if tried.value == float("-inf")] == [0, 12]
    assert found.best not in (found.trials[0].spec, found.trials[12].spec)
    assert quietly("tau_norm", tmp_path / "s", trials=24).best == found.best


# --- the dead ---------------------------------------------------------------------------------------------------------


def test_trials_of_a_killed_worker_are_failed_and_repeated_by_the_next_one(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    assert ended(started(dies, folder, 2, 12)) == KILLED
    assert states(folder)[:8] == ["COMPLETE"] * 4 + ["RUNNING"] * 4
    assert len(list(folder.glob("worker-0-*.lock"))) == 1
    lost = [trial.params for trial in trials_of(folder) if trial.state.name == "RUNNING"]
    found = quietly("tau_norm", folder, trials=12, together=4)
    assert (found.own, found.repeated, found.running, len(found.trials)) == (8, 4, 0, 12)
    after = trials_of(folder)
    assert [trial.state.name for trial in after[4:8]] == ["FAIL"] * 4
    assert sum(trial.state.name == "COMPLETE" for trial in after) == 12
    again = [trial.params for trial in after if "repeats" in trial.user_attrs]
    assert again == lost
    assert not list(folder.glob("worker-*"))


def test_settings_are_repeated_once_however_many_die_or_look_at_the_same_time(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    assert [ended(started(dies, folder, 1, 12)) for _ in range(2)] == [KILLED] * 2
    ready = CONTEXT.Barrier(2)
    workers = [started(works, folder, ready, 12) for _ in range(2)]
    assert [ended(worker) for worker in workers] == [0, 0]
    told = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    # The first death left four, of which the second took over all; these four are dead for the second time.
    assert [sum(column) for column in zip(*told, strict=True)] == [12, 4]
    repeats = [trial.user_attrs["repeats"] for trial in trials_of(folder) if "repeats" in trial.user_attrs]
    assert len(repeats) == len(set(repeats)) == 8
    assert states(folder).count("COMPLETE") == 12
    assert states(folder).count("RUNNING") == 0


def test_trials_of_a_living_worker_are_left_to_it(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    with a_worker_with_four_trials(folder):
        found = quietly("tau_norm", folder, trials=4)
        assert (found.best, found.trials, found.own, found.running, found.repeated) == (None, (), 0, 4, 0)
        more = quietly("tau_norm", folder, trials=7)
        assert (more.own, more.running) == (3, 4)
    assert len(quietly("tau_norm", folder, trials=7).trials) == 7


@pytest.mark.parametrize("after", ["a trial waits", "it is popped", "it has a setting"])
def test_a_death_in_the_middle_of_taking_a_trial_loses_no_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    place = {"a trial waits": "_pop_waiting_trial_id", "it is popped": "_suggest", "it has a setting": "set_user_attr"}
    owner = optuna.Study if after == "a trial waits" else optuna.Trial
    whole = quietly("tau_norm", tmp_path / "whole", trials=5)

    def death(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as within:
        within.setattr(owner, place[after], death)
        with pytest.raises(KeyboardInterrupt):
            quietly("tau_norm", tmp_path / "s", trials=5)
    found = quietly("tau_norm", tmp_path / "s", trials=5)
    assert {tried.spec for tried in found.trials} == {tried.spec for tried in whole.trials}
    assert found.repeated == (after != "a trial waits")


def test_a_death_in_the_middle_of_a_line_costs_that_line(tmp_path: Path) -> None:
    quietly("tau_norm", tmp_path, trials=2)
    with (tmp_path / "journal.log").open("ab") as file:
        file.write(b'{"op_code": 4, "tri')
    assert len(quietly("tau_norm", tmp_path, trials=4).trials) == 4
    assert all(json.loads(line) for line in (tmp_path / "journal.log").read_text().splitlines())
    assert states(tmp_path) == ["COMPLETE"] * 4


@pytest.mark.parametrize("wish", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_worker_leaves_its_trials_to_the_next(tmp_path: Path, wish: type[BaseException]) -> None:
    def progress(done: int, of: int) -> None:
        if done:
            raise wish

    with pytest.raises(wish):
        quietly("tau_norm", tmp_path, trials=8, together=3, progress=progress)
    assert not list(tmp_path.glob("worker-*"))
    found = quietly("tau_norm", tmp_path, trials=8)
    assert (found.own, found.repeated, len(found.trials)) == (5, 3, 8)


def test_a_worker_whose_trials_were_given_away_does_not_disturb(tmp_path: Path) -> None:
    ranges = {"a": Axis("a", 0.0, 1.0)}
    with shared_trials.joined(tmp_path, {"x": "1"}, ranges, [], 0) as lost:
        (number,) = lost.take(2, 1)
        (tmp_path / f"{lost.name}.lock").unlink()  # what a cut connection does to a lock
        with shared_trials.joined(tmp_path, {"x": "1"}, ranges, [], 0) as other:
            again = other.take(1, 1)
            assert other.repeated == 1
            lost.give({number: (1.0, {})})
            other.give({key: (2.0, {}) for key in again})
            assert [(each.number, each.value) for each in other.finished()] == [(1, 2.0)]


@pytest.mark.parametrize("values", ["[0.5,0.5]", "[]"])
def test_a_trial_with_several_values_or_none_is_refused(tmp_path: Path, values: str) -> None:
    quietly("tau_norm", tmp_path, trials=4)
    journal = tmp_path / "journal.log"
    changed, times = re.subn(r'"values":\[[\d.]+\]', f'"values":{values}', journal.read_text())
    assert times == 4
    journal.write_text(changed)
    with pytest.raises(InputError, match=r"journal\.log"):
        quietly("tau_norm", tmp_path, trials=4)


# --- several ----------------------------------------------------------------------------------------------------------


def test_two_workers_that_start_together_create_one_study_and_share_its_trials(tmp_path: Path) -> None:
    folder, ready = tmp_path / "s", CONTEXT.Barrier(2)
    workers = [started(works, folder, ready, 24) for _ in range(2)]
    assert [ended(worker) for worker in workers] == [0, 0]
    assert states(folder) == ["COMPLETE"] * 24
    told = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert [sum(column) for column in zip(*told, strict=True)] == [24, 0]
    found = quietly("tau_norm", folder, trials=24)
    assert (found.own, len(found.trials)) == (0, 24)
    assert len({tried.spec for tried in found.trials}) == 24
    assert len(found.written.read_text().splitlines()) == 25


def test_a_larger_budget_goes_on_where_a_smaller_one_ended(tmp_path: Path) -> None:
    first = quietly("tau_norm", tmp_path / "s", trials=10)
    more = quietly("tau_norm", tmp_path / "s", trials=30)
    assert more.trials[:10] == first.trials
    assert (more.own, len(more.trials), len({tried.spec for tried in more.trials})) == (20, 30, 30)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_folder_with_another_study_is_refused_with_what_differs(tmp_path: Path) -> None:
    quietly("tau_norm", tmp_path / "s", trials=1)

    def refused(spec: str, problem: Problem | None = None, **options: Any) -> str:
        with pytest.raises(InputError) as error:
            quietly(spec, tmp_path / "s", problem, trials=1, **options)
        return str(error.value).replace(str(tmp_path), "")

    asked = refused("tau_norm", metric="macro_f1", seed=1)
    assert asked == (
        "/s holds another study (metric balanced_accuracy there, macro_f1 here; seed 0 there, 1 here); choose another "
        "folder"
    )
    assert "(method tau_norm (tau 0 to 1.875) there, lda (shrinkage 0.001 to 1) here);" in refused("lda")
    here, other = world(), world(seed=1)
    assert refused("tau_norm", replace(here, train=other.train)).startswith(
        f"/s holds another study (training rows {here.train.key} there, {other.train.key} here);"
    )
    assert "(held-out rows " in refused("tau_norm", replace(here, held_out=other.held_out))
    assert "(head " in refused("tau_norm", replace(here, head=other.head))
    assert "(rule held_out there, kfold here; folds none there, 5 here);" in refused("tau_norm", select="kfold")


def test_a_study_in_which_nothing_was_finished_gives_way_unless_somebody_works_at_it(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    with pytest.raises(InputError, match="selection on held_out needs"):
        quietly("tau_norm", folder, replace(world(), held_out=None))
    assert states(folder).count("RUNNING") == 16
    found = quietly("ncm", folder)
    assert (len(found.trials), found.repeated) == (NCM, 0)
    with a_worker_with_four_trials(tmp_path / "t"), pytest.raises(InputError, match="holds another study"):
        quietly("ncm", tmp_path / "t")


def test_rows_that_trained_the_representation_are_refused(tmp_path: Path) -> None:
    problem = world()
    assert problem.held_out is not None
    with pytest.raises(MemorisedRowsError):
        quietly("tau_norm", tmp_path, replace(problem, held_out=replace(problem.held_out, seen_by_backbone=True)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 0}, "trials must be a whole number, 1 or more, got 0"),
        ({"together": 1.5}, "together must be a whole number, 1 or more, got 1.5"),
        ({"select": "test"}, "selection must be one of held_out, kfold; got 'test'"),
        ({"metric": "f1"}, "metric must be one of balanced_accuracy, accuracy, macro_f1, many, medium, few; got 'f1'"),
        ({"metric": "many"}, "the rows to select on hold no class for the metric 'many'; choose balanced_accuracy"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        quietly("tau_norm", tmp_path, **options)
    assert str(error.value) == message


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as error:
        quietly("tau_norm", tmp_path / "file" / "s")
    assert str(error.value) == f"cannot write into {tmp_path}/file/s (Not a directory); choose another folder"
    (tmp_path / "journal.log").write_text('{"a": 1}\n')
    with pytest.raises(InputError) as error:
        quietly("tau_norm", tmp_path)
    said = str(error.value)
    assert said.startswith(f"{tmp_path}/journal.log cannot be read as the journal of a study: ")
    assert said.endswith("; choose another folder")


def test_without_optuna_the_install_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError) as error:
        quietly("tau_norm", tmp_path / "s")
    assert str(error.value) == "a shared study needs optuna: pip install 'poise[search]'"
    assert not (tmp_path / "s").exists()


def test_optuna_says_nothing_and_keeps_its_settings(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    quietly("crt(epochs=1)", tmp_path / "s", trials=20)
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def poise_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the command line in a folder with two tables of rows: exit code, output, errors."""
    problem = world()
    assert problem.held_out is not None
    for name, rows in (("train", problem.train), ("held", problem.held_out)):
        lines = [
            ",".join(f"{v:.6g}" for v in x) + f",{k}" for x, k in zip(rows.x[0].tolist(), rows.y.tolist(), strict=True)
        ]
        (tmp_path / f"{name}.csv").write_text("\n".join(["a,b,c,d,e,f,label", *lines]) + "\n")
    monkeypatch.chdir(tmp_path)

    def run(words: str) -> tuple[object, str, str]:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            with pytest.raises(SystemExit) as stop:
                main(words.split())
        said = capsys.readouterr()
        return stop.value.code, said.out, said.err

    return run


TUNE = "tune train.csv tau_norm --held-out held.csv --study s"


def test_the_command_goes_on_with_a_study_and_says_where_it_stands(poise_, tmp_path: Path) -> None:
    code, out, err = poise_(f"{TUNE} --budget 3")
    assert (code, [line for line in err.splitlines() if not line.startswith(("note: ", "warning: "))]) == (0, [])
    assert "settings tried: 3, of them 3 now and 0 earlier or by other processes" in out
    code, out, _ = poise_(f"{TUNE} --budget 20")
    assert code == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("tau_norm(tau=") for line in lines) == 16
    assert "settings tried: 20, of them 17 now and 3 earlier or by other processes" in out
    best = next(line for line in lines if line.startswith("best: "))
    assert lines[-1] == "wrote s/trials.csv"
    code, out, _ = poise_(f"{TUNE} --budget 20 --json")
    told = json.loads(out)
    assert (code, f"best: {told['best']}", len(told["trials"]), told["own"]) == (0, best, 20, 0)
    assert poise_(f"{TUNE} --budget 20 --quiet")[1] == "wrote s/trials.csv\n"


def test_settings_of_training_are_told_apart_in_the_table(poise_) -> None:
    code, out, _ = poise_("tune train.csv crt(epochs=1) --held-out held.csv --study s --budget 3")
    lines = [line for line in out.splitlines() if line.startswith("crt(lr=")]
    assert (code, len(lines)) == (0, 3)
    assert all(",weight_decay=" in line for line in lines)


def test_the_command_says_that_other_processes_are_still_trying(poise_, tmp_path: Path) -> None:
    with shared_trials.joined(tmp_path / "s", {}, {"tau": Axis("tau", 0.0, 1.875)}, [], 0) as worker:
        worker.take(4, 4)
        # The identity of the other process is that of the command.
        with pytest.MonkeyPatch.context() as within:
            within.setattr(studies, "_identity", lambda *a, **k: {})
            code, out, _ = poise_(f"{TUNE} --budget 4")
    assert code == 0
    assert "settings tried: 0, of them 0 now and 0 earlier or by other processes" in out
    assert "settings that other processes are trying: 4; this is not the last word" in out
    assert "best: not known before the first setting is measured" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            f"{TUNE} --random --out o",
            "poise: --study draws its own settings, reads labels and writes into its folder; leave out --random, --out",
        ),
        (
            f"{TUNE} --unlabelled held.csv",
            "poise: --study draws its own settings, reads labels and writes into its folder; leave out --unlabelled",
        ),
        (
            f"{TUNE} --metric f",
            "poise: --metric must be one of balanced_accuracy, accuracy, macro_f1, many, medium, few; got 'f'",
        ),
        (
            "tune train.csv tau_norm --held-out held.csv --study train.csv",
            "poise: cannot write into train.csv (File exists); choose another folder",
        ),
    ],
)
def test_mistakes_on_the_command_line_are_one_sentence(poise_, words: str, message: str) -> None:
    code, out, err = poise_(words)
    assert (code, out, err.splitlines()[-1]) == (2, "", message)


def test_a_trial_that_lacks_a_value_is_a_damaged_journal() -> None:
    spec = Spec("tau_norm")
    ((_, axis),) = axes(spec)
    opening = studies.Opening("tau", 0, axis, 0.0)
    with pytest.raises(InputError, match=r"a trial of the study has no tau: journal\.log is damaged; restore it"):
        studies._setting(spec, [opening], {"rho": 0.5})
