"""A search finds better settings, goes on after a stop as if there was none, and can be repeated."""

import json
import math
import signal
from pathlib import Path

import pytest
from alike import result
from conftest import ROOT

import task_4
from multitask.common.errors import InputError
from multitask.config.loading import load_settings
from multitask.config.schema import Settings
from multitask.search.space import Range, search_space, with_values
from multitask.search.study import Search
from multitask.search.trials import read_trials

FREE = {"training.head_learning_rate", "training.num_epochs", "training.loss_weights.task_b", "model.dropout"}


def without_seconds(folder):
    rows = [json.loads(line) for line in (Path(folder) / "trials.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_the_best_settings_can_be_trained_again(shell, settings_for, tmp_path):
    fixed = [word for word in settings_for if not word.startswith(("training.num_epochs", "output_dir"))]
    ended = shell(task_4, *fixed, "output_dir=found", "--search", "3")
    assert ended.status == 0, ended.err
    rows = without_seconds(tmp_path / "found")
    assert len(rows) == 3
    assert {key for row in rows for key in row["settings"]} == FREE | {"model.token_head"}
    assert rows[0]["settings"]["training.head_learning_rate"] == Settings().training.head_learning_rate
    best = max(rows, key=lambda row: row["score"])
    assert f"dev score {best['score']:.4f} (trial 1, the settings as they are: " in ended.out
    assert "To train it: python task_4.py --config found/config.yml" in ended.out
    ended = shell(task_4, "--config", "found/config.yml", "output_dir=again")
    assert ended.status == 0, ended.err
    metrics, _ = result(tmp_path / "again")
    scores = [(row["dev"]["accuracy"] + row["dev"]["entity_f1"]) / 2 for row in metrics[:-1]]
    assert max(scores) == best["score"]


def test_a_stopped_search_goes_on_as_if_it_had_not_been_stopped(shell, settings_for, tmp_path, monkeypatch):
    assert shell(task_4, *settings_for, "output_dir=whole", "--search", "4").status == 0
    steps, step = [], task_4.train_step

    def interrupted(trainer, windows):
        steps.append(1)
        if len(steps) == 6:
            signal.raise_signal(signal.SIGINT)
        step(trainer, windows)

    monkeypatch.setattr(task_4, "train_step", interrupted)
    words = [*settings_for, "output_dir=found", "--search", "4"]
    ended = shell(task_4, *words)
    assert ended.status == 128 + signal.SIGINT
    assert "stopped by SIGINT; to continue: the same command with output_dir=found" in ended.err
    assert 0 < len(without_seconds(tmp_path / "found")) < 4
    assert shell(task_4, *words).status == 0
    assert without_seconds(tmp_path / "found") == without_seconds(tmp_path / "whole")
    for name in ("config.yml", "start.yml"):
        assert (tmp_path / "found" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def peak(settings: Settings) -> float:
    """A score that is highest at a head_learning_rate of 0.003 and no dropout."""
    rate = settings.training.head_learning_rate
    return 1 - abs(math.log10(rate / 0.003)) / 4 - settings.model.dropout


def searched(folder, train, count, **changes) -> Search:
    settings = Settings.model_validate({"training": {"num_epochs": 10, **changes}})
    search = Search(folder, settings, search_space(settings, None, ["training.num_epochs"]), None)
    search.run(count, train)
    return search


def test_settings_get_better_and_weak_runs_are_given_up(tmp_path, capsys):
    epochs = []

    def train(settings, report):
        for epoch in range(1, 11):
            epochs.append(epoch)
            report(epoch, 10, peak(settings) * epoch / 10)
        return peak(settings)

    search = searched(tmp_path / "found", train, 40)
    first, *others = search.trials
    assert first.settings["training.head_learning_rate"] == 0.001
    best = max(trial.score for trial in others if trial.state == "complete")
    assert best > first.score + 0.1 and best > 0.9
    given_up = [trial for trial in search.trials if trial.state == "pruned"]
    assert len(given_up) > 5 and len(epochs) < 350
    assert all(max(trial.dev_by_epoch) < 10 for trial in given_up)
    assert f"Best of 40 trials: trial {1 + [t.score for t in search.trials].index(best)}," in search.result()
    found = load_settings(tmp_path / "found" / "config.yml")
    assert peak(found) == best
    numbers = [value for trial in others for value in trial.settings.values()]
    assert all(value == float(f"{value:.3g}") for value in numbers), "to be read"
    assert read_trials(tmp_path / "found") == search.trials


def test_runs_of_different_lengths_are_compared_by_the_share_that_is_done(tmp_path):
    reported = []

    def train(settings, report):
        epochs = settings.training.num_epochs
        for epoch in range(1, epochs + 1):
            report(epoch, epochs, epoch / epochs)
        reported.append(epochs)
        return 1.0

    settings = Settings.model_validate({"training": {"num_epochs": 3}})
    search = Search(tmp_path / "found", settings, {"training.num_epochs": Range(1, 6)}, None)
    search.run(30, train)  # no run falls behind: all have the same score at the same share
    assert [trial.state for trial in search.trials] == ["complete"] * 30 and set(reported) == {*range(1, 7)}
    assert search.trials[0].dev_by_epoch == {1: 1 / 3, 2: 2 / 3, 3: 1.0}


def test_a_run_is_given_up_where_most_complete_ones_were_better_at_the_same_share(tmp_path):
    numbers = []

    def train(settings, report):
        numbers.append(settings.training.num_epochs)
        behind = 0.05 * (len(numbers) > 8)
        for epoch in range(1, numbers[-1] + 1):
            report(epoch, numbers[-1], epoch / numbers[-1] - behind)
        return 1.0 - behind

    settings = Settings.model_validate({"training": {"num_epochs": 4}})
    search = Search(tmp_path / "found", settings, {"training.num_epochs": Range(2, 4)}, None)
    search.run(30, train)
    assert {trial.state for trial in search.trials[:8]} == {"complete"}
    for trial, epochs in [*zip(search.trials, numbers)][8:]:
        # half of a run is an epoch of 2, or between two of 3; fewer runs are known at a quarter or a third
        assert trial.state == "pruned" and max(trial.dev_by_epoch) / epochs < 0.7


def test_a_run_that_fails_is_recorded_and_the_first_one_ends_the_search(tmp_path):
    def train(settings, report):
        if settings.training.head_learning_rate > 0.001:
            raise InputError("step 3: the loss or a gradient is not finite\nmore")
        report(10, 10, 0.5)
        return 0.5

    search = searched(tmp_path / "found", train, 8)
    states = [trial.state for trial in search.trials]
    assert states[0] == "complete" and "failed" in states
    failed = search.trials[states.index("failed")]
    assert (failed.score, failed.reason) == (None, "step 3: the loss or a gradient is not finite")
    with pytest.raises(InputError, match="the settings as they are can't be trained: step 3: the loss"):
        searched(tmp_path / "other", train, 8, head_learning_rate=0.002)
    assert not (tmp_path / "other" / "trials.jsonl").exists()


def test_what_is_searched_depends_on_what_is_trained():
    def keys(*fixed, head="linear", **values):
        return set(search_space(with_values(Settings(), values), head, fixed))

    assert keys() == FREE | {"model.token_head"}
    assert keys(head=None) == FREE
    assert keys("training.num_epochs", "training.loss_weights", "model.token_head") == FREE - {
        "training.num_epochs",
        "training.loss_weights.task_b",
    }
    assert "training.learning_rate" in keys(**{"model.freeze_backbone": False})
    assert "training.loss_weights.task_b" not in keys(**{"training.task": "task_a"})
    large = with_values(Settings(), {"training.head_learning_rate": 0.5})
    assert search_space(large, None)["training.head_learning_rate"] == Range(1e-4, 0.5, log=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.dev=null"], "--search runs in one process, and needs data.dev to compare runs"),
        (["training.seed=7"], "start.yml: this search began with other settings; use another output_dir"),
        (["output_dir=full"], "output_dir: full is not empty; a search needs a new or empty folder"),
        (
            ["training.head_learning_rate=1e-3", "training.loss_weights.task_b=2", "model.dropout=0"],
            "start.yml: ",
        ),
    ],
)
def test_a_search_that_cannot_be_is_refused(shell, settings_for, tmp_path, words, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    assert shell(task_4, *settings_for, "output_dir=found", "--search", "1").status == 0
    before = (tmp_path / "found" / "trials.jsonl").read_bytes()
    ended = shell(task_4, *settings_for, "output_dir=found", *words, "--search", "2")
    assert (ended.status, message in ended.err) == (2, True), ended.err
    assert (tmp_path / "found" / "trials.jsonl").read_bytes() == before


@pytest.mark.parametrize("words", [["0"], ["2", "--check"], ["2", "--resume"], ["two"]])
def test_a_wrong_command_line_is_refused(shell, words):
    assert shell(task_4, "--config", str(ROOT / "config.yml"), "--search", *words).status == 2


def test_without_optuna_one_line_says_what_to_install(shell, settings_for, monkeypatch):
    monkeypatch.setattr("multitask.common.errors.find_spec", lambda name: None)
    ended = shell(task_4, *settings_for, "output_dir=found", "--search", "2")
    assert (ended.status, ended.err) == (
        2,
        "error: --search needs optuna: pip install -r requirements-search.txt\n",
    )
    assert (ROOT / "requirements-search.txt").exists()


def test_a_damaged_file_is_refused(tmp_path):
    def train(settings, report):
        return 0.5

    searched(tmp_path / "found", train, 1)
    (tmp_path / "found" / "trials.jsonl").write_text('{"settings": {}}\n')
    with pytest.raises(InputError, match="trials.jsonl: is damaged"):
        searched(tmp_path / "found", train, 2)


def test_what_a_killed_process_left_at_the_start_is_no_obstacle(tmp_path):
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / ".start.yml.x1").write_text("half")
    assert len(searched(tmp_path / "found", lambda settings, report: 0.5, 1).trials) == 1
