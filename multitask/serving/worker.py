"""A model in its own process: it loads while the server starts, and computes while the server answers."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import signal
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from multitask.common.errors import InputError
from multitask.common.shell import show_messages
from multitask.data.texts import UnreadableRow

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from multitask.data.labels import LabelSpace
    from multitask.inference.predictor import Predictor
    from multitask.serving.batcher import Item

# bytes of a line of JSON; an array (D,); a Prediction with words and embedding
KINDS = ("json", "embedding", "prediction")


class WorkerEnded(ChildProcessError):
    """The model's process has ended; the rows that it was given have no answers."""

    retry_seconds = 10  # for a client: the server may have been restarted by then


def load_predictor(folder: str, accuracy: float | None = None, precision: float | None = None) -> Predictor:
    """The model of a folder, which answers only where it is sure: see `Predictor.answer_only_if`.

    Raises InputError if it can't be loaded, or has no threshold for a share."""
    from multitask.inference.predictor import Predictor

    predictor = Predictor.from_pretrained(folder)
    predictor.answer_only_if(accuracy, precision)
    return predictor


class Worker:
    """Starts a process that calls `load`, which must be picklable, and sends it batches of rows."""

    def __init__(self, load: Callable[[], Predictor]):
        # spawn, not fork: the server has threads when it loads a second model
        context = multiprocessing.get_context("spawn")
        self.pipe, other_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(other_end, load), daemon=True)
        self.process.start()
        other_end.close()
        self.thread = ThreadPoolExecutor(1, "worker")
        self._labels: LabelSpace | None = None

    def labels(self) -> LabelSpace:
        """Wait until the model is loaded → its labels.

        Raises InputError if it can't be loaded, or WorkerEnded."""
        if self._labels is None:
            labels = self._exchange()
            if isinstance(labels, InputError):
                raise labels
            self._labels = labels
        return self._labels

    async def run(self, items: Sequence[Item]) -> list[Any]:
        """The answer to each item (see KINDS), or an UnreadableRow. Raises WorkerEnded."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, self._exchange, items)

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


def _serve(pipe: Any, load: Callable[[], Predictor]) -> None:
    """Run in the process: load the model, send its labels, then answer batches until the pipe is closed."""
    show_messages()
    for number in (signal.SIGINT, signal.SIGTERM):  # a group gets both; the server closes the pipe at its end
        signal.signal(number, signal.SIG_IGN)
    try:
        predictor = load()
        predictor.predict(["warm"])  # libraries initialize at the first call
        pipe.send(predictor.labels)
        while True:
            pipe.send(answer_batch(predictor, pipe.recv()))
    except InputError as error:
        pipe.send(error)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass


def answer_batch(predictor: Predictor, items: Sequence[Item]) -> list[Any]:
    """The answer to each item. If a batch fails, each row is retried alone, so that one bad row does not fail
    the others."""
    try:
        return _predict(predictor, items)
    except Exception as error:
        if len(items) == 1:
            logger.warning(traceback.format_exc())
            return [UnreadableRow(f"the model failed on this text: {type(error).__name__}")]
        return [answer for item in items for answer in answer_batch(predictor, [item])]


def _predict(predictor: Predictor, items: Sequence[Item]) -> list[Any]:
    from multitask.inference.writers import json_line

    rows, kinds = [item.row for item in items], {item.kind for item in items}
    predictions = predictor.predict_examples(rows, embeddings=kinds != {"json"}, words="prediction" in kinds)
    answers: list[Any] = []
    for item, prediction in zip(items, predictions):
        if item.kind == "json":
            answers.append(json_line(item.row, prediction._replace(embedding=None)).strip())
        else:
            answers.append(prediction.embedding if item.kind == "embedding" else prediction)
    return answers
