"""--engine ray: how shards are given to workers, with a stand-in for Ray; and with Ray itself where it is."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from cluster_jobs import contents, rows_of, words, write_input
from conftest import ROOT
from ray_stand_in import StandIn

import task_5

needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed: pip install -r requirements-ray.txt"
)


@pytest.fixture
def start(shell, trained, tmp_path):
    """Start the job of in/ on Ray, or with other options."""
    write_input(tmp_path / "in")

    def begin(*more, engine="ray"):
        return shell(task_5, *words(trained, *more, engine=engine))

    return begin


@pytest.fixture
def whole(start):
    """The files of the same job without Ray."""
    assert start(engine="local").status == 0
    files = contents("out")
    shutil.rmtree("out")
    return files


@pytest.fixture
def stand_in(monkeypatch):
    """Put a stand-in in place of the module ray."""

    def put(*arguments, **how) -> StandIn:
        ray = StandIn(*arguments, **how)
        monkeypatch.setitem(sys.modules, "ray", ray)
        monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        return ray

    return put


def test_every_shard_is_predicted_once(start, whole, stand_in):
    ray = stand_in({"CPU": 3.0})
    assert start().status == 0
    assert contents("out") == whole
    assert len(ray.actors) == 3 and ray.shut_down == 1
    assert ray.actors[0] == {"num_cpus": 1, "scheduling_strategy": "SPREAD", "max_restarts": 0}
    assert ray.begun[0]["address"] == "local"


def test_the_shards_of_lost_workers_are_predicted_by_others(start, whole, stand_in):
    ray = stand_in({"CPU": 2.0}, losses=[2, 5, 5, "start", "start"])
    ended = start()
    assert ended.status == 0, ended.err
    assert contents("out") == whole
    assert len(ray.actors) == 2 + 5 and ray.killed == 5
    assert "the worker of in/b.jsonl: 2 rows from line 11 on was lost; another one predicts it" in ended.err
    assert "a worker, before it had loaded the model, was lost" in ended.err


@pytest.mark.parametrize(
    ("lost", "finished", "wanted"),
    [
        (
            3,
            5,
            "the worker of in/b.jsonl: 5 rows from line 1 on was lost 3 times (killed, or out of memory?); ",
        ),
        (
            "start",
            0,
            "a worker, before it had loaded the model, was lost 3 times (killed, or out of memory?)",
        ),
    ],
)
def test_a_shard_that_ends_its_workers_ends_the_job(start, whole, stand_in, lost, finished, wanted):
    stand_in({"CPU": 1.0}, losses=[lost] * 3)
    ended = start()
    assert ended.status == 2
    assert f"error: {wanted}" in ended.err
    assert len(list(Path().glob("out/part-*"))) <= finished
    stand_in({"CPU": 1.0})
    assert start().status == 0 and contents("out") == whole


def test_workers_take_gpus_where_there_are_some(start, stand_in):
    ray = stand_in({"CPU": 16.0, "GPU": 2.0})
    assert start("--device", "auto").status == 0
    assert [actor["num_gpus"] for actor in ray.actors] == [1, 1] and "num_cpus" not in ray.actors[0]


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        (["--workers", "3"], "--workers 3: the cluster has 2 CPUs, one for each worker"),
        (["--device", "cuda"], "--device cuda: the cluster has no GPU"),
        (["--device", "cuda:1"], "--device cuda:1: Ray gives each worker a GPU; give cpu, cuda or auto"),
        (["--address", "here"], "--address here: is neither auto nor HOST:PORT, such as 10.0.0.1:6379"),
        (["--model", "nowhere"], "no folder nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(start, stand_in, more, wanted):
    stand_in({"CPU": 2.0})
    ended = start(*more)
    assert (ended.status, ended.err.splitlines()[-1]) == (2, f"error: {wanted}")
    assert not Path("out").exists()


def test_an_address_that_does_not_answer_is_refused_at_once(start, stand_in):
    ray = stand_in({})
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    ended = start("--address", address)
    wanted = f"error: --address {address}: does not answer (connection refused); is Ray started there?\n"
    assert (ended.status, ended.err) == (2, wanted) and not ray.begun


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (SystemExit(15), "something listens there, but it is not Ray"),
        (ConnectionError("no Ray\nhere"), "can't be reached: ConnectionError: no Ray here"),
    ],
)
def test_what_is_not_ray_is_refused(start, stand_in, error, wanted):
    stand_in({}, refuses=error)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        ended = start("--address", address)
    assert (ended.status, ended.err) == (2, f"error: --address {address}: {wanted}\n")


def test_without_ray_the_job_ends_before_any_work(start, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    ended = start()
    wanted = "error: --engine ray needs ray: pip install -r requirements-ray.txt\n"
    assert (ended.status, ended.err) == (2, wanted)
    assert (ROOT / "requirements-ray.txt").exists() and not Path("out").exists()


def in_own_process(trained, folder: Path, *more: str, engine: str = "ray") -> subprocess.Popen:
    """Start the job in a process of its own, which has one thread, as Ray's workers have."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, ROOT / "task_5.py", *words(trained, *more, engine=engine)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, stdout=pipe, stderr=pipe)


@needs_ray
def test_ray_writes_the_same_files_also_when_a_worker_is_killed(start, trained, tmp_path):
    """In shards of 1,000 rows. The worker is killed after the first of them is written."""
    rows = [f'{{"text": "anna won vote {i} in paris"}}' for i in range(20_000)]
    (tmp_path / "in" / "c.jsonl").write_text("\n".join([*rows, "not json"]) + "\n")
    job = in_own_process(trained, tmp_path, "--workers", "2", "--shard-rows", "1000")
    killed: list[int] = []
    while job.poll() is None and not killed:
        written = any((tmp_path / "out").glob("part-*"))
        killed = workers_of(job.pid) if written else []
        time.sleep(0.01)
    os.kill(killed[0], signal.SIGKILL)
    out, err = job.communicate(timeout=300)
    said = "20,026 rows in 23 files; 3 could not be read, and have the reason in `error`\n"
    assert (job.returncode, out) == (0, f"out: {said}"), err
    assert "was lost; another one predicts it again" in err
    (tmp_path / "out").rename(tmp_path / "by-ray")
    here = in_own_process(trained, tmp_path, "--shard-rows", "1000", engine="local")
    assert here.communicate(timeout=300)[0] and here.returncode == 0
    assert contents("out") == contents("by-ray")
    assert len({(row["file"], row["line"]) for row in rows_of("out")}) == 20_026


def workers_of(parent: int) -> list[int]:
    """The processes of Ray's actors that descend from a process."""
    found = [(int(path.name), path) for path in Path("/proc").iterdir() if path.name.isdigit()]
    workers = [number for number, path in found if read(path / "cmdline").startswith("ray::_Actor")]
    return [number for number in workers if parent in ancestors(number)]


def ancestors(number: int) -> list[int]:
    found = []
    while number > 1:
        number = int((read(Path(f"/proc/{number}/stat")).rpartition(")")[2].split() or [0, 0])[1])
        found.append(number)
    return found


def read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # the process has ended
        return ""
