from types import SimpleNamespace

import numpy as np
import pytest

from multitask.evaluation import slowest
from multitask.evaluation.slowest import slowest_rows

# 25 rows in a window each, of 26 to 2 tokens
CORPUS = SimpleNamespace(window_lengths=np.arange(26, 1, -1), window_rows=np.arange(26))


@pytest.fixture
def measured(monkeypatch):
    """What is found, and which rows were read in which order, where reading row r for the n-th time takes
    cost(r, n) seconds on a clock that else stands still."""

    def run(cost):
        now, calls = [0.0], []

        def outputs(runner, corpus, rows):
            assert rows[1] == rows[0] + 1
            calls.append(rows[0])
            now[0] += cost(rows[0], calls.count(rows[0]))
            yield

        monkeypatch.setattr(slowest, "outputs", outputs)
        monkeypatch.setattr(slowest.time, "perf_counter", lambda: now[0])
        return *slowest_rows(None, CORPUS), calls

    monkeypatch.setattr(slowest, "SECONDS", 2.0)
    return run


def test_of_the_rows_with_the_most_tokens_the_slowest_are_read_again(measured):
    # as slow as their number, the median of 0.9, 1 and 5 times that; at first each a little slower
    times = [1.1, 0.9, 5, 1]
    found, count, calls = measured(lambda row, n: 0.001 * (1 + row) * times[n - 1])
    assert count == 20 and calls[:20] == list(range(20))
    assert sorted(calls[20:]) == sorted([*range(10, 20)] * 3)
    assert [slow.row for slow in found] == list(range(19, 9, -1))
    assert [slow.milliseconds for slow in found] == pytest.approx(range(20, 10, -1))
    assert [(slow.tokens, slow.windows) for slow in found] == [(26 - slow.row, 1) for slow in found]


def test_no_pass_begins_when_the_time_is_over(measured):
    found, count, calls = measured(lambda row, n: 9)
    assert (count, calls, found[0].milliseconds) == (1, [0], pytest.approx(9000))
    found, count, calls = measured(lambda row, n: 0.19)
    assert (count, calls) == (11, list(range(11))) and len(found) == 10
    found, count, calls = measured(lambda row, n: 2**-4 if n == 1 else 2)
    assert (count, calls[20:]) == (20, [0])
    assert [round(slow.milliseconds) for slow in found] == [2000, *[62] * 9]
