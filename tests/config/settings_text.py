"""Loading settings from the text of a config.yml, for the tests of this folder."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from multitask.common.errors import InputError
from multitask.config.loading import load_settings
from multitask.config.schema import Settings


def load(text: str | bytes, *overrides: str) -> Settings:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "c.yml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_settings(path, overrides)


def refused(text: str | bytes, *overrides: str) -> str:
    """The message of the InputError that loading raises."""
    with pytest.raises(InputError) as error:
        load(text, *overrides)
    return re.sub(r"\S*/c\.yml", "c.yml", str(error.value))
