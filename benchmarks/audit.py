"""How many planted label errors task_5.py audit finds, and how many of those that it finds were planted.

    python benchmarks/audit.py --corpus FOLDER [--seeds N] [--limit N] [--rate SHARE] [--folds N]
        [--output FILE.json] [key=value ...]

In a sample of train.jsonl, a share of the rows gets another class, and the same share of the entities is
dropped, gets another type, or loses or gains a word at one end. Errors that the corpus had before count as
wrongly found. Three rules are compared on the same predictions: the confident joint (§3.2, method 2 of
Northcutt et al. 2021; what audit does with words), pruning by noise rate (method 4; with classes), and any
other prediction than the annotation. The last line is JSON."""

import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np

from benchmarks.comparison import arguments_of
from benchmarks.provenance import finish, provenance
from benchmarks.tables import markdown, spread
from multitask.common.shell import run_script
from multitask.config.yaml_reader import format_scalar
from multitask.data.labels import Span, spans_to_tags
from multitask.data.readers import ReadResult, iter_examples
from multitask.labelling.confident import by_confident_joint, by_noise_rate, label_quality
from multitask.labelling.entity_issues import entity_issues, word_types

OPTIONS = (
    ("--seeds", {"type": int, "default": 3, "help": "seeds 0, 1, … (3)"}),
    ("--rate", {"type": float, "default": 0.05, "help": "share of wrong classes, and of entities (0.05)"}),
    ("--folds", {"type": int, "default": 5}),
)
RULES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "confident joint": by_confident_joint,
    "noise rate": by_noise_rate,
    "other prediction": lambda probabilities, given: label_quality(probabilities, given) < 0.5,
}
KINDS = ("dropped", "retyped", "moved")
FIGURES = ("precision", "recall", "precision at N")


class Row(NamedTuple):
    """A sentence with its annotation."""

    words: list[str]
    spans: list[Span]
    label: str


class Planted(NamedTuple):
    """Wrong classes by row, and wrong entities as (row, first word, word after the last one, kind)."""

    classes: set[int]
    entities: list[tuple[int, int, int, str]]


def plant(rows: list[Row], rate: float, seed: int) -> tuple[list[Row], Planted]:
    """The rows with errors in a share of the classes, and in the same share of the entities."""
    draw = random.Random(seed)
    names = sorted({row.label for row in rows})
    types = sorted({span.label for row in rows for span in row.spans})
    swapped = set(draw.sample(range(len(rows)), round(rate * len(rows))))
    places = [(row, number) for row in range(len(rows)) for number in range(len(rows[row].spans))]
    chosen = set(draw.sample(places, round(rate * len(places))))
    noisy, planted = [], Planted(swapped, [])
    for at, row in enumerate(rows):
        label = draw.choice([name for name in names if name != row.label]) if at in swapped else row.label
        spans: list[Span] = []
        for number, span in enumerate(row.spans):
            if (at, number) not in chosen:
                spans.append(span)
                continue
            kind = draw.choice(KINDS)
            before = spans[-1].end if spans else 0
            after = row.spans[number + 1].start if number + 1 < len(row.spans) else len(row.words)
            new, kind = _wrong(span, kind, before, after, types, draw)
            both = [span, *new]
            first, last = min(s.start for s in both), max(s.end for s in both)
            planted.entities.append((at, first, last, kind))
            spans += new
        noisy.append(Row(row.words, spans, label))
    return noisy, planted


def _wrong(
    span: Span, kind: str, before: int, after: int, types: list[str], draw: random.Random
) -> tuple[list[Span], str]:
    """What stands in place of an entity between the words `before` and `after`, and what kind of error it
    is: one whose ends can't move gets another type."""
    if kind == "dropped":
        return [], kind
    ends = [(span.start + by, span.end) for by in (-1, 1)] + [(span.start, span.end + by) for by in (-1, 1)]
    possible = [(start, end) for start, end in ends if before <= start < end <= after]
    if kind == "moved" and possible:
        return [Span(*draw.choice(possible), span.label)], kind
    other = draw.choice([name for name in types if name != span.label])
    return [Span(span.start, span.end, other)], "retyped"


def main() -> None:
    import torch  # not for those who import the table

    arguments, overrides = arguments_of("Find planted label errors.", OPTIONS, batch_size=16)
    results = []
    for seed in range(arguments.seeds):
        results.append(measure(arguments, overrides, seed))
        print(f"seed {seed}: {json.dumps(results[-1])}", file=sys.stderr, flush=True)
    facts = provenance(range(arguments.seeds), torch.get_num_threads(), ("torch", "transformers"))
    about = {"corpus": Path(arguments.corpus).name, "rate": arguments.rate, "folds": arguments.folds}
    record = {**facts, **about, "results": results}
    print(table([record]) + "\n")
    finish(record, arguments.output)


def read(path: Path) -> list[Row]:
    """The rows of a file that have a class and entities."""
    examples = iter_examples([str(path)], ReadResult(), "stop")
    return [
        Row(example.words, example.spans, example.label)
        for example in examples
        if example.label is not None and example.spans is not None
    ]


def measure(arguments, overrides: list[str], seed: int) -> dict:
    """Plant errors, audit, and compare."""
    import task_4
    from multitask.labelling.audit import audit, audit_settings

    rows = read(Path(arguments.corpus, "train.jsonl"))
    if arguments.limit:
        rows = random.Random(seed).sample(rows, min(arguments.limit, len(rows)))
    noisy, planted = plant(rows, arguments.rate, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "noisy.jsonl")
        with open(path, "w", encoding="utf-8") as file:
            for row in noisy:
                tags = spans_to_tags(row.spans, len(row.words), "BIO")
                file.write(json.dumps({"tokens": row.words, "tags": tags, "label": row.label}) + "\n")
        own = [
            f"model.backbone={format_scalar(arguments.backbone)}",
            f"device={arguments.device}",
            f"training.seed={seed}",
            f"training.batch_size={arguments.batch_size}",
            "cache_dir=null",
        ]
        settings = audit_settings([str(path)], str(ROOT / "config.yml"), [*own, *overrides])
        found = audit(settings, arguments.folds, task_4.build, task_4.train)
    corpus, predictions, labels = found.prepared.corpora["train"], found.predictions, found.prepared.labels
    given_types = word_types(corpus.spans, len(predictions.tags))
    result: dict = {"rows": len(rows), "planted": [len(planted.classes), len(planted.entities)], "rules": {}}
    quality = label_quality(predictions.type_probabilities, given_types)
    class_quality = label_quality(predictions.class_probabilities, corpus.row_classes)
    for name, rule in RULES.items():
        wrong = np.flatnonzero(rule(predictions.class_probabilities, corpus.row_classes))
        right = np.isin(wrong[np.argsort(class_quality[wrong], kind="stable")], [*planted.classes])
        first = right[: len(planted.classes)]
        words = rule(predictions.type_probabilities, given_types)
        issues = entity_issues(corpus, labels, predictions.tags, words, quality)
        result["rules"][name] = {
            "classes": [len(wrong), int(right.sum()), int(first.sum())],
            "entities": entity_hits(corpus.word_rows, issues, planted),
        }
    return result


def entity_hits(word_rows: np.ndarray, issues: list, planted: Planted) -> list:
    """How many issues there are, how many of them overlap a planted error, how many of the worst ones do (as
    many as were planted); and of each kind, how many errors were planted and found."""
    place = np.full(int(word_rows[-1]), -1)
    for number, (row, first, last, _) in enumerate(planted.entities):
        place[word_rows[row] + first : word_rows[row] + last] = number
    found, right = set(), []
    for issue in sorted(issues, key=lambda issue: issue.quality):
        spans = [*issue.given, *issue.suggested]
        first, last = min(span[0] for span in spans), max(span[1] for span in spans)
        here = set(place[first:last].tolist()) - {-1}
        right.append(bool(here))
        found |= here
    kinds = Counter(error[3] for error in planted.entities)
    hits = Counter(planted.entities[number][3] for number in found)
    each = {kind: [kinds[kind], hits[kind]] for kind in KINDS}
    return [len(issues), sum(right), sum(right[: len(planted.entities)]), each]


def table(records: list[dict]) -> str:
    """Precision and recall of each rule on each corpus. The precision at N is that of the worst ones, as many
    as were planted."""
    tasks = (f"{what}: {figure}" for what in ("classes", "entities") for figure in FIGURES)
    rows = [["corpus", "rule", *tasks, *KINDS]]
    for record in records:
        for rule in RULES:
            columns: list[list[float]] = [[] for _ in range(2 * len(FIGURES) + len(KINDS))]
            for result in record["results"]:
                (classes, entities), r = result["planted"], result["rules"][rule]
                *places, kinds = r["entities"]
                recalled = sum(hit for _, hit in kinds.values())
                values = [*_figures(*r["classes"], r["classes"][1], classes)]
                values += _figures(*places, recalled, entities)
                values += [hit / max(count, 1) for count, hit in kinds.values()]
                for column, value in zip(columns, values):
                    column.append(value)
            cells = [spread(column, ".2f") for column in columns[: 2 * len(FIGURES)]]
            cells += [f"{fmean(column):.2f}" for column in columns[2 * len(FIGURES) :]]
            rows.append([record["corpus"], rule, *cells])
    return markdown(rows, left=2)


def _figures(found: int, right: int, first: int, recalled: int, planted: int) -> tuple[float, float, float]:
    """Precision, recall and precision at N."""
    planted = max(planted, 1)
    return right / max(found, 1), recalled / planted, first / planted


if __name__ == "__main__":
    run_script(main)
