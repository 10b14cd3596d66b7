"""Batcher: each request gets its own answers, and batches, waiting and the queue are bounded."""

import asyncio
import random

import pytest

from multitask.data.examples import example_from_text
from multitask.serving.batcher import Batcher, Item, RequestTooLarge, ServerBusy
from multitask.serving.limits import Limits, estimate_tokens


def items(*texts):
    return [Item("json", example_from_text(text)) for text in texts]


class Model:
    """Answers with the text in capitals and records its batches; each waits for a semaphore, if any."""

    def __init__(self, go=None):
        self.batches, self.go, self.started = [], go, asyncio.Event()

    async def __call__(self, batch):
        self.batches.append([item.row.text for item in batch])
        self.started.set()
        if self.go:
            await self.go.acquire()
        await asyncio.sleep(0)
        if any(item.row.text == "bad" for item in batch):
            raise RuntimeError("no")
        return [item.row.text.upper() for item in batch]


def run(main):
    """Run a coroutine function; fail if it hangs."""

    async def call():
        async with asyncio.timeout(20):
            return await main()

    return asyncio.run(call())


def test_every_request_gets_its_own_answers_and_batches_are_bounded():
    rng = random.Random(0)
    requests = [
        [" ".join("w" * rng.randint(1, 9) for _ in range(rng.randint(0, 30))) for _ in range(size)]
        for size in (rng.randint(0, 12) for _ in range(60))
    ]

    async def main():
        model, limits = Model(), Limits(batch_rows=7, batch_cost=300, batch_wait=0.001)
        queue = Batcher(model, limits)

        async def ask(texts):
            await asyncio.sleep(rng.uniform(0, 0.05))
            return await queue.submit(items(*texts))

        answers = await asyncio.gather(*map(ask, requests))
        assert answers == [[text.upper() for text in texts] for texts in requests]
        assert sum(map(len, model.batches)) == sum(map(len, requests)) == queue.batched_rows
        for batch in model.batches:
            costs = [estimate_tokens(example_from_text(text)) for text in batch]
            assert len(batch) <= 7 and (sum(costs) <= 300 or len(batch) == 1)
        assert len(model.batches) == queue.batches < sum(map(len, requests)) / 2
        assert (queue.rows, queue.cost) == (0, 0)
        await queue.drain()

    run(main)


def test_a_full_batch_starts_at_once_and_another_after_its_wait():
    async def main():
        queue = Batcher(Model(), Limits(batch_rows=3, batch_wait=3600))
        assert await asyncio.gather(*(queue.submit(items(t)) for t in "abc")) == [["A"], ["B"], ["C"]]
        first = asyncio.create_task(queue.submit(items("d", "e")))
        await asyncio.sleep(0.01)
        assert [await queue.submit(items("f")), await first] == [["F"], ["D", "E"]]
        last = asyncio.create_task(queue.submit(items("g")))
        await asyncio.sleep(0.01)
        await queue.drain()
        assert await last == ["G"]
        queue = Batcher(Model(), Limits(batch_wait=0.01))
        assert await queue.submit(items("a")) == ["A"]

    run(main)


def test_rows_that_come_within_the_wait_share_a_batch():
    async def main():
        model = Model()
        queue = Batcher(model, Limits(batch_wait=0.5, batch_rows=4))
        first = asyncio.create_task(queue.submit(items("a")))
        await asyncio.sleep(0.01)
        await asyncio.gather(first, queue.submit(items("b", "c", "d")))
        assert model.batches == [["a", "b", "c", "d"]]

    run(main)


def test_a_long_request_takes_turns_with_short_ones():
    async def main():
        model = Model(go=asyncio.Semaphore(0))
        queue = Batcher(model, Limits(batch_rows=2, batch_wait=0))
        long = asyncio.create_task(queue.submit(items(*(f"long {i}" for i in range(8)))))
        await model.started.wait()
        short = asyncio.create_task(queue.submit(items("short")))
        await asyncio.sleep(0)
        for _ in range(10):
            model.go.release()
        await asyncio.gather(long, short)
        assert "short" in model.batches[1]
        assert long.result() == [f"LONG {i}" for i in range(8)]

    run(main)


def test_a_full_queue_refuses_requests_until_rows_are_answered():
    async def main():
        cost = estimate_tokens(example_from_text("a b c"))
        model = Model(go=asyncio.Semaphore(0))
        queue = Batcher(model, Limits(batch_rows=1, batch_wait=0, waiting_cost=3 * cost))
        accepted = [asyncio.create_task(queue.submit(items("a b c"))) for _ in range(3)]
        await model.started.wait()
        with pytest.raises(ServerBusy, match="try again") as refused:
            await queue.submit(items("a b c"))
        assert refused.value.retry_seconds >= 1
        with pytest.raises(RequestTooLarge, match=f"about {4 * cost} tokens"):
            await queue.submit(items(*["a b c"] * 4))
        model.go.release()
        assert await accepted[0] == ["A B C"]
        await asyncio.sleep(0)
        later = asyncio.create_task(queue.submit(items("d")))
        for _ in range(3):
            model.go.release()
        assert [await task for task in (*accepted[1:], later)] == [["A B C"], ["A B C"], ["D"]]

    run(main)


def test_a_failed_batch_fails_only_its_own_requests():
    async def main():
        queue = Batcher(Model(), Limits(batch_rows=1, batch_wait=0))
        answers = await asyncio.gather(
            *(queue.submit(items(text)) for text in ("a", "bad", "b")), return_exceptions=True
        )
        assert [answers[0], answers[2]] == [["A"], ["B"]] and isinstance(answers[1], RuntimeError)
        assert (queue.rows, queue.cost) == (0, 0)

    run(main)


def test_a_cancelled_request_does_not_affect_the_others():
    async def main():
        model = Model(go=asyncio.Semaphore(0))
        queue = Batcher(model, Limits(batch_rows=2, batch_wait=0.01))
        cancelled, other = (asyncio.create_task(queue.submit(items(text))) for text in "ab")
        await model.started.wait()
        cancelled.cancel()
        model.go.release()
        assert await other == ["B"]
        await queue.drain()
        assert (queue.rows, queue.cost) == (0, 0)

    run(main)


def test_drain_answers_accepted_requests_and_refuses_new_ones():
    async def main():
        model = Model(go=asyncio.Semaphore(0))
        queue = Batcher(model, Limits(batch_rows=1, batch_wait=3600))
        accepted = [asyncio.create_task(queue.submit(items(text))) for text in "abc"]
        await model.started.wait()
        end = asyncio.create_task(queue.drain())
        await asyncio.sleep(0)
        with pytest.raises(ServerBusy, match="stopping"):
            await queue.submit(items("d"))
        assert not end.done()
        for _ in range(3):
            model.go.release()
        await end
        assert [task.result() for task in accepted] == [["A"], ["B"], ["C"]]

    run(main)
