"""Which near duplicates task_5.py audit finds at which cosine.

    python benchmarks/near_duplicates.py --corpus FOLDER [FOLDER ...] [--seeds N] [--edits N] [--device NAME]
        [--output FILE.json]

Sentences of train.jsonl are edited, as in another version of the same text: in lower case and without
punctuation, with a word dropped, with a word replaced, with two words swapped. An edited sentence is found at
a cosine if a sentence of train is that near. The sentences of dev are compared with train in the same way:
most of them are other sentences. The last line is JSON."""

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from statistics import fmean

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np

from benchmarks.provenance import finish, parse, provenance
from benchmarks.tables import markdown
from multitask.common.errors import InputError
from multitask.common.shell import run_script
from multitask.data.readers import ReadResult, iter_examples
from multitask.encoders.pretrained import BUNDLED

COSINES = (0.80, 0.85, 0.90, 0.95, 0.98)
EDITS = ("case and punctuation", "word dropped", "word replaced", "words swapped")
DEV = "dev"  # not edited
FEWEST = 4  # words of a sentence that is edited


def edited(words: list[str], edit: str, others: list[str], draw: random.Random) -> list[str]:
    """The words of a sentence with one edit; `others` may replace a word."""
    if edit == "case and punctuation":
        return [word.lower() for word in words if any(map(str.isalnum, word))]
    at, new = draw.randrange(len(words) - 1), list(words)
    if edit == "word dropped":
        del new[at]
    elif edit == "word replaced":
        new[at] = draw.choice([word for word in others if word != new[at]])
    else:
        new[at : at + 2] = reversed(new[at : at + 2])
    return new


def main() -> None:
    import torch  # not for those who import the table

    parser = argparse.ArgumentParser(description="Find near duplicates.")
    parser.add_argument("--corpus", nargs="+", required=True, help="folders with train and dev.jsonl")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, … (3)")
    parser.add_argument("--edits", type=int, default=200, help="sentences to edit in each way (200)")
    parser.add_argument("--backbone", default=BUNDLED, help=f"a folder or a hub name ({BUNDLED})")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parse(parser)
    for name in ("seeds", "edits"):
        if (value := getattr(arguments, name)) < 1:
            raise InputError(f"--{name} is {value}; it must be 1 or more")
    found: dict[str, list] = {}
    for corpus in map(Path, arguments.corpus):
        found[corpus.name] = [measure(corpus, arguments, seed) for seed in range(arguments.seeds)]
        print(f"{corpus.name}: {json.dumps(found[corpus.name])}", file=sys.stderr, flush=True)
    facts = provenance(range(arguments.seeds), torch.get_num_threads(), ("torch", "transformers"))
    record = {**facts, "cosines": COSINES, "found": found}
    print(table(record) + "\n")
    finish(record, arguments.output)


def measure(corpus: Path, arguments: argparse.Namespace, seed: int) -> dict[str, list[float]]:
    """The share of sentences that is found at each cosine: for each edit, and for dev."""
    import task_4
    from multitask.config.yaml_reader import format_scalar
    from multitask.labelling.audit import audit_settings
    from multitask.labelling.folds import embeddings_before_training
    from multitask.labelling.near_duplicates import near_duplicates
    from multitask.training.preparation import prepare

    draw = random.Random(seed)
    train, dev = (read(corpus / f"{split}.jsonl") for split in ("train", "dev"))
    others, known = [word for words in train for word in words], set(map(tuple, train))
    long = [words for words in train if len(words) >= FEWEST]
    second, kinds = [], []
    for edit in EDITS:
        for words in draw.sample(long, min(arguments.edits, len(long))):
            if new := edited(words, edit, others, draw):
                second.append(new)
                kinds.append(edit)
    dev = [words for words in dev if tuple(words) not in known]  # the others are found by their words
    second, kinds = second + dev, kinds + [DEV] * len(dev)
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder, name)) for name in ("train.jsonl", "second.jsonl")]
        for path, rows in zip(paths, (train, second)):
            with open(path, "w", encoding="utf-8") as file:
                for number, words in enumerate(rows):  # no class is learned
                    file.write(json.dumps({"tokens": words, "label": "xy"[number % 2]}) + "\n")
        backbone = f"model.backbone={format_scalar(arguments.backbone)}"
        own = [backbone, f"device={arguments.device}", "cache_dir=null", "training.task=task_a"]
        settings = audit_settings(paths, str(ROOT / "config.yml"), own)
        prepared = prepare(settings)
        embeddings = embeddings_before_training(settings, prepared, task_4.build, {})
    nearest = np.full(len(second), -1.0)
    for pair in near_duplicates(embeddings, prepared.corpora["train"].file_of_row, -1.0):
        nearest[pair.row - len(train)] = pair.cosine
    of_kind = np.array(kinds)
    return {
        kind: [float((nearest[of_kind == kind] >= cosine).mean()) for cosine in COSINES]
        for kind in (*EDITS, DEV)
    }


def read(path: Path) -> list[list[str]]:
    """The words of the sentences of a file."""
    return [example.words for example in iter_examples([str(path)], ReadResult(), "stop") if example.words]


def table(record: dict) -> str:
    """The share that is found at each cosine, in percent."""
    rows = [["corpus", "sentence", *(f"{cosine:.2f}" for cosine in record["cosines"])]]
    for corpus, seeds in record["found"].items():
        for kind in (*EDITS, DEV):
            shares = [fmean(seed[kind][i] for seed in seeds) for i in range(len(record["cosines"]))]
            rows.append([corpus, kind, *(f"{100 * share:.0f} %" for share in shares)])
    return markdown(rows, left=2)


if __name__ == "__main__":
    run_script(main)
