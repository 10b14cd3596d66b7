"""Use a trained model: python task_5.py predict [TEXT ...] | python task_5.py evaluate CORPUS_FILE"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from multitask.errors import InputError, run, say
from multitask.output import NpyWriter, atomic_file, check_writable
from multitask.readers import is_corpus, read_corpus, read_texts

LATEST_MODEL = str(Path("runs") / "latest" / "model")
CHUNK = 1024  # texts that are held at once


def main() -> None:
    parser = argparse.ArgumentParser(description="Use a trained model.")
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--model", default=LATEST_MODEL, metavar="DIR", help=f"a model folder ({LATEST_MODEL})"
    )
    shared.add_argument("--device", metavar="DEVICE", help="cpu, cuda or cuda:1 (CUDA where there is one)")
    predict_parser = commands.add_parser(
        "predict", parents=[shared], help="class and entities of texts, as JSON Lines"
    )
    predict_parser.add_argument("texts", nargs="*", metavar="TEXT")
    predict_parser.add_argument(
        "--input", metavar="FILE", help="a text a line, or a corpus file; - is standard input"
    )
    predict_parser.add_argument("--output", metavar="FILE", help="JSON Lines go here, not to standard output")
    predict_parser.add_argument(
        "--embeddings", metavar="FILE.npy", help="also write embeddings, float32 (N, D)"
    )
    predict_parser.set_defaults(main=predict)
    evaluate_parser = commands.add_parser("evaluate", parents=[shared], help="scores on an annotated file")
    evaluate_parser.add_argument("corpus", metavar="CORPUS_FILE", help="as config.yml's data.test")
    evaluate_parser.add_argument("--json", action="store_true", help="all figures as one JSON object")
    evaluate_parser.set_defaults(main=evaluate_corpus)
    arguments = parser.parse_args()
    arguments.main(arguments)


def predict(arguments: argparse.Namespace) -> None:
    """Texts → a JSON object a line, in order, and their embeddings where asked for."""
    from tqdm import tqdm

    if bool(arguments.texts) == bool(arguments.input):
        raise InputError("give texts as arguments, or a file of them with --input (- is standard input)")
    if arguments.output:
        check_writable(arguments.output)
    if arguments.embeddings:
        check_writable(arguments.embeddings, ".npy")
    texts = iter(arguments.texts) if arguments.texts else input_texts(arguments.input)
    predictor = load(arguments.model, arguments.device)
    with ExitStack() as files:
        out = files.enter_context(atomic_file(arguments.output)) if arguments.output else sys.stdout.buffer
        vectors = (
            NpyWriter(files.enter_context(atomic_file(arguments.embeddings)))
            if arguments.embeddings
            else None
        )
        progress = files.enter_context(tqdm(unit=" texts", disable=None if arguments.output else True))
        while chunk := list(islice(texts, CHUNK)):
            for prediction in predictor.predict(
                chunk, embeddings=vectors is not None, progress=progress.update
            ):
                if vectors:
                    vectors.write(prediction.embedding[None])
                row = prediction._replace(embedding=None).to_dict()
                out.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            out.flush()
        if vectors:
            vectors.finish()


def evaluate_corpus(arguments: argparse.Namespace) -> None:
    """Scores of a model on an annotated file."""
    from tqdm import tqdm

    from multitask.evaluation import table
    from multitask.prediction import evaluate
    from multitask.preparation import unknown_labels
    from multitask.split import read_split
    from multitask.subwords import Subwords

    predictor = load(arguments.model, arguments.device)
    model, labels = predictor.runner, predictor.labels
    window = predictor.config.max_length, predictor.config.stride
    split = read_split([arguments.corpus], Subwords(predictor.tokenizer), *window)
    for line in [*split.notices, *unknown_labels(arguments.corpus, split, labels)]:
        say(line)
    corpus = split.corpus(labels)
    with tqdm(total=len(corpus), unit=" rows", disable=None) as progress:
        scores = evaluate(model, corpus, labels, progress=progress.update)
    if not (scores.task_a or scores.task_b):
        raise InputError(f"{arguments.corpus}: no row is annotated for what the model has learned")
    print(json.dumps(scores.to_dict()) if arguments.json else table(scores))


def input_texts(source: str) -> Iterator[str]:
    """Texts of a file: a line each, or the rows of a corpus file, words joined where there is no text."""
    if source != "-" and is_corpus(source):
        return (example.text or " ".join(example.words) for example in read_corpus([source]).examples)
    return (text for _, text in read_texts(source))


def load(name: str, device: str | None = None):
    """A model folder, of training or of an export → a Predictor, on the device or on CUDA where it is.

    What each kind needs is imported here: starting takes longer than a sentence does."""
    folder = Path(name)
    if not folder.is_dir():
        hint = "; python task_4.py trains one" if name == LATEST_MODEL else ""
        raise InputError(f"--model: no folder {folder}{hint}")
    from multitask.prediction import Predictor

    if (folder / "model.onnx").exists():
        if device not in (None, "cpu"):
            raise InputError(f"--device {device}: an exported model runs on the CPU")
        return Predictor.from_onnx(folder)
    import torch

    from model import MultiTaskConfig, MultiTaskTransformer
    from multitask.backbone import load_model, load_tokenizer
    from multitask.device import choose_device
    from multitask.labels import labels_of
    from multitask.model_folder import read_config

    on = choose_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    labels = labels_of(MultiTaskConfig.from_dict(read_config(folder)))
    if not (labels.classes or labels.types):
        raise InputError(f"{folder}: an encoder without trained heads; python task_4.py trains them")
    return Predictor(load_model(MultiTaskTransformer, folder).to(on), load_tokenizer(folder), labels)


if __name__ == "__main__":
    run(main)
