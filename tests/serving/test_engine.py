"""Engine: a model's process that ends or hangs is replaced, a bounded number of times, by the same model."""

import asyncio
import multiprocessing
import os
import signal

import pytest
from standing_in import Reader, no_reader, reader

from multitask.common.errors import InputError
from multitask.data.examples import example_from_text
from multitask.serving.batcher import Item
from multitask.serving.engine import Engine
from multitask.serving.limits import Limits
from multitask.serving.worker import Worker, WorkerEnded, answer_batch

LIMITS = Limits(batch_seconds=0.5, answer_seconds=0.1, probe_seconds=0.05, restarts=2, load_seconds=60)
HANGING = Limits(batch_seconds=60, answer_seconds=0.1, probe_seconds=0.05)


def items(*texts):
    return [Item("json", example_from_text(text)) for text in texts]


def call(main, limits=LIMITS, load=reader):
    """The result of main(engine, failures): `failures` are the errors with which it gave up."""

    async def run():
        worker = Worker(load)
        await asyncio.to_thread(worker.labels)
        engine, failures = Engine(worker, limits), []
        engine.failed = failures.append
        try:
            async with asyncio.timeout(120):
                return await main(engine, failures)
        finally:
            await engine.close()

    result = asyncio.run(run())
    assert not multiprocessing.active_children()
    return result


async def until(condition):
    while not condition():
        await asyncio.sleep(0.01)


async def answers_again(engine):
    await until(lambda: engine.unavailable() is None)
    assert await engine.run(items("anna!", "")) == answer_batch(Reader(), items("anna!", ""))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_an_idle_process_that_ends_or_hangs_is_noticed_and_replaced(number, capfd):
    async def main(engine, failures):
        first = engine.worker.process.pid
        os.kill(first, number)
        await until(engine.unavailable)
        with pytest.raises(WorkerEnded, match="it is being restarted"):
            while True:
                await engine.run(items("anna"))
        await answers_again(engine)
        assert engine.worker.process.pid != first and not failures

    call(main)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2 and "; restart 1 of 2" in lines[0] and lines[1] == "the model answers again"


def test_a_batch_that_takes_too_long_gets_no_answer_and_is_not_waited_for(capfd):
    async def main(engine, failures):
        os.kill(engine.worker.process.pid, signal.SIGSTOP)
        with pytest.raises(WorkerEnded, match="no answer for 0.5 s; it is being restarted"):
            await engine.run(items("anna"))
        await answers_again(engine)

    call(main)


def test_it_tells_that_a_batch_takes_long():
    async def main(engine, failures):
        os.kill(engine.worker.process.pid, signal.SIGSTOP)
        running = asyncio.create_task(engine.run(items("anna")))
        await until(engine.unavailable)
        assert engine.unavailable() == "the model has given no answer for 0 s"
        os.kill(engine.worker.process.pid, signal.SIGCONT)
        assert await running == answer_batch(Reader(), items("anna"))
        assert engine.unavailable() is None

    call(main, HANGING)


def test_it_gives_up_after_some_restarts(capfd):
    async def main(engine, failures):
        for _ in range(3):
            await until(lambda: engine.unavailable() is None or failures)
            with pytest.raises(WorkerEnded):
                await engine.run(items("it dies"))
        await until(lambda: failures)
        assert str(failures[0]) == "the model's process has ended (signal 9)" and engine.has_failed
        with pytest.raises(WorkerEnded, match="signal 9"):
            await engine.run(items("anna"))
        return [str(error) for error in failures]

    assert len(call(main)) == 1


def test_restarts_long_ago_do_not_count(capfd):
    async def main(engine, failures):
        for _ in range(4):
            with pytest.raises(WorkerEnded):
                await engine.run(items("it dies"))
            await answers_again(engine)
        assert not failures

    call(main, Limits(restarts=1, restart_seconds=0.0, probe_seconds=60))


@pytest.mark.parametrize("change", ["another model", "no model"])
def test_another_model_in_the_folder_is_never_served(change, capfd):
    async def main(engine, failures):
        if change == "another model":
            engine.worker.identity = "that of the first"
        else:
            engine.worker.load = no_reader
        with pytest.raises(WorkerEnded):
            await engine.run(items("it dies"))
        await until(lambda: failures)
        assert isinstance(failures[0], InputError)
        return str(failures[0])

    found = call(main)
    assert found.startswith("the model's folder has another model now" if change[0] == "a" else "runs/none")


def test_closing_it_while_it_restarts_leaves_no_process(capfd):
    async def main(engine, failures):
        with pytest.raises(WorkerEnded):
            await engine.run(items("it dies"))
        await asyncio.sleep(0.05)
        await engine.close()
        with pytest.raises(WorkerEnded):
            await engine.run(items("anna"))

    call(main)


def test_closing_it_while_a_batch_is_computed_restarts_nothing(capfd):
    async def main(engine, failures):
        os.kill(engine.worker.process.pid, signal.SIGSTOP)
        running = asyncio.create_task(engine.run(items("anna")))
        await until(engine.unavailable)
        await engine.close()
        with pytest.raises(WorkerEnded, match="the server is stopping"):
            await running

    call(main, HANGING)
    assert capfd.readouterr().err == ""
