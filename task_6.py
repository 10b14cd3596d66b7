"""A web page and an HTTP API over a trained model: python task_6.py [--model DIR] [--port 7860]"""

import argparse
import logging
from pathlib import Path

from multitask.common.shell import run_script
from multitask.inference.predictor import LATEST_MODEL, check_folder
from multitask.serving.launch import serve

logger = logging.getLogger("multitask.task_6")


def main() -> None:
    arguments = parse()
    name = arguments.model or LATEST_MODEL
    if arguments.model or Path(name).is_dir():
        check_folder(name)
    else:
        logger.warning(f"no folder {name} yet: python task_4.py trains a model; the page says so until then")
        name = None
    for other in arguments.compare:
        check_folder(other)
    serve(name, others(name, arguments.compare), arguments.host, arguments.port)


def others(name: str | None, named: list[str]) -> list[str]:
    """What the page offers beside the model: the folders that are named, and those of runs/, each once."""
    trained = [str(folder) for folder in sorted(Path("runs").glob("*/model"), reverse=True)]
    found = {Path(name).resolve(): ""} if name else {}
    for folder in [*named, *(one for one in trained if not Path(one).parent.is_symlink())]:
        found.setdefault(Path(folder).resolve(), folder)
    return [folder for folder in found.values() if folder]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A web page and an HTTP API over a trained model.")
    parser.add_argument("--model", metavar="DIR", help=f"a model folder ({LATEST_MODEL})")
    parser.add_argument(
        "--compare",
        metavar="DIR",
        action="append",
        default=[],
        help="another, offered for comparison beside all of runs/ (may be repeated)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=7860, help="0: a free one (7860)")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main)
