"""The headline of a report: one line that says what lies in the folder, or what is to be done."""

from typing import NamedTuple

from poise.report.charts.chart import percent, signed
from poise.report.text.words import recommended
from poise.results.contents import Contents, Verdict
from poise.values.wording import counted


class Headline(NamedTuple):
    """Words, the method that they are about, and what is said of it in a smaller line; empty where there is none."""

    words: str
    method: str
    note: str


def headline(contents: Contents) -> Headline:
    """What a reader takes away: of the model in the folder, where there is one, whatever the verdict."""
    told = contents.verdict
    if told.held is not None:
        return Headline("In this folder:", told.held, held(told, told.held))
    if told.decision == "change" and told.recommended is not None:
        return Headline("Change to", told.recommended, gained(told))
    if told.decision == "keep":
        return Headline("Keep", told.baseline, "nothing is better beyond doubt on these rows")
    if told.decision == "fitted":
        return Headline("Fitted:", told.recommended or told.baseline, gained(told) if told.gain else "")
    if told.decision == "evaluated":
        return Headline("Evaluated:", told.recommended or told.baseline, reached(contents))
    return Headline("No verdict", "", "")


def held(told: Verdict, method: str) -> str:
    """What the comparison says of the model in the folder."""
    if told.decision == "none" or told.recommended is None:
        return "no verdict"
    if method not in (told.recommended, told.baseline):
        rival = told.recommended if told.decision == "change" else told.baseline
        return f"as asked; the comparison is about {told.recommended} and speaks for {rival}"
    if told.decision == "change":
        return gained(told)
    if method == told.baseline:
        return "nothing was better on the rows that settings were chosen on"
    return f"not better than {told.baseline} beyond doubt on these rows"


def gained(told: Verdict) -> str:
    """The gain over the baseline, with its interval where that does not exclude that there is none."""
    if told.gain is None:
        return ""
    over = f"{signed(told.gain.estimate)} points of balanced accuracy"
    if told.gain.low is None or told.gain.high is None or told.gain.low > 0:
        return over
    return f"{over} ({signed(told.gain.low)} to {signed(told.gain.high)})"


def reached(contents: Contents) -> str:
    """Balanced accuracy of the model evaluated with its interval, and of how many labelled rows it is."""
    row = recommended(contents)
    found = None if row is None else row.scores.get("balanced")
    rows = counted(sum(contents.classes.scored), "labelled row")
    if found is None:
        return f"on {rows}"
    between = "" if found.low is None else f" ({percent(found.low)} to {percent(found.high)})"
    return f"balanced accuracy {percent(found.estimate)} %{between} on {rows}"
