import signal
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from resuming import SETTINGS
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tracked import expected

import task_4

ASKED = [*SETTINGS, "data.test=rows.jsonl", "training.tracker=tensorboard"]


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """All scalars of a run's event files: name → (step, value), in their order."""
    events = EventAccumulator(str(run / "tensorboard"), {"scalars": 0}, purge_orphaned_data=False)
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_holds_the_metrics_and_the_settings(runs, fresh):
    folder = fresh("tracked")
    words = ["training.loss_weighting=dwa", "training.gradient_cosine=true"]
    assert runs(folder, *ASKED, *words).status == 0
    logged = scalars(folder / "run")
    assert logged == expected(folder / "run")
    assert [step for step, _ in logged["dev/entity_f1"]] == [2, 4, 6] and len(logged["test/accuracy"]) == 1
    assert {"loss_weights/task_a", "gradient_cosine", "sentences_per_second"} < set(logged)
    (hparams,) = folder.glob("run/tensorboard/*/events*")
    events = EventAccumulator(str(hparams))
    events.Reload()
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    started = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert started["training.learning_rate"].number_value == 1e-3
    assert started["data.train"].string_value == '["rows.jsonl"]'


@pytest.mark.parametrize(
    "how",
    [
        {"at_step": {5: [signal.SIGKILL]}},
        {"at_step": {5: [signal.SIGTERM]}},
        {"at_step": {"finish": [signal.SIGKILL]}},
    ],
    ids=["killed", "stopped", "killed at the end"],
)
def test_a_resumed_run_logs_every_epoch_once(runs, fresh, how):
    folder = fresh("resumed")
    # the checkpoint is that of step 3 of 6: the resumed run logs the second epoch again
    words = [*ASKED, "training.checkpoint_every=3"]
    assert runs(folder, *words, **how).status != 0
    assert "loss" in scalars(folder / "run")
    assert runs(folder, "--resume", "run").status == 0
    logged = scalars(folder / "run")
    assert logged == expected(folder / "run")
    assert [value for _, value in logged["epoch"]] == [1, 2, 3]


def test_tracking_can_start_when_a_run_resumes(runs, stopped):
    assert not (stopped / "run/tensorboard").exists()
    assert runs(stopped, "--resume", "run", "training.tracker=tensorboard").status == 0
    assert scalars(stopped / "run")["epoch"] == [(2, 1), (4, 2), (6, 3)]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_without_its_package_a_run_ends_before_any_work(shell, settings_for, monkeypatch, tmp_path, name):
    monkeypatch.setitem(sys.modules, name, None)
    before = sorted(tmp_path.iterdir())
    ended = shell(task_4, *settings_for, f"training.tracker={name}")
    assert ended.status == 2
    wanted = f"error: training.tracker needs {name}: pip install -r requirements-{name}.txt\n"
    assert ended.err == wanted
    assert sorted(tmp_path.iterdir()) == before
    assert (ROOT / f"requirements-{name}.txt").exists()
