"""The benchmarks of suggest and audit, on a few rows."""

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
from benchmark_runs import SHORT, bench, corpus  # noqa: F401 - fixtures

from benchmarks import audit, near_duplicates, suggest
from multitask.data.labels import Span

ORDERS = ("random", "tags, least sure word", "class and tags", "tags, least sure word, diverse")


def test_all_orders_of_a_study_start_and_end_with_the_same_texts(bench, corpus, tiny):  # noqa: F811
    words = ["--corpus", corpus, "--backbone", tiny, "--seeds", 2, "--epochs", 2, *SHORT]
    ended = bench(suggest, *words, "--pool", 8, "--start", 2, "--add", 3, "--rounds", 2, "--orders", *ORDERS)
    record, (_, _, *rows) = ended.json, ended.tables[0]
    assert record["labelled"] == [2, 5, 8] and [row[0] for row in rows] == [*record["curves"]] == [*ORDERS]
    for seeds in zip(*record["curves"].values()):
        for order in seeds:
            assert order[0] == seeds[0][0] and order[2] == seeds[0][2]  # the pool is used up
    for row, curves in zip(rows, record["curves"].values()):
        last = [sum(curve[-1][figure] for curve in curves) / 2 for figure in (0, 1)]
        assert [float(cell.split()[0]) for cell in row[2:]] == pytest.approx(last, abs=6e-4)


def test_a_pool_that_the_corpus_has_not_is_refused(shell, corpus, tiny):  # noqa: F811
    ended = shell(suggest, "--corpus", corpus, "--backbone", tiny, "--pool", 900)
    assert ended.status == 2 and "--pool is 900; train has" in ended.err
    ended = shell(suggest, "--corpus", corpus, "--backbone", tiny, "--limit", 9)
    assert (ended.status, ended.err) == (2, "error: --limit: --pool says how many sentences there are\n")


def test_planted_errors_are_what_differs_from_the_rows():
    words = [f"w{n}" for n in range(9)]
    spans = [Span(0, 2, "A"), Span(3, 4, "B"), Span(4, 6, "A"), Span(8, 9, "C")]
    rows = [audit.Row(words, spans, "xyz"[n % 3]) for n in range(40)]
    noisy, planted = audit.plant(rows, 0.25, 1)
    assert noisy != audit.plant(rows, 0.25, 2)[0]
    assert planted.classes == {n for n in range(40) if noisy[n].label != rows[n].label}
    assert (len(planted.classes), len(planted.entities)) == (10, 40)
    assert {kind for *_, kind in planted.entities} == {*audit.KINDS}
    for number, (row, new) in enumerate(zip(rows, noisy)):
        changed = {*row.spans} ^ {*new.spans}
        places = [(first, last) for at, first, last, _ in planted.entities if at == number]
        assert all(any(first <= s.start and s.end <= last for first, last in places) for s in changed)
        assert len(places) <= len(changed)
        ends = [(span.start, span.end) for span in new.spans]
        assert all(start < end for start, end in ends) and all(a[1] <= b[0] for a, b in zip(ends, ends[1:]))


def test_hits_are_counted_in_words_that_an_error_touches():
    planted = audit.Planted(set(), [(0, 1, 3, "moved"), (1, 0, 1, "dropped"), (1, 3, 4, "retyped")])
    issues = [
        SimpleNamespace(quality=0.3, given=[(2, 5, 0)], suggested=[]),  # row 0, words 2 to 4
        SimpleNamespace(quality=0.1, given=[], suggested=[(3, 5, 0)]),  # no error here
        SimpleNamespace(quality=0.2, given=[(5, 6, 0)], suggested=[(5, 6, 1)]),  # row 1, word 0
        SimpleNamespace(quality=0.4, given=[(5, 6, 0)], suggested=[(4, 6, 1)]),  # again
    ]
    each = {"dropped": [1, 1], "retyped": [1, 0], "moved": [1, 1]}
    found = audit.entity_hits(np.array([0, 5, 9]), issues, planted)
    assert found == [4, 3, 2, each]
    rules = {rule: {"classes": [10, 6, 5], "entities": found} for rule in audit.RULES}
    record = {"corpus": "c", "results": [{"planted": [8, 3], "rules": rules}]}
    row = [cell.strip() for cell in audit.table([record]).splitlines()[2].split("|")[1:-1]]
    assert row[2:] == ["0.60", "0.75", "0.62", "0.75", "0.67", "0.67", "1.00", "0.00", "1.00"]


def test_an_audit_is_measured_from_the_shell(bench, corpus, tiny):  # noqa: F811
    words = ["--corpus", corpus, "--backbone", tiny, "--seeds", 1, "--rate", 0.2, "--folds", 2, *SHORT]
    ended = bench(audit, *words, "training.num_epochs=1")
    (result,) = ended.json["results"]
    assert [row[:2] for row in ended.tables[0][2:]] == [[corpus.name, rule] for rule in audit.RULES]
    assert result["planted"][0] == round(0.2 * result["rows"])
    for rule in result["rules"].values():
        assert rule["classes"][2] <= rule["classes"][1] <= rule["classes"][0] <= result["rows"]


def test_edits_and_how_many_of_them_are_found(bench, corpus, tiny):  # noqa: F811
    words, draw = ["Anna", "won", "in", "Paris", "."], random.Random(0)
    assert near_duplicates.edited(words, "case and punctuation", [], draw) == ["anna", "won", "in", "paris"]
    dropped = near_duplicates.edited(words, "word dropped", [], draw)
    assert len(dropped) == 4 and set(dropped) < set(words)
    replaced = near_duplicates.edited(words, "word replaced", ["x"], draw)
    assert sum(a != b for a, b in zip(words, replaced)) == 1 and "x" in replaced
    swapped = near_duplicates.edited(words, "words swapped", [], draw)
    assert swapped != words and sorted(swapped) == sorted(words)
    dev = [{"tokens": ["chip", "%", "&", "chip"], "label": "x"}]
    (corpus / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in dev))
    ended = bench(near_duplicates, "--corpus", corpus, "--backbone", tiny, "--seeds", 1, "--edits", 5)
    for shares in ended.json["found"][corpus.name][0].values():
        assert shares == sorted(shares, reverse=True) and 0 <= shares[-1] <= shares[0] <= 1
