"""Worker: the answers of a model in its own process, and how the process ends."""

import asyncio
import json
import os
import signal

import numpy as np
import pytest
from standing_in import Reader, no_reader, reader

from multitask.common.errors import InputError
from multitask.data.examples import example_from_text
from multitask.data.texts import UnreadableRow
from multitask.serving.batcher import Item
from multitask.serving.worker import KINDS, Worker, WorkerEnded, answer_batch


@pytest.fixture
def worker():
    worker = Worker(reader)
    yield worker
    worker.close()


def items(*texts):
    return [Item("json", example_from_text(text)) for text in texts]


def test_each_kind_of_answer_equals_the_models_prediction(worker):
    assert worker.labels() == worker.labels() == Reader.labels
    rows = [example_from_text(text) for text in ("anna!", "", "so calm")]
    answers = asyncio.run(worker.run([Item(kind, row) for row in rows for kind in KINDS]))
    expected = Reader().predict_examples(rows, embeddings=True, words=True)
    for number, prediction in enumerate(expected):
        line, embedding, full = answers[number * len(KINDS) :][: len(KINDS)]
        assert json.loads(line) == prediction._replace(embedding=None).to_dict()
        np.testing.assert_array_equal(embedding, prediction.embedding)
        np.testing.assert_array_equal(full.embedding, prediction.embedding)
        assert full._replace(embedding=None) == prediction._replace(embedding=None)


def test_a_text_on_which_the_model_fails_does_not_fail_the_others(capfd):
    answers = answer_batch(Reader(), items("anna", "it fails", "anna!"))
    assert [answers[0], answers[2]] == answer_batch(Reader(), items("anna", "anna!"))
    assert answers[1] == UnreadableRow("the model failed on this text: MemoryError")
    assert "MemoryError: too large" in capfd.readouterr().err


def test_a_model_that_can_not_be_loaded_raises_its_error():
    worker = Worker(no_reader)
    with pytest.raises(InputError, match=r"runs/none: no model\.safetensors"):
        worker.labels()
    worker.close()
    assert not worker.process.is_alive()


def test_only_a_killed_process_ends_and_then_every_request_raises(worker):
    worker.labels()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker.process.pid, number)
    assert len(asyncio.run(worker.run(items("anna")))) == 1
    for text in ("it dies", "anna"):
        with pytest.raises(WorkerEnded, match=r"the model's process has ended \(signal 9\)"):
            asyncio.run(worker.run(items(text)))


def test_the_process_ends_when_the_pipe_is_closed(worker):
    worker.labels()
    worker.pipe.close()  # as when the server's process is killed
    worker.process.join(10)
    assert worker.process.exitcode == 0


def test_a_closed_worker_has_no_process(worker):
    worker.labels()
    worker.close()
    assert worker.process.exitcode == 0
