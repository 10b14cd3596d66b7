"""A search with Optuna: it proposes settings and gives up runs that fall behind."""

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multitask.common.atomic_files import atomic_file
from multitask.common.errors import InputError
from multitask.config.help_text import render_config
from multitask.config.schema import Settings
from multitask.config.yaml_reader import format_scalar
from multitask.search.space import Choices, Range, start_values, with_values
from multitask.search.trials import COMPLETE, FAILED, PRUNED, Trial, best_trial, read_trials, write_trials

if TYPE_CHECKING:  # optional, and slow to import
    from optuna import Study
    from optuna.distributions import BaseDistribution

SEARCHES = Path("runs/search")
CONFIG = "config.yml"  # in the folder of a search: the settings of the best trial so far
START = "start.yml"  # the settings that the search began with
_MEDIAN_OF = 5  # dev scores of complete trials, at least, by which one is given up

AfterEpoch = Callable[[int, int, float], None]
"""(epoch, number of epochs, dev score): to be called after each epoch. Raises Pruned."""


class Pruned(Exception):
    """The run has fallen behind: give it up."""


def search_folder(output_dir: str | None) -> Path:
    """The folder of a search; for None a new one, named by the time."""
    return Path(output_dir) if output_dir else SEARCHES / time.strftime("%Y-%m-%d_%H-%M-%S")


class Search:
    """A search in a folder. It goes on from the trials that the folder holds.

    The first trial has the settings as they are. Then a tree of Parzen estimators (Bergstra et al. 2011)
    proposes others, and a run is given up if its dev score is below the median of earlier runs at the same
    share of the run, since learning rates depend on the share that is done. Proposals depend on the seed and
    on the trials before, and not on interruptions."""

    def __init__(
        self, folder: Path, settings: Settings, space: dict[str, Range | Choices], token_head: str | None
    ):
        if not space:
            raise InputError("--search: every setting that it tries is set on the command line")
        self.folder, self.settings, self.space, self.token_head = folder, settings, space, token_head
        folder.mkdir(parents=True, exist_ok=True)
        self.trials = read_trials(folder)
        self._check_start()

    def run(self, count: int, train: Callable[[Settings, AfterEpoch], float]) -> None:
        """Run trials until there are `count`; after each one the folder holds it, and the best settings.

        Raises InputError if the first trial fails, or if none is complete."""
        while len(self.trials) < count:
            trial = self._run_trial(train, count)
            if not self.trials and trial.state == FAILED:
                raise InputError(f"--search: the settings as they are can't be trained: {trial.reason}")
            self.trials.append(trial)
            write_trials(self.folder, self.trials)
            print(f"Trial {len(self.trials)}: {describe(trial)}", flush=True)
            if best_trial(self.trials) == len(self.trials) - 1:
                with atomic_file(self.folder / CONFIG) as file:
                    file.write(render_config(with_values(self.settings, trial.settings)).encode())

    def result(self) -> str:
        """What the search found, as text."""
        best = best_trial(self.trials)
        assert best is not None  # the first trial is complete
        trial, first = self.trials[best], self.trials[0]
        lines = [f"Best of {len(self.trials)} trials: trial {best + 1}, dev score {trial.score:.4f}"]
        lines[0] += f" (trial 1, the settings as they are: {first.score:.4f})"
        lines += [f"  {key}: {format_scalar(value)}" for key, value in trial.settings.items()]
        lines.append(f"To train it: python task_4.py --config {shlex.quote(str(self.folder / CONFIG))}")
        return "\n".join(lines)

    def _run_trial(self, train: Callable[[Settings, AfterEpoch], float], count: int) -> Trial:
        from optuna.trial import TrialState

        study = self._study()
        asked = study.ask(self._distributions())
        values = {key: self._rounded(key, value) for key, value in asked.params.items()}
        words = ", ".join(f"{key}={format_scalar(value)}" for key, value in values.items())
        print(f"Trial {len(self.trials) + 1} of {count}: {words}", flush=True)
        dev: dict[int, float] = {}

        def report(epoch: int, epochs: int, score: float) -> None:
            dev[epoch] = score
            if epoch < epochs and self._falls_behind(max(dev.values()), epoch / epochs):
                raise Pruned

        since, state, score, reason = time.perf_counter(), COMPLETE, None, None
        try:
            score = train(with_values(self.settings, values), report)
        except Pruned:
            state, score = PRUNED, max(dev.values())
        except InputError as error:  # such as a rate at which the loss becomes infinite
            state, reason = FAILED, str(error).splitlines()[0]
        study.tell(asked, score if state == COMPLETE else None, TrialState[_STATES[state]])
        return Trial(values, state, score, dev, round(time.perf_counter() - since, 3), reason)

    def _rounded(self, key: str, value: Any) -> Any:
        """A proposed number with three digits, which are enough to read and to repeat."""
        what = self.space[key]
        if not self.trials or not isinstance(what, Range) or not isinstance(value, float):
            return value
        return min(max(float(f"{value:.3g}"), what.low), what.high)

    def _study(self) -> "Study":
        """A study that knows the finished trials. It is made anew for every trial."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        seed = (self.settings.training.seed * 1_000_003 + len(self.trials)) % 2**32
        sampler = optuna.samplers.TPESampler(seed=seed)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for trial in self.trials:
            study.add_trial(
                optuna.trial.create_trial(
                    state=optuna.trial.TrialState[_STATES[trial.state]],
                    value=trial.score if trial.state == COMPLETE else None,
                    params=trial.settings,
                    distributions=self._distributions(),
                    intermediate_values=trial.dev_by_epoch,
                )
            )
        if not self.trials:
            study.enqueue_trial(start_values(self.settings, self.space, self.token_head))
        return study

    def _falls_behind(self, score: float, share: float) -> bool:
        """Whether a dev score is below the median of complete trials at the same share of a run (Golovin et
        al. 2017, §3.2.2). Theirs are on the lines between epochs, and known from the first epoch on: the
        score of a run of one epoch is not one of its beginning."""
        scores = []
        for trial in self.trials:
            epoch = share * trial.settings.get("training.num_epochs", self.settings.training.num_epochs)
            if trial.state == COMPLETE and epoch > min(trial.dev_by_epoch) - 1e-9:
                scores.append(np.interp(epoch, [*trial.dev_by_epoch], [*trial.dev_by_epoch.values()]))
        return len(scores) >= _MEDIAN_OF and bool(score < np.median(scores))

    def _distributions(self) -> "dict[str, BaseDistribution]":
        from optuna import distributions as d

        def distribution(what: Range | Choices) -> Any:
            if not isinstance(what, Range):
                return d.CategoricalDistribution(what)
            low, high, log = what
            whole = isinstance(low, int) and isinstance(high, int)
            return (
                d.IntDistribution(int(low), int(high)) if whole else d.FloatDistribution(low, high, log=log)
            )

        return {key: distribution(what) for key, what in self.space.items()}

    def _check_start(self) -> None:
        """Raises InputError if the folder holds something else, or a search with other settings."""
        text = "".join(f"# searched: {key} {what}\n" for key, what in self.space.items())
        text += render_config(self.settings)
        file = self.folder / START
        if file.exists():
            if file.read_text(encoding="utf-8") != text:
                raise InputError(f"{file}: this search began with other settings; use another output_dir")
            return
        if {*self.folder.iterdir()} - {*self.folder.glob(f".{START}.*")}:  # these a killed process left
            raise InputError(f"output_dir: {self.folder} is not empty; a search needs a new or empty folder")
        with atomic_file(file) as new:
            new.write(text.encode())


_STATES = {COMPLETE: "COMPLETE", PRUNED: "PRUNED", FAILED: "FAIL"}


def describe(trial: Trial) -> str:
    """A trial's outcome in words."""
    if trial.state == FAILED:
        return f"failed: {trial.reason}"
    done = "" if trial.state == COMPLETE else f", given up after epoch {max(trial.dev_by_epoch)}"
    return f"dev score {trial.score:.4f}{done}"
