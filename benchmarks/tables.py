"""What the comparisons print, as Markdown."""

import statistics
from collections.abc import Sequence


def markdown(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table; its first row is the head. Columns but the first, or first few, are set to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        "| "
        + " | ".join(f"{cell:{'<' if i < left else '>'}{widths[i]}}" for i, cell in enumerate(row))
        + " |"
        for row in rows
    ]
    rule = (
        "|" + "|".join("-" * (width + 1) + ("-" if i < left else ":") for i, width in enumerate(widths)) + "|"
    )
    return "\n".join([lines[0], rule, *lines[1:]])


def figure(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def spread(values: Sequence[float], form: str) -> str:
    """Of a figure with several seeds: mean ± standard deviation (of a sample, n − 1); of one: itself."""
    mean = format(statistics.mean(values), form)
    return f"{mean} ± {statistics.stdev(values):{form}}" if len(values) > 1 else mean


def scores(values: Sequence[float | None]) -> str:
    """Of a score with several seeds; none of a task that was not learned."""
    return "–" if None in values else spread(values, ".3f")


def settings_table(seen: dict[str, dict[str, str]]) -> str:
    """What was seen of each contender's settings where they differ, and a line of those that do not."""
    names = list(next(iter(seen.values())))
    differ = [name for name in names if len({settings.get(name) for settings in seen.values()}) > 1]
    rows = [
        ["differs", *seen],
        *([name, *(s.get(name, "not seen") for s in seen.values())] for name in differ),
    ]
    first = next(iter(seen.values()))
    same = "; ".join(f"{name} {first[name]}" for name in names if name not in differ)
    return f"{markdown(rows)}\n\nThe same: {same}"


def machine_lines(survey: dict) -> str:
    """The yardstick of the share, and what the tuned Trainer's attention was chosen from."""
    rates = ", ".join(f"{name} {rate:,.0f}" for name, rate in survey["gflops"].items())
    attention = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in survey["attention_seconds"].items())
    return (
        f"Matrix products here at best, GFLOP/s: {rates}. The share of them counts an epoch's real "
        "tokens once, and frozen parts forward only, also where a run computes those once for all epochs.\n"
        f"The tuned Trainer's attention is the faster of: {attention} for the same passes. "
        f"bf16 in hardware: {'yes' if survey['bf16'] else 'no'}."
    )
