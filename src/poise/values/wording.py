"""Pieces of sentences: the name that was meant, the first of many, fractions in per cent."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from types import MappingProxyType

# What other libraries call the same.
SYNONYMS: Mapping[str, str] = MappingProxyType(
    {
        "arch": "backbone",
        "batch": "batch_size",
        "bs": "batch_size",
        "decay": "weight_decay",
        "l2": "weight_decay",
        "learning_rate": "lr",
        "max_epochs": "epochs",
        "num_epochs": "epochs",
        "num_workers": "workers",
        "random_state": "seed",
        "warmup": "warmup_epochs",
        "wd": "weight_decay",
    }
)


LONGEST, MOST = 200, 10_000  # characters of a name, and names, among which one is looked for in an instant


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun.

    >>> counted(1, "class", "classes"), counted(2, "row")
    ('1 class', '2 rows')
    """
    return f"{number} {one if number == 1 else many or one + 's'}"


def near(name: str, names: Iterable[str]) -> str:
    """', did you mean ...?' if there is a name like it, or one that means the same, else nothing.

    >>> near("stage1.learning_rate", ["stage1.epochs", "stage1.lr"])
    ", did you mean 'stage1.lr'?"
    """
    if len(name) > LONGEST:
        return ""
    known = [known for known in islice(names, MOST) if len(known) <= LONGEST]
    section, dot, last = name.rpartition(".")
    same = SYNONYMS.get(last.replace("-", "_").lower())
    meant = [k for k in known if same is not None and k in (section + dot + same, same)]
    meant = meant or [k for k in known if same is not None and k.endswith(f".{same}")]
    close = meant or difflib.get_close_matches(name, known, n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def percent(share: float | None, digits: int = 1) -> str:
    """A fraction in per cent; "-" where there is nothing.

    >>> percent(0.1234), percent(0.1234, 2), percent(None)
    ('12.3', '12.34', '-')
    """
    return "-" if share is None else f"{100 * share:.{digits}f}"


def signed(share: float) -> str:
    """A difference of fractions in points, always with its sign, which is + for what rounds to nothing.

    >>> signed(0.06), signed(-0.0001)
    ('+6.0', '+0.0')
    """
    text = f"{100 * share:+.1f}"
    return "+0.0" if text == "-0.0" else text


def prior_in_words(prior: Sequence[float] | None, counts: Sequence[int] | None, names: Sequence[str]) -> str:
    """The class prior that probabilities are for, of classes with these names and training counts (None: not known).

    >>> prior_in_words((0.5, 0.5), (9, 1), ("cat", "ant"))
    'a uniform class prior'
    """
    if prior is None:
        return "no prior: treat them as scores"
    if _alike(prior, [1] * len(prior)):
        return "a uniform class prior"
    if counts is not None and _alike(prior, counts):
        return "the class frequencies of the training rows (prior train)"
    name, share = max(zip(names, prior, strict=True), key=lambda pair: pair[1])
    return f"a prior that was given ({name} {share:.3g}, ...)"


def _alike(prior: Sequence[float], sizes: Sequence[float]) -> bool:
    total = sum(sizes)
    return all(abs(share - size / total) < 1e-6 for share, size in zip(prior, sizes, strict=True))


def some(names: Sequence[str], most: int = 5) -> str:
    """The first `most` names with commas, and dots if there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
