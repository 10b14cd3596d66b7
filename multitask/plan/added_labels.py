"""The weights that a head starts from if it gets labels besides those that the starting model knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from multitask.common import distributed
from multitask.common.device import use_threads
from multitask.data.corpus import EncodedCorpus
from multitask.encoders.pretrained import read_tensors
from multitask.encoders.validation import check_finite
from multitask.inference.runner import Runner
from multitask.plan.class_weights import ClassWeights
from multitask.plan.heads import Heads

if TYPE_CHECKING:
    from torch import Tensor, nn

    from model import MultiTaskTransformer

_WINDOWS = 4096  # from which new classes are fitted: one pass over them, whatever train has
_RIDGE = 0.3  # on dev rows 0.1 to 0.5 are as good; with 2, fewer rows of the new class are found
_ITERATIONS = 100


def keep_rows(model: MultiTaskTransformer, heads: Heads) -> None:
    """Copy the starting model's weights of the labels that it knows, by name, into heads with more labels.

    The rows of the other labels stay as they were drawn; `fit_new_classes` replaces those of classes. The
    transitions from and to a new tag are 0."""
    import torch

    known, labels = heads.start.known, heads.labels
    parts = {
        "task_a": ("sentence_classifier", known.classes, labels.classes),
        "task_b": ("classifier", known.tags, labels.tags),
    }
    for task in heads.added:
        module, before, now = parts[task]
        rows = torch.tensor([now.index(name) for name in before])
        stored = read_tensors(heads.start.folder, [f"{module}.weight", f"{module}.bias"])
        with torch.no_grad():
            for name, tensor in stored.items():
                model.get_parameter(name)[rows] = tensor.float()
            if task == "task_b" and model.transitions:
                (tensor,) = read_tensors(heads.start.folder, ["transitions.weight"]).values()
                model.transitions.weight[rows[:, None], rows] = tensor.float()
    if heads.added:
        check_finite(model, heads.start.folder / "model.safetensors")


def fit_new_classes(
    model: MultiTaskTransformer, heads: Heads, runner: Runner, train: EncodedCorpus, weights: ClassWeights
) -> None:
    """Fit the rows of the classes that head A gets besides the starting model's, all else unchanged: a
    logistic regression on the embeddings of train, with the logits of the known classes as they are.

    The few steps of a small corpus move a random row too little to win against trained ones. Qi, Brown & Lowe
    2018 (§3.2) start it from the mean vector of its examples, in a cosine classifier. In a linear one the
    length of the row and its bias remain open; a regression finds both. Where only a teacher knows one of the
    classes, their rows stay as they were drawn. All processes must call it, and get the rows that the first
    one finds.

    Args:
        runner: runs the model. It reads at most _WINDOWS windows, of all classes.
        train: the rows that the head learns from.
        weights: of the classes in training, where they are not all 1."""
    import torch

    added = [heads.labels.class_ids[name] for name in heads.added.get("task_a", ())]
    if not added or not np.isin(added, train.row_classes).all():  # no row has a class that a teacher knows
        return
    fitted = torch.empty(0), torch.empty(0)  # of the other processes, which ignore theirs
    if distributed.rank() == 0:
        size = len(heads.labels.classes)
        windows, factors = _examples(train, weights.get("task_a", np.ones(size)))
        classes = train.row_classes[train.row_of_window[windows]]
        vectors = _embeddings(runner, train, windows)
        with use_threads(1):  # a second one waits longer than it works
            known = len(heads.start.known.classes)  # they come first
            fitted = _fit(model.sentence_classifier, known, vectors, classes, factors)
    ids, rows = distributed.scatter([fitted] * distributed.world_size())
    layer = model.sentence_classifier
    with torch.no_grad():
        layer.weight[ids] = rows[:, :-1].to(layer.weight)
        layer.bias[ids] = rows[:, -1].to(layer.bias)


def _examples(train: EncodedCorpus, class_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Evenly spaced windows of each class, about _WINDOWS in all, rising (n,), and weights of their losses
    (n,). The windows of a text weigh as much as one; those of a class as much as all that it has."""
    rows = train.row_of_window
    classes, shares = train.row_classes[rows], 1 / np.diff(train.window_rows)[rows]
    most = max(1, _WINDOWS // len(class_weights))
    chosen, factors = [], []
    for number, weight in enumerate(class_weights):
        windows = np.flatnonzero(classes == number)
        count = min(len(windows), most)
        chosen.append(windows[np.arange(count) * len(windows) // max(1, count)])
        factors.append(shares[chosen[-1]] * (weight * len(windows) / max(1, count)))
    windows = np.concatenate(chosen)
    order = np.argsort(windows)
    return windows[order], np.concatenate(factors)[order]


def _embeddings(runner: Runner, train: EncodedCorpus, windows: np.ndarray) -> np.ndarray:
    """The embeddings (n, D) of windows (n,), which rise."""
    lengths, vectors = train.window_lengths, np.empty((len(windows), runner.config.hidden_size), np.float32)
    with runner.ready():
        for batch in runner.batches(windows[np.argsort(-lengths[windows], kind="stable")], lengths):
            vectors[np.searchsorted(windows, batch)] = runner(train, batch).embeddings
    return vectors


def _fit(
    layer: nn.Linear, known: int, vectors: np.ndarray, classes: np.ndarray, factors: np.ndarray
) -> tuple[Tensor, Tensor]:
    """The ids of the classes from `known` on (m,), and their rows (m, D + 1): weights, then bias.

    They minimise the sum of the cross-entropies times `factors` (n,), and _RIDGE / 2 times the squared
    weights, for vectors (n, D) whose mean square norm is made 1. By L-BFGS (Liu & Nocedal 1989)."""
    import torch
    from torch.nn import functional

    x, labels, weights = (torch.from_numpy(array) for array in (vectors, classes, factors))
    x, labels = x.double(), labels.long()
    logits = functional.linear(x, *(p.detach().cpu().double()[:known] for p in (layer.weight, layer.bias)))
    scale = x.square().sum(1).mean().sqrt().clamp(min=1e-12)
    x = x / scale  # not by the spread around the mean: where it is small, dropout would drown large rows
    ids = torch.arange(known, layer.out_features)
    rows = torch.zeros(len(ids), x.shape[1] + 1, dtype=x.dtype, requires_grad=True)
    lbfgs = torch.optim.LBFGS([rows], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        lbfgs.zero_grad()
        both = torch.cat([logits, functional.linear(x, rows[:, :-1], rows[:, -1])], 1)
        losses = functional.cross_entropy(both, labels, reduction="none")
        total = (losses * weights).sum() + _RIDGE / 2 * rows[:, :-1].square().sum()
        total.backward()
        return total

    lbfgs.step(loss)
    found = rows.detach()
    found[:, :-1] /= scale
    return ids, found
