"""The pages have the tables and pictures that write_up.py makes from the records."""

import re
import shutil

import pytest
from conftest import ROOT

from benchmarks import write_up

OTHER_TABLES = {  # first heads of the tables without results, and their page
    "file": "docs/data.md",
    "`model_type`": "docs/encoders.md",
    "key": "docs/training.md",
    "keys of a student": "docs/distillation.md",
    "file in the run folder": "docs/training.md",
    "`--format`": "docs/labelling.md",
    "column": "docs/cluster.md",
    "what happens": "docs/cluster.md",
    "tracker": "docs/training.md",
    "task": "README.md",
    "setting": "README.md",
    "settings": "docs/training.md",
    "place": "README.md",
    "what you see": "README.md",
    "you have": "task_3.md",
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the files that write_up.py reads and writes."""
    for folder in ("benchmarks/results", "pictures"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "docs").mkdir()
    for page in write_up.pages(ROOT):
        shutil.copy(ROOT / page, tmp_path / page)
    monkeypatch.setattr(write_up, "ROOT", tmp_path)
    return tmp_path


def test_every_table_and_picture_is_made_from_the_records():
    contents, stale = write_up.write_up(ROOT)
    assert stale == []
    assert {path: path.read_bytes() for path in contents} == contents


@pytest.mark.parametrize("page", write_up.pages(ROOT))
def test_no_table_of_results_is_written_by_hand(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = [line for _, name, part in write_up.parts(page, text) if not name for line in part]
    heads = [before for before, line in zip(lines, lines[1:]) if re.fullmatch(r"[|:\- ]*-\|[|:\- ]*", line)]
    assert {head.split("|")[1].strip(): page for head in heads}.items() <= OTHER_TABLES.items()


def test_what_differs_is_listed_and_written_and_nothing_else_changes(project, shell, monkeypatch):
    monkeypatch.setattr(write_up, "PICTURES", {"speed.svg": write_up.PICTURES["speed.svg"]})
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    page, picture = project / "docs/reliability.md", project / "pictures/speed.svg"
    record = project / "benchmarks/results/crash.json"
    record.write_bytes(record.read_bytes().replace(b'"resumed": 11', b'"resumed": 12'))
    picture.write_bytes(before[picture].replace(b"Sentence embeddings", b"Sentence embedding"))
    line = before[page].decode().splitlines().index("<!-- table: kills -->") + 1
    different = [f"docs/reliability.md:{line}: table kills", "pictures/speed.svg"]
    expected = "".join(f"{place} differs from benchmarks/results\n" for place in different)
    assert shell(write_up, "--check") == (1, expected, "")
    assert page.read_bytes() == before[page]
    written = shell(write_up)
    assert written == (0, "", "docs/reliability.md: written\npictures/speed.svg: written\n")
    old, new = (text.splitlines() for text in (before[page], page.read_bytes()))
    (changed,) = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    assert re.sub(" +", " ", changed[1].decode()) == "| transformers.Trainer | 16 | 12 | 11 |"
    assert {path for path in before if path.read_bytes() != before[path]} == {record, page}
    assert shell(write_up, "--check") == (0, "", "")


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("reliability", "table: kills -->", "table: kill -->", r"there is no table kill; there are .*kills"),
        ("reliability", "<!-- table: kills -->\n", "", r"an end of table without its beginning"),
        (
            "reliability",
            "<!-- end of table -->",
            "",
            r"the table kills has no end before docs/reliability\.md:\d+: ",
        ),
        ("results", "](../pictures/speed.svg)", "](pictures/speed.svg)", "no place for the picture: .*speed"),
    ],
)
def test_a_page_with_a_wrong_marker_is_not_written(project, shell, name, old, new, message):
    page = project / f"docs/{name}.md"
    page.write_text(page.read_text().replace(old, new, 1))
    (project / "benchmarks/results/scale.json").write_text(
        (project / "benchmarks/results/scale.json").read_text().replace("2216599", "9916599")
    )
    before = page.read_bytes()
    ended = shell(write_up)
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert re.match(rf"error: (docs/{name}\.md:\d+|README\.md, task_3\.md and docs/): {message}", ended.err)
    assert page.read_bytes() == before


def test_a_table_without_marker_end_or_record_is_an_error(project, shell):
    page = project / "task_3.md"
    text = page.read_text()
    page.write_text(text + "<!-- table: kills -->\n")
    line = len(text.splitlines()) + 1
    assert shell(write_up).err == f"error: task_3.md:{line}: the table kills has no end: {write_up.END}\n"
    page.write_text(text)
    (project / "benchmarks/results/crash.json").unlink()
    assert re.fullmatch(
        r"error: docs/reliability.md:\d+: there is no benchmarks/results/crash.json\n", shell(write_up).err
    )
    page = project / "docs/reliability.md"
    text = page.read_text()
    page.write_text(re.sub("<!-- table: kills -->.*?<!-- end of table -->", "", text, flags=re.DOTALL))
    assert "no place for the table kills: <!-- table: kills -->" in shell(write_up).err
