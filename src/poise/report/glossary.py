"""What the words of a report mean: those that occur in it."""

from collections.abc import Mapping
from typing import NamedTuple

from poise.report.contents import Contents
from poise.report.figure import Figure

__all__ = ["Word", "glossary"]


class Word(NamedTuple):
    """A word and what it means."""

    name: str
    meaning: str


def glossary(contents: Contents, figures: Mapping[str, Figure]) -> list[Word]:
    """The words that this report needs, general ones first."""
    rows, told = contents.rows, contents.verdict
    ranges = [score for row in rows for score in row.scores.values() if score is not None]
    said = " ".join(text.lower() for text in spoken(contents))
    measured = any(row.magnitude or row.loma_variation is not None for row in rows)
    every = (
        (True, HEAD),
        (True, GROUPS),
        (True, RECALL),
        (any(value.low is not None for value in ranges), INTERVAL),
        (any(row.gain is not None for row in rows), OVER_CLASSES),
        (told.tied is not None or any(row.tied for row in rows), TIED),
        (told.oracle is not None or "oracle" in said, ORACLE),
        (told.gap_closed is not None or bool(gap_lines(figures)), GAP),
        (any(row.role == "recipe" for row in rows), RECIPE),
        (any(row.transductive for row in rows), TRANSDUCTIVE),
        (any(trace["name"] == "Pareto front" for trace in traces(figures, "tradeoff")), FRONT),
        (measured, MAGNITUDE),
        (any(row.spread for row in rows), SPREAD),
        (any(row.ece is not None for row in rows), ECE),
        (any(row.nll is not None for row in rows), NLL),
        (any(row.implied_prior for row in rows) or "prior" in said, PRIOR),
    )
    return [word for occurs, word in every if occurs]


def spoken(contents: Contents) -> list[str]:
    """The sentences of a report that were written elsewhere."""
    told, protocol = contents.verdict, contents.protocol
    advised = [] if contents.advice is None else [contents.advice.sentence]
    facts = [text for fact in protocol.facts for text in (fact.name, fact.text)]
    return [told.sentence, *advised, *facts, *protocol.remarks]


def traces(figures: Mapping[str, Figure], name: str) -> tuple[dict[str, object], ...]:
    """What a chart draws; nothing if it is not there."""
    return figures[name].traces if name in figures else ()


def gap_lines(figures: Mapping[str, Figure]) -> list[object]:
    """The lines towards the oracle in the chart of gains."""
    return figures["gains"].layout["shapes"] if "gains" in figures else []


HEAD = Word(
    "head", "The last layer of a classifier: it turns the features of a row into one score, a logit, per class."
)
GROUPS = Word("many, medium, few", "Classes by their number of training rows; the limits stand under Class sizes.")
RECALL = Word(
    "recall, balanced accuracy",
    "The share of a class's rows that are answered right, and its mean over classes, in which a rare class counts as "
    "much as a frequent one.",
)
INTERVAL = Word("interval", "Where a number would lie with other rows of the same classes.")
OVER_CLASSES = Word(
    "over images, over classes",
    "Two intervals of a gain: for other images of the same classes, and for other classes of the same kind.",
)
TIED = Word("tied", "Not to be told from the best method on the rows scored, all comparisons taken together.")
ORACLE = Word(
    "oracle", "A head that may learn from labelled rows of the test kind; about the best that these features allow."
)
GAP = Word("gap closed", "The gain as a share of the way from the baseline to the oracle.")
RECIPE = Word(
    "recipe as stated",
    "A method with its published or default settings rather than with settings chosen for these features.",
)
TRANSDUCTIVE = Word(
    "transductive", "Using statistics of the rows to be answered, all at once and without their labels."
)
FRONT = Word("Pareto front", "The methods that no other one beats for the many and for the few at once.")
MAGNITUDE = Word(
    "Logits Magnitude",
    "The mean logit of a class on its own rows, less its mean on the rows of other classes; or, in the other reading, "
    "less the mean of the other logits on the same rows.",
)
SPREAD = Word(
    "Regularized Std",
    "The standard deviation of that logit over the rows of the class, divided by the Logits Magnitude.",
)
ECE = Word("ECE", "Expected calibration error: the mean distance of confidence from the share right.")
NLL = Word("NLL", "Negative log-likelihood of the true classes; lower is better.")
PRIOR = Word(
    "prior", "The class frequencies that a head expects where it is used; uniform means that all classes are alike."
)
