import json

import numpy as np
import pytest

from multitask.common import atomic_files
from multitask.common.errors import InputError
from multitask.common.signals import StoppedBySignal
from multitask.data.rows import example_from_text
from multitask.data.texts import UnreadableRow
from multitask.inference import resumable_output
from multitask.inference.resumable_output import ResumableOutput

ROWS = [
    UnreadableRow("in.txt:3: why") if n == 3 else example_from_text(f"text number {n}") for n in range(10)
]
FACTS = {"model": "one", "format": ".csv"}


class Killed(BaseException):
    """The process is gone: nothing is done any more, and no file is written on."""


def chunks(rows):
    rows = list(rows)
    return [rows[at : at + 3] for at in range(0, len(rows), 3)]


def answer(rows):
    answers = "".join(f"{row.reason if isinstance(row, UnreadableRow) else row.text}\n" for row in rows)
    return answers.encode(), np.array([[len(getattr(row, "text", "")), 1] for row in rows], np.float32)


def run(folder, resume, rows=ROWS, facts=FACTS, vectors=True, stop=None):
    """Write all rows, a chunk at a time → whether there was anything to do."""
    file = ResumableOutput(folder / "out.csv", folder / "v.npy" if vectors else None, facts)
    left = iter(rows)
    if not resume:
        file.begin(b"head\n")
    elif not file.resume(b"head\n", left):
        return False
    with file:
        for number, chunk in enumerate(chunks(left)):
            if number == stop:
                raise StoppedBySignal(2)
            file.write(chunk, *answer(chunk))
    return True


def result(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["out.csv", "v.npy"]
    return (folder / "out.csv").read_bytes(), np.load(folder / "v.npy")


@pytest.fixture
def whole(tmp_path):
    (tmp_path / "whole").mkdir()
    run(tmp_path / "whole", resume=False)
    return result(tmp_path / "whole")


def test_what_is_written_is_the_head_and_all_rows(whole):
    answers, vectors = answer(ROWS)
    assert whole[0] == b"head\n" + answers
    assert (whole[1] == vectors).all()


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("seconds", [-1, 1e9])
def test_killed_at_any_change_of_the_disk_it_goes_on_and_ends_the_same(
    whole, tmp_path, monkeypatch, seconds, torn
):
    monkeypatch.setattr(resumable_output, "NOTE_SECONDS", seconds)
    disk, at, deaths = atomic_files.disk, 0, 0
    while True:
        at += 1
        calls = 0

        def dies(kind, path, call, *arguments, at=at):
            nonlocal calls
            calls += 1
            if calls >= at:
                if torn and kind == "write" and calls == at:
                    disk(kind, path, call, bytes(arguments[0])[: len(arguments[0]) // 2])
                raise Killed
            return disk(kind, path, call, *arguments)

        folder = tmp_path / f"at {at}"
        folder.mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(atomic_files, "disk", dies)
            try:
                run(folder, resume=False)
                break
            except Killed:
                deaths += 1
        run(folder, resume=True)
        for leftover in folder.glob(".*"):  # of atomic_file, whose own clean-up was killed
            leftover.unlink()
        found = result(folder)
        assert found[0] == whole[0], at
        assert (found[1] == whole[1]).all(), at
    assert deaths > 10


def test_killed_it_does_again_only_what_was_not_noted(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(resumable_output, "NOTE_SECONDS", -1)
    writes = ResumableOutput.write

    def dies(file, rows, *answers):
        if file.input.rows == 6:
            raise Killed
        writes(file, rows, *answers)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(ResumableOutput, "write", dies)
        run(tmp_path, resume=False)
    run(tmp_path, resume=True)
    assert "resumes after 6 rows" in capsys.readouterr().err


def test_what_is_noted_was_synced_before(tmp_path, monkeypatch):
    monkeypatch.setattr(resumable_output, "NOTE_SECONDS", -1)
    done, disk = [], atomic_files.disk

    def seen(kind, path, call, *arguments):
        done.append((kind, path.name))
        return disk(kind, path, call, *arguments)

    monkeypatch.setattr(atomic_files, "disk", seen)
    run(tmp_path, resume=False)
    notes = [at for at, call in enumerate(done) if call == ("rename", "out.csv.partial.json")]
    assert len(notes) == 1 + 4 + 1
    for note in notes:
        for name in ("out.csv.partial", "v.npy.partial"):
            synced = max(at for at in range(note) if done[at] == ("sync", name))
            assert ("write", name) not in done[synced:note]


def test_stopped_again_and_again_it_ends_the_same(whole, tmp_path):
    for stop in (0, 1, 2):
        with pytest.raises(StoppedBySignal, match="stopped by SIGINT after .* rows; .*out.csv.partial holds"):
            run(tmp_path / "again" if (tmp_path / "again").exists() else new(tmp_path), stop > 0, stop=stop)
    assert run(tmp_path / "again", resume=True)
    found = result(tmp_path / "again")
    assert found[0] == whole[0]
    assert (found[1] == whole[1]).all()
    assert not run(tmp_path / "again", resume=True), "finished: nothing to do"


def new(tmp_path):
    (tmp_path / "again").mkdir()
    return tmp_path / "again"


def test_until_the_end_there_is_no_file_of_that_name(tmp_path):
    (tmp_path / "out.csv").write_text("of another time")
    with pytest.raises(StoppedBySignal):
        run(tmp_path, resume=False, stop=2)
    assert (tmp_path / "out.csv").read_text() == "of another time"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"facts": {"model": "two", "format": ".jsonl"}}, "was written with another model and format"),
        (
            {"rows": [example_from_text("another"), *ROWS[1:]]},
            "its 6 rows are not the first rows of the input",
        ),
        ({"rows": ROWS[:5]}, "its 6 rows are not the first rows of the input"),
    ],
)
def test_it_does_not_go_on_with_anything_else(tmp_path, change, reason):
    with pytest.raises(StoppedBySignal):
        run(tmp_path, resume=False, stop=2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=reason):
        run(tmp_path, resume=True, **change)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize("name", ["out.csv.partial", "v.npy.partial"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_rows_that_are_gone_are_missed(tmp_path, name, damage):
    with pytest.raises(StoppedBySignal):
        run(tmp_path, resume=False, stop=2)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-1]) if damage == "cut" else path.unlink()
    with pytest.raises(InputError, match=f"{name}: is missing or cut off"):
        run(tmp_path, resume=True)


def test_a_note_that_is_none_is_refused(tmp_path):
    with pytest.raises(StoppedBySignal):
        run(tmp_path, resume=False, stop=2)
    note = tmp_path / "out.csv.partial.json"
    for content in (b"", b"[]", json.dumps({"rows": 3}).encode()):
        note.write_bytes(content)
        with pytest.raises(InputError, match="is damaged"):
            run(tmp_path, resume=True)


def test_started_without_resume_it_begins_anew_and_says_so(whole, tmp_path, capsys):
    with pytest.raises(StoppedBySignal):
        run(new(tmp_path), resume=False, stop=2)
    run(tmp_path / "again", resume=False)
    assert "starts over; --resume would have continued it" in capsys.readouterr().err
    assert result(tmp_path / "again")[0] == whole[0]


def test_two_processes_do_not_write_the_same_output(tmp_path):
    file = ResumableOutput(tmp_path / "out.csv", None, FACTS)
    file.begin(b"head\n")
    for resume in (False, True):
        with pytest.raises(InputError, match="out.csv.partial: another process writes it"):
            run(tmp_path, resume, vectors=False)
    with file:
        for chunk in chunks(ROWS):
            file.write(chunk, answer(chunk)[0], None)
    assert (tmp_path / "out.csv").read_bytes() == b"head\n" + answer(ROWS)[0]
    run(tmp_path, resume=False, vectors=False)
