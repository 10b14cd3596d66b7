"""A resumed output equals an uninterrupted one, wherever the first process ended."""

from contextlib import suppress
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from multitask.common import atomic_files
from multitask.common.errors import InputError
from multitask.common.signals import StoppedBySignal
from multitask.data.examples import example_from_text
from multitask.data.texts import UnreadableRow
from multitask.inference import resumable_output
from multitask.inference.resumable_output import ResumableOutput

ROWS = [example_from_text(f"text number {n}") for n in range(10)]
ROWS[3] = UnreadableRow("in.txt:3: why")
FACTS = {"model": "one", "format": ".csv"}
OTHER_INPUT = "its 6 rows are not the first rows of the input"


class Killed(BaseException):
    """Simulates kill -9: nothing more is written after it."""


def chunks(rows):
    rows = list(rows)
    return [rows[at : at + 3] for at in range(0, len(rows), 3)]


def render(rows):
    """The bytes and the embeddings that are written for rows."""
    texts = "".join(f"{row.reason if isinstance(row, UnreadableRow) else row.text}\n" for row in rows)
    return texts.encode(), np.array([[len(getattr(row, "text", "")), 1] for row in rows], np.float32)


def convert(lines, file):
    """A conversion in several writes."""
    for line in lines.read_bytes().splitlines(keepends=True):
        file.write(line.upper())
        file.flush()


def output_in(folder, vectors=True, facts=FACTS, convert=None):
    return ResumableOutput(folder / "out.csv", folder / "v.npy" if vectors else None, facts, convert)


def run(folder, resume, rows=ROWS, facts=FACTS, vectors=True, stop=None, convert=None):
    """Write all rows in chunks, or stop before chunk `stop` → whether there was anything to write."""
    folder.mkdir(exist_ok=True)
    output, rows = output_in(folder, vectors, facts, convert), iter(rows)
    if not resume:
        output.begin(b"head\n")
    elif not output.resume(b"head\n", rows):
        return False
    with output:
        for number, chunk in enumerate(chunks(rows)):
            if number == stop:
                raise StoppedBySignal(2)
            output.write(chunk, *render(chunk))
    return True


def assert_complete(folder, convert=None):
    assert sorted(path.name for path in folder.iterdir()) == [".out.csv.finished.json", "out.csv", "v.npy"]
    texts, vectors = render(ROWS)
    expected = b"head\n" + texts
    assert (folder / "out.csv").read_bytes() == (expected.upper() if convert else expected)
    assert (np.load(folder / "v.npy") == vectors).all()


@pytest.fixture
def stopped(tmp_path):
    """The folder of a run that a signal stopped after two chunks."""
    with pytest.raises(StoppedBySignal):
        run(tmp_path / "stopped", resume=False, stop=2)
    return tmp_path / "stopped"


def test_an_uninterrupted_run_writes_the_header_and_all_rows(tmp_path):
    run(tmp_path / "whole", resume=False)
    assert_complete(tmp_path / "whole")


@pytest.mark.parametrize("convert", [None, convert])
@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("seconds", [-1, 1e9])
def test_a_run_killed_at_any_change_of_the_disk_resumes(tmp_path, monkeypatch, seconds, torn, convert):
    monkeypatch.setattr(resumable_output, "NOTE_SECONDS", seconds)
    disk = atomic_files.disk
    for at in count(1):
        calls = count(1)

        def kill(kind, path, call, *arguments, at=at, calls=calls):
            number = next(calls)
            if number < at:
                return disk(kind, path, call, *arguments)
            if torn and kind == "write" and number == at:
                disk(kind, path, call, bytes(arguments[0])[: len(arguments[0]) // 2])
            raise Killed

        folder = tmp_path / f"at {at}"
        with monkeypatch.context() as patch, suppress(Killed):
            patch.setattr(atomic_files, "disk", kill)
            run(folder, resume=False, convert=convert)
            break
        run(folder, resume=True, convert=convert)
        for leftover in {*folder.glob(".*")} - {folder / ".out.csv.finished.json"}:
            leftover.unlink()  # of an atomic_file whose clean-up was killed
        assert_complete(folder, convert)
    assert at > 10


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("after", [False, True])
def test_a_run_killed_while_it_removes_its_partial_files_resumes(tmp_path, monkeypatch, number, after):
    unlink, calls = Path.unlink, count(1)

    def kill(path, **options):
        if path.exists() and next(calls) >= number:
            if after:
                unlink(path)
            raise Killed
        unlink(path, **options)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "unlink", kill)
        run(tmp_path / "killed", resume=False, convert=convert)
    run(tmp_path / "killed", resume=True, convert=convert)
    assert_complete(tmp_path / "killed", convert)


@pytest.mark.parametrize("error", [StoppedBySignal(15), OSError(28, "No space left on device")])
def test_a_conversion_that_is_stopped_is_repeated(tmp_path, error, capsys):
    def stopped(lines, file):
        file.write(b"half")
        raise error

    with pytest.raises(type(error)) as raised:
        run(tmp_path / "one", resume=False, convert=stopped)
    if isinstance(error, StoppedBySignal):
        assert "stopped by SIGTERM after 10 rows" in str(raised.value) and "--resume" in str(raised.value)
    else:
        assert "out.csv.partial holds the finished rows; add --resume" in capsys.readouterr().err
    assert not (tmp_path / "one" / "out.csv").exists()
    assert not run(tmp_path / "one", resume=True, convert=convert), "no row is predicted again"
    assert_complete(tmp_path / "one", convert)


def test_a_resumed_run_repeats_only_rows_without_a_note(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(resumable_output, "NOTE_SECONDS", -1)

    def kill(output, rows, *rendered, write=ResumableOutput.write):
        if output.input.rows == 6:
            raise Killed
        write(output, rows, *rendered)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(ResumableOutput, "write", kill)
        run(tmp_path, resume=False)
    run(tmp_path, resume=True)
    assert "resumes after 6 rows" in capsys.readouterr().err


def test_rows_are_synced_before_their_note(tmp_path, monkeypatch):
    monkeypatch.setattr(resumable_output, "NOTE_SECONDS", -1)
    changes, disk = [], atomic_files.disk

    def record(kind, path, call, *arguments):
        changes.append((kind, path.name))
        return disk(kind, path, call, *arguments)

    monkeypatch.setattr(atomic_files, "disk", record)
    run(tmp_path, resume=False)
    notes = [at for at, change in enumerate(changes) if change == ("rename", "out.csv.partial.json")]
    assert len(notes) == 2 + 1 + 4 + 2
    for note in notes[2:]:  # after the two of no rows
        for name in ("out.csv.partial", "v.npy.partial"):
            synced = max(at for at in range(note) if changes[at] == ("sync", name))
            assert ("write", name) not in changes[synced:note]


def test_a_run_that_is_stopped_several_times_resumes(tmp_path):
    for stop in (0, 1, 2):
        with pytest.raises(StoppedBySignal, match="stopped by SIGINT after .* rows; .*out.csv.partial holds"):
            run(tmp_path, resume=stop > 0, stop=stop)
    assert run(tmp_path, resume=True)
    assert_complete(tmp_path)
    assert not run(tmp_path, resume=True), "nothing is left to write"


def test_an_unfinished_run_leaves_an_earlier_file(tmp_path):
    (tmp_path / "out.csv").write_text("of an earlier run")
    with pytest.raises(StoppedBySignal):
        run(tmp_path, resume=False, stop=2)
    assert (tmp_path / "out.csv").read_text() == "of an earlier run"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"facts": {"model": "two", "format": ".jsonl"}}, "was written with another model and format"),
        ({"rows": [example_from_text("another"), *ROWS[1:]]}, OTHER_INPUT),
        ({"rows": [UnreadableRow("in.txt:1: why"), *ROWS[1:]]}, OTHER_INPUT),
        ({"rows": ROWS[:5]}, OTHER_INPUT),
    ],
)
def test_another_input_is_refused(stopped, change, reason):
    before = {path.name: path.read_bytes() for path in stopped.iterdir()}
    with pytest.raises(InputError, match=reason):
        run(stopped, resume=True, **change)
    assert before == {path.name: path.read_bytes() for path in stopped.iterdir()}


def test_another_wording_of_a_reason_is_the_same_input(stopped):
    assert run(stopped, resume=True, rows=[*ROWS[:3], UnreadableRow("in.txt:3: reworded"), *ROWS[4:]])
    assert_complete(stopped)


@pytest.mark.parametrize("name", ["out.csv.partial", "v.npy.partial"])
@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_lost_rows_are_noticed(stopped, name, damage):
    path = stopped / name
    path.write_bytes(path.read_bytes()[:-1]) if damage == "cut" else path.unlink()
    with pytest.raises(InputError, match=f"{name}: is missing or cut off"):
        run(stopped, resume=True)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"rows": 3}'])
def test_a_damaged_note_is_refused(stopped, content):
    (stopped / "out.csv.partial.json").write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        run(stopped, resume=True)


def test_a_run_without_resume_starts_over_with_a_warning(stopped, capsys):
    run(stopped, resume=False)
    assert "starts over; --resume would have continued it" in capsys.readouterr().err
    assert_complete(stopped)


def test_two_processes_can_not_write_the_same_output(tmp_path):
    output = ResumableOutput(tmp_path / "out.csv", None, FACTS)
    output.begin(b"head\n")
    for resume in (False, True):
        with pytest.raises(InputError, match="out.csv.partial: another process writes it"):
            run(tmp_path, resume, vectors=False)
    with output:
        for chunk in chunks(ROWS):
            output.write(chunk, render(chunk)[0], None)
    assert (tmp_path / "out.csv").read_bytes() == b"head\n" + render(ROWS)[0]
    run(tmp_path, resume=False, vectors=False)
