"""The served model is the server's own: no change of its files changes an answer, and no answer holds NaN."""

import asyncio
import json
import math
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from multitask.common.checksums import sha256_of
from multitask.common.errors import InputError
from multitask.data.examples import example_from_text
from multitask.data.texts import UnreadableRow
from multitask.inference.predictor import Predictor
from multitask.inference.runner import Runner
from multitask.serving.batcher import Item
from multitask.serving.worker import KINDS, FiniteRunner, Worker, WorkerEnded, answer_batch, load_predictor

TEXTS = ["anna won in paris", "the vote", "match " * 40]


def items(*texts, kinds=("json",)):
    return [Item(kind, example_from_text(text)) for text in texts for kind in kinds]


@pytest.fixture(params=["model", "export"])
def folder(request, trained, exported, tmp_path) -> Path:
    return Path(shutil.copytree(trained if request.param == "model" else exported.folder, tmp_path / "model"))


def damage(path: Path, how: str) -> None:
    """Change a file without replacing it."""
    with open(path, "r+b") as file:
        if how == "cut":
            file.truncate(0)
        else:
            file.write(b"\xff" * path.stat().st_size)


def test_files_that_are_changed_in_place_change_no_answer(folder):
    worker = Worker(partial(load_predictor, str(folder)))
    worker.labels()
    before = asyncio.run(worker.run(items(*TEXTS)))
    mapped = Path(f"/proc/{worker.process.pid}/maps")
    if mapped.exists():
        assert str(folder) not in mapped.read_text()
    for how in ("overwritten", "cut"):
        for path in folder.rglob("*"):
            if path.is_file():
                damage(path, how)
        assert asyncio.run(worker.run(items(*TEXTS))) == before and worker.process.is_alive()
    again = worker.again()
    with pytest.raises((InputError, WorkerEnded)):
        again.labels()
    again.kill()
    worker.close()


@pytest.mark.parametrize("listed", [True, False])
def test_files_that_change_while_they_are_loaded_are_refused(trained, tmp_path, monkeypatch, listed):
    folder = shutil.copytree(trained, tmp_path / "model")
    if listed:
        names = [path.name for path in folder.iterdir() if path.is_file()]
        lines = (f"{sha256_of(folder / name)}  {name}\n" for name in names)
        (folder / "SHA256SUMS").write_text("".join(lines))
    load_predictor(str(folder))
    real = Predictor.from_pretrained

    def changing(*arguments):
        predictor = real(*arguments)
        damage(folder / "model.safetensors", "overwritten")
        return predictor

    monkeypatch.setattr(Predictor, "from_pretrained", changing)
    with pytest.raises(InputError, match="its files changed while they were loaded"):
        load_predictor(str(folder))


class Broken(Runner):
    """Runs another Runner; of a batch with a long text, one of the outputs is not a number."""

    def __init__(self, runner, part: int, value: float):
        self.runner, self.config, self.part, self.value = runner, runner.config, part, value

    def ready(self):
        return self.runner.ready()

    def start(self, corpus, first, last):
        finish = self.runner.start(corpus, first, last)

        def run():
            out = [part.copy() for part in finish()]
            if last - first > len(corpus):  # a text of several windows
                out[self.part][-1, -1] = self.value
            return type(finish())(*out)

        return run


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_text_with_an_answer_that_is_not_a_number_gets_an_error_and_the_others_their_answers(
    trained, part, value, capfd
):
    predictor = Predictor.from_pretrained(trained, "cpu")
    expected = answer_batch(predictor, items(*TEXTS[:2], kinds=KINDS))
    predictor.runner = FiniteRunner(Broken(predictor.runner, part, value))
    answers = answer_batch(predictor, items(*TEXTS, kinds=KINDS))
    bad = UnreadableRow("the model failed on this text: NotFinite")
    assert answers[2 * len(KINDS) :] == [bad] * len(KINDS)
    for found, right in zip(answers[: 2 * len(KINDS)], expected):
        if isinstance(right, bytes):
            assert json.loads(found).keys() == json.loads(right).keys()
            assert b"NaN" not in found and b"Infinity" not in found
        else:
            assert np.isfinite(getattr(found, "embedding", found)).all()
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == len(KINDS)
    assert all("NotFinite: the model's output is not a number" in line for line in lines)


@pytest.mark.parametrize("name", ["temperature_task_a", "temperature_task_b"])
def test_a_probability_that_is_not_a_number_is_an_error(trained, name, capfd):
    predictor = Predictor.from_pretrained(trained, "cpu")
    setattr(predictor.config, name, math.nan)
    answers = answer_batch(predictor, items(TEXTS[0], kinds=("prediction",)))
    assert answers == [UnreadableRow("the model failed on this text: NotFinite")]
