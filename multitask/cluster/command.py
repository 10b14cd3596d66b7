"""task_5.py predict --engine: predict a large input in shards, here or on a cluster."""

import argparse
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from multitask.cluster.inputs import find_files
from multitask.cluster.job import Done, Job
from multitask.cluster.shards import Shard, split_file
from multitask.cluster.worker import Work, Worker, explain
from multitask.common.errors import InputError, check_not_read, require_packages
from multitask.common.signals import StoppedBySignal, StopSignals
from multitask.inference.batch_predict import facts_of

logger = logging.getLogger(__name__)

SHARD_ROWS = 50_000
_ENGINE_OPTIONS = ("address", "workers", "shard_rows")

Predict = Callable[[Work, Sequence[Shard]], Iterator[Done]]


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that predict a large input in shards."""
    group = parser.add_argument_group(
        "large inputs",
        "--input is a folder or pattern, --output a folder of Parquet files; see docs/cluster.md",
    )
    group.add_argument("--engine", choices=("local", "ray"), help="in this process, or by Ray's workers")
    group.add_argument("--address", help="of a Ray cluster: auto or HOST:PORT (default: starts Ray here)")
    group.add_argument("--workers", type=int, metavar="N", help="of Ray (default: one per GPU or CPU)")
    group.add_argument("--shard-rows", type=int, metavar="N", help=f"rows of an output file ({SHARD_ROWS:,})")


def check_engine_options(arguments: argparse.Namespace) -> None:
    """Raises InputError for options that don't go together."""
    given = [f"--{n.replace('_', '-')}" for n in _ENGINE_OPTIONS if getattr(arguments, n) is not None]
    if not arguments.engine:
        if given:
            raise InputError(f"{given[0]} is about large inputs: give --engine ray or --engine local")
        return
    if arguments.engine == "local" and (arguments.address or arguments.workers is not None):
        raise InputError(f"{given[0]} is for --engine ray")
    if arguments.texts or arguments.input in (None, "-") or not arguments.output:
        raise InputError("--engine needs --input, a folder or a pattern, and --output, a folder")
    for name in ("embeddings", "spreadsheet", "soft_targets"):
        if getattr(arguments, name):
            raise InputError(
                f"--{name.replace('_', '-')} does not go with --engine, which writes Parquet files"
            )
    for name in ("workers", "shard_rows"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value}: must be 1 or more")


def predict_shards(arguments: argparse.Namespace) -> None:
    """Predict all files of --input into the folder --output; shards that are finished there are kept.

    Raises InputError for all that a user can mend."""
    require_packages(["pyarrow"], "--engine", "requirements-parquet.txt")
    paths = find_files(arguments.input)
    check_not_read(sorted(Path(arguments.output).glob("*")), [Path(path) for path in paths])
    rows = arguments.shard_rows or SHARD_ROWS
    facts = facts_of(arguments.model, ".parquet", False, arguments.accuracy, arguments.precision, False)
    facts |= {"--shard-rows": rows}
    with StopSignals() as stop, ExitStack() as cluster:
        predict = _predictor_of(arguments, cluster)
        bar = tqdm(paths, "reading the input", unit=" files", disable=None, leave=False)
        job = Job(arguments.output, [split_file(path, rows) for path in bar], facts)
        with job.lock():
            unreadable = _finish(job, predict, _work_of(arguments, job), stop, cluster)
    bad = f"; {unreadable:,} could not be read, and have the reason in `error`" if unreadable else ""
    print(f"{job.folder}: {job.rows:,} rows in {len(job.shards):,} files{bad}", flush=True)


def _finish(job: Job, predict: Predict, work: Work, stop: StopSignals, cluster: ExitStack) -> int:
    """Predict the shards that are missing → how many rows of the job could not be read.

    However that ends, the cluster is left, and no unfinished file stays."""
    done = job.begin()
    finished = {one.number for one in done}
    missing = [shard for shard in job.shards if shard.number not in finished]
    if done:
        logger.info(f"{job.folder}: {len(done):,} of {len(job.shards):,} shards are finished already")
    try:
        with tqdm(total=job.rows, unit=" texts", disable=None) as progress:
            progress.update(sum(one.rows for one in done))
            for one in predict(work, missing) if missing else ():
                with stop.deferred():
                    done.append(one)
                    progress.update(one.rows)
    except StoppedBySignal as stopped:
        name = signal.Signals(stopped.number).name
        raise StoppedBySignal(stopped.number, f"stopped by {name}; {_hint(job, done)}") from None
    except (InputError, OSError) as error:
        hint = f"; {_hint(job, done)}" if done else ""
        raise InputError(f"{explain(error)}{hint}") from None
    finally:
        cluster.close()  # before the files are removed that its workers are writing
        job.leave(any_finished=bool(done))
    return job.finish(done)


def _hint(job: Job, done: Sequence[Done]) -> str:
    return f"{len(done):,} of {len(job.shards):,} shards are finished, and the same command continues"


def _predictor_of(arguments: argparse.Namespace, cluster: ExitStack) -> Predict:
    """What predicts shards; `cluster` gets what is to be closed afterwards."""
    if arguments.engine == "local":
        return _predict_here
    from multitask.cluster.ray_engine import RayEngine

    engine = RayEngine(arguments.address, arguments.workers, arguments.device)
    return cluster.enter_context(engine).predict


def _predict_here(work: Work, shards: Sequence[Shard]) -> Iterator[Done]:
    """The local engine: one worker, in this process."""
    worker = Worker(work)
    for shard in shards:
        yield worker.predict(shard)


def _work_of(arguments: argparse.Namespace, job: Job) -> Work:
    options = arguments.model, arguments.device, arguments.accuracy, arguments.precision
    return Work(os.getcwd(), *options, str(job.folder), job.key, len(job.shards))
