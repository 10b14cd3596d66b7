"""Results on the page in a real Chromium: texts, files, the threshold, downloads."""

import json
import re
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from page_browser import (
    LONG,
    MAIN,
    ask,
    download,
    drop,
    marks,
    opened,
    predict,
    predicted,
    probabilities,
    shows,
)

import task_5

pytest_plugins = ["page_browser"]
pytestmark = pytest.mark.browser


def test_a_typed_text_shows_the_predictors_result(tab, predictors):
    text = "anna  won in paris, and <b>{{value}}</b> & ${value}"
    box = tab.get_by_label("Text", exact=False).first
    box.type(text)
    box.press("Enter")
    shows(tab, text)
    expected = predict(predictors[MAIN], text)
    assert {("anna", "PER"), ("paris", "LOC")} <= set(predicted(predictors[MAIN], text))
    assert marks(tab) == predicted(predictors[MAIN], text)
    assert probabilities(tab) == pytest.approx(expected.probabilities, abs=6e-4)
    assert tab.locator(".bars li").first.inner_text().startswith(expected.label)
    titles = tab.locator(".text span[title]").evaluate_all("all => all.map(one => [plainOf(one), one.title])")
    assert [word for word, _ in titles] == [text[word.start : word.end] for word in expected.words]
    assert [title.split()[0] for _, title in titles] == [word.tag for word in expected.words]
    tab.get_by_text("words with tag and score").click()
    rows = tab.locator("details tbody tr").all_inner_texts()
    assert [row.split("\t")[:2] for row in rows] == [[word, title.split()[0]] for word, title in titles]


def test_each_typed_line_is_a_row(tab, predictors):
    box = tab.get_by_label("Text", exact=False).first
    box.type(LONG[0])
    for line in ("", *LONG[1:]):
        box.press("Shift+Enter")
        box.type(line)
    box.press("Enter")
    shows(tab, LONG[2])
    assert tab.evaluate("plainTexts()") == LONG
    assert "3 lines" in tab.locator(".pane").first.inner_text()
    labels = [predict(predictors[MAIN], text).label for text in LONG]
    rows = tab.locator(".rows li").all_inner_texts()
    assert [label in row for label, row in zip(labels, rows)] == [True] * 3
    assert [json.loads(line)["text"] for line in download(tab, "JSONL").splitlines()] == LONG
    ask(tab, LONG[1])
    tab.get_by_text("words with tag and score").wait_for()  # one line is shown with its words again


def test_nearest_sentences_of_the_training_corpus_are_listed(tab):
    ask(tab, "anna won in paris")
    near = tab.locator(".near li")
    assert near.count() == 5
    assert near.first.inner_text().split("\n")[0] == "anna won in paris"
    assert "cosine 1.000" in near.first.inner_text()


def test_the_threshold_hides_entities_here_and_in_the_downloads(tab, predictors):
    text = "anna and paris and annason in the paris, the chip"
    ask(tab, text)
    scores = sorted(entity.score for entity in predict(predictors[MAIN], text).entities)
    threshold = round((scores[0] + scores[-1]) / 2, 2)
    hidden = sum(score < threshold for score in scores)
    assert 0 < hidden < len(scores)
    tab.locator("#least input[type=number]").fill(str(threshold))
    tab.get_by_text(f"below {threshold:.2f} not shown").wait_for()
    assert marks(tab) == predicted(predictors[MAIN], text, threshold)
    assert f"{hidden} entit" in tab.get_by_text("not shown").inner_text()
    row = json.loads(download(tab, "JSONL"))
    assert [(one["text"], one["label"]) for one in row["entities"]] == marks(tab)
    tab.locator("#least input[type=range]").press("Home")
    tab.get_by_text("not shown").wait_for(state="detached")
    assert marks(tab) == predicted(predictors[MAIN], text)


def test_downloads_of_a_file_equal_the_commands_output(tab, trained_models, monkeypatch):
    rows = "".join(json.dumps({"text": text}) + "\n" for text in LONG) + '{"nope": 1}\n'
    drop(tab, "mine.jsonl", rows)
    tab.locator(".rows li").nth(3).wait_for()
    assert "4 rows in mine.jsonl, 1 can’t be read" in tab.locator(".pane").first.inner_text()
    assert tab.locator(".rows li").nth(3).inner_text() == "mine.jsonl:4: a row has a text or tokens"
    assert tab.evaluate("plainTexts()") == LONG
    (trained_models / "mine.jsonl").write_text(rows)
    monkeypatch.chdir(trained_models)
    for kind, name in (("JSONL", "expected.jsonl"), ("CSV", "expected.csv")):
        words = ["predict", "--model", MAIN, "--device", "cpu", "--input", "mine.jsonl", "--output", name]
        monkeypatch.setattr(sys, "argv", ["task_5.py", *words])
        task_5.main()
        same(download(tab, kind), Path(name).read_bytes())


def same(mine: bytes, expected: bytes) -> None:
    """Byte-identical except for the last digit of probabilities: other batches round differently."""
    number = re.compile(rb"\d\.\d+")
    assert number.sub(b"#", mine) == number.sub(b"#", expected)
    pairs = zip(number.findall(mine), number.findall(expected), strict=True)
    assert all(float(one) == pytest.approx(float(other), abs=2e-5) for one, other in pairs)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("empty.csv", "", "empty.csv: has no rows"),
        ("noise.txt", b"a\0b\n", "noise.txt: is not a text file"),
        ("no.csv", "sentence\nx\n", "no.csv:1: the first line names the columns"),
    ],
)
def test_an_unreadable_file_gives_one_line(tab, name, content, line):
    drop(tab, name, content)
    tab.get_by_role("alert").get_by_text(line).wait_for()
    ask(tab, LONG[0])  # the page still works


def test_files_of_other_kinds_and_sizes_are_refused_with_a_message(chromium, served):
    for name, content, line in (
        ("a.png", b"x", "file type"),
        ("a.txt", b"a " * 600_000, "maximum allowed size"),
    ):
        pages = opened(chromium, served.address, refused=True)
        tab = next(pages)
        drop(tab, name, content)
        tab.get_by_text(line).first.wait_for()
        ask(tab, LONG[0])
        next(pages, None)


def test_no_event_of_the_page_reads_a_file_of_the_server(served):
    """Gradio alone would read it: its check is in launch(), not in mounting."""
    (served.folder / "secret.txt").write_text("anna\n")
    with urlopen(f"{served.address}config") as config:
        events = json.load(config)["dependencies"]
    upload = next(event["id"] for event in events if event["targets"][0][1] == "upload")
    file = {"path": str(served.folder / "secret.txt"), "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": [file, "", 0], "fn_index": upload, "session_hash": "abc"}).encode()
    with pytest.raises(HTTPError, match="403"):
        urlopen(Request(f"{served.address}gradio_api/queue/join", body, {"content-type": "application/json"}))
    with pytest.raises(HTTPError, match="404"):
        urlopen(f"{served.address}gradio_api/file={served.folder}/secret.txt")
