"""The YAML header of a model card, from which the hub shows a model's tags and scores."""

from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from multitask.config.schema import Settings
from multitask.encoders.pretrained import BUNDLED, Backbone, config_of

Headline = dict[str, float | None]  # as `Scores.headline` gives it

_HUB_METRICS = {  # score → the hub's names of its task and metric, and a readable name
    "accuracy": ("text-classification", "accuracy", "Accuracy"),
    "macro_f1": ("text-classification", "f1", "Macro-F1"),
    "entity_f1": ("token-classification", "f1", "Entity F1"),
}


def hub_metadata(settings: Settings, backbone: Backbone, scores: dict[str, Headline | None]) -> ModelCardData:
    """A run's settings, encoder and scores ("dev" and "test") → the YAML header.

    It names no licence, which depends on the data and on the encoder."""
    results = _eval_results(settings, scores)
    return ModelCardData(
        library_name="transformers",
        # the hub offers to run a model by this tag, which transformers can do with a linear head only
        pipeline_tag="token-classification" if settings.model.token_head == "linear" else None,
        base_model=_hub_name(backbone),
        tags=[
            config_of(backbone.folder).model_type,
            "text-classification",
            "token-classification",
            "sentence-transformers",
        ],
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=f"{Path(encoder_name(backbone)).name}-multitask" if results else None,
        eval_results=results or None,
    )


def _eval_results(settings: Settings, scores: dict[str, Headline | None]) -> list[EvalResult]:
    """The scores on test, or on dev if there is no test, each under the hub's name of its task."""
    split = "test" if scores["test"] else "dev"
    files = ", ".join(Path(path).name for path in getattr(settings.data, split) or ())
    return [
        EvalResult(
            task_type=task,
            dataset_type="unknown",  # the hub's name for data that is not on it
            dataset_name=files,
            dataset_split=split,
            metric_type=metric,
            metric_name=name,
            metric_value=value,
        )
        for key, (task, metric, name) in _HUB_METRICS.items()
        if (value := (scores[split] or {}).get(key)) is not None
    ]


def encoder_name(backbone: Backbone) -> str:
    """The encoder's name on the hub, or that of its folder."""
    return _hub_name(backbone) or backbone.folder.resolve().name


def _hub_name(backbone: Backbone) -> str | None:
    """The encoder's name on the hub; None for a local folder."""
    if backbone.name == BUNDLED:
        return f"sentence-transformers/{BUNDLED}"
    return None if Path(backbone.name) == backbone.folder else backbone.name
