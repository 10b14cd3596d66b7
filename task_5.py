"""Use a trained model: python task_5.py predict [TEXT ...] | evaluate FILE | ... (see --help)"""

from multitask.common.device import prepare_threads

if __name__ == "__main__":
    prepare_threads()  # before torch is imported

import argparse
import json
import logging
import shlex
import sys
from contextlib import ExitStack
from os.path import isfile  # False also for a text that no file name may hold
from pathlib import Path
from typing import TYPE_CHECKING

from multitask.cluster.command import add_engine_options, check_engine_options, predict_shards
from multitask.common.errors import InputError, check_not_read
from multitask.common.shell import run_script
from multitask.encoders.thresholds import add_share_options
from multitask.inference.predictor import LATEST_MODEL, Predictor

if TYPE_CHECKING:
    from multitask.inference.resumable_output import ResumableOutput
    from multitask.inference.writers import OutputFormat

logger = logging.getLogger("multitask.task_5")


def main() -> None:
    arguments = parse()
    arguments.main(arguments)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Use a trained model.")
    commands = parser.add_subparsers(dest="command", required=True)
    of_model = argparse.ArgumentParser(add_help=False)
    of_model.add_argument(
        "--model", default=LATEST_MODEL, metavar="DIR", help=f"a model folder ({LATEST_MODEL})"
    )
    shared = argparse.ArgumentParser(add_help=False, parents=[of_model])
    shared.add_argument(
        "--device", metavar="DEVICE", help="cpu, cuda, cuda:1, mps or auto (CUDA if available)"
    )
    describe = "class and entities of texts, as JSON Lines"
    add_predict_options(commands.add_parser("predict", parents=[shared], help=describe))
    describe = "metrics on an annotated file"
    add_evaluate_options(commands.add_parser("evaluate", parents=[shared], help=describe))
    describe = "write a model folder that runs without torch, and compare it with torch"
    add_export_options(commands.add_parser("export", parents=[of_model], help=describe))
    add_suggest_options(commands.add_parser("suggest", parents=[shared], help="texts to label next"))
    add_audit_options(commands.add_parser("audit", help="annotation that looks wrong"))
    words, overrides = sys.argv[1:], list[str]()
    if words[:1] == ["audit"]:
        from multitask.config.loading import split_overrides  # needs pydantic, which others may lack

        overrides, words = split_overrides(words)
    return parser.parse_args(words, argparse.Namespace(overrides=overrides))


def add_predict_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("texts", nargs="*", metavar="TEXT")
    parser.add_argument(
        "--input", metavar="FILE", help="one text per line, or a corpus file; - is standard input"
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help=".jsonl, .csv, .conll, .parquet or .labelstudio.json (JSON Lines on standard output)",
    )
    add_share_options(parser)
    add_engine_options(parser)
    parser.add_argument("--embeddings", metavar="FILE.npy", help="also write embeddings, float32 (N, D)")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted output file")
    harmless = "CSV in which no text is taken for a formula: it gets a ' in front (default: exact texts)"
    parser.add_argument("--spreadsheet", action="store_true", help=harmless)
    soft = "JSON Lines to train another model on: words and probabilities of all classes and tags"
    parser.add_argument("--soft-targets", action="store_true", help=soft)
    parser.set_defaults(main=predict)


def add_evaluate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", metavar="CORPUS_FILE", help="as config.yml's data.test")
    parser.add_argument("--json", action="store_true", help="print all metrics as one JSON object")
    raw = "join rows of tokens to raw texts, and find the words as predict does"
    parser.add_argument("--raw", action="store_true", help=raw)
    parser.add_argument("--against", metavar="DIR", help="another model folder, to compare on the same rows")
    parser.add_argument(
        "--pictures", default="evaluation", metavar="DIR", help="folder for the pictures (evaluation)"
    )
    parser.set_defaults(main=evaluate_corpus)


def add_export_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="created, or replaced if it is an export")
    parser.add_argument("--int8", action="store_true", help="matrix multiplications in int8")
    parser.add_argument(
        "--dev", metavar="FILE", help="annotated file for the comparison (data.dev of the model's run)"
    )
    parser.set_defaults(main=export_model)


def add_suggest_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="texts, as for predict --input; not standard input")
    parser.add_argument("--labelled", metavar="FILE", help="labelled texts: none of them is suggested")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="how many texts (100)")
    parser.add_argument("--output", metavar="OUT", help=".json for Label Studio, or .jsonl")
    formats = ("label-studio", "doccano", "jsonl")
    parser.add_argument("--format", choices=formats, help="by default that of the name; doccano reads .jsonl")
    unsure = "what the model is unsure of: the class, the words' tags (the default), or both"
    parser.add_argument("--by", choices=("class", "tags", "both"), help=unsure)
    parser.add_argument("--diverse", action="store_true", help="texts that are far from each other")
    parser.set_defaults(main=suggest_texts)


def add_audit_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = "task_5.py audit FILE [FILE ...] [--config FILE] [key=value ...] [--output OUT] ..."
    parser.add_argument("files", nargs="+", metavar="FILE", help="as config.yml's data.train")
    parser.add_argument("--config", metavar="FILE", help="settings of the training (config.yml)")
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="models to train (5)")
    parser.add_argument("--output", metavar="OUT", help="rows to correct, .json for Label Studio, or .jsonl")
    parser.add_argument("--format", choices=("label-studio", "jsonl"), help="by default that of the name")
    parser.set_defaults(main=audit_files)


def predict(arguments: argparse.Namespace) -> None:
    """Write one row per text, in order, and the embeddings if requested."""
    from multitask.common import distributed
    from multitask.data.texts import read_rows, rows_from_texts
    from multitask.inference.batch_predict import Output, StandardOutput, predict_all
    from multitask.inference.terminal import terminal_renderer
    from multitask.inference.writers import check_labels_fit, soft_targets_line

    check_engine_options(arguments)
    if arguments.engine:
        predict_shards(arguments)
        return
    path, vectors = arguments.output, arguments.embeddings
    if bool(arguments.texts) == bool(arguments.input):
        raise InputError("give texts as arguments, or a file of them with --input (- is standard input)")
    if arguments.resume and not path:
        raise InputError("--resume continues a file: give the --output that was interrupted")
    written, file = prepare_output(arguments)
    render = written.render
    rows = rows_from_texts(arguments.texts) if arguments.texts else read_rows(arguments.input)
    output: Output | None = None
    with ExitStack() as undo:
        if file and distributed.is_first_process():
            undo.callback(file.withdraw)
            if not arguments.resume:
                file.begin(written.head)
            elif not file.resume(written.head, rows):
                logger.info(f"{path} is finished: there is nothing to resume")
                rows, file = iter(()), None
            output = file
        predictor = Predictor.from_pretrained(arguments.model, arguments.device, share_rows=True)
        predictor.answer_only_if(arguments.accuracy, arguments.precision)
        if path:
            check_labels_fit(path, predictor.labels)
        undo.pop_all()
    if arguments.soft_targets:
        render = soft_targets_line(predictor.labels)
    elif not path and sys.stdout.isatty():
        render = terminal_renderer(predictor.labels)
    if len(arguments.texts) == 1 and isfile(name := arguments.texts[0]):
        lines = f"--input {shlex.quote(name)} its lines"
        logger.warning(f"'{name}' is a file; this predicts its name, and {lines}")
    if not path and distributed.rank() == 0:
        output = StandardOutput(vectors)
    predict_all(predictor, rows, render, output, bool(vectors), arguments.soft_targets)


def prepare_output(arguments: argparse.Namespace) -> "tuple[OutputFormat, ResumableOutput | None]":
    """The format of the output and, if --output names one, its file. Writes nothing.

    Raises InputError if a file can't be written, or is one that is read."""
    from multitask.common.atomic_files import check_writable
    from multitask.data.formats.files import JSON_LINES
    from multitask.data.texts import files_read
    from multitask.inference.batch_predict import facts_of
    from multitask.inference.resumable_output import ResumableOutput
    from multitask.inference.writers import OutputFormat, json_line, output_format

    path, vectors, file = arguments.output, arguments.embeddings, None
    written = OutputFormat("", b"", json_line)
    outputs: list[Path | int] = [1]
    if path:
        written = output_format(path, arguments.model, arguments.spreadsheet)
    if arguments.spreadsheet and written.suffix != ".csv":
        raise InputError("--spreadsheet is about CSV: give an --output that ends in .csv")
    if arguments.soft_targets:
        if written.suffix not in ("", *JSON_LINES):
            raise InputError(
                "--soft-targets writes JSON Lines: give an --output that ends in .jsonl, or none"
            )
        if arguments.accuracy or arguments.precision:
            raise InputError(
                "--soft-targets writes no answers that --accuracy or --precision could leave out"
            )
    if vectors:
        check_writable(vectors, ".npy")
        outputs.append(Path(vectors))
    if path:
        options = arguments.accuracy, arguments.precision, arguments.spreadsheet, arguments.soft_targets
        facts = facts_of(arguments.model, written.suffix, bool(vectors), *options)
        file = ResumableOutput(path, vectors, facts, written.convert)
        outputs = [*file.written]
    check_not_read(outputs, [*files_read(arguments.input), *Path(arguments.model).glob("*")])
    return written, file


def evaluate_corpus(arguments: argparse.Namespace) -> None:
    """Print a model's metrics on an annotated file, alone or compared with another model's."""
    from multitask.common.atomic_files import check_folder
    from multitask.data.texts import files_read
    from multitask.evaluation.evaluate import draw_plots, evaluate_file, evaluation_to_dict
    from multitask.evaluation.evaluation_text import evaluation_to_text

    pictures = check_folder(arguments.pictures)
    check_not_read(pictures.glob("*.png"), files_read(arguments.corpus))
    predictor = Predictor.from_pretrained(arguments.model, arguments.device)
    first = evaluate_file(predictor, arguments.model, arguments.corpus, raw=arguments.raw)
    second = None
    if arguments.against:
        other = Predictor.from_pretrained(arguments.against, arguments.device)
        second = evaluate_file(other, arguments.against, arguments.corpus, True, arguments.raw)
    evaluation = evaluation_to_dict(first, second)
    print(json.dumps(evaluation) if arguments.json else evaluation_to_text(first, evaluation), flush=True)
    for path in draw_plots(first, pictures):
        logger.info(f"picture: {path}")


def export_model(arguments: argparse.Namespace) -> None:
    """Export the model as an ONNX graph to a folder, and print how close its outputs are to the model's."""
    from tqdm import tqdm

    from multitask.data.texts import files_read
    from multitask.export.exporter import check_export, comparison_corpus, comparison_table, export

    check_export(arguments.folder)
    predictor = Predictor.from_pretrained(arguments.model, "cpu", precision="fp32")
    if not hasattr(predictor.runner, "model"):
        raise InputError(
            f"{arguments.model}: is an export itself; --model must be a folder that training saved"
        )
    check_not_read(Path(arguments.folder).glob("*"), files_read(arguments.dev))
    config = Path(arguments.model).resolve().parent / "config.yml"
    corpus = comparison_corpus(predictor, arguments.dev, config)
    with tqdm(total=None if corpus is None else len(corpus), unit=" rows", disable=None) as progress:
        comparison = export(predictor, arguments.folder, corpus, arguments.int8, progress.update)
    print(comparison_table(comparison))


def suggest_texts(arguments: argparse.Namespace) -> None:
    """Write the texts that are worth labelling next, the most useful one first."""
    from multitask.labelling.commands import suggest_to_file

    a = arguments
    suggest_to_file(a.file, a.labelled, a.model, a.device, a.count, a.output, a.format, a.by, a.diverse)


def audit_files(arguments: argparse.Namespace) -> None:
    """Print what looks wrong, and write it to a file if requested."""
    from multitask.labelling.commands import audit_to_file
    from task_4 import build, train  # the one training loop

    a = arguments
    audit_to_file(a.files, a.config, a.overrides, a.folds, a.output, a.format, build, train)


if __name__ == "__main__":
    run_script(main)
