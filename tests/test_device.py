import pytest
import torch

from multitask.device import choose_device
from multitask.errors import InputError


def test_devices_by_name(monkeypatch, capsys):
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
    with pytest.raises(InputError, match="a device is cpu, cuda or cuda:1, not tpu"):
        choose_device("tpu")


def test_one_of_several_processes_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="several processes"):
        choose_device("cpu")
