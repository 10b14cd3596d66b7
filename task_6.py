"""A web page and an HTTP API over a trained model: python task_6.py [--model DIR] [--port 7860]"""

from multitask.common.device import prepare_threads

if __name__ == "__main__":
    prepare_threads()  # before torch is imported

import argparse
import logging
from pathlib import Path

from multitask.common.shell import run_script
from multitask.encoders.thresholds import add_share_options
from multitask.inference.predictor import LATEST_MODEL, check_folder
from multitask.serving.launch import serve

logger = logging.getLogger("multitask.task_6")


def main() -> None:
    arguments = parse()
    name = arguments.model or LATEST_MODEL
    wanted = arguments.accuracy is not None or arguments.precision is not None
    if arguments.model or wanted or Path(name).is_dir():
        check_folder(name)
    else:
        logger.warning(f"no folder {name} yet: python task_4.py trains a model; the page explains how")
        name = None
    for other in arguments.compare:
        check_folder(other)
    serve(
        name,
        models_to_compare(name, arguments.compare),
        arguments.host,
        arguments.port,
        accuracy=arguments.accuracy,
        precision=arguments.precision,
    )


def models_to_compare(name: str | None, compare: list[str]) -> list[str]:
    """The folders `compare` and those of runs/, newest first; each once, and without the served model's."""
    trained = sorted(Path("runs").glob("*/model"), reverse=True)
    folders = [*compare, *(str(folder) for folder in trained if not folder.parent.is_symlink())]
    unique = {Path(name).resolve(): ""} if name else {}
    for folder in folders:
        unique.setdefault(Path(folder).resolve(), folder)
    return [folder for folder in unique.values() if folder]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A web page and an HTTP API over a trained model.")
    parser.add_argument("--model", metavar="DIR", help=f"the model folder to serve ({LATEST_MODEL})")
    parser.add_argument(
        "--compare",
        metavar="DIR",
        action="append",
        default=[],
        help="another model folder, offered for comparison like all of runs/ (may be repeated)",
    )
    add_share_options(parser)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=7860, help="the port; 0 is a free one (7860)")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main)
