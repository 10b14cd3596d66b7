"""The tables of results in README.md and docs/, made from records in benchmarks/results/ for write_up.py."""

import statistics

from benchmarks import serve, small_batches
from benchmarks.names import DEFAULTS, OURS, TUNED
from benchmarks.nearest_sentences import table as nearest_table
from benchmarks.provenance import letter
from benchmarks.records import Results
from benchmarks.speedups import table as speedups_table
from benchmarks.tables import markdown, spread

RUNS = (  # a record with test scores, the corpus, what is trained
    ("scores_corpus_heads", "corpus/", "heads only, 10 epochs (the default)"),
    ("scores_corpus_everything", "corpus/", "everything, 10 epochs"),
    ("trainer_scores", "corpus/, as tokens", "everything, by transformers.Trainer"),
    ("scores_snips", "SNIPS, 7 intents, 39 slot types", "everything, 5 epochs"),
    ("scores_uner_ewt", "EWT, 5 genres, PER/ORG/LOC", "everything, 5 epochs"),
)
TRAINED = (
    ("train_speed_full", "everything"),
    ("train_speed_layers", "the upper 2 of 6 layers"),
    ("train_speed_frozen", "the heads"),
)
PIPELINES, ENCODE = "both pipelines", "sentence-transformers encode"
PREDICTED = (  # a contender of predict_speed.py, its name in the table, its rival, and the rival's name
    ("Predictor", "`Predictor`", PIPELINES, "both pipelines"),
    ("ONNX float32", "exported to ONNX", PIPELINES, "both pipelines"),
    ("ONNX int8", "exported with `--int8`", PIPELINES, "both pipelines"),
    (PIPELINES, "both pipelines, one after the other", None, None),
    ("embed", "`embed`", ENCODE, "sentence-transformers"),
    (ENCODE, "sentence-transformers' `encode`", None, None),
)
SCORES = ("accuracy", "entity_f1", "exact_match")
MB = 1e6


def scores(results: Results) -> str:
    """Test scores: one row per kind of training."""
    tests = [(corpus, trained, tested(results[name])) for name, corpus, trained in RUNS]
    rows = [["corpus", "what is trained", "task A accuracy", "task B F1", "whole", "made by"]]
    for number, (corpus, trained, test) in enumerate(tests):
        rows.append([corpus, trained, *(spread(test[name], ".3f") for name in SCORES), letter(number)])
    return markdown(rows, left=2)


def tested(record: dict) -> dict[str, list[float]]:
    """The test scores in a record of scores.py, or those of Trainer in a record of trainer_scores.py."""
    return record["test"] if "test" in record else record["results"]["transformers.Trainer"]["test"]


def training_speed(results: Results) -> str:
    """Training speed and peak memory: one row per choice of what is frozen."""
    head = ["what is trained", "sentences/s", "Trainer", "tuned", "times Trainer", "times tuned"]
    rows = [[*head, "peak MiB: here / Trainer / tuned", "made by"]]
    for number, (name, what) in enumerate(TRAINED):
        record = results[name]
        runs = [record["results"][contender] for contender in (OURS, DEFAULTS, TUNED)]
        sentences, epochs = record["survey"]["rows"], len(runs[0]["rounds"][0]["seconds"])
        middle = [result["sentences_per_second"] for result in runs]
        best = [fastest(result, sentences) for result in runs]
        ratios = [f"{middle[0] / middle[i]:.1f} ({best[0] / best[i]:.1f})" for i in (1, 2)]
        memory = " / ".join(f"{result['peak_mib']:,.0f}" for result in runs)
        work = f"{what}, {epochs} epoch{'s' * (epochs > 1)} of {sentences:,}"
        speeds = [f"{median:,.0f} ({fast:,.0f})" for median, fast in zip(middle, best)]
        rows.append([work, *speeds, *ratios, memory, letter(number)])
    return markdown(rows)


def fastest(result: dict, sentences: int) -> float:
    """Sentences per second in the fastest round of train_speed.py."""
    return sentences / min(statistics.mean(run["seconds"]) for run in result["rounds"])


def time_to_score(results: Results) -> str:
    """Time and scores of training on 2,000 sentences, at usual and at higher rates."""
    rows = [["", "seconds of training", "task A accuracy", "task B F1"]]
    for name, result in results["time_to_score"]["results"].items():
        seconds = f"{result['training_seconds']:.0f}"
        rows.append([name, seconds, f"{result['accuracy']:.3f}", f"{result['entity_f1']:.3f}"])
    return markdown(rows)


def predictions(results: Results) -> str:
    """Sentences per second of prediction and embedding, with transformers and sentence-transformers."""
    record = results["predict_speed"]
    speeds = record["sentences_per_second"]
    middle = {name: statistics.median(rounds) for name, rounds in speeds.items()}
    rows = [["", "sentences/s", "times", "accuracy", "entity F1", "whole"]]
    for name, title, rival, rival_name in PREDICTED:
        test = record["scores"].get(name)
        times = f"{middle[name] / middle[rival]:.1f} × {rival_name}" if rival else ""
        cells = [f"{test[score]:.4f}" for score in SCORES] if test else [""] * len(SCORES)
        rows.append([title, f"{middle[name]:,.0f} ({max(speeds[name]):,.0f})", times, *cells])
    return markdown(rows)


def batches(results: Results) -> str:
    """Milliseconds for a few sentences, packed and padded."""
    return small_batches.table(results["small_batches"]["milliseconds"])


def speedups(results: Results) -> str:
    """Training speed with and without the two settings that make it faster on a CPU."""
    return speedups_table({"corpus/": results["speedups_corpus"], "SNIPS": results["speedups_snips"]})


def nearest_sentences(results: Results) -> str:
    """What the nearest training sentences say about predictions."""
    return nearest_table(results["nearest_sentences"]["results"])


def serving(results: Results) -> str:
    """Requests per second and latency, with and without batches: for a model and for its int8 export."""
    (head, *model), (_, *export) = (serve.rows(results[name]) for name in ("serve", "serve_int8"))
    rows = [*model, *([f"int8 export: {name}", *cells] for name, *cells in export)]
    return markdown([[*head, "made by"], *([*row, letter(at // len(model))] for at, row in enumerate(rows))])


def scale(results: Results) -> str:
    """Time, memory and disk space by the number of sentences."""
    head = ["sentences", "file, MB", "read and encoded, s", "sentences/s", "the next run, s"]
    rows = [[*head, "anonymous memory, MB", "mapped, on disk, MB"]]
    for size in results["scale"]["results"]:
        first, again, count = size["first"], size["again"], size["rows"]
        cells = [f"{count:,}", f"{size['file'] / MB:,.1f}", f"{first['seconds']:.2f}"]
        cells += [f"{count / first['seconds']:,.0f}", f"{again['seconds']:.2f}"]
        cells += [f"{max(first['anonymous'], again['anonymous']) / MB:,.0f}"]
        rows.append([*cells, f"{size['disk'] / MB:,.1f}" if size["disk"] else "–"])
    return markdown(rows, left=0)


def crash(results: Results) -> str:
    """How many killed runs could be resumed."""
    rows = [["", "killed", "could be resumed", "ended with the same weights"]]
    for name, result in results["crash"]["results"].items():
        rows.append([name, *(str(result[key]) for key in ("killed", "resumed", "equal"))])
    return markdown(rows)


def checkpoint(results: Results) -> str:
    """The cost of a checkpoint."""
    record = results["checkpoints"]
    head = ["a checkpoint, MB", "seconds", "a plain write and fsync, s", "ratio", "one a minute takes"]
    cells = [f"{record['megabytes']:.0f}", f"{record['checkpoint_seconds']:.2f}"]
    cells += [
        f"{record['plain_seconds']:.2f}",
        f"{record['ratio']:.2f}",
        f"{record['share_of_a_minute']:.1%}",
    ]
    return markdown([head, cells], left=0)
