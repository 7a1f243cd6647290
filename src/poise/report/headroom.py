"""What labelled rows would give beside what heads give, in lines."""

from poise.advice import Advice
from poise.headroom import LearningCurve
from poise.wording import percent

__all__ = ["headroom_lines"]


def headroom_lines(curve: LearningCurve, advice: Advice) -> list[str]:
    """The learning curve as a small table in per cent, then the advice; no table where no rows could be added."""
    if len(curve.sizes) < 2:
        return [advice.sentence]
    lines = ["labelled rows added per class, and balanced accuracy (many / medium / few) of a head that has them:"]
    for size, scores in zip(curve.sizes, curve.scores, strict=True):
        groups = " / ".join(map(percent, (scores.many, scores.medium, scores.few)))
        lines.append(f"  {size:4d}  {percent(scores.balanced_accuracy):>5}  ({groups})")
    return [*lines, advice.sentence]
