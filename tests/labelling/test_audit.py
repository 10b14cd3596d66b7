"""task_5.py audit as the shell runs it."""

import errno
import json
import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT
from reading import read_corpus

import task_4
import task_5
from multitask.common import atomic_files
from multitask.data.readers import ReadResult
from multitask.labelling.audit import audit_settings
from multitask.labelling.folds import make_folds, predict_out_of_fold
from multitask.training.preparation import prepare

CLASS, DROPPED, RETYPED = 4, 9, 14  # rows with a wrong class, a missing entity and another type


def row_of(number: int, draw: random.Random) -> dict:
    """A sentence whose words say its class and its entities."""
    subject, place = draw.choice([("vote", "politics"), ("match", "sports")])
    filler = draw.choices("bcdefghjk", k=3)
    text = " ".join(["anna", subject, subject, subject, "in", "paris", *filler, str(number)])
    spans = [(0, 4, "PER"), (text.index("paris"), text.index("paris") + 5, "LOC")]
    return {
        "text": text,
        "label": place,
        "entities": [{"start": start, "end": end, "label": label} for start, end, label in spans],
    }


@pytest.fixture
def noisy(write_rows) -> str:
    """27 rows with three errors."""
    draw = random.Random(3)
    rows = [row_of(number, draw) for number in range(27)]
    rows[CLASS]["label"] = "sports" if rows[CLASS]["label"] == "politics" else "politics"
    del rows[DROPPED]["entities"][1]
    rows[RETYPED]["entities"][1]["label"] = "PER"
    return write_rows("noisy.jsonl", rows)


@pytest.fixture
def settings(tiny) -> list[str]:
    """Settings with which the tiny model learns these rows."""
    return [
        f"--config={ROOT / 'config.yml'}",
        f"model.backbone={tiny}",
        "model.max_length=32",
        "model.stride=8",
        "model.pooling=mean",
        "training.batch_size=4",
        "training.num_epochs=8",
        "training.head_learning_rate=3e-2",
        "device=cpu",
        "cache_dir=null",
    ]


@pytest.fixture
def frozen(tiny) -> list[str]:
    """Settings for tests in which nothing must be learned."""
    own = [f"--config={ROOT / 'config.yml'}", f"model.backbone={tiny}", "model.max_length=32"]
    return [*own, "model.stride=8", "training.num_epochs=1", "device=cpu", "cache_dir=null"]


def place(path: str, row: int) -> str:
    return f"{path}:{row + 1}"


def accepted(path, version: str) -> None:
    """A file of tasks, as Label Studio exports it after a person has accepted this version's prediction."""
    tasks = json.loads(path.read_text())
    for number, task in enumerate(tasks, 1):
        chosen = next(one for one in task["predictions"] if one["model_version"] == version)
        task |= {"id": number, "annotations": [{"result": chosen["result"]}]}
    path.write_text(json.dumps(tasks))


def annotation(read: ReadResult) -> dict:
    """Text → class and entities."""
    return {example.text: (example.label, example.entities) for example in read.examples}


def test_planted_errors_are_found_and_nothing_else(shell, noisy, settings, tmp_path):
    ended = shell(task_5, "audit", noisy, *settings, "--folds", 3, "--output", "o.jsonl")
    assert ended.status == 0, ended.err
    found = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text(encoding="utf-8").splitlines()]
    problems = {row["place"]: row["problems"] for row in found}
    label, other = (read_corpus([noisy]).examples[row].label for row in (CLASS, CLASS + 1))
    assert {label, other} <= {"politics", "sports"}
    right = {"politics": "sports", "sports": "politics"}[label]
    assert problems == {
        place(noisy, CLASS): [f"class {label} → {right}"],
        place(noisy, DROPPED): ["missing: no entity → [paris](LOC)"],
        place(noisy, RETYPED): ["type: [paris](PER) → [paris](LOC)"],
    }
    scores = [row["score"] for row in found]
    assert scores == sorted(scores) and scores[0] >= 0 and scores[-1] < 0.5
    for row in found:
        assert f"{row['score']:.3f}  {row['place']}  {row['problems'][0]}  | {row['text']}" in ended.out
    assert "1 of 27 classes look wrong" in ended.out and "2 places where entities look wrong" in ended.out
    given = annotation(read_corpus([noisy]))  # the rows are still as they were, to be corrected
    assert annotation(read_corpus(["o.jsonl"])).items() <= given.items()


@pytest.mark.parametrize("version", ["given", "suggested"])
def test_a_person_accepts_either_annotation_in_label_studio(shell, noisy, settings, tmp_path, version):
    ended = shell(task_5, "audit", noisy, *settings, "--folds", 3, "--output", "o.json")
    assert ended.status == 0, ended.err
    accepted(tmp_path / "o.json", version)
    draw = random.Random(3)
    clean = [row_of(number, draw) for number in range(27)]
    expected = annotation(read_corpus([noisy]))
    if version == "suggested":
        expected = {
            row["text"]: (row["label"], [(e["start"], e["end"], e["label"]) for e in row["entities"]])
            for row in clean
        }
    read = annotation(read_corpus(["o.json"]))
    assert len(read) == 3 and read.items() <= expected.items()


def test_duplicates_and_near_duplicates_are_named(shell, frozen, write_rows, tmp_path):
    one = [
        {"text": "anna won in paris", "label": "x", "entities": []},
        {"text": "the vote", "label": "x", "entities": []},
        {"text": "the vote", "label": "y", "entities": []},  # another class
        {"text": "a match , 7 ; b", "label": "y", "entities": [{"start": 0, "end": 1, "label": "T"}]},
    ]
    two = [
        {"text": "anna won in paris", "label": "x", "entities": []},
        {"text": "a match , 7 ; b", "label": "y", "entities": []},  # other entities
        {"text": "chip % # chip & *", "label": "y", "entities": []},
    ]
    a, b = write_rows("a.jsonl", one), write_rows("b.jsonl", two)
    ended = shell(task_5, "audit", a, b, *frozen, "--folds", 2, "--output", "o.jsonl")
    assert ended.status == 0, ended.err
    assert "1 pairs of equal texts have other classes" in ended.out
    assert f"{place(a, 1)} and {place(a, 2)}" in ended.out
    assert "1 pairs of equal texts have other entities" in ended.out
    assert f"{place(a, 3)} and {place(b, 1)}" in ended.out
    assert f"1.000  {place(b, 0)} and {place(a, 0)}" in ended.out
    found = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    problems = {row["place"]: row["problems"] for row in found}
    assert f"other classes than the same words at {place(a, 2)}" in problems[place(a, 1)]
    assert f"other entities than the same words at {place(a, 3)}" in problems[place(b, 1)]
    assert f"nearly the text of {place(a, 0)} (1.000)" in problems[place(b, 0)]
    assert "near duplicate" not in shell(task_5, "audit", a, *frozen, "--folds", 2).out  # of one file


def test_rows_that_lack_an_annotation_and_classes_of_one_text(shell, frozen, write_rows):
    rows = [{"text": f"anna won {n}", "label": "xy"[n % 2]} for n in range(6)]
    rows += [{"text": f"the match {n}", "entities": [{"start": 4, "end": 9, "label": "T"}]} for n in range(4)]
    rows += [{"text": "chip"}, {"text": "a vote", "label": "z"}]
    ended = shell(task_5, "audit", write_rows("a.jsonl", rows), *frozen, "--folds", 4)
    assert ended.status == 0, ended.err
    assert " of 7 classes look wrong" in ended.out and ", in 4 annotated rows" in ended.out
    assert "Classes of a single text, which can't be judged: z" in ended.out
    one = shell(task_5, "audit", "a.jsonl", *frozen, "--folds", 4, "training.task=task_a")
    assert one.status == 0 and "entities look wrong" not in one.out


def test_entities_that_are_not_audited_have_no_score(shell, frozen, write_rows, tmp_path):
    rows = [{"text": "anna won", "label": label, "entities": MARK} for label in "xxy"]
    words = ["audit", write_rows("a.jsonl", [*rows, *FEW]), *frozen, "--folds", 2, "training.task=task_a"]
    assert shell(task_5, *words, "--output", "o.json").status == 0
    content = (tmp_path / "o.json").read_text()
    tasks = json.loads(content, parse_constant=pytest.fail)  # NaN is no JSON
    results = [one["result"] for task in tasks for one in task["predictions"]]
    assert results and all(["score" in part for part in result] == [True, False] for result in results)


def test_a_model_that_may_know_the_rows_is_a_warning(shell, frozen, trained, write_rows):
    rows = [{"text": f"anna {n}", "label": ["politics", "sports"][n % 2]} for n in range(4)]
    own = (
        "model.new_heads=[task_a]",
        "training.task=task_a",
        f"model.backbone={trained}",
        "model.max_length=24",
    )
    ended = shell(task_5, "audit", write_rows("a.jsonl", rows), *frozen, *own, "model.stride=6", "--folds", 2)
    assert ended.status == 0, ended.err
    assert f"warning: {trained} has learned task_a: if from these files" in ended.err


MARK = [{"start": 0, "end": 4, "label": "T"}]
FEW = [{"text": f"anna {n}", "label": "xy"[n % 2], "entities": MARK} for n in range(3)]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            ["few.jsonl", "--folds", "5"],
            "few.jsonl: 3 texts annotated with a class are too few for 5 folds: --folds 3",
        ),
        (["few.jsonl", "--folds", "1"], "--folds is 1; it must be 2 or more"),
        (["none.jsonl"], "none.jsonl: no such file"),
        (["classes.jsonl"], "training.task=task_a"),
        (["texts.jsonl"], "no row of data.train has a label or an entity"),
        (["empty.jsonl"], "empty.jsonl"),
        (["few.jsonl", "data.train=x"], "data.train=x: the audit sets it; give the files to audit as FILE"),
        (["few.jsonl", "training.folds=3"], "training.folds=3: unknown key"),
        (["few.jsonl", "--output", "few.jsonl"], "few.jsonl: is read too; write to another file"),
        (["few.jsonl", "--output", "old.jsonl"], "old.jsonl: is there already, perhaps with corrections"),
        (["few.jsonl", "--output", "o.csv"], "o.csv: for --format jsonl the name ends in .jsonl"),
        (["few.jsonl", "--output", "none/o.jsonl"], "none/o.jsonl: there is no folder none"),
        (["bad.jsonl"], "bad.jsonl:2: "),
        (["few.jsonl", "model.backbone=none/none", "model.offline_backbone=null"], "none/none"),
    ],
)
def test_what_can_not_be_done_is_said_and_leaves_nothing(
    shell, frozen, write_rows, put, tmp_path, arguments, reason
):
    write_rows("few.jsonl", FEW), put("empty.jsonl", ""), put("old.jsonl", "corrected\n")
    write_rows("classes.jsonl", [{"text": row["text"], "label": row["label"]} for row in FEW])
    write_rows("texts.jsonl", [{"text": row["text"]} for row in FEW])
    put("bad.jsonl", json.dumps(FEW[0]) + '\n{"text": 7}\n')
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    ended = shell(task_5, "audit", arguments[0], *frozen, *arguments[1:])
    assert (ended.status, ended.out) == (2, ""), ended.err
    assert reason in ended.err and "error: " in ended.err and "Traceback" not in ended.err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("error", "where", "status", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "write", 1, "error: No space left on device: "),
        (KeyboardInterrupt(), "write", 130, "interrupted"),
        (KeyboardInterrupt(), "train", 130, "interrupted"),
    ],
)
def test_a_full_disk_and_ctrl_c_leave_no_file(
    shell, frozen, write_rows, tmp_path, monkeypatch, error, where, status, line
):
    disk = atomic_files.disk

    def end(*_):
        raise error

    def fail(kind, path, call, *arguments):
        return disk(kind, path, *((end,) if kind == "write" else (call, *arguments)))

    few = write_rows("few.jsonl", [*FEW, FEW[0] | {"label": "y"}])  # something to write
    if where == "write":
        monkeypatch.setattr(atomic_files, "disk", fail)
    else:
        monkeypatch.setattr(task_4, "train_step", end)
    ended = shell(task_5, "audit", few, *frozen, "--folds", 3, "--output", "o.jsonl")
    assert (ended.status, ended.out) == (status, ""), ended.err
    assert ended.err.splitlines()[-1].startswith(line)
    assert [path.name for path in tmp_path.iterdir()] == ["few.jsonl"]


def test_a_model_does_not_see_the_annotation_of_its_fold(frozen, write_rows):
    """Other classes and entities in fold 0 change the predictions of all folds but of fold 0."""
    rows = [row_of(number, random.Random(number)) for number in range(12)]
    settings = audit_settings([write_rows("a.jsonl", rows)], str(ROOT / "config.yml"), frozen[1:])
    prepared = prepare(settings)
    corpus = prepared.corpora["train"]
    folds = make_folds(prepared.splits["train"].arrays["row_hashes"], corpus, 3, 0)
    own = folds == 0
    own_words = np.repeat(own, np.diff(corpus.word_rows))
    changed = replace(
        corpus,
        row_classes=np.where(own, 1 - corpus.row_classes, corpus.row_classes).astype(np.int32),
        word_tags=np.where(own_words, 0, corpus.word_tags).astype(np.int32),
    )
    first, second = (
        predict_out_of_fold(
            settings, replace(prepared, corpora={"train": one}), folds, task_4.build, task_4.train, {}
        )
        for one in (corpus, changed)
    )
    for name, part in (("class_probabilities", own), ("type_probabilities", own_words)):
        before, after = getattr(first, name), getattr(second, name)
        assert np.array_equal(before[part], after[part]), name
        assert not np.array_equal(before[~part], after[~part]), name
        assert before.sum(1) == pytest.approx(1, abs=1e-5)


def test_folds_keep_equal_texts_together_and_spread_annotation():
    draw = np.random.default_rng(0)
    hashes = draw.integers(0, 90, 150).astype(np.uint64)
    classes = np.where(hashes % 3 == 0, -100, hashes % 4).astype(np.int32)
    corpus = SimpleNamespace(row_classes=classes, row_tagged=hashes % 5 == 0)
    folds = make_folds(hashes, corpus, 4, 7)
    texts = {text: {*folds[hashes == text]} for text in np.unique(hashes)}
    assert all(len(found) == 1 for found in texts.values())
    fold_of = {text: found.pop() for text, found in texts.items()}
    distinct = np.array([*fold_of])
    for kind in [*((distinct % 3 > 0) & (distinct % 4 == c) for c in range(4)), distinct % 5 == 0]:
        counts = np.bincount([fold_of[text] for text in distinct[kind]], minlength=4)
        assert counts.max() - counts.min() <= 2, counts
    assert not np.array_equal(folds, make_folds(hashes, corpus, 4, 8))
