import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from multitask.common.device import (
    autocast,
    choose_attention,
    choose_device,
    choose_precision,
    float32_products,
    prepare_threads,
    usable_cpus,
    use_threads,
)
from multitask.common.errors import InputError


def test_devices_are_chosen_by_name(monkeypatch, capsys):
    assert choose_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("cuda:1").type == "cpu"
    assert "using the CPU" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("cuda") == torch.device("cuda")
    with pytest.raises(InputError, match="cuda:2; this machine has 2 CUDA devices"):
        choose_device("cuda:2")
    with pytest.raises(InputError, match="a device is auto, cpu, mps, cuda or cuda:1, not tpu"):
        choose_device("tpu")


@pytest.mark.parametrize(("available", "chosen"), [(["cuda", "mps"], "cuda"), (["mps"], "mps"), ([], "cpu")])
def test_auto_takes_the_first_device_that_is_there(monkeypatch, capsys, available, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in available)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in available)
    assert choose_device("auto") == torch.device(chosen)
    assert capsys.readouterr().err == ""
    assert choose_device("mps").type == ("mps" if "mps" in available else "cpu")
    assert ("MPS is not available: using the CPU" in capsys.readouterr().err) == ("mps" not in available)


def test_one_of_several_processes_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="several processes"):
        choose_device("cpu")


@pytest.mark.parametrize(
    ("device", "capabilities", "limit", "expected"),
    [
        ("cpu", {"amx_bf16": True}, "AVX512", torch.bfloat16),
        ("cpu", {"avx512_bf16": True}, "AVX512", torch.bfloat16),
        ("cpu", {"avx512_bf16": True}, "AVX2", torch.float32),
        ("cpu", {"avx512_f": True, "amx_bf16": False}, "AVX512", torch.float32),
        ("cpu", {}, "DEFAULT", torch.float32),
        ("cuda", (7, 5), "", torch.float32),
        ("cuda", (8, 0), "", torch.bfloat16),
        ("cuda", (9, 0), "", torch.bfloat16),
    ],
)
def test_bf16_is_chosen_where_the_device_supports_it(
    monkeypatch, capsys, device, capabilities, limit, expected
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: limit)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities)
    assert choose_precision("auto", torch.device(device)) == expected
    assert choose_precision("fp32", torch.device(device)) == torch.float32
    assert capsys.readouterr().err == ""
    assert choose_precision("bf16", torch.device(device)) == torch.bfloat16
    assert ("emulated" in capsys.readouterr().err) == (expected == torch.float32)


def test_attention_is_eager_for_bf16_on_a_cpu_only():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose_attention("auto", cpu, torch.bfloat16) == "eager"
    assert choose_attention("auto", cpu, torch.float32) == "sdpa"
    assert choose_attention("auto", cuda, torch.bfloat16) == "sdpa"
    assert choose_attention("sdpa", cpu, torch.bfloat16) == "sdpa"


def test_autocast_changes_outputs_but_not_parameters_and_gradients():
    layer, x = torch.nn.Linear(4, 4), torch.randn(2, 4)
    with autocast(torch.device("cpu"), torch.float32):
        assert layer(x).dtype == torch.float32
    with autocast(torch.device("cpu"), torch.bfloat16):
        y = layer(x)
    y.float().sum().backward()
    assert (y.dtype, layer.weight.dtype, layer.weight.grad.dtype) == (
        torch.bfloat16,
        torch.float32,
        torch.float32,
    )


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000\n", 3),
        ("150000 100000\n", 2),
        ("1000 100000\n", 1),
        ("900000 100000\n", 3),
        ("?", 3),
        (None, 3),
    ],
)
def test_the_cpus_of_a_process_are_those_that_it_may_use(monkeypatch, tmp_path, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2, 5}, raising=False)
    file = tmp_path / "cpu.max"
    if quota is not None:
        file.write_text(quota)
    assert usable_cpus(file) == expected
    monkeypatch.setenv("GOMP_SPINCOUNT", "1")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    prepare_threads(file)
    assert os.environ.get("OMP_NUM_THREADS") == (str(expected) if expected < 3 else None)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    prepare_threads(file)
    assert os.environ["OMP_NUM_THREADS"] == "7"


@pytest.mark.parametrize("variable", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_how_threads_wait_is_left_as_the_user_set_it(monkeypatch, variable):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "9")
    before = dict(os.environ)
    prepare_threads()
    assert dict(os.environ) == before


WATCH = """
import os, runpy, sys
class Watch:
    def find_spec(name, path, target=None):
        if name == "torch":
            print("spin", os.environ.get("GOMP_SPINCOUNT"))
            sys.exit()
sys.meta_path.insert(0, Watch)
sys.argv = [sys.argv[1], *sys.argv[2:]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("script", ["task_1.py", "task_2.py", "task_4.py", "task_5.py"])
def test_threads_are_prepared_before_torch_is_imported(script, tmp_path, trained):
    words = ["predict", "a", f"--model={trained}"] if script == "task_5.py" else []
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    command = [sys.executable, "-c", WATCH, str(ROOT / script), *words]
    ended = subprocess.run(
        command, cwd=tmp_path, env={**environment, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert ended.stdout.splitlines()[-1] == "spin 1000", ended.stderr


def test_tf32_and_fp16_are_chosen_by_name(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert choose_precision("fp16", torch.device("cuda")) == torch.float16
    assert capsys.readouterr().err == ""
    assert choose_precision("fp16", torch.device("cpu")) == torch.float16
    assert "slow on a CPU" in capsys.readouterr().err
    assert choose_precision("tf32", torch.device("cuda")) == torch.float32
    assert "lacks it and computes in fp32" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert choose_precision("tf32", torch.device("cuda")) == torch.float32
    assert capsys.readouterr().err == ""


def test_tf32_ends_with_its_block():
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    with float32_products(True):
        assert matmul.fp32_precision == "tf32"
        with float32_products(False):
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "tf32"
    assert matmul.fp32_precision == before


def test_threads_are_limited_in_a_block():
    before = torch.get_num_threads()
    with use_threads(1):
        assert torch.get_num_threads() == 1
    with use_threads(None):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before
