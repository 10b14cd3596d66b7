"""Time to a test score: this project and a tuned transformers.Trainer, at usual and higher learning rates.

    python benchmarks/time_to_score.py --corpus FOLDER --target F1 [--limit N] [--batch-size 32]
        [--device cpu|cuda] [--backbone NAME] [--output FILE.json] [key=value ...]

Trainer, tuned as in train_speed.py, runs for 10 epochs at 5e-5, and for 3 epochs at 2e-4 with 2e-3 for the
heads; this project runs for 3 epochs at the same rates. Nothing is frozen, the model of the last epoch is
scored, and each run is its own process. The last line is JSON."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.comparison import Comparison, arguments_of, record
from benchmarks.processes import is_busy
from benchmarks.provenance import finish
from benchmarks.tables import figure, machine_lines, markdown, settings_table
from multitask.common.errors import InputError
from multitask.common.shell import run_script

USUAL = ["training.learning_rate=5e-5", "training.num_epochs=10"]
HIGHER = ["training.learning_rate=2e-4", "training.head_learning_rate=2e-3", "training.num_epochs=3"]
ALL_TRAINED = ["model.freeze_backbone=false"]
SLOW, FAST, OURS = (
    "Trainer, 10 epochs at 5e-5",
    "Trainer, 3 at 2e-4 and 2e-3",
    "this project, 3 at 2e-4 and 2e-3",
)


def main() -> None:
    options = (("--target", {"type": float, "required": True, "metavar": "F1", "help": "test entity F1"}),)
    arguments, overrides = arguments_of("Compare the time to a test score.", options)
    for override in overrides:
        if override.startswith(tuple(key.partition("=")[0] for key in HIGHER)):
            raise InputError(f"{override}: this benchmark fixes the rates and epochs")
    with Comparison(arguments, overrides) as comparison:
        settings = comparison.settings(*HIGHER, *ALL_TRAINED)
        slow, fast = [*USUAL, *ALL_TRAINED], [*HIGHER, *ALL_TRAINED]
        survey = comparison.survey(fast, {OURS: fast})
        runs = {
            SLOW: comparison.trainer(survey, slow, tuned=True),
            FAST: comparison.trainer(survey, fast, True, settings.training.head_learning_rate),
            OURS: comparison.ours(fast),
        }
    results = {
        name: {
            "training_seconds": sum(report["seconds"]),
            "process_seconds": spent.seconds,
            **report["test"],
            "target_reached": (report["test"]["entity_f1"] or 0.0) >= arguments.target,
            "busy": is_busy([spent], first=name == SLOW),
            "settings": survey["ours"].get(name) or report["settings"],
        }
        for name, (report, spent) in runs.items()
    }
    for result in results.values():
        seconds = result["training_seconds"]
        result["ratio"] = {name: results[name]["training_seconds"] / seconds for name in (SLOW, FAST)}
    print(table(results, arguments.target) + "\n")
    print(settings_table({name: result["settings"] for name, result in results.items()}) + "\n")
    print(machine_lines(survey) + "\n")
    finish(record(arguments, survey, settings, results) | {"target": arguments.target}, arguments.output)


def table(results: dict[str, dict], target: float) -> str:
    head = ["", "training s", "process s", "test accuracy", "test entity F1", f"F1 ≥ {target:g}"]
    rows = [[*head, f"× {SLOW}", f"× {FAST}", "machine"]]
    for name, r in results.items():
        rows.append([name, f"{r['training_seconds']:.1f}", f"{r['process_seconds']:.1f}"])
        rows[-1] += [figure(r["accuracy"], ".4f"), figure(r["entity_f1"], ".4f")]
        rows[-1] += ["yes" if r["target_reached"] else "no", *(f"{x:.3f}" for x in r["ratio"].values())]
        rows[-1].append("busy" if r["busy"] else "quiet")
    return markdown(rows)


if __name__ == "__main__":
    run_script(main)
