"""Learning curves of task_5.py suggest's order of texts, of random order, and of other orders.

    python benchmarks/suggest.py --corpus FOLDER [--seeds N] [--pool N] [--start N] [--add N] [--rounds N]
        [--epochs N] [--orders NAME ...] [--test] [--output FILE.json] [key=value ...]

A simulated study. The pool is a sample of train.jsonl. A random part of it is labelled at the start; then, in
each round, heads are trained on what is labelled (the encoder is frozen), scored on dev, and the order under
test chooses the next texts, whose annotation is then known. With --test, test is scored instead. The last
line is JSON."""

import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np

from benchmarks.comparison import arguments_of
from benchmarks.names import LEAST_SURE, RANDOM
from benchmarks.provenance import finish, provenance
from benchmarks.tables import markdown, spread
from multitask.common.errors import InputError
from multitask.common.shell import run_script
from multitask.config.loading import load_settings
from multitask.config.yaml_reader import format_scalar
from multitask.labelling.diversity import farthest_first, nearest_distances, unit_vectors
from multitask.labelling.uncertainty import BOTH, Uncertainty, class_uncertainty, combine, word_entropies

OPTIONS = (
    ("--seeds", {"type": int, "default": 3, "help": "seeds 0, 1, … (3)"}),
    ("--pool", {"type": int, "default": 5000, "help": "sentences of train.jsonl (5000)"}),
    ("--start", {"type": int, "default": 100, "help": "sentences that are labelled at the start (100)"}),
    ("--add", {"type": int, "default": 100, "help": "sentences that are labelled in a round (100)"}),
    ("--rounds", {"type": int, "default": 5, "help": "of training and choosing (5)"}),
    ("--epochs", {"type": int, "default": 20, "help": "of each training (20)"}),
    ("--orders", {"nargs": "+", "metavar": "NAME", "help": "only these"}),
    ("--test", {"action": "store_true", "help": "score test, not dev"}),
)
CANDIDATES = 10  # per sentence to label, for diversity
FIGURES = ("accuracy", "entity_f1")


class Measured(NamedTuple):
    """What an order may use: for N sentences of the pool, by the model of the round."""

    classes: np.ndarray  # (N,) entropy of the class
    least_sure: np.ndarray  # (N,) the largest entropy of a word's tag
    total: np.ndarray  # (N,) the sum of the words' entropies
    vectors: np.ndarray  # (N, D) embeddings of length 1


Choose = Callable[[Measured, np.ndarray, np.ndarray, int, np.random.Generator], np.ndarray]
"""(measured, free sentences, labelled ones, how many, random) → the sentences to label next"""


def highest(score: Callable[[Measured], np.ndarray]) -> Choose:
    """Those with the highest scores."""

    def choose(m: Measured, free: np.ndarray, labelled: np.ndarray, count: int, _) -> np.ndarray:
        return free[np.argsort(-score(m)[free], kind="stable")[:count]]

    return choose


def diverse(score: Callable[[Measured], np.ndarray], candidates: float = CANDIDATES) -> Choose:
    """Of the candidates with the highest scores, those far from each other and from labelled ones."""

    def choose(m: Measured, free: np.ndarray, labelled: np.ndarray, count: int, random) -> np.ndarray:
        best = highest(score)(m, free, labelled, int(min(len(free), candidates * count)), random)
        distances = nearest_distances(m.vectors[best], m.vectors[labelled])
        return best[farthest_first(m.vectors[best], score(m)[best], distances, count)]

    return choose


def half_random(score: Callable[[Measured], np.ndarray]) -> Choose:
    """Half of them those with the highest scores, half random ones."""

    def choose(m: Measured, free: np.ndarray, labelled: np.ndarray, count: int, random) -> np.ndarray:
        best = highest(score)(m, free, labelled, count - count // 2, random)
        return np.append(best, at_random(m, np.setdiff1d(free, best), labelled, count // 2, random))

    return choose


def at_random(m: Measured, free: np.ndarray, labelled: np.ndarray, count: int, random) -> np.ndarray:
    return random.permutation(free)[:count]


def power(score: Callable[[Measured], np.ndarray]) -> Choose:
    """Drawn one by one with probabilities proportional to the scores (Kirsch et al. 2023, §3)."""

    def choose(m: Measured, free: np.ndarray, labelled: np.ndarray, count: int, random) -> np.ndarray:
        keys = np.log(np.maximum(score(m)[free], 1e-9)) + random.gumbel(size=len(free))
        return free[np.argsort(-keys, kind="stable")[:count]]

    return choose


def ranks(scores: np.ndarray) -> np.ndarray:
    return (np.argsort(np.argsort(scores, kind="stable"), kind="stable") + 1) / len(scores)


def either(m: Measured) -> np.ndarray:
    return np.maximum(ranks(m.classes), ranks(m.least_sure))


def least_sure(m: Measured) -> np.ndarray:
    """What `suggest` does by default."""
    return m.least_sure


ORDERS: dict[str, Choose] = {
    RANDOM: at_random,
    "k-center": diverse(lambda m: np.ones(len(m.classes)), float("inf")),
    "class": highest(lambda m: m.classes),
    "tags, sum": highest(lambda m: m.total),
    LEAST_SURE: highest(least_sure),
    "class and tags": highest(lambda m: combine(Uncertainty(m.classes, m.least_sure), BOTH)),
    "class or tags": highest(either),
    "tags, least sure word, diverse": diverse(least_sure),
    "tags, least sure word, half random": half_random(least_sure),
    "class or tags, half random": half_random(either),
    "tags, least sure word, drawn": power(least_sure),
}


def main() -> None:
    import torch  # not for those who import the table

    arguments, overrides = arguments_of("Compare orders of texts to label.", OPTIONS, batch_size=16)
    if arguments.limit:
        raise InputError("--limit: --pool says how many sentences there are")
    for name in ("seeds", "pool", "start", "add", "rounds"):
        if (value := getattr(arguments, name)) < 1:
            raise InputError(f"--{name} is {value}; it must be 1 or more")
    names = arguments.orders or list(ORDERS)
    if unknown := [name for name in names if name not in ORDERS]:
        raise InputError(f"--orders: {unknown[0]} is none of {'; '.join(ORDERS)}")
    split = "test" if arguments.test else "dev"
    curves: dict[str, list] = {name: [] for name in names}
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            simulation = Simulation(arguments, overrides, seed, Path(folder), split)
            for name in names:
                curves[name].append(simulation.curve(ORDERS[name]))
                mean = fmean(fmean(scores) for scores in curves[name][-1][1:])
                print(f"seed {seed}: {name}: mean {mean:.4f}", file=sys.stderr, flush=True)
    facts = provenance(range(arguments.seeds), torch.get_num_threads(), ("torch", "transformers"))
    sizes = [arguments.start + arguments.add * n for n in range(arguments.rounds + 1)]
    corpus = {"corpus": Path(arguments.corpus).name, "pool": arguments.pool, "split": split}
    record = {**facts, **corpus, "labelled": sizes, "curves": curves}
    print(table([record]) + "\n")
    finish(record, arguments.output)


class Simulation:
    """A pool of sentences whose annotation is known, and the features of the frozen encoder for it."""

    def __init__(self, arguments, overrides: list[str], seed: int, folder: Path, split: str):
        import task_4
        from multitask.labelling.folds import train_once
        from multitask.training.preparation import prepare

        self.arguments, self.seed, self.features = arguments, seed, {}
        corpus = Path(arguments.corpus)
        lines = [
            line for line in (corpus / "train.jsonl").read_bytes().splitlines(keepends=True) if line.strip()
        ]
        if arguments.pool > len(lines) or arguments.start + arguments.rounds * arguments.add > arguments.pool:
            raise InputError(
                f"--pool is {arguments.pool}; train has {len(lines)} sentences, and rounds need fewer"
            )
        (folder / "pool.jsonl").write_bytes(b"".join(random.Random(seed).sample(lines, arguments.pool)))
        self.settings = load_settings(
            ROOT / "config.yml",
            [
                f"model.backbone={format_scalar(arguments.backbone)}",
                "model.num_classes_task_a=null",
                "model.num_labels_task_b=null",
                f"data.train={format_scalar(str(folder / 'pool.jsonl'))}",
                f"data.dev={format_scalar(str(corpus / f'{split}.jsonl'))}",
                "data.test=null",
                f"training.num_epochs={arguments.epochs}",
                f"training.batch_size={arguments.batch_size}",
                f"training.seed={seed}",
                f"device={arguments.device}",
                "cache_dir=null",
                *overrides,
            ],
        )
        self.prepared = prepare(self.settings)
        self.train = lambda rows: train_once(
            self.settings, self.prepared, rows, task_4.build, task_4.train, self.features
        )

    def curve(self, choose: Choose) -> list[list[float]]:
        """Accuracy and entity F1 after each training, the first one on the start alone."""
        random_, a = np.random.default_rng(self.seed), self.arguments
        labelled = np.zeros(a.pool, bool)
        labelled[random_.permutation(a.pool)[: a.start]] = True
        scores = []
        for number in range(a.rounds + 1):
            trainer = self.train(labelled)
            scores.append(self.score(trainer))
            if number < a.rounds:
                free, known = np.flatnonzero(~labelled), np.flatnonzero(labelled)
                labelled[choose(self.measure(trainer), free, known, a.add, random_)] = True
        return scores

    def score(self, trainer) -> list[float]:
        from multitask.evaluation.evaluate import evaluate
        from multitask.inference.torch_runner import TorchRunner
        from multitask.speedups.frozen_features import FrozenFeatures

        dev = self.prepared.corpora["dev"]
        if "dev" not in self.features:
            self.features["dev"] = FrozenFeatures(trainer.model, dev, trainer.depth, trainer.precision)
        with trainer.evaluation_attention():
            runner = TorchRunner(trainer.model, self.features["dev"], trainer.precision)
            found = evaluate(runner, dev, self.prepared.labels).headline()
        return [found[figure] for figure in FIGURES]

    def measure(self, trainer) -> Measured:
        from multitask.inference.runner import in_chains, run_windows
        from multitask.inference.torch_runner import TorchRunner

        corpus = self.prepared.corpora["train"]
        with trainer.evaluation_attention():
            runner = TorchRunner(trainer.model, self.features["train"], trainer.precision)
            out = run_windows(runner, corpus, 0, len(corpus.window_start))
            out = in_chains(runner, out, corpus.word_rows)
        entropies, starts = word_entropies(out.word_logits, 1.0), corpus.word_rows[:-1]
        windows = corpus.window_rows
        embeddings = np.add.reduceat(out.embeddings, windows[:-1]) / np.diff(windows)[:, None]
        return Measured(
            class_uncertainty(out.sentence_logits, windows, 1.0),
            np.maximum.reduceat(entropies, starts),
            np.add.reduceat(entropies, starts),
            unit_vectors(embeddings),
        )


def table(records: list[dict]) -> str:
    """The mean of both scores over the rounds, for each corpus; then both scores after the last round."""
    head = [""]
    for record in records:
        name, last = record["corpus"], record["labelled"][-1]
        head += [f"{name}: mean", f"accuracy at {last}", f"F1 at {last}"]
    rows = [head]
    for order in records[0]["curves"]:
        row = [order]
        for record in records:
            seeds = record["curves"][order]
            row.append(spread([fmean(map(fmean, curve[1:])) for curve in seeds], ".3f"))
            row += [spread([curve[-1][figure] for curve in seeds], ".3f") for figure in (0, 1)]
        rows.append(row)
    return markdown(rows)


if __name__ == "__main__":
    run_script(main)
