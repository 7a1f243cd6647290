"""What labelled rows would give beside what heads give, in lines."""

from collections.abc import Sequence

from poise.results.contents import Advised, Size
from poise.values.wording import percent


def headroom_lines(curve: Sequence[Size], advice: Advised) -> list[str]:
    """The learning curve as a small table in per cent, then the advice; no table where no rows could be added."""
    if len(curve) < 2:
        return [advice.sentence]
    lines = ["labelled rows added per class, and balanced accuracy (many / medium / few) of a head that has them:"]
    for size in curve:
        groups = " / ".join(map(percent, (size.many, size.medium, size.few)))
        lines.append(f"  {size.value:4.0f}  {percent(size.balanced):>5}  ({groups})")
    return [*lines, advice.sentence]
