"""A model in another process: its answers, its end."""

import asyncio
import json
import os
import signal

import numpy as np
import pytest
from standing_in import Reader, no_reader, reader

from multitask.common.errors import InputError
from multitask.data.rows import example_from_text
from multitask.serving.batcher import Item
from multitask.serving.worker import KINDS, Failure, Worker, WorkerEnded, answer_batch


@pytest.fixture(scope="module")
def engine():
    engine = Worker(reader)
    yield engine
    engine.close()


def items(*texts, kind="predict"):
    return [Item(kind, example_from_text(text)) for text in texts]


def test_it_says_what_the_model_says_in_every_form(engine):
    assert engine.labels() == engine.labels() == Reader.labels
    texts = ["anna!", "", "so calm"]
    asked = [Item(kind, example_from_text(text)) for text in texts for kind in KINDS]
    found = asyncio.run(engine.run(asked))
    full = Reader().predict_examples([example_from_text(text) for text in texts], embeddings=True, words=True)
    for said, (row, embedding, seen) in zip(full, zip(*[iter(found)] * len(KINDS))):
        assert json.loads(row) == said._replace(embedding=None).to_dict()
        np.testing.assert_array_equal(embedding, said.embedding)
        np.testing.assert_array_equal(seen.embedding, said.embedding)
        assert seen._replace(embedding=None) == said._replace(embedding=None)


def test_a_text_that_the_model_fails_on_costs_no_other_its_answer(capfd):
    found = answer_batch(Reader(), items("anna", "it fails", "anna!"))
    good = answer_batch(Reader(), items("anna", "anna!"))
    assert [found[0], found[2]] == good
    assert found[1] == Failure("the model failed on this text: MemoryError")
    assert "MemoryError: too large" in capfd.readouterr().err


def test_a_model_that_can_not_be_loaded_says_why():
    engine = Worker(no_reader)
    with pytest.raises(InputError, match=r"runs/none: no model\.safetensors"):
        engine.labels()
    engine.close()
    assert not engine.process.is_alive()


def test_a_process_that_is_killed_is_an_error_for_all_who_ask_and_signals_to_the_group_do_not_end_it():
    engine = Worker(reader)
    engine.labels()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(engine.process.pid, number)
    assert len(asyncio.run(engine.run(items("anna")))) == 1
    for text in ("it dies", "anna"):
        with pytest.raises(WorkerEnded, match=r"the model's process has ended \(signal 9\)"):
            asyncio.run(engine.run(items(text)))
    engine.close()


def test_it_ends_when_it_is_closed_or_left(engine):
    closed = Worker(reader)
    closed.labels()
    closed.close()
    assert closed.process.exitcode == 0
    left = Worker(reader)
    left.labels()
    left.pipe.close()  # as when the server's process is killed
    left.process.join(10)
    assert left.process.exitcode == 0
