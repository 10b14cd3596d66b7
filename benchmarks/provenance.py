"""Provenance of a record of results: the command, seeds, versions and machine that made it.

Nothing here imports torch, see processes.py."""

import argparse
import json
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.processes import cpu
from multitask.common.atomic_files import atomic_file, check_writable

ROOT = Path(__file__).resolve().parent.parent
_ABSOLUTE_PATH = re.compile(r"(?<![^=,\[ ])/[^,\] ]+")  # also in key=[/a/b.jsonl, /a/c.jsonl]


def parse(parser: argparse.ArgumentParser, words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line (None: that of this process), with --output for the record.

    Raises InputError if the file cannot be written, before anything is measured."""
    parser.add_argument("--output", metavar="FILE.json", help="also write the last line to this file")
    arguments = parser.parse_args(words)
    if arguments.output:
        check_writable(arguments.output, ".json")
    return arguments


def provenance(seeds: Sequence[int] | None, threads: int | None, packages: Sequence[str]) -> dict:
    """The provenance of the running script, with which its record begins. seeds: [] if nothing is random;
    None if seeds or threads are not known."""
    name, flags = cpu()
    outputs = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--output", "--picture", "--keep"):  # output paths do not change the results
        outputs.add_argument(flag)
    _, words = outputs.parse_known_args(sys.argv[1:])
    return {
        "command": command(f"benchmarks/{Path(sys.argv[0]).name}", words),
        "seeds": None if seeds is None else list(seeds),
        "versions": {package: version(package) for package in packages},
        "python": platform.python_version(),
        "hardware": {"cpu": name, "flags": flags, "threads": threads},
    }


def gpu(device: str) -> dict[str, str]:
    """The name of a CUDA device, as a record has it; nothing for another device, or without CUDA. Asks
    another process."""
    if not device.startswith("cuda"):
        return {}
    code = f"import torch; print(torch.cuda.get_device_name({device!r}) if torch.cuda.is_available() else '')"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {"gpu": name} if (name := asked.stdout.strip()) else {}


def command(script: str, words: Sequence[str]) -> str:
    """The shell command `python script words`; paths outside the project are shortened to their end."""
    return " ".join(
        ["python", script, *(shlex.quote(_ABSOLUTE_PATH.sub(_shorten_path, word)) for word in words)]
    )


def _shorten_path(match: re.Match) -> str:
    """An absolute path → relative to the project; outside it, the last part, of a file with its folder."""
    path = Path(match[0])
    if path.is_relative_to(ROOT):
        return str(path.relative_to(ROOT))
    return str(Path(*path.parts[1:][-2 if path.suffix else -1 :]))


def finish(record: dict, output: str | None) -> None:
    """Print the record as the last line, and write it to the output file if there is one."""
    if output:
        with atomic_file(output) as file:
            file.write(f"{json.dumps(record, indent=1, ensure_ascii=False)}\n".encode())
    print(json.dumps(record))


def made_by(records: Sequence[dict]) -> str:
    """One line with the commands of these records, lettered if several, then the seeds, machine and versions
    that they share. What differs between them follows its command in brackets."""
    facts = [_facts(record) for record in records]
    shared = [
        [fact for fact in first if all(fact in other for other in others)] for first, *others in zip(*facts)
    ]
    commands = []
    for number, (record, groups) in enumerate(zip(records, facts)):
        own = [fact for group, common in zip(groups, shared) for fact in group if fact not in common]
        name = f"{letter(number)}: " if len(records) > 1 else ""
        commands.append(f"{name}`{record['command']}`" + (f" ({', '.join(own)})" if own else ""))
    return f"_Made by {'; '.join([', '.join(commands), *filter(None, map(', '.join, shared))])}._"


def letter(number: int) -> str:
    """The letter of a command under a table: 0 → A."""
    return chr(ord("A") + number)


def _facts(record: dict) -> list[list[str]]:
    """The known seeds, machine and versions in words, as three lists."""
    seeds, hardware = record["seeds"] or [], record["hardware"]
    listed = (
        f"{seeds[0]}–{seeds[-1]}"
        if seeds[2:] and seeds == [*range(seeds[0], seeds[-1] + 1)]
        else ", ".join(map(str, seeds))
    )
    name = re.sub(r"\((R|TM)\)| (Processor|CPU)\b| @", "", hardware["cpu"] or "")
    threads = hardware["threads"]
    return [
        [f"seed{'s' * (len(seeds) > 1)} {listed}"] * bool(seeds),
        [re.sub(r"(?<=\d)GHz", " GHz", name)] * bool(name)
        + [f"{threads} thread{'s' * (threads != 1)}"] * bool(threads)
        + ([record["gpu"]] if record.get("gpu") else []),
        [
            *(f"{package} {number}" for package, number in (record["versions"] or {}).items()),
            *([f"Python {record['python']}"] if record["python"] else []),
        ],
    ]
