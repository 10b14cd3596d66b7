"""An evaluation as text, for a terminal."""

from multitask.evaluation import intervals
from multitask.evaluation.evaluate import Evaluation
from multitask.evaluation.metrics import scores_table
from multitask.evaluation.mistakes import Mistake
from multitask.evaluation.selective import Level


def evaluation_to_text(evaluation: Evaluation, row: dict) -> str:
    """An evaluation as text; `row` is its `evaluation_to_dict`."""
    rows, needed = len(evaluation.corpus), intervals.MIN_ROWS
    warning = f"; too few rows for reliable intervals (below {needed})" if rows < needed else ""
    lines = [scores_table(evaluation.scores)]
    lines.append(f"95 % intervals, {intervals.RESAMPLES:,} resamples of {rows:,} rows{warning}")
    for name in intervals.METRICS:
        if limits := row["intervals"][name]:
            lines.append(f"  {name:<11}  {row[name]:.4f}  {limits[0]:.4f} to {limits[1]:.4f}")
    lines.append("Expected calibration error")
    lines.append(f"  {'':<14}  predictions  at temperature 1  calibrated  temperature")
    for name, c in row["calibration"].items():
        before, after = c["ece_at_temperature_1"], c["ece"]
        lines.append(
            f"  {name:<14}  {c['answers']:11,}  {before:16.4f}  {after:10.4f}  {c['temperature']:11.4f}"
        )
    lines += _selective_lines(row["selective"])
    if row["mistakes"]:
        lines.append(f"The {len(row['mistakes'])} wrong predictions with the highest confidence")
        lines += [str(Mistake(*mistake.values())) for mistake in row["mistakes"]]
    if against := row.get("against"):
        second = against["model"]
        lines.append(f"First: {evaluation.model}; second: {second}; both scored on the same resamples")
        lines.append("  metric        first  second  difference  95 % interval            p  result")
        for name in intervals.METRICS:
            if c := against[name]:
                lines.append(
                    f"  {name:<11}  {c['first']:.4f}  {c['second']:.4f}  {c['difference']:+10.4f}  "
                    f"{c['low']:+.4f} to {c['high']:+.4f}  {c['p']:.4f}  {c['verdict']}"
                )
    return "\n".join(lines)


def _selective_lines(selective: dict) -> list[str]:
    if not any(of_task["levels"] for of_task in selective.values()):
        return []
    lines = ["Answering only above a threshold that dev sets (predict --accuracy, --precision)"]
    lines.append(f"  {'':<14}  wanted  threshold   answered     right")
    for name, of_task in selective.items():
        for level in map(Level._make, map(dict.values, of_task["levels"])):
            line = f"  {name:<14}  {level.wanted:6.2f}"
            if level.threshold is None:
                lines.append(f"{line}  not reached on dev")
            else:
                right = "–" if level.share_correct is None else f"{level.share_correct:.4f}"
                lines.append(f"{line}  {level.threshold:9.4f}  {level.share_kept:9.4f}  {right:>8}")
    return lines
