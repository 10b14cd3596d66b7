"""Runs the server of task_6.py without batches, one text at a time: --model DIR"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from multitask.common.shell import run_script
from multitask.serving.launch import serve
from multitask.serving.limits import Limits


def main() -> None:
    _, model = sys.argv[1:]
    serve(model, port=0, limits=Limits(batch_rows=1))


if __name__ == "__main__":
    run_script(main)
