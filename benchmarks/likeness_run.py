"""How near sentences of a class are to each other by a model's embeddings, see pooling.py."""

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
    """Do what the folder's spec.json says; the answer is its likeness.json."""
    spec = json.loads((folder / "spec.json").read_text())
    torch.set_num_threads(spec["threads"])
    model = load_model(SentenceTransformer, folder / "model")
    config, tokenizer = model.config, load_tokenizer(folder / "model")
    split = read_split([spec["test"]], WordTokenizer(tokenizer), config.max_length, config.stride)
    corpus: EncodedCorpus = split.corpus(LabelSpace(tuple(sorted(split.class_names)), ()))
    parts = run_model(runner_of(model).without_heads(), corpus)
    embeddings = np.concatenate([part.embeddings for part in parts]).astype(np.float64)
    kept = corpus.row_classes != UNLABELLED
    (folder / "likeness.json").write_text(json.dumps(likeness(embeddings[kept], corpus.row_classes[kept])))


def likeness(embeddings: np.ndarray, classes: np.ndarray) -> dict[str, float]:
    """Embeddings (N, D) and class ids (N,) → `nearest`, the share of sentences whose nearest other one by
    cosine is of their class; `pairs`, the chance that two of one class are nearer than two of two (the area
    under the ROC curve, from ranks: Hanley & McNeil 1982). Pairs that are equally near count half."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = unit @ unit.T
    same = classes[:, None] == classes
    np.fill_diagonal(cosines, -np.inf)
    nearest = same[np.arange(len(classes)), cosines.argmax(1)].mean()
    above = np.triu_indices(len(classes), 1)
    values, same = cosines[above], same[above]
    distinct, at, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[at]  # from 1, equal ones share their mean
    of_one, of_two = int(same.sum()), int((~same).sum())
    pairs = (ranks[same].sum() - of_one * (of_one + 1) / 2) / (of_one * of_two)
    return {"nearest": float(nearest), "pairs": float(pairs)}
