"""Training speed of this project, of transformers.Trainer with its defaults, and of a tuned Trainer.

    python benchmarks/train_speed.py --corpus FOLDER [--limit N] [--epochs N] [--rounds R] [--batch-size 32]
        [--frozen | --freeze-layers N] [--device cpu|cuda] [--backbone NAME | --bert-base]
        [--trainer-rates RATE[,HEAD_RATE]] [--output FILE.json] [key=value ...]

All have the same encoder, windows, heads, losses, epochs, batch size and seed. Every run is its own process,
and the contenders take turns. Times are those of the epochs, without start, evaluation and saving; figures
are medians over the rounds. key=value sets a setting of this project; Trainer takes the data, windows, seed,
epochs and learning rate from it and has BERT's own dropout. Tuned: batches by length, bf16 where the hardware
supports it, and the faster of two attention implementations. Frozen parts have no dropout. The last line is
JSON."""

import logging
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.comparison import Comparison, arguments_of, record
from benchmarks.flops import Shape, Work, training_flops
from benchmarks.names import DEFAULTS, OURS, TUNED
from benchmarks.processes import Spent, is_busy
from benchmarks.provenance import finish
from benchmarks.tables import figure, machine_lines, markdown, settings_table
from multitask.common.errors import InputError
from multitask.common.shell import run_script
from multitask.config.schema import Settings

logger = logging.getLogger("multitask.benchmarks")

ALL_TRAINED = "this project, nothing frozen"
OPTIONS = (
    ("--epochs", {"type": int, "default": 1}),
    ("--rounds", {"type": int, "default": 3}),
    ("--frozen", {"action": "store_true", "help": "train the heads only"}),
    ("--freeze-layers", {"type": int, "metavar": "N", "help": "freeze the embeddings and N lowest layers"}),
    ("--bert-base", {"action": "store_true", "help": "an encoder of bert-base's size, random weights"}),
    (
        "--trainer-rates",
        {"metavar": "RATE[,HEAD_RATE]", "help": "Trainer's learning rates (training.learning_rate)"},
    ),
)
Result = tuple[dict, Spent]


def main() -> None:
    arguments, overrides = arguments_of("Compare training speed with transformers.Trainer.", OPTIONS)
    if arguments.frozen and arguments.freeze_layers is not None:
        raise InputError("--frozen freezes all layers; do not give --freeze-layers with it")
    frozen = [
        f"model.freeze_backbone={str(arguments.frozen).lower()}",
        f"model.freeze_layers={arguments.freeze_layers or 0}",
    ]
    rate, head_rate = trainer_rates(arguments.trainer_rates)
    overrides = [f"training.num_epochs={arguments.epochs}", *overrides]
    with Comparison(arguments, overrides, arguments.bert_base) as comparison:
        settings = comparison.settings(*frozen)
        theirs = [*frozen, f"training.learning_rate={rate or settings.training.learning_rate}"]
        ours = {OURS: frozen}
        if arguments.freeze_layers:
            ours[ALL_TRAINED] = ["model.freeze_backbone=false"]
        survey = comparison.survey(theirs, ours)
        runs: dict[str, Callable[[], Result]] = {
            OURS: lambda: comparison.ours(frozen),
            DEFAULTS: lambda: comparison.trainer(survey, theirs, tuned=False, head_rate=head_rate),
            TUNED: lambda: comparison.trainer(survey, theirs, tuned=True, head_rate=head_rate),
        }
        if arguments.freeze_layers:
            runs[ALL_TRAINED] = lambda: comparison.ours(ours[ALL_TRAINED])
        rounds = in_turns(runs, arguments.rounds)
    results = summarise(rounds, survey, settings)
    print(f"{arguments.corpus}: {survey['rows']:,} sentences, {survey['backbone']}, medians of the rounds\n")
    print(speed_table(results) + "\n")
    print(settings_table({name: result["settings"] for name, result in results.items()}) + "\n")
    print(machine_lines(survey) + "\n")
    finish(record(arguments, survey, settings, results), arguments.output)


def trainer_rates(text: str | None) -> tuple[float | None, float | None]:
    """RATE[,HEAD_RATE] → both rates; None for a rate that is missing. Raises InputError for other text."""
    try:
        rates = [float(part) for part in text.split(",")] if text else []
    except ValueError:
        rates = [0.0]
    if len(rates) > 2 or any(not rate > 0 for rate in rates):
        raise InputError(f"--trainer-rates is {text}; it must be RATE or RATE,HEAD_RATE")
    return tuple([*rates, None, None][:2])


def in_turns(runs: dict[str, Callable[[], Result]], rounds: int) -> dict[str, list[Result]]:
    """Run every contender once in each round."""
    results: dict[str, list[Result]] = {name: [] for name in runs}
    for number in range(1, rounds + 1):
        for name, start in runs.items():
            results[name].append(start())
            seconds = sum(results[name][-1][0]["seconds"])
            logger.info(f"round {number}/{rounds}: {name}: {seconds:.1f} s of training")
    return results


def summarise(rounds: dict[str, list[Result]], survey: dict, settings: Settings) -> dict[str, dict]:
    """For each contender the medians, the ratios to both Trainers, and the single rounds."""
    results = {}
    for number, (name, outcomes) in enumerate(rounds.items()):
        reports, spent = [report for report, _ in outcomes], [spent for _, spent in outcomes]
        per_epoch = [sum(report["seconds"]) / len(report["seconds"]) for report in reports]
        observed = survey["ours"].get(name) or reports[0]["settings"]
        frozen = None if name == ALL_TRAINED else frozen_layers(settings, survey)
        flops = training_flops(Shape(*survey["shape"]), Work(*survey["work"]), frozen)
        seconds = statistics.median(per_epoch)
        rate = survey["gflops"].get(observed["precision"].split()[0])
        results[name] = {
            "sentences_per_second": survey["rows"] / seconds,
            "seconds_per_epoch": seconds,
            "peak_mib": statistics.median(run.memory for run in spent),
            "peak_gpu_mib": median([run.gpu_memory for run in spent]),
            **{score: median([report["test"][score] for report in reports]) for score in reports[0]["test"]},
            "gflop_per_epoch": flops / 1e9,
            "share_of_matrix_rate": rate and flops / seconds / 1e9 / rate,
            "busy": is_busy(spent, first=number == 0),
            "settings": observed,
            "rounds": [report | {"process": run._asdict()} for report, run in outcomes],
        }
    for result in results.values():
        speed = result["sentences_per_second"]
        result["ratio"] = {name: speed / results[name]["sentences_per_second"] for name in (DEFAULTS, TUNED)}
    return results


def frozen_layers(settings: Settings, survey: dict) -> int | None:
    """The number of lowest layers that are frozen together with the embeddings; None: nothing is frozen."""
    if settings.model.freeze_backbone:
        return Shape(*survey["shape"]).layers
    return settings.model.freeze_layers or None


def median(values: list[float | None]) -> float | None:
    return None if None in values else statistics.median(values)


def speed_table(results: dict[str, dict]) -> str:
    gpu = any(result["peak_gpu_mib"] is not None for result in results.values())
    head = ["", "sentences/s", "s/epoch", "peak MiB", *["peak GPU MiB"] * gpu]
    head += ["test accuracy", "test entity F1", "matrix rate used", f"× {DEFAULTS}", f"× {TUNED}", "machine"]
    rows = [head]
    for name, r in results.items():
        memory = [figure(r["peak_mib"], ",.0f"), *[figure(r["peak_gpu_mib"], ",.0f")] * gpu]
        rows.append([name, figure(r["sentences_per_second"], ",.1f"), figure(r["seconds_per_epoch"], ".3f")])
        rows[-1] += [*memory, figure(r["accuracy"], ".4f"), figure(r["entity_f1"], ".4f")]
        rows[-1] += [figure(r["share_of_matrix_rate"], ".1%"), *(f"{x:.3f}" for x in r["ratio"].values())]
        rows[-1].append("busy" if r["busy"] else "quiet")
    return markdown(rows)


if __name__ == "__main__":
    run_script(main)
