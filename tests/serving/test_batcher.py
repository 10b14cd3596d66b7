"""Rows of many requests in batches: each gets its own answer, and nothing waits or grows without bound."""

import asyncio
import random

import pytest

from multitask.data.rows import example_from_text
from multitask.serving.batcher import Batcher, Busy, Item, RequestTooLarge
from multitask.serving.limits import Limits, estimate_tokens


def items(*texts):
    return [Item("predict", example_from_text(text)) for text in texts]


class Model:
    """Answers with the text in capitals, and remembers its batches; waits for `go` where there is one."""

    def __init__(self, go=None):
        self.batches, self.go, self.begun = [], go, asyncio.Event()

    async def __call__(self, batch):
        self.batches.append([item.row.text for item in batch])
        self.begun.set()
        if self.go:
            await self.go.acquire()
        await asyncio.sleep(0)
        if any(item.row.text == "bad" for item in batch):
            raise RuntimeError("no")
        return [item.row.text.upper() for item in batch]


def run(main):
    """A coroutine, to its end; what hangs fails."""

    async def within():
        async with asyncio.timeout(20):
            return await main()

    return asyncio.run(within())


def test_every_request_gets_its_own_answers_and_batches_keep_their_bounds():
    chance = random.Random(0)
    requests = [
        [" ".join("w" * chance.randint(1, 9) for _ in range(chance.randint(0, 30))) for _ in range(size)]
        for size in (chance.randint(0, 12) for _ in range(60))
    ]

    async def main():
        model, limits = Model(), Limits(batch_rows=7, batch_cost=300, batch_wait=0.001)
        queue = Batcher(model, limits)

        async def ask(texts):
            await asyncio.sleep(chance.uniform(0, 0.05))
            return await queue.submit(items(*texts))

        found = await asyncio.gather(*map(ask, requests))
        assert found == [[text.upper() for text in texts] for texts in requests]
        assert sum(map(len, model.batches)) == sum(map(len, requests)) == queue.batched
        for batch in model.batches:
            prices = [estimate_tokens(example_from_text(text)) for text in batch]
            assert len(batch) <= 7 and (sum(prices) <= 300 or len(batch) == 1)
        assert len(model.batches) == queue.batches < sum(map(len, requests)) / 2
        assert (queue.rows, queue.cost, queue.queued_rows, queue.queued_cost) == (0, 0, 0, 0)
        await queue.drain()

    run(main)


def test_a_full_batch_does_not_wait_and_one_that_is_not_full_waits_no_longer_than_it_may():
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


def test_rows_that_come_a_little_later_share_the_batch():
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
        await model.begun.wait()
        short = asyncio.create_task(queue.submit(items("short")))
        await asyncio.sleep(0)
        for _ in range(10):
            model.go.release()
        await asyncio.gather(long, short)
        assert "short" in model.batches[1]
        assert long.result() == [f"LONG {i}" for i in range(8)]

    run(main)


def test_past_its_bound_a_queue_is_busy_until_something_is_answered():
    async def main():
        price = estimate_tokens(example_from_text("a b c"))
        model = Model(go=asyncio.Semaphore(0))
        queue = Batcher(model, Limits(batch_rows=1, batch_wait=0, waiting_cost=3 * price))
        taken = [asyncio.create_task(queue.submit(items("a b c"))) for _ in range(3)]
        await model.begun.wait()
        with pytest.raises(Busy, match="try again") as refused:
            await queue.submit(items("a b c"))
        assert refused.value.seconds >= 1
        with pytest.raises(RequestTooLarge, match=f"about {4 * price} tokens"):
            await queue.submit(items(*["a b c"] * 4))
        model.go.release()
        assert await taken[0] == ["A B C"]
        await asyncio.sleep(0)
        again = asyncio.create_task(queue.submit(items("d")))
        for _ in range(3):
            model.go.release()
        assert [await task for task in (*taken[1:], again)] == [["A B C"], ["A B C"], ["D"]]

    run(main)


def test_a_batch_that_fails_fails_its_own_requests_alone():
    async def main():
        queue = Batcher(Model(), Limits(batch_rows=1, batch_wait=0))
        found = await asyncio.gather(
            *(queue.submit(items(text)) for text in ("a", "bad", "b")), return_exceptions=True
        )
        assert [found[0], found[2]] == [["A"], ["B"]] and isinstance(found[1], RuntimeError)
        assert (queue.rows, queue.cost) == (0, 0)

    run(main)


def test_one_who_leaves_costs_the_others_nothing():
    async def main():
        model = Model(go=asyncio.Semaphore(0))
        queue = Batcher(model, Limits(batch_rows=2, batch_wait=0.01))
        leaves, stays = (asyncio.create_task(queue.submit(items(text))) for text in "ab")
        await model.begun.wait()
        leaves.cancel()
        model.go.release()
        assert await stays == ["B"]
        await queue.drain()
        assert (queue.rows, queue.cost) == (0, 0)

    run(main)


def test_what_was_taken_is_answered_before_the_end_and_nothing_more_is_taken():
    async def main():
        model = Model(go=asyncio.Semaphore(0))
        queue = Batcher(model, Limits(batch_rows=1, batch_wait=3600))
        taken = [asyncio.create_task(queue.submit(items(text))) for text in "abc"]
        await model.begun.wait()
        end = asyncio.create_task(queue.drain())
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="stopping"):
            await queue.submit(items("d"))
        assert not end.done()
        for _ in range(3):
            model.go.release()
        await end
        assert [task.result() for task in taken] == [["A"], ["B"], ["C"]]

    run(main)
