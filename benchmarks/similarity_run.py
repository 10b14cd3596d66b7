"""Measures for pooling.py how similar the sentences of a class are, by a model's embeddings."""

import json
from pathlib import Path

import numpy as np
import torch

from model import SentenceTransformer
from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import UNLABELLED, LabelSpace
from multitask.data.splits import read_split
from multitask.data.tokenization import WordTokenizer
from multitask.encoders.pretrained import load_model, load_tokenizer
from multitask.inference.runner import run_model, runner_of


def main(folder: Path) -> None:
    """Read spec.json in the folder, measure its model, and write likeness.json."""
    spec = json.loads((folder / "spec.json").read_text())
    torch.set_num_threads(spec["threads"])
    model = load_model(SentenceTransformer, folder / "model")
    config, tokenizer = model.config, load_tokenizer(folder / "model")
    split = read_split([spec["test"]], WordTokenizer(tokenizer), config.max_length, config.stride)
    corpus: EncodedCorpus = split.corpus(LabelSpace(tuple(sorted(split.class_names)), ()))
    parts = run_model(runner_of(model).without_heads(), corpus)
    embeddings = np.concatenate([part.embeddings for part in parts]).astype(np.float64)
    annotated = corpus.row_classes != UNLABELLED
    similarity = class_similarity(embeddings[annotated], corpus.row_classes[annotated])
    (folder / "likeness.json").write_text(json.dumps(similarity))


def class_similarity(embeddings: np.ndarray, classes: np.ndarray) -> dict[str, float]:
    """Cosine similarity within and between classes, from embeddings (N, D) and class ids (N,).

    Returns:
        nearest: the share of sentences whose nearest other sentence has the same class.
        pairs: the probability that a pair of one class is nearer than a pair of two classes; equally near
            pairs count half (the area under the ROC curve, from ranks: Hanley & McNeil 1982)."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = unit @ unit.T
    same = classes[:, None] == classes
    np.fill_diagonal(cosines, -np.inf)
    nearest = same[np.arange(len(classes)), cosines.argmax(1)].mean()
    above = np.triu_indices(len(classes), 1)
    values, same = cosines[above], same[above]
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[index]  # from 1; equal values get their mean rank
    of_one, of_two = int(same.sum()), int((~same).sum())
    pairs = (ranks[same].sum() - of_one * (of_one + 1) / 2) / (of_one * of_two)
    return {"nearest": float(nearest), "pairs": float(pairs)}
