"""The search of search.py, in its own process with its own number of threads."""

import json
import sys
from pathlib import Path

import torch

import task_4
from multitask.search.trials import read_trials, within


def main(folder: Path) -> None:
    """Add trials to a search until they have taken as long as spec.json says."""
    spec = json.loads((folder / "spec.json").read_text())
    torch.set_num_threads(spec["threads"])
    words = ["--config", str(folder / "config.yml"), f"output_dir={json.dumps(spec['trials'])}"]
    while len(trials := read_trials(Path(spec["trials"]))) == len(within(trials, spec["seconds"])):
        sys.argv = ["task_4.py", "--search", str(len(trials) + 1), *words]
        task_4.main()
