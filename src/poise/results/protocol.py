"""What a reader must know to trust or repeat a result: splits, selection, prior, seeds, versions."""

from collections.abc import Sequence

from poise.results.record import Record

ENDS = "best value at the end of its range"


def protocol_lines(records: Sequence[Record]) -> list[str]:
    """The protocol box of records that belong to one comparison, as lines.

    Raises: ValueError if there is no record.
    """
    return [f"{name}: {text}" for name, text in protocol_facts(records).items()]


def protocol_facts(records: Sequence[Record]) -> dict[str, str]:
    """The same as names and texts. Raises: ValueError if there is no record."""
    if not records:
        raise ValueError("a protocol needs at least one record")
    first = records[0]
    variants = {f"{r.method.split('(')[0]} {v}" for r in records for step in r.settings if (v := step.get("variant"))}
    facts = {
        "data": f"{first.data}; training rows {first.train}, evaluated rows {first.test} ({first.scores.rows})",
        "seeds": ", ".join(str(seed) for seed in dict.fromkeys(record.seed for record in records)),
        "settings": _selection(records),
        "transductive (reads the evaluated rows)": ", ".join(sorted({r.method for r in records if r.transductive})),
        ENDS: "; ".join(
            sorted({f"{r.method}: {' '.join(r.selection.edges)}" for r in records if r.selection and r.selection.edges})
        ),
        "variants": ", ".join(sorted(variants)),
        "versions": ", ".join(f"{name} {version}" for name, version in first.versions.items()),
    }
    return {name: text for name, text in facts.items() if text}


def _selection(records: Sequence[Record]) -> str:
    chosen = [record.selection for record in records if record.selection is not None]
    if not chosen:
        return ""
    rule, tried = chosen[0], {selection.configurations for selection in chosen}
    budget = f"{min(tried)} to {max(tried)}" if len(tried) > 1 else f"{max(tried)}"
    where = "the test split itself, as the papers did" if rule.rule == "paper" else rule.rule
    return f"chosen by {rule.metric} on {where}: {rule.rows} labelled rows ({rule.key}), {budget} settings per method"
