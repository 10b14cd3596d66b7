"""The records in benchmarks/results/."""

import json
from pathlib import Path

from multitask.common.errors import InputError

Results = dict[str, dict]  # records by name


class Records(Results):
    """NAME → benchmarks/results/NAME.json: loaded when first read, in that order. Raises InputError."""

    def __init__(self, root: Path):
        super().__init__()
        self.folder = root / "benchmarks" / "results"

    def __missing__(self, name: str) -> dict:
        try:
            self[name] = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"there is no benchmarks/results/{name}.json") from None
        except ValueError as error:
            raise InputError(f"benchmarks/results/{name}.json: not JSON: {error}") from None
        return self[name]
