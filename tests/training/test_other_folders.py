"""Runs that are resumed from another folder, other spellings of a path, and names that need quotes."""

import shlex
import shutil
import signal
from pathlib import Path

import pytest
from resuming import SETTINGS, contents, edit, fingerprint

import task_4
import task_5
from multitask.common.errors import InputError
from multitask.training.existing_runs import check_output_dir, enter_start_folder


def weights_of(result):
    return {name: value for name, value in result.items() if name.endswith(".safetensors")}


@pytest.mark.parametrize("moved", [False, True])
def test_a_run_resumes_from_another_working_folder(runs, stopped, whole, tmp_path, moved):
    """Also if the whole project was moved. A file of the same name in that folder is not read."""
    project = stopped.rename(tmp_path / "moved") if moved else stopped
    other = tmp_path / "other"
    other.mkdir()
    (other / "rows.jsonl").write_text('{"text": "other", "label": "x"}\n')
    before = contents(other)
    outcome = runs(other, "--resume", "../" + project.name + "/run")
    assert outcome.status == 0, outcome.err
    assert f"{project}/run was started in {project}: relative paths begin there" in outcome.err
    assert f"Resuming {project}/run after step 4" in outcome.out
    assert fingerprint(project / "run") == whole[0]
    assert contents(other) == before


def test_a_run_of_an_earlier_version_finds_its_folder_from_runs(runs, stopped, whole):
    """Such a run notes nothing, but lies in the folder runs."""
    (stopped / "runs").mkdir()
    run = (stopped / "run").rename(stopped / "runs" / "one")
    lines = (run / "config.yml").read_text().split("\n", 1)
    assert lines[0].startswith("# relative paths begin in this folder")
    (run / "config.yml").write_text(lines[1].replace("output_dir: run", "output_dir: null"))
    outcome = runs(run, "--resume", ".")
    assert outcome.status == 0, outcome.err
    assert weights_of(fingerprint(run)) == weights_of(whole[0])


def test_a_run_folder_that_was_moved_alone_resumes_where_its_files_are(runs, stopped, whole, tmp_path):
    away = shutil.move(stopped / "run", tmp_path / "a" / "b" / "run")
    outcome = runs(stopped, "--resume", away)
    assert outcome.status == 0 and "was started in" not in outcome.err, outcome.err
    assert fingerprint(Path(away)) == whole[0]


@pytest.mark.parametrize(("old", "new"), [("rows.jsonl", "./rows.jsonl"), ("./rows.jsonl", "rows.jsonl")])
def test_another_spelling_of_a_path_is_the_same_file(runs, fresh, whole, old, new):
    folder = fresh("spelling")
    words = [word.replace("=rows.jsonl", f"={old}") for word in SETTINGS]
    assert runs(folder, *words, at_step={5: [signal.SIGKILL]}).status == -signal.SIGKILL
    outcome = runs(folder, "--resume", "run", f"data.train={new}")
    assert outcome.status == 0, outcome.err
    assert weights_of(fingerprint(folder / "run")) == weights_of(whole[0])  # the card names the file
    shutil.rmtree(folder)


def test_another_file_is_still_refused(runs, stopped):
    edit(stopped / "rows.jsonl", "paris", "rome")
    outcome = runs(stopped, "--resume", "run", "data.train=./rows.jsonl")
    assert outcome.status == 2 and "rows.jsonl has changed" in outcome.err


def test_paths_may_hold_blanks_and_equals_signs(shell, settings_for, tmp_path, monkeypatch):
    """In every command; a command that is printed can be pasted into a shell."""
    home = tmp_path / "a = b"
    home.mkdir()
    for name in ("rows.jsonl", "my = rows.jsonl"):
        shutil.copy(tmp_path / "rows.jsonl", home / name)
    monkeypatch.chdir(home)
    shutil.copy(settings_for[0].removeprefix("--config="), "my = config.yml")
    real, stops = task_4.gradients, iter([signal.SIGTERM])

    def stopped(*arguments):
        real(*arguments)
        if number := next(stops, 0):
            signal.raise_signal(number)

    monkeypatch.setattr(task_4, "gradients", stopped)
    words = [word for word in settings_for if not word.startswith(("--config", "data.", "output_dir"))]
    data = [f"data.{split}=my = rows.jsonl" for split in ("train", "dev", "test")]
    ended = shell(task_4, "--config", "my = config.yml", *words, *data, "output_dir=run = 1")
    assert ended.status == 143, ended.err
    command = shlex.split(ended.err.strip().split("to resume: ")[1])
    assert command == ["python", "task_4.py", "--resume", "run = 1"]
    ended = shell(task_4, *command[2:])
    assert ended.status == 0 and "Resuming run = 1 after step 1" in ended.out, ended.err
    page = Path("run = 1/report.html").read_text()
    assert "--config &#39;run = 1/config.yml&#39; output_dir=null" in page
    model = ("--model", "run = 1/model")
    asked = ("--input", "my = rows.jsonl", "--output", "out = 1.jsonl", "--embeddings", "v = 1.npy")
    assert shell(task_5, "predict", *model, *asked).status == 0
    assert shell(task_5, "evaluate", "my = rows.jsonl", *model, "--pictures", "p = 1").status == 0
    hint = shell(task_5, "predict", *model, "my = rows.jsonl").err
    assert "--input 'my = rows.jsonl' its lines" in hint


def test_a_folder_called_latest_is_refused_before_the_training(shell, settings_for, tmp_path):
    words = [word for word in settings_for if not word.startswith("output_dir")]
    (tmp_path / "runs" / "latest").mkdir(parents=True)
    for output in ([], ["output_dir=runs/one"]):
        ended = shell(task_4, *words, *output)
        assert (ended.status, ended.out) == (2, "")
        assert (
            ended.err == "error: runs/latest: is not a link, but a run makes a link of this name: rename it\n"
        )
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["latest"]
    check_output_dir(str(tmp_path / "elsewhere"))


def test_a_run_is_kept_where_no_link_can_be_made(shell, settings_for, monkeypatch):
    def refuse(*_):
        raise OSError(1314, "a required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    words = [word for word in settings_for if not word.startswith("output_dir")]
    ended = shell(task_4, *words, "output_dir=runs/one", "training.num_epochs=2")
    assert ended.status == 0, ended.err
    assert ended.err.count("runs/latest: no link can be made (a required privilege is not held") == 1
    assert Path("runs/one/model/model.safetensors").is_file()


def test_what_a_hand_has_edited_is_no_start_folder(stopped, monkeypatch):
    for first in ("# relative paths begin in this folder, seen from here: oops", "model:", ""):
        text = (stopped / "run/config.yml").read_text().split("\n", 1)[1]
        (stopped / "run/config.yml").write_text(f"{first}\n{text}" if first != "model:" else text)
        assert enter_start_folder(stopped / "run") == stopped / "run"
        text = f"# a line\n{text}"
        (stopped / "run/config.yml").write_text(text)
    with pytest.raises(InputError):
        check_output_dir(str(stopped / "run"))
