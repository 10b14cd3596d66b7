"""Weights & Biases and MLflow: with stand-ins, and with the packages where they are installed, offline."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from tracked import expected

import task_4
from multitask.training.trackers import Tracker

EPOCHS = [{"epoch": n, "step": 2 * n, "loss": 1 / n, "dev": {"accuracy": n / 4}} for n in (1, 2, 3)]
POINTS = {
    "epoch": [(2, 1), (4, 2), (6, 3)],
    "loss": [(2, 1.0), (4, 0.5), (6, 1 / 3)],
    "dev/accuracy": [(2, 0.25), (4, 0.5), (6, 0.75)],
    "test/accuracy": [(6, 0.5)],
}
SETTINGS = {"device": "cpu", "training.learning_rate": 0.001, "data.train": ["rows.jsonl"]}


class Points(dict):
    """name → (step, value) of everything that is logged."""

    def log(self, values: dict, step: int) -> None:
        for name, value in values.items():
            self.setdefault(name, []).append((step, value))


class WandbStandIn(ModuleType):
    """Has what accelerate uses of wandb."""

    def __init__(self, problem: Exception | None = None):
        super().__init__("wandb")
        self.problem, self.runs, self.config = problem, [], {}
        self.__spec__ = SimpleNamespace(name="wandb")

    def init(self, **how):
        if self.problem:
            raise self.problem
        points = Points()
        self.runs.append(SimpleNamespace(how=how, points=points, log=points.log, finish=lambda: None))
        self.config = SimpleNamespace(update=lambda values, **_: self.runs[-1].how.update(config=values))
        return self.runs[-1]


@pytest.fixture
def wandb(monkeypatch):
    for name in ("WANDB_SILENT", "WANDB_ERROR_REPORTING", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "true")

    def put(problem=None):
        module = WandbStandIn(problem)
        monkeypatch.setitem(sys.modules, "wandb", module)
        return module

    return put


@pytest.fixture
def run(tmp_path):
    """The folder of a run, as a tracker needs it."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yml").write_text("seed: 0\n")
    return tmp_path / "run"


def track(name: str, run: Path) -> None:
    """What a run sends that is killed after its second epoch, and then resumed after its first."""
    killed = Tracker(name, run, SETTINGS, [])
    for row in EPOCHS[:2]:
        killed.log(row)
    killed.close()
    resumed = Tracker(name, run, SETTINGS, EPOCHS[:1])
    for row in (*EPOCHS[1:], {"test": {"accuracy": 0.5}}):
        resumed.log(row)
    resumed.close()


def test_a_run_sends_its_metrics_and_settings(shell, settings_for, wandb):
    module = wandb()
    ended = shell(task_4, *settings_for, "training.tracker=wandb", "training.num_epochs=2")
    assert ended.status == 0, ended.err
    (sent,) = module.runs
    assert sent.points == expected(Path("run"))
    assert sent.how["project"] == "multitask" and sent.how["name"] == sent.how["dir"] == "run"
    assert sent.how["config"]["training.num_epochs"] == 2


def test_a_resumed_run_is_the_same_run_with_all_epochs(run, wandb):
    module = wandb()
    track("wandb", run)
    first, second = module.runs
    assert first.how["id"] == second.how["id"] and second.how["resume"] == "allow"
    assert second.points == POINTS
    (run / "config.yml").write_text("seed: 1\n")
    Tracker("wandb", run, SETTINGS, [])
    assert module.runs[2].how["id"] != first.how["id"], "of another run in a folder of the same name"


def test_a_tracker_that_can_not_start_is_one_line(shell, settings_for, wandb):
    wandb(ConnectionError("no answer\nfrom the server"))
    ended = shell(task_4, *settings_for, "training.tracker=wandb")
    wanted = "error: training.tracker wandb: can't start: ConnectionError: no answer from the server"
    assert ended.status == 2 and wanted in ended.err.splitlines()


@pytest.mark.skipif(find_spec("wandb") is None, reason="wandb: pip install -r requirements-wandb.txt")
def test_wandb_offline_writes_every_epoch_once(run, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    track("wandb", run)
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    points = Points()
    for record in wandb_records(file):
        if record.WhichOneof("record_type") == "history":
            items = {
                "/".join(item.nested_key) or item.key: float(item.value_json) for item in record.history.item
            }
            points.log({key: value for key, value in items.items() if key[0] != "_"}, int(items["_step"]))
    assert {name: sorted(set(values)) for name, values in points.items()} == POINTS


def wandb_records(file: Path):
    """The records of a .wandb file: after 7 bytes, blocks of 32 KiB that hold pieces of records, each after 4
    bytes of a checksum, 2 of its length and 1 that tells whether it is whole (1), or the last piece (4)."""
    from importlib import import_module

    content, at, record = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if (left := (1 << 15) - at % (1 << 15)) < 7:
            at += left
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        record += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            message = import_module("wandb.proto.wandb_internal_pb2").Record()
            message.ParseFromString(record)
            yield message
            record = b""


@pytest.mark.skipif(find_spec("mlflow") is None, reason="mlflow: pip install -r requirements-mlflow.txt")
def test_mlflow_without_a_server_has_every_epoch_once(run, monkeypatch, tmp_path):
    from importlib import import_module

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    track("mlflow", run)
    client = import_module("mlflow").MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = [one for one in client.search_experiments() if one.name == "multitask"]
    (sent,) = client.search_runs([experiment.experiment_id])
    assert sent.info.run_name == "run" and sent.info.status == "FINISHED"
    assert sent.data.params == {**{k: str(v) for k, v in SETTINGS.items()}, "data.train": '["rows.jsonl"]'}
    histories = {name: client.get_metric_history(sent.info.run_id, name) for name in sent.data.metrics}
    points = {name: sorted((one.step, one.value) for one in history) for name, history in histories.items()}
    assert points == POINTS
    assert sorted(os.listdir(tmp_path)) == ["mlflow.db", "run"]
