"""The end of a run: its best model is calibrated and scored, and everything is written into its folder."""

from model import MultiTaskTransformer
from multitask.common import distributed
from multitask.common.signals import StopSignals
from multitask.config.schema import Settings, trained_tasks
from multitask.evaluation.evaluate import evaluate_corpus
from multitask.evaluation.metrics import Scores
from multitask.evaluation.report import Report
from multitask.inference.runner import runner_of
from multitask.plan.calibration import calibrate
from multitask.training.preparation import Prepared
from multitask.training.progress import Progress
from multitask.training.run_folder import RunFolder


def finish(
    model: MultiTaskTransformer,
    prepared: Prepared,
    settings: Settings,
    folder: RunFolder | None,
    progress: Progress,
    stop: StopSignals,
) -> Scores | None:
    """Fit the best model's temperatures and thresholds on dev, score it on test, write all into its folder,
    and write the report, on test or else on dev → the test scores.

    All processes must call it; those without a folder get the weights of the first one's model."""
    distributed.broadcast_weights(model)
    corpora, tokenizer = prepared.corpora, prepared.tokenizer
    split = next((name for name in ("test", "dev") if name in corpora), None)
    runner, dev = runner_of(model), corpora.get("dev")
    predictor, calibration = calibrate(runner, tokenizer, dev, settings, prepared.heads)
    shown = None
    if split:
        files = getattr(settings.data, split)
        shown = evaluate_corpus(predictor, "", files, corpora[split], trained_tasks(settings))
    test = shown.scores if shown and split == "test" else None
    page = Report(folder.facts(progress), split, shown).page() if folder else b""
    with stop.deferred():
        if folder:
            folder.finish(model, progress.best_dev, test, calibration, page)
    return test
