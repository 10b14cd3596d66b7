"""Signals end a script with their own status, also where a library makes another error of what they raise."""

import signal
import subprocess
import sys

import pytest
from conftest import ROOT

# safetensors asks torch for the shape of a storage, and calls any failure of that an error of its own
LOSSY = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
sys.path.insert(0, {root!r})
from multitask.common.errors import InputError
from multitask.common.shell import run_script
from multitask.common.signals import StopSignals

def load(raises):
    try:
        if {number}:
            os.kill(os.getpid(), {number})
            while True: pass
        raise RuntimeError("of its own")
    except (KeyboardInterrupt, RuntimeError):
        raise raises("FILE: can't be read") from None

def main():
    load(InputError)

def guarded():
    with StopSignals():
        load(InputError)

def held():
    with StopSignals() as stop, stop.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        raise InputError("FILE: can't be read")

run_script({main})
"""


@pytest.mark.parametrize(
    ("main", "number", "status", "said"),
    [
        ("main", 0, 2, "error: FILE: can't be read"),
        ("main", signal.SIGINT, 130, "interrupted"),
        ("guarded", 0, 2, "error: FILE: can't be read"),
        ("guarded", signal.SIGINT, 130, "interrupted"),
        ("guarded", signal.SIGTERM, 143, "interrupted"),
        ("held", 0, 2, "error: FILE: can't be read"),  # it raised nothing, so the error is a real one
    ],
)
def test_an_error_made_of_an_interruption_is_an_interruption(main, number, status, said):
    code = LOSSY.format(root=str(ROOT), number=int(number), main=main)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr.strip()) == (status, said)
