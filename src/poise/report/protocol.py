"""What a reader must know to trust or repeat a result, in lines: splits, selection, prior, seeds, versions."""

from collections.abc import Sequence

from poise.record import Record

__all__ = ["protocol_lines"]


def protocol_lines(records: Sequence[Record]) -> list[str]:
    """The protocol box of records that belong to one comparison.

    Raises: ValueError if there is no record.
    """
    if not records:
        raise ValueError("a protocol needs at least one record")
    chosen = [record.selection for record in records if record.selection is not None]
    tried = {selection.configurations for selection in chosen}
    first = records[0]
    lines = [
        f"data: {first.data}; training rows {first.train}, evaluated rows {first.test} ({first.scores.rows})",
        f"seeds: {', '.join(str(seed) for seed in dict.fromkeys(record.seed for record in records))}",
    ]
    if chosen:
        rule = chosen[0]
        budget = f"{min(tried)} to {max(tried)}" if len(tried) > 1 else f"{max(tried)}"
        lines.append(
            f"settings chosen by {rule.metric} on {rule.rule}: {rule.rows} labelled rows ({rule.key}), "
            f"{budget} settings per method"
        )
    marked = sorted({record.method for record in records if record.transductive})
    if marked:
        lines.append(f"transductive (reads the evaluated rows): {', '.join(marked)}")
    edges = {f"{r.method}: {' '.join(r.selection.edges)}" for r in records if r.selection and r.selection.edges}
    if edges:
        lines.append(f"best value at the end of its range: {'; '.join(sorted(edges))}")
    lines.append("versions: " + ", ".join(f"{name} {version}" for name, version in first.versions.items()))
    return lines
