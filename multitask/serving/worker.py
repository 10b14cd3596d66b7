"""A model in its own process: it loads while the server starts, and computes while the server answers."""

from __future__ import annotations

import asyncio
import logging
import math
import multiprocessing
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multitask.common.checksums import CHECKSUMS, ChecksumError, folder_hash, verify_checksums
from multitask.common.errors import InputError
from multitask.common.shell import show_messages
from multitask.data.corpus import EncodedCorpus
from multitask.data.texts import UnreadableRow
from multitask.inference.runner import BatchOutput, Runner

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from multitask.data.labels import LabelSpace
    from multitask.inference.predictor import Predictor
    from multitask.serving.batcher import Item

# bytes of a line of JSON; an array (D,); a Prediction with words and embedding
KINDS = ("json", "embedding", "prediction")

# signals that end the server
ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class WorkerEnded(ChildProcessError):
    """The model's process has ended or hangs; the rows that it was given have no answers."""

    retry_seconds = 10  # for a client: the process may have been restarted by then


def load_predictor(folder: str, accuracy: float | None = None, precision: float | None = None) -> Predictor:
    """The model of a folder, which answers only where it is sure: see `Predictor.answer_only_if`.

    Its weights are in memory of its own: what happens to the files afterwards changes nothing. Raises
    InputError if it can't be loaded, or has no threshold for a share."""
    from multitask.inference.predictor import Predictor

    path, before = Path(folder), _identity(Path(folder))
    predictor = Predictor.from_pretrained(folder)
    _unmap(predictor)
    predictor.runner = FiniteRunner(predictor.runner)
    if before is None or before != _identity(path) or not _is_undamaged(path):
        raise InputError(f"{folder}: its files changed while they were loaded; start again")
    predictor.answer_only_if(accuracy, precision)
    return predictor


def _identity(folder: Path) -> str | None:
    """A hash of the model in a folder; None if it can't be read."""
    try:
        return folder_hash(folder)
    except OSError:
        return None


def _is_undamaged(folder: Path) -> bool:
    """Whether the files of a folder with checksums are those that were saved, now that they are copied."""
    try:
        if (folder / CHECKSUMS).exists():
            verify_checksums(folder, free=("README.md",))
    except ChecksumError:
        return False
    return True


def _unmap(predictor: Predictor) -> None:
    """Copy the weights of a torch model from the mapped file. onnxruntime reads its file as a whole."""
    model = getattr(predictor.runner, "model", None)
    for tensor in [*model.parameters(), *model.buffers()] if model else []:
        tensor.data = tensor.data.clone()


class NotFinite(ArithmeticError):
    """A model gave NaN or infinity."""


class FiniteRunner(Runner):
    """Runs another Runner, and raises NotFinite instead of giving NaN or infinity."""

    def __init__(self, runner: Runner):
        self.runner, self.config, self.transitions = runner, runner.config, runner.transitions

    def start(self, corpus: EncodedCorpus, first: int, last: int) -> Callable[[], BatchOutput]:
        finish = self.runner.start(corpus, first, last)

        def checked() -> BatchOutput:
            out = finish()
            if not all(np.isfinite(part).all() for part in out if part is not None):
                raise NotFinite("the model's output is not a number")
            return out

        return checked

    @contextmanager
    def ready(self) -> Iterator[None]:
        with self.runner.ready():
            yield


class Worker:
    """Starts a process that calls `load`, which must be picklable, and sends it batches of rows.

    Args:
        load: loads the model.
        leftovers: a folder that the process removes if its parent is killed.

    Attributes:
        identity: a hash of the model's folder, once it is loaded."""

    def __init__(self, load: Callable[[], Predictor], leftovers: str | None = None):
        self.load, self.leftovers = load, leftovers
        self.identity: str | None = None
        # spawn, not fork: the server has threads when it loads a second model
        context = multiprocessing.get_context("spawn")
        self.pipe, other_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(other_end, load, leftovers), daemon=True)
        self.process.start()
        other_end.close()
        self.thread = ThreadPoolExecutor(1, "worker")
        self._labels: LabelSpace | None = None

    def labels(self) -> LabelSpace:
        """Wait until the model is loaded → its labels.

        Raises InputError if it can't be loaded, or WorkerEnded."""
        if self._labels is None:
            loaded = self._exchange()
            if isinstance(loaded, InputError):
                raise loaded
            self._labels, self.identity = loaded
        return self._labels

    async def run(self, items: Sequence[Item]) -> list[Any]:
        """The answer to each item (see KINDS), or an UnreadableRow. Raises WorkerEnded."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, self._exchange, items)

    def again(self) -> Worker:
        """A new process with the same model."""
        return Worker(self.load, self.leftovers)

    def kill(self) -> None:
        """End the process at once. What waits for its answers gets WorkerEnded."""
        self.process.kill()
        self.close()

    def close(self) -> None:
        """End the process; kill it if it has not ended after a second."""
        self.pipe.close()
        self.process.join(1)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.thread.shutdown(wait=False)

    def ending(self) -> WorkerEnded:
        """The error for a process that has ended, with its exit status or signal."""
        self.process.join(1)
        code = self.process.exitcode
        status = "" if code is None else f" (signal {-code})" if code < 0 else f" (exit status {code})"
        return WorkerEnded(f"the model's process has ended{status}")

    def _exchange(self, items: Sequence[Item] | None = None) -> Any:
        try:
            if items is not None:
                self.pipe.send(items)
            return self.pipe.recv()
        except (EOFError, OSError):
            raise self.ending() from None


def _serve(pipe: Any, load: Callable[[], Predictor], leftovers: str | None) -> None:
    """Run in the process: load the model, send its labels, then answer batches until the pipe is closed."""
    show_messages()
    for number in ENDING:  # a group gets them all; the server closes the pipe at its end
        signal.signal(number, signal.SIG_IGN)
    try:
        predictor = load()
        predictor.predict(["warm"])  # libraries initialize at the first call
        folder = getattr(predictor, "folder", None)
        pipe.send((predictor.labels, folder and _identity(folder)))
        while True:
            pipe.send(answer_batch(predictor, pipe.recv()))
    except InputError as error:
        pipe.send(error)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    if leftovers and Path(leftovers).exists():
        parent = multiprocessing.parent_process()
        if parent:
            parent.join(5)  # its files are closed a moment before it has ended
        if not (parent and parent.is_alive()):
            shutil.rmtree(leftovers, ignore_errors=True)


def answer_batch(predictor: Predictor, items: Sequence[Item]) -> list[Any]:
    """The answer to each item. If a batch fails, each row is retried alone, so that one bad row does not fail
    the others."""
    try:
        return _predict(predictor, items)
    except Exception as error:
        if len(items) == 1:
            place = traceback.extract_tb(error.__traceback__)[-1]
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            logger.warning(
                f"the model failed on a text: {reason} ({Path(place.filename).name}:{place.lineno})"
            )
            return [UnreadableRow(f"the model failed on this text: {type(error).__name__}")]
        return [answer for item in items for answer in answer_batch(predictor, [item])]


def _predict(predictor: Predictor, items: Sequence[Item]) -> list[Any]:
    from multitask.inference.writers import json_line

    if not items:  # asked whether the process answers
        return []
    rows, kinds = [item.row for item in items], {item.kind for item in items}
    predictions = predictor.predict_examples(rows, embeddings=kinds != {"json"}, words="prediction" in kinds)
    answers: list[Any] = []
    for item, prediction in zip(items, predictions):
        scores = [one.score for one in [*(prediction.entities or ()), *(prediction.words or ())]]
        if not math.isfinite(sum([*(prediction.probabilities or {}).values(), *scores])):
            raise NotFinite("a probability is not a number")
        if item.kind == "json":
            answers.append(json_line(item.row, prediction._replace(embedding=None)).strip())
        else:
            answers.append(prediction.embedding if item.kind == "embedding" else prediction)
    return answers
