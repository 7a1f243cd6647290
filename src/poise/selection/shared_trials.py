"""Trials that any number of processes, also on several machines, take from one folder: an Optuna journal and locks.

    folder/journal.log       every trial; only ever added to
    folder/study.lock        held by whoever reads or writes the journal, for a fraction of a second
    folder/worker-K-*.lock   held by the K-th worker as long as it lives; the rest is its machine and process number

The operating system frees a lock when its process ends, however that ends. So a trial is being worked on exactly as
long as the lock of its worker cannot be taken. One that a dead worker left is marked as failed, and its settings wait
to be tried again. All of this happens under the lock of the study, so that no two workers do the same.
"""

import os
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from poise.errors import InputError, reason_of
from poise.machine.libraries import held_at, needed
from poise.machine.reading import regular, sentence_for
from poise.results.scores import Scores
from poise.selection.grids import Axis
from poise.values.fields import TABLE, TEXT, Kind, at_least, check_fields, optional, whole
from poise.values.randomness import seed_for

if TYPE_CHECKING:
    import optuna
    from filelock import BaseFileLock

JOURNAL, GUARD, STUDY = "journal.log", "study.lock", "poise"
PATIENCE = 600  # seconds to wait for a lock that is held for less than a second at a time
FIRST = 16  # finished trials before the sampler follows what was found
REMEDY = "choose another folder"
FINISHED = MappingProxyType(
    {"details": TABLE, "worker": TEXT, "value": Kind("a number", lambda value: type(value) is float)}
)
GROUPS = ("many", "medium", "few")  # scores that may have no value
SCORED = frozenset(field.name for field in fields(Scores)) - {"per_class"}


def _are_scores(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != SCORED:
        return False
    return all(type(score) in (int, float) or (score is None and name in GROUPS) for name, score in value.items())


DETAILS = MappingProxyType({"method": TEXT, "scores": Kind("a table of scores", _are_scores), "seconds": at_least(0)})


class Finished(NamedTuple):
    """A trial that has a value; `details` is what was given with it."""

    number: int
    value: float
    details: Mapping[str, Any]
    worker: str


@contextmanager
def joined(
    folder: Path,
    identity: Mapping[str, str],
    ranges: Mapping[str, Axis],
    first: Sequence[Mapping[str, Any]],
    seed: int,
) -> Iterator["Worker"]:
    """Create the study of `folder` or join it, as one more worker until the block is left.

    `first` are settings that are tried before any other. A study of another `identity` is refused, unless nothing was
    finished in it and nobody works at it: then it gives way. What a worker still has in its hands when it leaves is
    repeated by the next one that looks.

    Raises: InputError for a folder with another study, or with a journal that cannot be read, and for one that cannot
    be written or locked; MissingExtraError without Optuna.
    """
    optuna = _optuna()
    from filelock import FileLock

    guard, said = FileLock(folder / GUARD, timeout=PATIENCE), optuna.logging
    with held_at(said.ERROR, said.get_verbosity, said.set_verbosity):
        with _alone(guard):
            study = _study_of(folder, guard, identity)
            number = study.user_attrs.get("workers", 0)
            study.set_user_attr("workers", number + 1)
            study.sampler = _sampler(seed_for(seed, number) % 2**32)
            own = FileLock(folder / f"worker-{number}-{socket.gethostname()}-{os.getpid()}.lock", timeout=0)
            own.acquire()
        try:
            yield Worker(guard, study, ranges, first, Path(own.lock_file).stem)
        finally:
            own.release()
            Path(own.lock_file).unlink(missing_ok=True)


class Worker:
    """One process at a study: it takes trials, and gives their values back.

    `name` is that of its lock; `repeated` counts the trials of dead workers that it made wait to be tried again.
    """

    def __init__(
        self,
        guard: "BaseFileLock",
        study: "optuna.Study",
        ranges: Mapping[str, Axis],
        first: Sequence[Mapping[str, Any]],
        name: str,
    ) -> None:
        self.name, self.repeated = name, 0
        self._guard, self._study, self._first = guard, study, first
        self._distributions = {key: _distribution(each) for key, each in ranges.items()}
        self._hands: dict[int, optuna.Trial] = {}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within, no other worker reads or writes anything of the study."""
        with _alone(self._guard):
            yield

    def take(self, total: int, most: int) -> dict[int, Mapping[str, Any]]:
        """The settings of up to `most` new trials by their numbers; none if `total` are finished or being worked on."""
        with self.alone():
            self._repeat_the_dead()
            room = total - len(self.finished()) - self.running()
            for _ in range(min(most, room)):
                self._plan()
                trial = self._study.ask(self._distributions)
                trial.set_user_attr("worker", self.name)
                self._hands[trial.number] = trial
            return {number: trial.params for number, trial in self._hands.items()}

    def give(self, found: Mapping[int, tuple[float, Mapping[str, Any]]]) -> None:
        """Finish trials in hand: number -> (value, details), where the details are plain JSON types."""
        with self.alone():
            states = {trial.number: trial.state for trial in self._trials()}
            for number, (value, details) in found.items():
                trial = self._hands.pop(number)
                # A lock can be lost, as when a machine was cut off: then another worker repeats what was in its hands.
                if not states[number].is_finished():
                    trial.set_user_attr("details", dict(details))
                    self._study.tell(trial, value)

    def finished(self) -> list[Finished]:
        """The finished trials of all workers, in order."""
        with self.alone():
            done = [trial for trial in self._trials() if trial.state.name == "COMPLETE"]
            return [
                Finished(t.number, cast(float, t.value), t.user_attrs["details"], t.user_attrs["worker"]) for t in done
            ]

    def running(self) -> int:
        """The number of trials that this worker, or another one that may live, has in hand."""
        with self.alone():
            return sum(trial.state.name == "RUNNING" for trial in self._trials())

    def _trials(self) -> "list[optuna.trial.FrozenTrial]":
        return self._study.get_trials(deepcopy=False)

    def _plan(self) -> None:
        """Have the next of the first settings waiting, unless a repeated one is: what waits is asked for first."""
        trials = self._trials()
        if any(trial.state.name == "WAITING" for trial in trials):
            return
        number = sum("planned" in trial.user_attrs for trial in trials)
        if number < len(self._first):
            self._study.enqueue_trial(dict(self._first[number]), user_attrs={"planned": number})

    def _repeat_the_dead(self) -> None:
        trials, living = self._trials(), _living(Path(self._guard.lock_file).parent)
        repeated = {trial.user_attrs.get("repeats") for trial in trials}
        for trial in trials:
            if trial.state.name != "RUNNING" or trial.user_attrs.get("worker") in living:
                continue
            # In this order, and with a mark, nothing is lost or repeated twice when this process dies here in turn.
            params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            if trial.number not in repeated:
                self._study.enqueue_trial(params, user_attrs={"repeats": trial.number})
            self._study.tell(trial.number, state=_optuna().trial.TrialState.FAIL)
            self.repeated += 1


# --- the journal ------------------------------------------------------------------------------------------------------


def _optuna() -> Any:
    return needed("optuna", "search", "a shared study needs")


def _study_of(folder: Path, guard: "BaseFileLock", identity: Mapping[str, str]) -> "optuna.Study":
    """The study of the folder, which is that of `identity`; a new one if there is none, or only one that gives way."""
    journal = folder / JOURNAL
    study = _opened(journal, guard)
    there = study.user_attrs.get("identity")
    if there is not None and (different := _difference(there, identity)):
        begun = any(trial.state.name == "COMPLETE" for trial in study.get_trials(deepcopy=False))
        if begun or _living(folder):
            raise InputError(f"{folder} holds another study ({different}); choose another folder")
        journal.unlink()
        study = _opened(journal, guard)
    study.set_user_attr("identity", dict(identity))
    return study


def _opened(journal: Path, guard: "BaseFileLock") -> "optuna.Study":
    library = _optuna()
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    if journal.exists():
        regular(journal, REMEDY)
    with sentence_for(journal, "the journal of a study", REMEDY):
        # Every access happens under `guard`, which a thread can take again; unlike Optuna's own lock, it dies with us.
        storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=cast(Any, guard)))
        study: optuna.Study = library.create_study(
            storage=storage, study_name=STUDY, direction="maximize", load_if_exists=True
        )
        said = study.user_attrs
    kinds = {"identity": optional(TABLE), "workers": optional(whole(0))}
    check_fields(f"{journal}: ", {name: said.get(name) for name in kinds}, kinds, f"; {REMEDY}")
    for trial in study.get_trials(deepcopy=False):
        _check_trial(journal, trial)
    return study


def _check_trial(journal: Path, trial: "optuna.trial.FrozenTrial") -> None:
    """Raises: InputError for a finished trial that does not say what was measured."""
    if trial.state.name == "COMPLETE":
        where = f"{journal}: trial {trial.number}: "
        with sentence_for(journal, "the journal of a study", REMEDY):
            value = trial.value  # there is none in a study of several aims
        check_fields(where, {**trial.user_attrs, "value": value}, FINISHED, f"; {REMEDY}")
        check_fields(f"{where}details: ", trial.user_attrs["details"], DETAILS, f"; {REMEDY}")


def _difference(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    pairs = [(key, there.get(key, "none"), here.get(key, "none")) for key in {**there, **here}]
    return "; ".join(f"{key} {one} there, {other} here" for key, one, other in pairs if one != other)


def _sampler(seed: int) -> Any:
    """TPE that counts trials in other hands as bad ones, so that a batch and several workers spread out."""
    optuna = _optuna()
    with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=FIRST, multivariate=True, constant_liar=True)


def _distribution(of: Axis) -> Any:
    kinds = _optuna().distributions
    if of.choices:
        return kinds.CategoricalDistribution(of.choices)
    return kinds.FloatDistribution(of.low, of.high, log=of.log)


# --- locks ------------------------------------------------------------------------------------------------------------


@contextmanager
def _alone(guard: "BaseFileLock") -> Iterator[None]:
    """Within, the lock of the study is held, and what a death in the middle of a write left has gone."""
    from filelock import SoftFileLock, Timeout

    folder = Path(guard.lock_file).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings(action="ignore"):  # what is said of a file system without locks follows here
            guard.acquire()
    except Timeout:
        raise InputError(
            f"{guard.lock_file} has been held by another process for {PATIENCE // 60} minutes; end it, or start again"
        ) from None
    except (OSError, NotImplementedError) as error:
        raise _unusable(folder, error) from None
    try:
        if isinstance(guard, SoftFileLock):
            raise InputError(f"the file system of {folder} has no file locks (flock); choose a folder on another one")
        _mend(folder / JOURNAL)
        yield
    except OSError as error:
        raise _unusable(folder, error) from None
    finally:
        guard.release()


def _unusable(folder: Path, error: Exception) -> InputError:
    return InputError(f"cannot write into {folder} ({reason_of(error)}); choose another folder")


def _mend(journal: Path) -> None:
    """Cut off a last line that has no end: its writer died while it wrote, and the next line would be added to it."""
    if not journal.exists() or journal.stat().st_size == 0:
        return
    with journal.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read() != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def _living(folder: Path) -> set[str]:
    """The names of workers whose locks cannot be taken; the files of the others are removed."""
    from filelock import FileLock, Timeout

    found = set()
    for path in sorted(folder.glob("worker-*.lock")):
        lock = FileLock(path, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            found.add(path.stem)
            continue
        lock.release()
        path.unlink(missing_ok=True)
    return found
