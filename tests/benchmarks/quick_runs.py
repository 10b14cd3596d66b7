"""Imported by the process from which the studies of the tests fork their runs: reports have no pictures."""

from killing import make_quick

import benchmarks.study_run  # noqa: F401

make_quick(setattr)
