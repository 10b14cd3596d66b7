"""torchrun on two machines: two launchers that find each other by address, here both on the loopback."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from alike import result
from conftest import ROOT
from several import ONE_THREAD

# the process of the second machine is killed in its fourth step, if asked to
SCRIPT = """
import os, sys
sys.path[:0] = [{root!r}, {tests!r}]
import task_4
from killing import make_quick, raise_signals
make_quick(setattr)
if os.environ["RANK"] == "1" and "DIES" in os.environ:
    raise_signals({{"4": [9]}})
task_4.run_script(task_4.main)
"""


def both(folder: Path, *words: str, **environment: str) -> list[tuple[int, str, str]]:
    """Run the script on two machines → (exit status of the launcher, its output, its messages) of each."""
    script = folder / "train.py"
    script.write_text(SCRIPT.format(root=str(ROOT), tests=str(ROOT / "tests")))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"]
    launch += ["--master_addr=127.0.0.1", f"--master_port={port}"]
    machines = [
        subprocess.Popen(
            [*launch, f"--node_rank={rank}", str(script), *words],
            cwd=folder,
            env={**os.environ, **ONE_THREAD, **environment},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    ended = [machine.communicate() for machine in machines]
    return [(machine.returncode, *texts) for machine, texts in zip(machines, ended)]


def test_two_machines_resume_after_one_is_lost_to_the_same_bits(runs, settings_for, tmp_path):
    settings = [*settings_for, "model.freeze_backbone=false", "training.learning_rate=1e-3"]
    settings += ["training.batch_size=2", "training.num_epochs=3", "training.checkpoint_every=1"]
    whole = runs(tmp_path, *settings, "output_dir=whole", processes=2)
    assert whole.status == 0, whole.err
    first, second = both(tmp_path, *settings, "output_dir=lost", DIES="")
    assert first[0] != 0 != second[0]
    assert "exitcode  : 2 " in first[2] and "exitcode  : -9 " in second[2]
    assert "error: process 0 of 2 has lost another one, which was killed, or whose machine or" in first[2]
    newest = "the newest checkpoint is lost/checkpoints/step-00000003"
    assert f"{newest}, the best model so far lost/model; to resume when the cause is fixed: " in first[2]
    assert "RuntimeError" not in first[2]
    for status, _, err in both(tmp_path, "--resume", "lost"):
        assert status == 0, err
    rows, weights = result(tmp_path / "whole")
    other_rows, other_weights = result(tmp_path / "lost")
    assert rows == other_rows
    assert all(torch.equal(weight, other_weights[name]) for name, weight in weights.items())
