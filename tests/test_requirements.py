"""requirements*.txt name what is imported, and requirements*.lock hold all that they need, with hashes."""

import ast
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FILES = sorted(ROOT.glob("requirements*.txt"))
NAMES = [path.stem for path in FILES]
PRODUCT = [*ROOT.glob("*.py"), *(ROOT / "multitask").rglob("*.py")]
OTHERS = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]


def required(name: str) -> dict[str, Requirement]:
    """The requirements that a file names, also by -r."""
    found = {}
    for line in (ROOT / f"{name}.txt").read_text().splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("-r "):
            found |= required(line[3:].removesuffix(".txt"))
        elif line:
            requirement = Requirement(line)
            found[canonicalize_name(requirement.name)] = requirement
    return found


def locked(name: str) -> dict[str, list[tuple[Requirement, list[str]]]]:
    """The entries of a lock for each name: several for different systems, each with its hashes."""
    found: dict = {}
    text = re.sub(r"^#.*\n", "", (ROOT / f"{name}.lock").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    for line in text.splitlines():
        first, *hashes = line.split("--hash=")
        requirement = Requirement(first)
        found.setdefault(canonicalize_name(requirement.name), []).append((requirement, hashes))
    return found


def imported(paths) -> set[str]:
    """The distributions of all modules that are imported in files."""
    modules = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.split(".")[0])
    known = packages_distributions()
    return {canonicalize_name(known[name][0]) for name in modules - sys.stdlib_module_names if name in known}


def test_everything_that_is_imported_is_named():
    optional = {name for path in NAMES if path != "requirements-dev" for name in required(path)}
    assert imported(PRODUCT) <= optional
    assert imported(OTHERS) <= required("requirements-dev").keys()
    assert {"torch", "filelock", "gradio"} <= imported(PRODUCT)


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_pins_what_its_file_names(name):
    lock = locked(name)
    for package, requirement in required(name).items():
        assert [str(entry.specifier) for entry, _ in lock[package]] == [str(requirement.specifier)], package


@pytest.mark.parametrize("name", [*NAMES, "requirements-cuda", "requirements-cpu"])
def test_every_entry_of_a_lock_has_hashes_and_names_no_place(name):
    for package, entries in locked(name).items():
        for entry, hashes in entries:
            assert re.fullmatch(r"==[\w.+!]+", str(entry.specifier)), entry
            assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64} *", one) for one in hashes), package
    assert not re.search(r"://|^-", (ROOT / f"{name}.lock").read_text(), re.MULTILINE)


def test_all_locks_agree():
    """requirements-dev has most of the optional parts; what only one file needs is in its lock alone."""
    of_all = locked("requirements-dev") | locked("requirements-cuda")
    for name in NAMES:
        of_all = locked(name) | of_all
    cpu = locked("requirements-cpu")["torch"][0][1]
    for name in NAMES:
        for package, entries in locked(name).items():
            for entry, hashes in entries:
                same = [known for one, known in of_all[package] if one.specifier == entry.specifier]
                assert [sorted(map(str.strip, h)) for h in same] == [sorted(map(str.strip, hashes))], package
        assert cpu[0].strip() in [one.strip() for one in locked(name)["torch"][0][1]]


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_holds_all_that_its_packages_need_here(name):
    """With --require-hashes pip refuses a package that is not listed."""
    lock = locked(name)
    here = {package for package, entries in lock.items() if any(applies(entry) for entry, _ in entries)}
    wanted = [
        (package, extra) for package in required(name) for extra in ("", *required(name)[package].extras)
    ]
    seen = set()
    while wanted:
        package, extra = wanted.pop()
        if (package, extra) in seen:
            continue
        seen.add((package, extra))
        assert package in here, package
        try:
            needed = distribution(package).requires or []
        except PackageNotFoundError:
            continue  # for another system
        for requirement in map(Requirement, needed):
            if applies(requirement, extra):
                wanted += [(canonicalize_name(requirement.name), e) for e in ("", *requirement.extras)]


def applies(requirement: Requirement, extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def test_the_checks_of_a_change_install_by_hash():
    text = (ROOT / ".ci" / "run").read_text()
    assert "--require-hashes -r requirements-dev.lock" in text and "requirements-dev.txt" not in text
