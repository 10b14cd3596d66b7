"""A signal ends a script with its own status, even if a library turns its exception into another one."""

import signal
import subprocess
import sys

import pytest
from conftest import ROOT

# load() does what safetensors does: it replaces any exception by one of its own
SCRIPT = """
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
        raise RuntimeError("no signal")
    except (KeyboardInterrupt, RuntimeError):
        raise raises("FILE: can't be read") from None

def main():
    load(InputError)

def guarded():
    with StopSignals():
        load(InputError)

def deferred():
    with StopSignals() as stop, stop.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        raise InputError("FILE: can't be read")

run_script({main})
"""


@pytest.mark.parametrize(
    ("main", "number", "status", "message"),
    [
        ("main", 0, 2, "error: FILE: can't be read"),
        ("main", signal.SIGINT, 130, "interrupted"),
        ("guarded", 0, 2, "error: FILE: can't be read"),
        ("guarded", signal.SIGINT, 130, "interrupted"),
        ("guarded", signal.SIGTERM, 143, "interrupted"),
        ("deferred", 0, 2, "error: FILE: can't be read"),  # the signal raised nothing: it is a real error
    ],
)
def test_an_error_that_replaces_an_interruption_counts_as_one(main, number, status, message):
    code = SCRIPT.format(root=str(ROOT), number=int(number), main=main)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr.strip()) == (status, message)
