"""Sentence embeddings: python task_1.py [SENTENCE ...] [--input FILE --output FILE.npy] [--config FILE]"""

from multitask.common.device import prepare_threads

if __name__ == "__main__":
    prepare_threads()  # before torch is imported

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tqdm import tqdm

from model import SentenceTransformer
from multitask.common.array_cache import NpyWriter
from multitask.common.atomic_files import atomic_file, check_writable
from multitask.common.device import choose_device
from multitask.common.errors import InputError, check_not_read
from multitask.common.shell import run_script
from multitask.config.loading import load_settings
from multitask.data.texts import files_read, read_texts
from multitask.encoders.pretrained import find_backbone, load_model, load_tokenizer
from multitask.inference.predictor import embed
from multitask.plan.starting_model import choose_pooling, choose_window, encoder_config

SAMPLES = ["The striker scored twice before half-time.", "She found the net in both halves of the final."]
COMPARED = 20  # sentences in the table of similarities
CHUNK = 1024  # texts in memory at once


def main() -> None:
    arguments = parse()
    settings = load_settings(arguments.config)
    if arguments.output:
        check_writable(arguments.output, ".npy")
        check_not_read([Path(arguments.output)], files_read(arguments.input))
    texts = iter(arguments.sentences or SAMPLES)
    if arguments.input:
        texts = (text for _, text in read_texts(arguments.input))
    m, device = settings.model, choose_device(settings.device)
    backbone = find_backbone(m.backbone, m.offline_backbone, m.revision)
    encoder_config(m, backbone.folder)
    max_length, stride = choose_window(m, backbone.folder)
    print(f"Using device: {device}")
    folder, pooling = backbone.folder, choose_pooling(m, backbone.folder)
    fields: dict[str, Any] = {"pooling": pooling, "max_length": max_length, "stride": stride}
    model = load_model(SentenceTransformer, folder, layers=m.keep_layers, **fields).to(device)
    tokenizer = load_tokenizer(backbone.folder)
    if arguments.output:
        write(model, tokenizer, texts, arguments.output)
    else:
        sentences = list(texts)
        show(sentences, embed(model, tokenizer, sentences))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Embed sentences with the encoder of config.yml.")
    parser.add_argument("sentences", nargs="*", metavar="SENTENCE", help="to embed (default: two samples)")
    parser.add_argument("--input", metavar="FILE", help="file of one sentence per line; - is standard input")
    parser.add_argument("--output", metavar="FILE.npy", help="write float32 embeddings (N, D) to this file")
    parser.add_argument("--config", default="config.yml", metavar="FILE", help="settings file (config.yml)")
    arguments = parser.parse_args()
    if arguments.sentences and arguments.input:
        raise InputError("give sentences either as arguments or with --input, not both")
    return arguments


def show(sentences: list[str], embeddings: np.ndarray) -> None:
    """Print the shape of embeddings (N, D), a few numbers, and the similarities of the first sentences."""
    print(f"Embedding shape: torch.Size({list(embeddings.shape)})")
    if not sentences:
        return
    first = ", ".join(f"{value:.4f}" for value in embeddings[0, :5])
    print(f"Sample embedding (first 5 dimensions of first sentence): [{first}]")
    unit = embeddings[:COMPARED] / np.linalg.norm(embeddings[:COMPARED], axis=1, keepdims=True)
    cut = f" of the first {COMPARED}; --output writes all embeddings" if len(sentences) > COMPARED else ""
    print(f"Cosine similarity{cut}:")
    for number, (sentence, row) in enumerate(zip(sentences, unit @ unit.T), 1):
        print(f"  {number}: {' '.join(f'{value:7.4f}' for value in row)}   {sentence[:60]}")


def write(model: SentenceTransformer, tokenizer: Tokenizer, texts: Iterator[str], path: str) -> None:
    """Embed texts in chunks into an .npy file, which appears only when it is complete."""
    with atomic_file(path) as file, tqdm(unit=" sentences", disable=None) as progress:
        writer = NpyWriter(file)
        while chunk := list(islice(texts, CHUNK)):
            writer.write(embed(model, tokenizer, chunk, progress.update))
        if writer.rows == 0:
            raise InputError("the input has no sentences")
        writer.finish()
    print(f"{path}: {writer.rows:,} embeddings of {writer.row_shape[0]} numbers")


if __name__ == "__main__":
    run_script(main)
