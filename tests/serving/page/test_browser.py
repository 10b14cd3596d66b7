"""The page of task_6.py in a real Chromium, over a tiny model that knows anna as a PER, paris as a LOC."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from conftest import ROOT, ROWS
from killing import make_quick

import task_4
import task_5
from multitask.data.rows import example_from_text
from multitask.inference.predictor import Predictor

pytestmark = pytest.mark.browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
MAIN, OTHER = "runs/well/model", "runs/badly/model"
LONG = ["anna won in paris", "the match in the paris", "Annason and anna vote."]
CHECKS = Path(__file__).with_name("browser_checks.js").read_text(encoding="utf-8")


class Served(NamedTuple):
    """A folder with two trained models, and the address of a server of it."""

    folder: Path
    address: str


@pytest.fixture(scope="module")
def chromium():
    """A browser, while this file's tests run: in playwright an event loop goes on, and no other can begin."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def trained(chromium, tiny, tmp_path_factory) -> Path:
    """The folder: one model was trained well, the other one hardly at all."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    settings = f"""model.backbone={tiny} model.num_classes_task_a=2 model.num_labels_task_b=3
        model.max_length=32 model.stride=8 model.freeze_backbone=false data.train=rows.jsonl
        data.dev=null data.test=null training.batch_size=4 device=cpu""".split()
    for name, epochs in (("well", 30), ("badly", 1)):
        how = [f"training.num_epochs={epochs}", "training.learning_rate=5e-3", f"output_dir=runs/{name}"]
        with pytest.MonkeyPatch.context() as patch:
            make_quick(patch.setattr)
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["task_4.py", f"--config={ROOT / 'config.yml'}", *settings, *how])
            task_4.main()
    return folder


def serve(folder: Path, *arguments: str):
    """task_6.py in a process of its own, and its address."""
    server = subprocess.Popen(
        [sys.executable, ROOT / "task_6.py", "--port", "0", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "GRADIO_TEMP_DIR": str(folder / "uploaded")},
    )
    line = server.stdout.readline()
    return server, re.fullmatch(r"Page: (http://127\.0\.0\.1:\d+/)  API: \S+/docs\n", line)[1]


def end(server) -> None:
    server.terminate()
    server.wait(20)


@pytest.fixture(scope="module")
def served(trained):
    server, address = serve(trained, "--model", MAIN)
    yield Served(trained, address)
    end(server)
    left = [path for path in (trained / "uploaded").rglob("*") if path.is_file()]
    assert left == []


@pytest.fixture
def tab(chromium, served):
    """A tab that asks no other host for anything, and whose console has no errors."""
    yield from opened(chromium, served.address)


def opened(chromium, address: str, refused: bool = False, **how):
    """A tab, and when it is closed the proof. `refused`: the server is to say no to something."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB", **how)
    context.set_default_timeout(30_000)
    context.add_init_script(CHECKS)
    asked, wrong = [], []
    context.on("request", lambda request: asked.append(request.url))
    context.on("weberror", lambda error: wrong.append(str(error.error)))
    context.on("console", lambda said: said.type == "error" and wrong.append(said.text))
    page = context.new_page()
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.goto(address)
    yield page
    context.close()
    assert asked and [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert refused or wrong == []


@pytest.fixture(scope="module")
def predictors(trained):
    return {name: Predictor.from_pretrained(trained / name) for name in (MAIN, OTHER)}


def ask(tab, text: str) -> None:
    tab.get_by_label("Text", exact=False).first.fill(text)
    tab.get_by_label("Text", exact=False).first.press("Enter")
    shows(tab, text)


def shows(tab, text: str) -> None:
    """Wait until the answer to this text is there."""
    tab.wait_for_function("text => settled() && plainTexts().includes(text)", arg=text)


def marks(tab, model: str = MAIN) -> list[tuple[str, str]]:
    """The entities that a model's pane marks: (text, type)."""
    return [tuple(pair) for pair in tab.evaluate("model => marked(model)", model)]


def said(predictor, text: str):
    return predictor.predict_examples([example_from_text(text)], words=True)[0]


def found(predictor, text: str, least: float = 0.0) -> list[tuple[str, str]]:
    entities = said(predictor, text).entities
    return [(entity.text, entity.label) for entity in entities if entity.score >= least]


def probabilities(tab) -> dict[str, float]:
    rows = tab.locator(".bars li").all_inner_texts()
    return {row.split("\n")[0]: float(row.split("\n")[-1]) for row in rows}


def download(tab, kind: str, number: int = 0) -> bytes:
    with tab.expect_download() as waiting:
        tab.get_by_role("link", name=kind, exact=True).nth(number).click()
    return Path(waiting.value.path()).read_bytes()


def drop(tab, name: str, content: str | bytes) -> None:
    content = content.encode() if isinstance(content, str) else content
    file = {"name": name, "mimeType": "text/plain", "buffer": content}
    tab.locator("#file input[type=file]").set_input_files(file)


def readable(tab) -> None:
    """Whatever the page shows can be read, is named, and is ordered by headings."""
    tab.wait_for_function("settled()")
    looked = tab.evaluate("faint()")
    assert looked["found"] == [] and looked["count"] > 5
    assert tab.evaluate("nameless()") == []
    levels = tab.evaluate("levels()")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:]))


def test_a_typed_text_shows_what_the_predictor_says_of_it(tab, predictors):
    text = "anna  won in paris,\nand <b>{{value}}</b> & ${value}"
    box = tab.get_by_label("Text", exact=False).first
    box.type("anna  won in paris,")
    box.press("Shift+Enter")
    box.type("and <b>{{value}}</b> & ${value}")
    box.press("Enter")
    shows(tab, text)
    expected = said(predictors[MAIN], text)
    assert {("anna", "PER"), ("paris", "LOC")} <= set(found(predictors[MAIN], text))
    assert marks(tab) == found(predictors[MAIN], text)
    assert probabilities(tab) == pytest.approx(expected.probabilities, abs=6e-4)
    assert tab.locator(".bars li").first.inner_text().startswith(expected.label)
    titles = tab.locator(".text span[title]").evaluate_all("all => all.map(one => [plainOf(one), one.title])")
    assert [word for word, _ in titles] == [text[word.start : word.end] for word in expected.words]
    assert [title.split()[0] for _, title in titles] == [word.tag for word in expected.words]
    tab.get_by_text("words with tag and score").click()
    rows = tab.locator("details tbody tr").all_inner_texts()
    assert [row.split("\t")[:2] for row in rows] == [[word, title.split()[0]] for word, title in titles]


def test_nearest_sentences_of_the_training_corpus_are_listed(tab):
    ask(tab, "anna won in paris")
    near = tab.locator(".near li")
    assert near.count() == 5
    assert near.first.inner_text().split("\n")[0] == "anna won in paris"
    assert "cosine 1.000" in near.first.inner_text()


def test_the_threshold_hides_entities_here_and_in_the_downloads(tab, predictors):
    text = "anna and paris and annason in the paris, the chip"
    ask(tab, text)
    scores = sorted(entity.score for entity in said(predictors[MAIN], text).entities)
    least = round((scores[0] + scores[-1]) / 2, 2)
    hidden = sum(score < least for score in scores)
    assert 0 < hidden < len(scores)
    tab.locator("#least input[type=number]").fill(str(least))
    tab.get_by_text(f"below {least:.2f} not shown").wait_for()
    assert marks(tab) == found(predictors[MAIN], text, least)
    assert f"{hidden} entit" in tab.get_by_text("not shown").inner_text()
    row = json.loads(download(tab, "JSONL"))
    assert [(one["text"], one["label"]) for one in row["entities"]] == marks(tab)
    tab.locator("#least input[type=range]").press("Home")
    tab.get_by_text("not shown").wait_for(state="detached")
    assert marks(tab) == found(predictors[MAIN], text)


def test_a_files_rows_are_what_the_command_writes(tab, trained, monkeypatch):
    rows = "".join(json.dumps({"text": text}) + "\n" for text in LONG) + '{"nope": 1}\n'
    drop(tab, "mine.jsonl", rows)
    tab.locator(".rows li").nth(3).wait_for()
    assert "4 rows in mine.jsonl, 1 can’t be read" in tab.locator(".pane").first.inner_text()
    assert tab.locator(".rows li").nth(3).inner_text() == "mine.jsonl:4: a row has either text or tokens"
    assert tab.evaluate("plainTexts()") == LONG
    (trained / "mine.jsonl").write_text(rows)
    monkeypatch.chdir(trained)
    for kind, name in (("JSONL", "said.jsonl"), ("CSV", "said.csv")):
        words = ["predict", "--model", MAIN, "--device", "cpu", "--input", "mine.jsonl", "--output", name]
        monkeypatch.setattr(sys, "argv", ["task_5.py", *words])
        task_5.main()
        same(download(tab, kind), Path(name).read_bytes())


def same(mine: bytes, expected: bytes) -> None:
    """To the byte, but for the last digit of a probability: batches of other rows round differently."""
    number = re.compile(rb"\d\.\d+")
    assert number.sub(b"#", mine) == number.sub(b"#", expected)
    pairs = zip(number.findall(mine), number.findall(expected), strict=True)
    assert all(float(one) == pytest.approx(float(other), abs=2e-5) for one, other in pairs)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("empty.csv", "", "empty.csv: has no rows"),
        ("noise.txt", b"a\0b\n", "noise.txt: is no text file"),
        ("no.csv", "sentence\nx\n", "no.csv:1: the first line names the columns"),
    ],
)
def test_a_file_that_can_not_be_read_is_one_line(tab, name, content, line):
    drop(tab, name, content)
    tab.get_by_role("alert").get_by_text(line).wait_for()
    ask(tab, LONG[0])  # and nothing is stuck


def test_files_of_other_kinds_and_sizes_are_refused_in_words(chromium, served):
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
    """Gradio would: its check is made by launch(), not by mounting."""
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


def test_two_models_stand_side_by_side_with_their_differences(tab, predictors):
    ask(tab, LONG[0])
    tab.get_by_label("Compare with").click()
    tab.get_by_role("option", name=OTHER).click()
    tab.locator(".pane").nth(1).wait_for()
    first, second = (found(predictors[name], LONG[0]) for name in (MAIN, OTHER))
    assert [marks(tab, MAIN), marks(tab, OTHER)] == [first, second] and first != second
    assert tab.locator("mark .only").count() == len(set(first) ^ set(second))
    assert "The models differ" in tab.locator(".lead").inner_text()
    left, right = (tab.locator(".pane").nth(number).bounding_box() for number in (0, 1))
    assert left["y"] == right["y"] and left["x"] + left["width"] < right["x"]
    readable(tab)
    drop(tab, "two.txt", "\n".join(LONG))
    tab.locator(".rows li").nth(2).wait_for()
    assert tab.locator(".rows .cell").count() == 6
    assert json.loads(download(tab, "JSONL", 1).splitlines()[0])["text"] == LONG[0]
    rows = list(csv.DictReader(io.StringIO(download(tab, "CSV", 1).decode())))
    assert [row["text"] for row in rows] == LONG


def test_all_can_be_done_with_the_keyboard(tab, predictors):
    def tab_to(what: str) -> None:
        for _ in range(40):
            tab.keyboard.press("Tab")
            if tab.evaluate("what => document.activeElement.matches(what)", what):
                outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline == "solid", what
                return
        raise AssertionError(f"{what} is not reached")

    tab.locator("#text textarea").wait_for()
    tab_to("#text textarea")
    tab.keyboard.type("anna and paris")
    tab_to("#go")
    tab.keyboard.press("Enter")
    shows(tab, "anna and paris")
    tab_to(".example")
    example = tab.evaluate("document.activeElement.textContent").strip()
    tab.keyboard.press("Enter")
    shows(tab, example)
    assert tab.get_by_label("Text", exact=False).first.input_value() == example
    assert marks(tab) == found(predictors[MAIN], example)
    tab_to("#file button")
    tab_to("#least input[type=range]")
    tab.keyboard.press("End")
    tab.wait_for_function("!document.querySelector('mark')")
    tab_to("#other input")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Enter")
    tab_to(".files a")
    tab_to("summary")
    tab.keyboard.press("Enter")
    assert tab.locator("details[open]").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_all_is_read_by_day_and_by_night_on_a_phone_and_on_a_desk(chromium, served, scheme, width):
    pages = opened(chromium, served.address, color_scheme=scheme)
    tab = next(pages)
    tab.set_viewport_size({"width": width, "height": 740})
    tab.locator("#text textarea").wait_for()
    readable(tab)
    ask(tab, "anna and paris " + "x" * 120)
    tab.locator("summary").first.click()
    readable(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    drop(tab, "a.jsonl", '{"text": "anna won"}\n{"nope": 1}\n')
    tab.locator(".rows .notice").wait_for()
    readable(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    dark = tab.evaluate("luminance(ground(document.querySelector('.gradio-container'))) < 0.1")
    assert dark == (scheme == "dark")
    next(pages, None)


def test_on_a_phone_one_who_asks_is_taken_to_the_answer(tab):
    top = "document.querySelector('#answer').getBoundingClientRect().top"
    ask(tab, LONG[0])
    assert tab.evaluate("scrollY") == 0
    tab.set_viewport_size({"width": 360, "height": 500})
    assert tab.evaluate(top) > 500
    tab.locator(".example").first.click()
    tab.wait_for_function(f"{top} < 250")
    tab.evaluate("scrollTo(0, 0)")
    drop(tab, "a.txt", "anna won\n")
    tab.wait_for_function(f"{top} < 250")


def test_an_empty_or_long_text_is_one_line(tab):
    tab.locator("#go").click()
    tab.get_by_role("alert").get_by_text("There is no text yet").wait_for()
    tab.get_by_label("Text", exact=False).first.fill("x" * 10_001)
    tab.locator("#go").click()
    tab.get_by_role("alert").get_by_text("at most 10,000 are read").wait_for()


def test_the_page_and_the_documentation_ask_no_other_host_and_can_not(chromium, served):
    pages = opened(chromium, served.address, refused=True)
    tab = next(pages)
    tab.locator("h1").wait_for()
    assert tab.title() == "Sentence class and entities"
    assert tab.evaluate("document.documentElement.lang") == "en"
    tab.get_by_role("link", name="HTTP API").click()
    tab.get_by_text("/predict").first.wait_for()
    tab.evaluate("document.addEventListener('securitypolicyviolation', (one) => { window.refused = one })")
    tab.evaluate("fetch('https://example.org/').catch(() => null)")
    assert tab.evaluate("window.refused.blockedURI") == "https://example.org/"
    next(pages, None)


def test_without_a_model_the_page_says_how_to_make_one(chromium, tmp_path):
    server, address = serve(tmp_path)
    try:
        pages = opened(chromium, address)
        tab = next(pages)
        tab.get_by_text("There is no trained model yet").wait_for()
        assert "python task_4.py" in tab.locator("pre").inner_text()
        assert tab.get_by_role("link", name="HTTP API").get_attribute("href") == "docs"
        assert tab.locator("textarea, input, button").count() == 0
        readable(tab)
        with urlopen(address) as page:
            assert "default-src 'self'" in page.headers["content-security-policy"]
        next(pages, None)
    finally:
        end(server)
