import pytest

from multitask.common.errors import InputError, require_packages


def test_installed_packages_are_accepted():
    require_packages(["json", "numpy"], "export", "requirements-export.txt")


def test_missing_packages_are_named_in_one_line_with_the_command_that_installs_them():
    with pytest.raises(InputError) as error:
        require_packages(["no_such_one", "json", "no_such_two"], "export", "requirements-export.txt")
    assert str(error.value) == (
        "export needs no_such_one, no_such_two: pip install -r requirements-export.txt"
    )
