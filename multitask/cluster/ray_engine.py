"""Ray: one Predictor per actor, on all machines of a cluster. Shards go to the actors that are idle.

Ray starts the actors, places them and tells when one is lost. Which actor predicts which shard is decided
here: a shard of a lost actor goes to another one. Ray is imported where it is used."""

import logging
import os
import socket
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, redirect_stdout, suppress
from typing import Any

from multitask.cluster.job import Done
from multitask.cluster.shards import Shard
from multitask.cluster.worker import Work, Worker, enter, explain
from multitask.common.device import prepare_threads
from multitask.common.errors import InputError, one_line, require_packages

logger = logging.getLogger(__name__)

MAX_LOSSES = 3  # of workers that predict the same shard, or that start
_STORE_BYTES = 80 << 20  # of a local Ray's object store, which holds next to nothing here
_ANSWER_SECONDS = 5
_WAIT_SECONDS = 60.0  # before a warning that workers wait for room


class _Actor:
    """A Worker in a process of its own. Its errors come back as lines: not every error can be pickled."""

    def start(self, work: Work) -> tuple[Any, str | None]:
        return _answer(self._start, work)

    def _start(self, work: Work) -> None:
        enter(work.start)
        prepare_threads()
        self.worker = Worker(work)

    def predict(self, shard: Shard) -> tuple[Any, str | None]:
        return _answer(self.worker.predict, shard)


def _answer(function: Any, argument: Any) -> tuple[Any, str | None]:
    """(result, None), or (None, the line for a user)."""
    try:
        return function(argument), None
    except Exception as error:
        if (line := explain(error)) is None:
            raise
        return None, line


class RayEngine(AbstractContextManager):
    """A connection to Ray, and its workers.

    Args:
        address: of a running cluster, which this machine belongs to: "auto" or HOST:PORT. None starts Ray on
            this machine, and ends it afterwards.
        workers: how many; None: one per GPU, or per CPU where there is none.
        device: as for Predictor.

    Raises InputError if Ray is missing, the address does not answer, or there is no room for the workers."""

    def __init__(self, address: str | None = None, workers: int | None = None, device: str | None = None):
        require_packages(["ray", "pyarrow"], "--engine ray", "requirements-ray.txt")
        if address:
            check_address(address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
        os.environ.setdefault("RAY_py_gcs_connect_timeout_s", str(_ANSWER_SECONDS))
        import ray

        self.ray, self.leave = ray, ExitStack()
        self.leave.callback(ray.shutdown)
        self.leave.enter_context(redirect_stdout(sys.stderr))  # Ray prints to it when it loses a worker
        try:
            self._connect(address, workers)
            self.workers, self.resources, self.device = self._room(workers, device)
        except BaseException:
            self.leave.close()
            raise

    def _connect(self, address: str | None, workers: int | None) -> None:
        quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        try:
            if address:
                self.ray.init(address=address, **quiet)
            else:
                cpus = {"num_cpus": workers} if workers else {}
                store = {"object_store_memory": _STORE_BYTES, "include_dashboard": False}
                self.ray.init(address="local", **cpus, **store, **quiet)
        except SystemExit:  # Ray's end where a cluster does not answer in time
            raise InputError(f"--address {address}: something listens there, but it is not Ray") from None
        except Exception as error:
            where = f"--address {address}: can't be reached" if address else "--engine ray: Ray can't start"
            raise InputError(f"{where}: {one_line(error)}") from None

    def _room(self, workers: int | None, device: str | None) -> tuple[int, dict[str, float], str | None]:
        """How many workers there will be, what each takes, and the device of each."""
        has = self.ray.cluster_resources()
        cpus, gpus = int(has.get("CPU", 0)), int(has.get("GPU", 0))
        if device not in (None, "auto", "cpu", "cuda"):
            raise InputError(f"--device {device}: Ray gives each worker a GPU; give cpu, cuda or auto")
        if device == "cuda" and not gpus:
            raise InputError("--device cuda: the cluster has no GPU")
        on_gpus = bool(gpus) and device in (None, "auto", "cuda")
        room, kind = (gpus, "GPUs") if on_gpus else (cpus, "CPUs")
        if (workers or 1) > room:
            raise InputError(f"--workers {workers or 1}: the cluster has {room} {kind}, one for each worker")
        return workers or room, {"num_gpus": 1} if on_gpus else {"num_cpus": 1}, device

    def __exit__(self, *error: object) -> None:
        self.leave.close()

    def predict(self, work: Work, shards: Sequence[Shard]) -> Iterator[Done]:
        """Yield the shards as they are finished, in any order; one whose worker is lost is predicted again.

        Raises InputError with the line of a worker that can't go on, or if MAX_LOSSES workers were lost at
        one shard, or before they had started."""
        pool = _Pool(self, work._replace(device=self.device))
        waiting, losses = deque(shards), Counter[int]()
        for _ in range(min(self.workers, len(shards))):
            pool.start()
        while waiting or pool.predicting():
            while waiting and pool.idle:
                pool.give(waiting.popleft())
            for shard, done in pool.wait():
                if done:
                    yield done
                    continue
                key = shard.number if shard else -1
                losses[key] += 1
                what = f"the worker of {shard}" if shard else "a worker, before it had loaded the model,"
                if losses[key] == MAX_LOSSES:
                    raise InputError(f"{what} was lost {MAX_LOSSES} times (killed, or out of memory?)")
                logger.warning(f"{what} was lost{'; another one predicts it again' if shard else ''}")
                if shard:
                    waiting.appendleft(shard)
                pool.start()


class _Pool:
    """The actors of a job: those that are starting, idle, or predicting a shard."""

    def __init__(self, engine: RayEngine, work: Work):
        self.ray, self.workers, self.work = engine.ray, engine.workers, work
        options = {**engine.resources, "scheduling_strategy": "SPREAD", "max_restarts": 0}
        self.make = self.ray.remote(_Actor).options(**options).remote
        self.idle: list[Any] = []
        self.busy: dict[Any, tuple[Any, Shard | None]] = {}  # by what Ray answers to; None: starts

    def start(self) -> None:
        actor = self.make()
        self.busy[actor.start.remote(self.work)] = actor, None

    def give(self, shard: Shard) -> None:
        actor = self.idle.pop()
        self.busy[actor.predict.remote(shard)] = actor, shard

    def predicting(self) -> bool:
        return any(shard for _, shard in self.busy.values())

    def wait(self) -> Iterator[tuple[Shard | None, Done | None]]:
        """Wait for an actor, and yield (shard, Done); (shard or None, None) if it was lost."""
        ready, _ = self.ray.wait(list(self.busy), timeout=_WAIT_SECONDS)
        if not ready and not self.predicting() and not self.idle:
            logger.warning(f"waiting for room on the cluster: {len(self.busy)} workers have not started yet")
        for answer in ready:
            actor, shard = self.busy.pop(answer)
            try:
                done, problem = self.ray.get(answer)
            except self.ray.exceptions.RayTaskError:
                raise  # an error of the program
            except self.ray.exceptions.RayError:
                with suppress(self.ray.exceptions.RayError):
                    self.ray.kill(actor)  # it may be cut off from here alone
                yield shard, None
                continue
            if problem:
                raise InputError(problem)
            self.idle.append(actor)
            if shard:
                yield shard, done


def check_address(address: str) -> None:
    """Raises InputError if nothing listens at HOST:PORT. Ray itself would try for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"--address {address}: is neither auto nor HOST:PORT, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host, int(port)), _ANSWER_SECONDS).close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"--address {address}: does not answer ({reason}); is Ray started there?") from None
