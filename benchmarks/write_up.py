"""Fill in the tables of README.md, task_3.md and docs/, and draw their pictures, from benchmarks/results/.

    python benchmarks/write_up.py [--check]

A table stands between the lines `<!-- table: NAME -->` and `<!-- end of table -->` of a page; its last line
names the commands that made it. Every table and picture registered below is made; if one fails, nothing is
written. --check writes nothing, lists what differs from the records, and exits with status 1 if anything
does."""

import argparse
import logging
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import (
    added_labels,
    attack,
    busy,
    cluster,
    crash_predict,
    distil,
    encoders,
    gpu,
    result_pictures,
    result_tables,
    study_pictures,
    study_tables,
    subwords,
    words,
)
from benchmarks.pictures import svg
from benchmarks.provenance import made_by
from benchmarks.records import Records
from multitask.common.atomic_files import atomic_file
from multitask.common.errors import InputError
from multitask.common.shell import run_script

logger = logging.getLogger("multitask.benchmarks")

# name → function(results) → Markdown. results["x"] is the record in benchmarks/results/x.json. The records
# that a function reads are named under its table, lettered in the order of reading
TABLES: dict[str, Callable[[dict[str, dict]], str]] = {
    "scores": result_tables.scores,
    "words": words.table,
    "raw text": words.raw_table,
    "training speed": result_tables.training_speed,
    "time to a score": result_tables.time_to_score,
    "predictions": result_tables.predictions,
    "training on a GPU": lambda results: gpu.training_table(results["gpu"]),
    "a step on a GPU": lambda results: gpu.step_table(results["gpu"]),
    "predictions on a GPU": lambda results: gpu.prediction_table(results["gpu"]),
    "small batches": result_tables.batches,
    "beside a busy process": lambda results: busy.table(results["busy"]),
    "speedups": result_tables.speedups,
    "nearest sentences": result_tables.nearest_sentences,
    "serving": result_tables.serving,
    "attacks": lambda results: attack.table(results["attack"]),
    "large corpora": result_tables.scale,
    "kills": result_tables.crash,
    "killed predictions": crash_predict.table,
    "checkpoint": result_tables.checkpoint,
    "cluster": cluster.table,
    "a billion rows": cluster.billion_table,
    "what to freeze": study_tables.what_to_freeze,
    "what to freeze, corpus/": study_tables.freezing_corpus,
    "one model or two": study_tables.one_or_two,
    "scores by epochs": study_tables.by_epochs,
    "scores by epochs, today's defaults": partial(study_tables.by_epochs, study="epochs_default"),
    "one model or two, today's defaults": partial(study_tables.one_or_two, study="epochs_default"),
    "scores by epochs, corpus/": study_tables.corpus_by_epochs,
    "what one model and two cost": study_tables.costs,
    "weights of the losses": study_tables.weightings,
    "gradients": study_tables.cosines,
    "how much data": study_tables.curves,
    "poolings": study_tables.poolings,
    "encoders": lambda results: encoders.table(results["encoders"]["architectures"]),
    "subwords": lambda results: subwords.table(results["subwords"]),
    "tag heads": study_tables.tag_heads,
    "searches": study_tables.searches,
    "searched settings": study_tables.searched_settings,
    "searches, test": study_tables.searches_tested,
    "new class": added_labels.table,
    "texts to label": study_tables.texts_to_label,
    "texts to label, test": study_tables.texts_to_label_test,
    "planted errors": study_tables.planted_errors,
    "near duplicates": study_tables.near_duplicate_texts,
    "distillation": lambda results: distil.table(results["distil_snips"]),
}
PICTURES: dict[str, Callable[[dict[str, dict]], Any]] = {  # a file in pictures/ → function → Figure
    "speed.svg": result_pictures.speed,
    "freezing.svg": lambda results: study_pictures.score_against_time(study_tables.of(results, "freezing")),
    "learning_curves.svg": lambda results: study_pictures.learning_curves(study_tables.of(results, "joint")),
    "labelling_curves.svg": lambda results: study_pictures.labelling_curves(
        study_tables.of(results, "suggest_test")
    ),
}
PLACES = "README.md, task_3.md and docs/"
END = "<!-- end of table -->"
_BEGIN = re.compile(r"<!-- table: (.*) -->")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Make the tables and pictures of results from their records."
    )
    parser.add_argument("--check", action="store_true", help="only list what differs from the records")
    arguments = parser.parse_args()
    contents, stale = write_up(ROOT)
    if arguments.check:
        for place in stale:
            print(f"{place} differs from benchmarks/results")
        sys.exit(1 if stale else 0)
    for path, content in contents.items():
        if not path.exists() or path.read_bytes() != content:
            with atomic_file(path) as file:
                file.write(content)
            logger.info(f"{path.relative_to(ROOT)}: written")


def write_up(root: Path) -> tuple[dict[Path, bytes], list[str]]:
    """The new content of every page and picture, and the tables and pictures that differ from it now.

    Raises InputError for a table that is not registered, has no end or is in no page."""
    contents, stale, used = {}, [], set()
    texts = {page: (root / page).read_text(encoding="utf-8") for page in pages(root)}
    for page, text in texts.items():
        lines = []
        for place, name, old in parts(page, text):
            new = table(name, place, root) if name else old
            used.add(name)
            stale += [f"{place}: table {name}"] if new != old else []
            lines += new
        contents[root / page] = ("\n".join(lines) + "\n").encode()
    for name in sorted(TABLES.keys() - used):
        raise InputError(f"{PLACES}: no place for the table {name}: <!-- table: {name} -->")
    for name, draw in PICTURES.items():
        path = root / "pictures" / name
        links = {page: f"]({'../' * page.count('/')}pictures/{name})" for page in texts}
        if not any(links[page] in text for page, text in texts.items()):
            raise InputError(f"{PLACES}: no place for the picture: ![...](pictures/{name})")
        contents[path] = svg(draw, Records(root))
        stale += [f"pictures/{name}"] * (not path.exists() or path.read_bytes() != contents[path])
    return contents, stale


def pages(root: Path) -> list[str]:
    """README.md, task_3.md, and the pages of docs/ that have a table of results."""
    docs = sorted((root / "docs").glob("*.md"))
    with_tables = [path for path in docs if "<!-- table: " in path.read_text(encoding="utf-8")]
    return ["README.md", "task_3.md", *(f"docs/{path.name}" for path in with_tables)]


def parts(page: str, text: str) -> Iterator[tuple[str, str | None, list[str]]]:
    """Split a page, in order, into (file:line, name, lines) for a table and (file:line, None, lines) for the
    text around it, which includes the markers. Raises InputError for wrong markers."""
    begin, name = f"{page}:1", None  # of the part that is being read
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        place = f"{page}:{number}"
        opened = _BEGIN.fullmatch(line)
        if name and opened:
            raise InputError(f"{begin}: the table {name} has no end before {place}: {END}")
        if not name and line == END:
            raise InputError(f"{place}: an end of table without its beginning")
        if opened and opened[1] not in TABLES:
            raise InputError(f"{place}: there is no table {opened[1]}; there are {', '.join(TABLES)}")
        if opened:
            yield begin, None, [*lines, line]
            begin, name, lines = place, opened[1], []
        elif line == END:
            yield begin, name, lines
            begin, name, lines = place, None, [line]
        else:
            lines.append(line)
    if name:
        raise InputError(f"{begin}: the table {name} has no end: {END}")
    yield begin, None, lines


def table(name: str, place: str, root: Path) -> list[str]:
    """The lines of a table and the line that names its commands."""
    records = Records(root)
    try:
        text = TABLES[name](records)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    return [*text.splitlines(), "", made_by(list(records.values()))]


if __name__ == "__main__":
    run_script(main)
