"""task_5.py evaluate as the shell runs it, and the arguments that task_5.py refuses."""

import json

import pytest

import task_4
import task_5


def test_evaluate_gives_the_scores_that_training_logged(shell, settings_for, tmp_path):
    assert shell(task_4, *settings_for).status == 0
    path = next(word for word in settings_for if word.startswith("data.train=")).partition("=")[2]
    logged = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])["test"]
    scores = json.loads(shell(task_5, "evaluate", path, "--model", "run/model", "--json").out)
    assert {name: scores[name] for name in logged} == pytest.approx(logged)
    text = shell(task_5, "evaluate", path, "--model", "run/model").out
    assert f"accuracy {logged['accuracy']:.4f}" in text


def test_evaluate_warns_of_labels_unknown_to_the_model(shell, trained, write_rows):
    path = write_rows("odd.jsonl", [{"tokens": ["a"], "tags": ["B-GPE"], "label": "weather"}])
    ended = shell(task_5, "evaluate", path, "--model", trained)
    assert ended.status == 0
    assert "has the class 'weather' 1 times" in ended.err
    assert "has the type 'GPE' 1 times" in ended.err
    assert "accuracy 0.0000" in ended.out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["predict", "a", "--model", "nowhere"], "no folder nowhere"),
        (["predict", "a"], "python task_4.py trains one"),
        (["predict", "a", "--model", "ENCODER"], "an encoder without trained heads"),
        (["predict", "--model", "M"], "give texts"),
        (["predict", "a", "--input", "x", "--model", "M"], "give texts"),
        (["predict", "--input", "nowhere.txt", "--model", "M"], "nowhere.txt: no such file"),
        (["predict", "a", "--model", "M", "--output", "o.txt"], "the extension must be .jsonl"),
        (["predict", "a", "--model", "M", "--output", "no/o.csv"], "there is no folder no"),
        (["predict", "a", "--model", "M", "--resume"], "give the --output that was interrupted"),
        (["predict", "a", "--model", "M", "--embeddings", "o.bin"], "ends in .npy"),
        (["predict", "a", "--model", "M", "--device", "tpu"], "a device is auto, cpu, mps, cuda or cuda:1"),
        (["evaluate", "nowhere.jsonl", "--model", "M"], "nowhere.jsonl: no such file"),
        (["evaluate", "bad.jsonl", "--model", "M"], "bad.jsonl:1: not JSON"),
        (["evaluate", "plain.jsonl", "--model", "M"], "no row is annotated"),
    ],
)
def test_task_5_refuses_invalid_arguments(shell, trained, tiny, tmp_path, arguments, reason):
    (tmp_path / "bad.txt").write_bytes(b"a\nb\n\xff\n")
    (tmp_path / "bad.jsonl").write_text("{\n")
    (tmp_path / "plain.jsonl").write_text('{"text": "a"}\n')
    before = sorted(tmp_path.iterdir())
    ended = shell(task_5, *({"M": trained, "ENCODER": tiny}.get(word, word) for word in arguments))
    assert ended.status == 2
    assert reason in ended.err
    assert "Traceback" not in ended.err
    assert sorted(tmp_path.iterdir()) == before
