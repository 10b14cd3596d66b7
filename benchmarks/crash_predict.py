"""Predictions that are killed at random moments and resumed after random changes: is the file the right one?

    python benchmarks/crash_predict.py [--trials N] [--rows N] [--backbone FOLDER] [--output FILE.json]

A trial starts `task_5.py predict`, in half of the trials beside a finished output of another command, and
kills it (SIGKILL) at a random moment or in the middle of a random change of the disk. Then, at random, the
command asks for another input, model or option, and a file is removed, cut off or edited. In half of the
trials `--resume` is killed too, again and again, until it ends. A trial ends with

- the right files: those of the same command in an empty folder, byte for byte;
- a refusal: exit status 2, no output changed, and the same command without --resume gives the right files;
- or else wrong, which is an error.

Not tried is an edit of an unfinished file in its place. The model has one layer and random heads. Every row
is a chunk of its own, and the progress is noted after it. The last line is JSON."""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.forks import Ended, Kill, call_in_fork
from benchmarks.provenance import finish, parse, provenance
from benchmarks.tables import markdown
from multitask.common.shell import run_script

SEED = 0
MODELS = ("model-0", "model-1")
INPUTS = ("same", "first differs", "last differs", "fewer", "more")
OUTPUTS = ("out.jsonl", "out.csv", "out.conll", "out.parquet", "out.labelstudio.json")
VECTORS = "out.npy"


class Request(NamedTuple):
    """What a command asks for."""

    source: str
    model: str
    output: str
    embeddings: bool
    spreadsheet: bool

    def words(self, *more: str) -> list[str]:
        """The command line of task_5.py, in the folder of a trial."""
        files = ["--input", f"../{self.source}.jsonl", "--model", f"../{self.model}", "--output", self.output]
        options = ["--embeddings", VECTORS] * self.embeddings
        options += ["--spreadsheet"] * (self.spreadsheet and self.output.endswith(".csv"))
        return ["predict", "--device", "cpu", *files, *options, *more]

    def files(self, folder: Path) -> dict[str, bytes | None]:
        """The content of its output files in a folder; None for one that is missing."""
        names = [self.output, VECTORS] if self.embeddings else [self.output]
        return {n: (folder / n).read_bytes() if (folder / n).exists() else None for n in names}


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill predictions, change what is asked for, and resume.")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--rows", type=int, default=12, help="of an input")
    parser.add_argument("--backbone", metavar="FOLDER", help="encoder (default: the installed one)")
    arguments = parse(parser)
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as scratch:
        results = sweep(Path(scratch), arguments)
    print(table({"crash_predict": {"results": results}}))
    finish({**provenance([SEED], 1, ("torch", "numpy")), "results": results}, arguments.output)
    if results["wrong"]:
        sys.exit(1)


def table(results: dict[str, dict]) -> str:
    """How the trials ended."""
    result = results["crash_predict"]["results"]
    head = ["trials", "kills", "the right files", "refused", "wrong"]
    keys = ("trials", "kills", "right", "refused", "wrong")
    return markdown([head, [str(result[key]) for key in keys]], left=0)


def sweep(scratch: Path, arguments: argparse.Namespace) -> dict:
    """Make inputs and models, and run all trials → their counts."""
    import task_5  # noqa: F401 - before the forks, so that it is imported once
    from multitask.data.texts import read_rows  # noqa: F401
    from multitask.inference import batch_predict, resumable_output, torch_runner  # noqa: F401

    write_inputs(scratch, arguments.rows)
    for seed, name in enumerate(MODELS):
        made = call_in_fork(partial(make_model, scratch / name, seed, arguments.backbone))
        if made.status:
            raise RuntimeError(f"no model could be made: {made.message}")

    @cache
    def expected(request: Request) -> dict[str, bytes | None]:
        folder = scratch / "expected"
        folder.mkdir()
        ended = predict(folder, request.words(), None)
        if ended.status:
            raise RuntimeError(ended.message)
        files = request.files(folder)
        shutil.rmtree(folder)
        return files

    draw, counts, wrong, reasons = random.Random(SEED), Counter[str](), [], Counter[str]()
    started = time.monotonic()
    expected(Request(INPUTS[0], MODELS[0], OUTPUTS[0], False, False))
    seconds = time.monotonic() - started

    def kill() -> Kill:
        after, change = draw.uniform(0, seconds), draw.randint(1, 9 * arguments.rows + 20)
        return draw.choice((Kill(after, 0), Kill(0, change)))

    while counts["trials"] < arguments.trials:
        folder = scratch / "trial"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        outcome, reason, kills = trial(draw, folder, kill, expected)
        if not outcome:
            continue  # the first run ended before its kill
        counts.update({"trials": 1, outcome: 1, "kills": kills})
        if outcome != "right":
            (wrong.append if outcome == "wrong" else reasons.update)([reason])
        print(f"{counts['trials']}: {outcome}: {reason}", file=sys.stderr)
    names = ("trials", "kills", "right", "refused", "wrong")
    results = {name: counts[name] for name in names}
    return {**results, "refusals": dict(reasons.most_common()), "failures": wrong}


def trial(
    draw: random.Random, folder: Path, kill: Callable[[], Kill], expected: Callable[[Request], dict]
) -> tuple[str, str, int]:
    """One trial → "right", "refused" or "wrong" ("" if the first run was not killed), why, and the kills."""
    asked = Request(INPUTS[0], MODELS[0], draw.choice(OUTPUTS), draw.random() < 0.5, draw.random() < 0.5)
    if draw.random() < 0.5:
        predict(folder, changed(draw, asked).words(), None)
    if predict(folder, asked.words(), kill()).status != -signal.SIGKILL:
        return "", "", 0
    kills, what = 1, []
    if draw.random() < 0.6:
        asked = changed(draw, asked)
    if draw.random() < 0.4:
        what.append(damage(draw, folder))
    while draw.random() < 0.5:
        kills += predict(folder, asked.words("--resume"), kill()).status == -signal.SIGKILL
    before = asked.files(folder)
    ended = predict(folder, asked.words("--resume"), None)
    story = f"{' '.join(asked.words('--resume'))}; {' '.join(what)}; {ended.status}: {ended.message}"
    if ended.status == 0:
        return ("right" if asked.files(folder) == expected(asked) else "wrong"), story, kills
    if ended.status != 2 or asked.files(folder) != before:
        return "wrong", story, kills
    again = predict(folder, asked.words(), None)
    if again.status or asked.files(folder) != expected(asked):
        return "wrong", f"{story}; without --resume: {again.message}", kills
    return "refused", ended.message.split("; without")[0].split(": ", 2)[-1], kills


def changed(draw: random.Random, asked: Request) -> Request:
    """The request with one thing changed."""
    change = draw.choice(("source", "source", "model", "embeddings", "spreadsheet"))
    if change == "source":
        return asked._replace(source=draw.choice(INPUTS[1:]))
    if change == "model":
        return asked._replace(model=MODELS[1])
    return asked._replace(**{change: not getattr(asked, change)})


def damage(draw: random.Random, folder: Path) -> str:
    """Remove or cut off a file of an output, or edit a finished one → what was done."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix != ".lock")
    if not files:
        return "no file"
    path, kinds = draw.choice(files), ["remove", "cut"]
    kind = draw.choice([*kinds, "edit"] if path.name in (*OUTPUTS, VECTORS) else kinds)
    if kind == "remove":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        at = draw.randrange(len(content)) if content else 0
        if kind == "edit" and content:
            content[at] ^= 1
        path.write_bytes(content[:at] if kind == "cut" else content)
    return f"{kind} {path.name}"


def write_inputs(folder: Path, rows: int) -> None:
    """Write the input of INPUTS[0] and those that differ from it."""
    with open(ROOT / "corpus/test.jsonl", encoding="utf-8") as file:
        lines = file.readlines()
    base, others = lines[:rows], lines[rows:]
    contents = (base, [others[0], *base[1:]], [*base[:-1], others[0]], base[:-2], [*base, *others[:2]])
    for name, content in zip(INPUTS, contents):
        (folder / f"{name}.jsonl").write_text("".join(content), encoding="utf-8")


def make_model(folder: Path, seed: int, backbone: str | None) -> None:
    """Save a model of one layer with random heads, which find many entities."""
    import torch

    from model import MultiTaskTransformer
    from multitask.encoders.pretrained import bundled_folder

    source = Path(backbone) if backbone else bundled_folder()
    tags = ["O", "LOC", "ORG", "PERSON"]
    fields = {"classes": ["politics", "sports"], "id2label": dict(enumerate(tags)), "tag_scheme": "IO"}
    fields["label2id"] = {tag: number for number, tag in enumerate(tags)}
    torch.manual_seed(seed)
    model = MultiTaskTransformer.from_pretrained(
        source,
        num_hidden_layers=1,
        num_classes_task_a=2,
        max_length=64,
        stride=8,
        dtype=torch.float32,
        **fields,
    )
    for head in (model.classifier, model.sentence_classifier):
        torch.nn.init.normal_(head.weight, std=0.5)
    model.save_pretrained(folder)
    shutil.copy(source / "tokenizer.json", folder)


def predict(folder: Path, words: list[str], kill: Kill | None) -> Ended:
    """Run task_5.py in a fork, and kill it or wait for its end."""

    def work() -> None:
        import task_5
        from multitask.inference import batch_predict, resumable_output

        batch_predict.ROWS, resumable_output.NOTE_SECONDS = 1, -1
        os.chdir(folder)
        sys.argv = ["task_5.py", *words]
        run_script(task_5.main)

    return call_in_fork(work, kill)


if __name__ == "__main__":
    run_script(main)
