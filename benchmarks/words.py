"""Which characters may join letters inside a word, and what is lost between evaluation and raw text.

    python benchmarks/words.py --corpus FOLDER [--epochs N] [--seeds N] [--jobs N] [--keep DIR]
        [--batch-size N] [--device cpu|cuda] [--backbone NAME] [--output FILE.json] [key=value ...]

For each rule of words: the share of entities that begin and end at a boundary of words (of train, dev and
test, on raw text), and the entity F1 of a fine-tuned model on the raw texts of the test set, by exact
characters. Rows of tokens become raw text by multitask/data/detokenizer.py. A model that learns from raw text
is trained once for each rule. A corpus of tokens has the same words under every rule: it is trained once on
tokens, and once on their raw texts under the project's own rule. The last line is JSON."""

import json
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tokenizers.pre_tokenizers import Split

from benchmarks.comparison import SPLITS, arguments_of
from benchmarks.provenance import finish
from benchmarks.records import Results
from benchmarks.study import DEFAULTS, OPTIONS, TRAIN_ALL, Run, Study
from benchmarks.tables import markdown, scores
from multitask.common.shell import run_script
from multitask.data.examples import Example, raw_example
from multitask.data.labels import Span, spans_to_tags
from multitask.data.readers import ReadResult, iter_examples
from multitask.data.words import JOINERS, split_words, word_splitter
from multitask.evaluation.evaluate import evaluate_file
from multitask.evaluation.metrics import Score
from multitask.inference.predictor import Predictor

IN_USE = "in use"  # the rule of multitask/data/words.py; the others are the characters that join, most first
RULES = ("'’-&@_/.", "'’-&@_.", "'’&@_.", IN_USE, JOINERS, "&_.", ".", "")
TRAINED_RULES = (RULES[0], IN_USE, JOINERS)  # of a corpus of raw texts, which is trained for each
NAMES = {IN_USE: f"{' '.join(JOINERS)}, web addresses, initials (in use)", "": "nothing"}
TOKENS, RAW = "tokens", "raw text"
RECORDS = ("words_corpus", "words_uner_ewt", "words_wnut17")


def main() -> None:
    arguments, overrides = arguments_of("Compare rules of words.", OPTIONS, **DEFAULTS)
    folder = Path(arguments.corpus)
    rows = {split: list(read(folder / f"{split}.jsonl")) for split in SPLITS}
    raw = {split: list(map(raw_example, examples)) for split, examples in rows.items()}
    annotated = [example for examples in raw.values() for example in examples if example.spans is not None]
    of_tokens = sum(example.text is None for example in rows["train"]) > len(rows["train"]) / 2
    results = {
        "entities": sum(len(example.entities) for example in annotated),
        "reachable": {rule: reachable_share(annotated, rule) for rule in RULES},
        "trained": {},
    }
    if not any(example.label for example in rows["train"]):
        overrides = [*overrides, "training.task=task_b"]
    trained = [TOKENS, RAW] if of_tokens else TRAINED_RULES
    for variant in trained:
        train = rows["train"] if variant == TOKENS else raw["train"]
        if not of_tokens:
            splitter = splitter_of(variant)
            train = [words_by(example, splitter) for example in train]
        results["trained"][variant], record = outcome(arguments, overrides, variant, train, raw["test"])
    record = {**record, "corpus": folder.name, "results": results}
    print(f"{markdown(rows_of([record]))}\n\n{markdown(raw_rows([record]), left=2)}\n")
    finish(record, arguments.output)


def read(path: Path) -> Iterator[Example]:
    """The rows of a corpus file."""
    return iter_examples([str(path)], ReadResult(), "stop")


def splitter_of(rule: str) -> Split:
    """The splitter of a rule."""
    return word_splitter() if rule == IN_USE else word_splitter(rule, others=False)


def reachable_share(examples: Sequence[Example], rule: str) -> float:
    """The share of entities whose two ends are boundaries of words by a rule."""
    total = reached = 0
    splitter = splitter_of(rule)
    for example in examples:
        starts, ends = map(set, zip(*split_words(example.text, splitter)))
        for start, end, _ in example.entities:
            total += 1
            reached += start in starts and end in ends
    return reached / total


def words_by(example: Example, splitter: Split) -> Example:
    """A raw text with the words of a splitter. Entities that end inside a word are widened."""
    offsets = split_words(example.text, splitter)
    spans = None
    if example.spans is not None:
        spans = []
        for start, end, label in example.entities:
            inside = [i for i, (first, last) in enumerate(offsets) if first < end and last > start]
            spans.append(Span(inside[0], inside[-1] + 1, label))
    words = [example.text[start:end] for start, end in offsets]
    return Example(words, spans, example.label, example.text, offsets)


def outcome(
    arguments: Namespace, overrides: list[str], variant: str, train: list[Example], test: list[Example]
) -> tuple[dict, dict]:
    """Train on these rows → entity F1 of each seed, by rule and as `evaluate` and `evaluate --raw` give it;
    and the record of the study."""
    with Study(arguments, overrides) as study:
        study.use_rows([json.dumps(row_of(example)).encode() + b"\n" for example in train])
        run = Run(f"trained on {variant or 'letters alone'}", TRAIN_ALL, keep=True)
        f1: dict[str, list[float]] = {}
        for result in study.outcomes([run])[run.name]:
            predictor = Predictor.from_pretrained(Path(result.folder) / "model", arguments.device)
            f1.setdefault("evaluate", []).append(result.test["entity_f1"])
            evaluation = evaluate_file(predictor, run.name, str(study.test), raw=True)
            f1.setdefault("evaluate --raw", []).append(evaluation.scores.headline()["entity_f1"])
            for rule in RULES:
                f1.setdefault(rule, []).append(raw_f1(predictor, test, rule))
        return f1, study.record({})


def row_of(example: Example) -> dict:
    """A row of tokens or, if its words are those of the project's rule, of text."""
    row = {} if example.label is None else {"label": example.label}
    if example.text is not None and example.offsets == split_words(example.text):
        named = [dict(zip(("start", "end", "label"), entity)) for entity in example.entities or ()]
        return row | {"text": example.text} | ({} if example.spans is None else {"entities": named})
    row["tokens"] = example.words
    if example.spans is not None:
        row["tags"] = spans_to_tags(example.spans, len(example.words), "BIO")
    return row


def raw_f1(predictor: Predictor, test: Sequence[Example], rule: str) -> float:
    """Entity F1 on raw texts whose words follow a rule. Correct are exact characters and type."""
    annotated = [example for example in test if example.spans is not None]
    splitter = splitter_of(rule)
    unannotated = []
    for example in annotated:
        offsets = split_words(example.text, splitter)
        words = [example.text[start:end] for start, end in offsets]
        unannotated.append(Example(words, text=example.text, offsets=offsets))
    correct = predicted = gold = 0
    for example, prediction in zip(annotated, predictor.predict_examples(unannotated)):
        found = {(entity.start, entity.end, entity.label) for entity in prediction.entities}
        right = set(example.entities)
        correct, predicted, gold = correct + len(found & right), predicted + len(found), gold + len(right)
    return Score(correct, predicted, gold).f1


def table(results: Results) -> str:
    """The rules on all corpora that have a record."""
    return markdown(rows_of([results[name] for name in RECORDS]))


def raw_table(results: Results) -> str:
    """The scores on words and on raw text, of all corpora that have a record."""
    return markdown(raw_rows([results[name] for name in RECORDS]), left=2)


def rows_of(records: Sequence[dict]) -> list[list[str]]:
    """A table: one row per rule, and for each corpus the reachable share and F1 on raw text."""
    head = ["joined inside a word"]
    for record in records:
        head += [f"{record['corpus']}: reachable", "F1"]
    rows = [head]
    for rule in RULES:
        cells = [NAMES.get(rule, " ".join(rule))]
        for record in records:
            results = record["results"]
            trained = results["trained"]
            own = trained.get(rule) or trained.get(TOKENS, {})
            cells += [f"{results['reachable'][rule]:.2%}", scores(own[rule]) if rule in own else "–"]
        rows.append(cells)
    return rows


def raw_rows(records: Sequence[dict]) -> list[list[str]]:
    """A table: what a model is trained on, and its F1 as `evaluate` and as `evaluate --raw` give it."""
    rows = [["corpus", "trained on", "evaluate", "evaluate --raw"]]
    for record in records:
        for variant, f1 in record["results"]["trained"].items():
            if variant in (TOKENS, RAW, IN_USE):
                name = variant if variant in (TOKENS, RAW) else RAW
                rows.append([record["corpus"], name, scores(f1["evaluate"]), scores(f1["evaluate --raw"])])
    return rows


if __name__ == "__main__":
    run_script(main)
