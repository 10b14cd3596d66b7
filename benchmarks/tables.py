"""Tables as Markdown text."""

import statistics
from collections.abc import Sequence


def markdown(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table whose first row is the head. All columns but the first `left` ones are right-aligned."""
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
    """A formatted value; a dash for None."""
    return "–" if value is None else format(value, form)


def spread(values: Sequence[float], form: str) -> str:
    """Mean ± sample standard deviation (n − 1) over several seeds; with one seed the value itself."""
    mean = format(statistics.mean(values), form)
    return f"{mean} ± {statistics.stdev(values):{form}}" if len(values) > 1 else mean


def scores(values: Sequence[float | None]) -> str:
    """A score over several seeds; a dash for a task that was not learned."""
    return "–" if None in values else spread(values, ".3f")


def settings_table(observed: dict[str, dict[str, str]]) -> str:
    """The observed settings in which the contenders differ, as a table, and a line with the others."""
    names = list(next(iter(observed.values())))
    differ = [name for name in names if len({settings.get(name) for settings in observed.values()}) > 1]
    rows = [
        ["differs", *observed],
        *([name, *(s.get(name, "not seen") for s in observed.values())] for name in differ),
    ]
    first = next(iter(observed.values()))
    same = "; ".join(f"{name} {first[name]}" for name in names if name not in differ)
    return f"{markdown(rows)}\n\nThe same: {same}"


def machine_lines(survey: dict) -> str:
    """Two lines: the matrix rates of the machine, and the choice of the tuned Trainer's attention."""
    rates = ", ".join(f"{name} {rate:,.0f}" for name, rate in survey["gflops"].items())
    attention = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in survey["attention_seconds"].items())
    return (
        f"Best rates of matrix multiplication on this machine, GFLOP/s: {rates}. The share of these rates "
        "counts the real tokens of an epoch once. Frozen parts count with their forward pass, even if a run "
        "computes it once for all epochs.\n"
        f"The tuned Trainer has the faster attention for the same passes: {attention}. "
        f"bf16 in hardware: {'yes' if survey['bf16'] else 'no'}."
    )
