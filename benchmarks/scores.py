"""Collects the test scores of finished runs of task_4.py that differ only in the seed into one record.

    python benchmarks/scores.py RUN [RUN ...] [--output FILE.json]

The command in the record has the settings that differ from config.yml, with S for the seed of several runs.
Threads and versions come from the checkpoints of the runs; without checkpoints they are unknown. The
processor and GPU are those of this machine: call this on the machine of the runs. The last line is JSON."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.processes import cpu
from benchmarks.provenance import ROOT, command, finish, gpu, parse
from benchmarks.tables import markdown, spread
from multitask.common.errors import InputError
from multitask.common.shell import run_script
from multitask.config.help_text import flatten_settings
from multitask.config.loading import load_settings
from multitask.config.yaml_reader import format_scalar
from multitask.training.checkpoint import Checkpoints

SEED = "training.seed"
PACKAGES = ("torch", "transformers")
_OWN = (SEED, "output_dir")  # settings in which the runs of a record may differ


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Collect the test scores of runs that differ only in the seed."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the folder of a finished run of task_4.py")
    arguments = parse(parser)
    record = collect([Path(name) for name in arguments.runs])
    rows = [["test", f"{len(arguments.runs)} runs"]]
    rows += [[name, spread(values, ".4f")] for name, values in record["test"].items() if None not in values]
    print(markdown(rows))
    finish(record, arguments.output)


def collect(runs: list[Path]) -> dict:
    """The record of these runs, ordered by seed. Raises InputError if they differ in more than the seed."""
    by_seed = sorted(
        ((flatten_settings(load_settings(folder / "config.yml")), folder) for folder in runs),
        key=lambda pair: pair[0][SEED],
    )
    (first, first_run), *others = by_seed
    for other, folder in others:
        if differ := [key for key in first if key not in _OWN and first[key] != other[key]]:
            values = "; ".join(
                f"{key} {format_scalar(first[key])} and {format_scalar(other[key])}" for key in differ
            )
            raise InputError(f"{first_run} and {folder} differ in more than the seed: {values}")
    seeds = [settings[SEED] for settings, _ in by_seed]
    if repeated := {seed for seed in seeds if seeds.count(seed) > 1}:
        raise InputError(f"{SEED} is {min(repeated)} in more than one run")
    machines = [machine(folder) for _, folder in by_seed]
    if any(other != machines[0] for other in machines):
        raise InputError(f"the runs differ in threads or versions: {'; '.join(map(str, machines))}")
    tests = [test(folder) for _, folder in by_seed]
    name, flags = cpu()
    return {
        "command": command("task_4.py", overrides(first, seeds)),
        "seeds": seeds,
        "versions": {package: machines[0][package] for package in PACKAGES} if machines[0] else None,
        "python": machines[0].get("python"),
        "hardware": {"cpu": name, "flags": flags, "threads": machines[0].get("threads")},
        "corpus": Path(first["data.test"][0]).parent.name,
        **gpu(first["device"]),
        "test": {score: [scores[score] for scores in tests] for score in tests[0]},
    }


def overrides(chosen: dict[str, Any], seeds: list[int]) -> list[str]:
    """key=value for each setting that differs from the project's config.yml."""
    defaults = flatten_settings(load_settings(ROOT / "config.yml"))
    words = [
        f"{key}={format_scalar(value)}"
        for key, value in chosen.items()
        if key not in _OWN and value != defaults[key]
    ]
    if len(seeds) > 1:
        return [*words, f"{SEED}=S"]
    return [*words, f"{SEED}={seeds[0]}"] if seeds[0] != defaults[SEED] else words


def test(folder: Path) -> dict[str, float | None]:
    """The test scores of a run. Raises InputError if it has none."""
    path = folder / "metrics.jsonl"
    try:
        scores = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])["test"]
    except (OSError, ValueError, IndexError, KeyError):
        scores = None
    if not scores:
        raise InputError(f"{path}: no test scores: the run is not finished, or has no data.test")
    return scores


def machine(folder: Path) -> dict[str, Any]:
    """Threads and versions of a run, from its newest checkpoint; {} without a checkpoint."""
    checkpoint, _ = Checkpoints(folder / "checkpoints").newest()
    if checkpoint is None:
        return {}
    facts = checkpoint.facts["origin"]["machine"]
    return {name: facts[name] for name in ("threads", "python", *PACKAGES)}


if __name__ == "__main__":
    run_script(main)
