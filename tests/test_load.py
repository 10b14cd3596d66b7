"""task_6.py as many clients meet it: right answers, bounded queues and memory, an end that loses nothing."""

import asyncio

import pytest
from traffic import GONE, by_name, cases, idle, visit

from benchmarks.http_load import Client
from benchmarks.processes import family
from benchmarks.server import serving
from model import MultiTaskTransformer
from multitask.loading import load_predictor


@pytest.fixture(scope="module")
def kinds(trained):
    return by_name(cases(load_predictor(str(trained), lambda: MultiTaskTransformer, "cpu")))


@pytest.fixture(scope="module")
def server(trained, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("served"), str(trained)) as server:
        yield server


def megabytes(server) -> float:
    return sum(process.memory for process in family(server.process.pid))


async def check_all(server, kinds, clients, seconds):
    """After the clients have gone, nothing of theirs is left; every kind was met, and nothing went wrong."""
    seen = await visit(server.port, kinds, clients, seconds)
    await idle(server.port)
    assert server.said.read_text() == ""
    return seen


def test_every_answer_is_what_the_predictor_says_or_why_there_is_none(server, kinds):
    async def each_once():
        client = Client(server.port)
        for found in kinds.values():
            for case in found:
                case.check(await client.ask(case.request))

    asyncio.run(each_once())


def test_many_clients_get_their_own_answers(server, kinds):
    seen = asyncio.run(check_all(server, kinds, clients=20, seconds=2))
    assert seen["one text", 200] and sum(count for (_, how), count in seen.items() if how == GONE)


@pytest.mark.load
def test_half_a_minute_of_fifty_clients_leaves_nothing_behind(server, kinds):
    asyncio.run(check_all(server, kinds, clients=50, seconds=15))
    before = megabytes(server)
    seen = asyncio.run(check_all(server, kinds, clients=50, seconds=15))
    assert megabytes(server) - before < 30
    assert {name for name, _ in seen} == set(kinds)
    print(seen)
