"""Large inputs on Ray: rows per second by number of workers, memory over time, and a worker that is killed.

    python benchmarks/cluster.py [--rows N] [--ratio-rows N] [--rounds N] [--ray-data] [--output FILE.json]

The model is a random encoder of one layer × 32, so that reading, cutting into words, giving out shards and
writing are measured, and not the model. The rows are sentences made of random words of corpus/. Each worker
has one CPU and one thread.

1. --rounds times, one worker and two predict --ratio-rows rows. Counted are the seconds between the first
   shard that each worker has finished and the last one: starting Ray and loading the model is not in them.
   Beside that, two processes without Ray (--engine local) predict half of the rows each, at the same time:
   two cores that share caches, or are one core with two threads, are not twice as fast as one.
2. Two workers predict --rows rows. One of them is killed (-9) in the middle. Every second, the anonymous
   memory of the command, of the workers and of Ray's own processes is read. Then it is checked that the
   output has each line of the input exactly once, in order.
3. With --ray-data, Ray Data's own pipeline (read_json, map_batches, write_parquet) predicts --ratio-rows rows
   with two workers; compared are the seconds of the whole command.

The last line is JSON. It needs requirements-ray.txt and a machine on which nothing else runs."""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.cluster_job import KINDS, Job
from benchmarks.provenance import finish, parse, provenance
from benchmarks.tables import markdown
from multitask.cluster.command import SHARD_ROWS
from multitask.cluster.shards import split_file
from multitask.common.errors import require_packages
from multitask.common.shell import run_script

SEED, FILES = 0, 4
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "RAY_USAGE_STATS_ENABLED": "0"}


def main() -> None:
    parser = argparse.ArgumentParser(description="Rows per second, memory and a killed worker, on Ray.")
    parser.add_argument("--rows", type=int, default=10_000_000, help="of the long job")
    parser.add_argument("--ratio-rows", type=int, default=300_000, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shard-rows", type=int, default=10_000, help="of the long job")
    parser.add_argument("--ray-data", action="store_true", help="also Ray Data's own pipeline")
    parser.add_argument("--run-ray-data", nargs=3, help=argparse.SUPPRESS)  # in a process of its own
    arguments = parse(parser)
    require_packages(["ray", "pyarrow"], "benchmarks/cluster.py", "requirements-ray.txt")
    if arguments.run_ray_data:
        ray_data(*arguments.run_ray_data)
        return
    os.environ |= ONE_THREAD
    with tempfile.TemporaryDirectory() as scratch:
        results = measure(Path(scratch), arguments)
    record = {**provenance([SEED], 1, ("ray", "pyarrow", "torch")), "results": results}
    print(table({"cluster": record}), billion_table({"cluster": record}), sep="\n\n")
    finish(record, arguments.output)


def table(results: dict[str, dict]) -> str:
    """What was measured, one figure a row."""
    result = results["cluster"]["results"]
    job, rates = result["job"], result["rows per second"]
    grown = {kind: job["memory"][kind] for kind in KINDS}
    rows = [
        ["figure", "value"],
        ["rows/s, one worker", f"{median(rates['1']):,.0f}"],
        ["rows/s, two workers", f"{median(rates['2']):,.0f}"],
        ["two workers, times one (median of rounds)", f"{ratio(rates):.2f}"],
        ["two processes without Ray, times one worker", f"{ratio(rates, 'apart'):.2f}"],
        ["rows of the long job", f"{job['rows']:,}"],
        ["its rows/s", f"{job['rows per second']:,.0f}"],
        ["lines given once, after a worker was killed", f"{job['lines']:,}"],
    ]
    for kind, (early, late) in grown.items():
        rows.append(
            [f"anonymous memory of {kind}, MiB, after a fifth and at the end", f"{early:,.0f}, {late:,.0f}"]
        )
    if seconds := result.get("seconds"):
        rows.append([f"seconds for {result['ratio rows']:,} rows, Ray Data", f"{seconds['Ray Data']:,.0f}"])
        rows.append([f"seconds for {result['ratio rows']:,} rows, --engine ray", f"{seconds['ours']:,.0f}"])
    return markdown(rows)


def billion_table(results: dict[str, dict]) -> str:
    """What 10^9 rows would need by these figures."""
    result, rows = results["cluster"]["results"], 1e9
    job, one = result["job"], median(result["rows per second"]["1"])
    times, shards = rows / job["rows"], rows / SHARD_ROWS
    checking = job["seconds to check"] * shards / job["shards"]
    table = [
        ["10⁹ such rows", "needs"],
        [
            "input and output, GB",
            ", ".join(f"{job['bytes'][name] * times / 1e9:,.0f}" for name in ("input", "output")),
        ],
        [f"files of {SHARD_ROWS:,} rows", f"{shards:,.0f}"],
        ["hours of one worker", f"{rows / one / 3600:,.0f}"],
        [
            "workers, to end in a day, at the ratio above",
            f"{rows / (one * ratio(result['rows per second']) / 2) / 86400:,.1f}",
        ],
        ["minutes to read the input before the first shard", f"{job['seconds to split'] * times / 60:,.0f}"],
        ["minutes more to check the finished shards, started again", f"{checking / 60:,.1f}"],
    ]
    return markdown(table)


def ratio(rates: dict[str, list[float]], two: str = "2") -> float:
    """The median over the rounds of the rate of two workers or processes, divided by that of one worker."""
    return median(both / one for one, both in zip(rates["1"], rates[two]))


def measure(scratch: Path, arguments: argparse.Namespace) -> dict:
    make_model(scratch / "model")
    write_rows(scratch / "short", arguments.ratio_rows)
    rates, others, ours = compare_workers(scratch, arguments.ratio_rows // 100, arguments.rounds)
    results = {
        "ratio rows": arguments.ratio_rows,
        "rows per second": rates,
        "shard rows": arguments.shard_rows,
    }
    if arguments.ray_data:
        started = time.perf_counter()
        command = [sys.executable, __file__, "--run-ray-data"]
        subprocess.run([*command, *(str(scratch / name) for name in ("short", "data", "model"))], check=True)
        results["seconds"] = {"ours": ours, "Ray Data": time.perf_counter() - started}
    write_rows(scratch / "long", arguments.rows)
    job = Job(scratch, "long", 2, arguments.shard_rows)
    job.kill_a_worker(arguments.rows // 2)
    job.wait()
    results["job"] = facts_of_job(scratch / "long", job, arguments)
    results["others' share of the CPUs"] = [*others, round(job.others, 3)]
    return results


def compare_workers(
    scratch: Path, shard_rows: int, rounds: int
) -> tuple[dict[str, list[float]], list[float], float]:
    """Rows per second in each round by "1" and "2" workers, and by two processes "apart", without Ray; the
    share of the CPUs that other processes used meanwhile; the seconds of the last command with two workers.

    `shard_rows` should be small, so that it matters little which worker finishes its first shard earlier."""
    rates: dict[str, list[float]] = {"1": [], "2": [], "apart": []}
    others, seconds = [], 0.0
    for number in range(1, rounds + 1):
        for workers in (1, 2):
            job = Job(scratch, "short", workers, shard_rows)
            job.wait()
            rates[str(workers)].append(job.rate())
            others.append(round(job.others, 3))
            seconds = job.seconds
        apart = [Job(scratch, f"short/[{part}].jsonl", 0, shard_rows) for part in ("01", "23")]
        for job in apart:
            job.wait()
        rates["apart"].append(sum(job.rate() for job in apart))
        shown = (f"{name}: {found[-1]:,.0f} rows/s" for name, found in rates.items())
        print(f"round {number}:", *shown, file=sys.stderr)
    return rates, others, seconds


def facts_of_job(source: Path, job: Job, arguments: argparse.Namespace) -> dict:
    """What was measured of the long job, and the seconds to split its input and to check its shards."""
    began = time.perf_counter()
    for path in sorted(source.iterdir()):
        split_file(str(path), arguments.shard_rows)
    split = time.perf_counter()
    parts = sorted(job.out.glob("part-*"))
    for part in parts:
        import_module("pyarrow.parquet").read_metadata(part)
    checked = time.perf_counter()
    return {
        "seconds to split": split - began,
        "seconds to check": checked - split,
        "shards": len(parts),
        "rows": arguments.rows,
        "rows per second": job.rate(),
        "seconds": job.seconds,
        "lines": lines_once(source, job.out),
        "bytes": {"input": size(source), "output": size(job.out)},
        "memory": job.memory(),
        "samples": job.samples[:: max(1, len(job.samples) // 100)],
    }


def lines_once(source: Path, out: Path) -> int:
    """The number of lines, if the output has each line of the input once, in order. Raises RuntimeError."""
    pq, total = import_module("pyarrow.parquet"), 0
    expected = places_of(source)
    for part in sorted(out.glob("part-*")):
        places = pq.read_table(part, columns=["file", "line"])
        for file, line in zip(places["file"].to_pylist(), places["line"].to_pylist()):
            if (Path(file).name, line) != next(expected, None):
                raise RuntimeError(f"{part.name}: {file}:{line} is not the next line of the input")
            total += 1
    if next(expected, None):
        raise RuntimeError(f"the output has {total:,} rows, and the input more")
    return total


def places_of(folder: Path) -> Iterator[tuple[str, int]]:
    """(file, line) of each line of a folder's files."""
    for path in sorted(folder.iterdir()):
        with open(path, "rb") as file:
            yield from ((path.name, line) for line, _ in enumerate(file, 1))


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def write_rows(folder: Path, rows: int) -> None:
    """Write files of sentences of six to twenty random words."""
    draw = random.Random(SEED)
    with open(ROOT / "corpus/train.jsonl", encoding="utf-8") as file:
        rows_of_corpus = map(json.loads, file)
        words = sorted({word for row in rows_of_corpus for word in row.get("tokens") or row["text"].split()})
    folder.mkdir()
    for number in range(FILES):
        with open(folder / f"{number}.jsonl", "w", encoding="utf-8") as file:
            for _ in range(rows // FILES + (number < rows % FILES)):
                text = " ".join(draw.choices(words, k=draw.randint(6, 20)))
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


def make_model(folder: Path) -> None:
    """Save a random BERT of one layer × 32 with both heads, and the installed encoder's tokenizer."""
    import torch

    from model import MultiTaskTransformer
    from model_config import MultiTaskConfig
    from multitask.encoders.pretrained import bundled_folder

    source, tags = bundled_folder(), ["O", "LOC", "ORG", "PERSON"]
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    fields = {"classes": ["politics", "sports"], "num_classes_task_a": 2, "id2label": dict(enumerate(tags))}
    fields |= {"label2id": {tag: i for i, tag in enumerate(tags)}, "tag_scheme": "IO", "max_length": 128}
    torch.manual_seed(SEED)
    model = MultiTaskTransformer(MultiTaskConfig(vocab_size=30_522, stride=16, **sizes, **fields))
    model.save_pretrained(folder)
    shutil.copy(source / "tokenizer.json", folder)


class RayDataPredictor:
    """What map_batches calls with tables of rows."""

    def __init__(self, model: str):
        from multitask.inference.predictor import Predictor

        self.predictor = Predictor.from_pretrained(model, "cpu")

    def __call__(self, batch):
        from multitask.inference.conversion import parquet_schema, parquet_table

        predictions = self.predictor.predict(batch["text"].to_pylist())
        return parquet_table([prediction.to_dict() for prediction in predictions], parquet_schema())


def ray_data(source: str, out: str, model: str) -> None:
    """The same work by Ray Data's own pipeline, in order, with two workers."""
    ray = import_module("ray")
    data = import_module("ray.data")
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
    context = data.DataContext.get_current()
    context.execution_options.preserve_order = True
    rows = data.read_json(source)
    options = {"batch_format": "pyarrow", "batch_size": 4096, "concurrency": 2, "num_cpus": 1}
    rows.map_batches(RayDataPredictor, fn_constructor_args=[model], **options).write_parquet(out)


if __name__ == "__main__":
    run_script(main)
