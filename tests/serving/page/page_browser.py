"""Fixtures and helpers for tests of task_6.py's page in a real Chromium.

The models are tiny and know anna as a PER, paris as a LOC."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import ROOT, ROWS
from killing import make_quick

import task_4
from multitask.data.examples import example_from_text
from multitask.inference.predictor import Predictor

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
    """A browser for one test module: playwright runs an event loop, and no other can start meanwhile."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def trained_models(chromium, tiny, tmp_path_factory) -> Path:
    """A folder with two models: one trained for 30 epochs, the other for one."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    settings = f"""model.backbone={tiny} model.num_classes_task_a=2 model.num_labels_task_b=3
        model.max_length=32 model.stride=8 model.freeze_backbone=false data.train=rows.jsonl
        data.dev=null data.test=null training.batch_size=4 device=cpu""".split()
    for name, epochs in (("well", 30), ("badly", 1)):
        run = [f"training.num_epochs={epochs}", "training.learning_rate=5e-3", f"output_dir=runs/{name}"]
        with pytest.MonkeyPatch.context() as patch:
            make_quick(patch.setattr)
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["task_4.py", f"--config={ROOT / 'config.yml'}", *settings, *run])
            task_4.main()
    return folder


def serve(folder: Path, *arguments: str):
    """Start task_6.py → its process and address."""
    server = subprocess.Popen(
        [sys.executable, ROOT / "task_6.py", "--port", "0", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "GRADIO_TEMP_DIR": str(folder / "uploaded")},
    )
    line = server.stdout.readline()
    return server, re.fullmatch(r"Page: (http://127\.0\.0\.1:\d+/)  API: \S+/docs\n", line)[1]


def stop(server) -> None:
    server.terminate()
    server.wait(20)


@pytest.fixture(scope="module")
def served(trained_models):
    server, address = serve(trained_models, "--model", MAIN)
    yield Served(trained_models, address)
    stop(server)
    left = [path for path in (trained_models / "uploaded").rglob("*") if path.is_file()]
    assert left == []


@pytest.fixture
def tab(chromium, served):
    """A tab that sends requests to no other host, and whose console has no errors."""
    yield from opened(chromium, served.address)


def opened(chromium, address: str, refused: bool = False, **options):
    """A tab; its requests and errors are checked at the end. `refused`: expect errors of refused requests."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB", **options)
    context.set_default_timeout(120_000)  # beside other work, a second model may load for a minute
    context.add_init_script(CHECKS)
    requests, errors = [], []
    context.on("request", lambda request: requests.append(request.url))
    context.on("weberror", lambda error: errors.append(str(error.error)))
    context.on("console", lambda message: message.type == "error" and errors.append(message.text))
    page = context.new_page()
    page.on("dialog", lambda dialog: errors.append(dialog.message))
    page.goto(address)
    yield page
    context.close()
    assert requests and [url for url in requests if not url.startswith((address, "data:", "blob:"))] == []
    assert refused or errors == []


@pytest.fixture(scope="module")
def predictors(trained_models):
    return {name: Predictor.from_pretrained(trained_models / name) for name in (MAIN, OTHER)}


def ask(tab, text: str) -> None:
    tab.get_by_label("Text", exact=False).first.fill(text)
    tab.get_by_label("Text", exact=False).first.press("Enter")
    shows(tab, text)


def shows(tab, text: str) -> None:
    """Wait until the result of this text is shown."""
    tab.wait_for_function("text => settled() && plainTexts().includes(text)", arg=text)


def marks(tab, model: str = MAIN) -> list[tuple[str, str]]:
    """The entities that a model's pane marks: (text, type)."""
    return [tuple(pair) for pair in tab.evaluate("model => marked(model)", model)]


def predict(predictor, text: str):
    return predictor.predict_examples([example_from_text(text)], words=True)[0]


def predicted(predictor, text: str, threshold: float = 0.0) -> list[tuple[str, str]]:
    entities = predict(predictor, text).entities
    return [(entity.text, entity.label) for entity in entities if entity.score >= threshold]


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
    """Assert contrast, accessible names and the order of headings on the page."""
    tab.wait_for_function("settled()")
    contrast = tab.evaluate("faint()")
    assert contrast["problems"] == [] and contrast["count"] > 5
    assert tab.evaluate("nameless()") == []
    levels = tab.evaluate("levels()")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:]))
