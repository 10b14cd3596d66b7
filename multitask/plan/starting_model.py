"""The model that a run starts from, and what its heads need to stay what they are: pooling, windows, kind."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from model_config import MultiTaskFields
from multitask.common.errors import InputError, list_problems
from multitask.config.schema import ModelSettings, Settings, trained_tasks
from multitask.data.corpus import window_problem
from multitask.data.labels import TASKS, LabelSpace, labels_from_config
from multitask.encoders.pretrained import config_of, own_pooling
from multitask.encoders.validation import read_config

MAX_LENGTH, STRIDE = 128, 32  # of the windows of an encoder that names none


@dataclass(frozen=True)
class StartingModel:
    """An encoder's folder. `config` has the layers of `model.keep_layers`; `known` are the labels of its
    heads: none for an encoder without heads."""

    folder: Path
    config: MultiTaskFields
    known: LabelSpace

    @property
    def keeps_all_layers(self) -> bool:
        """Whether no layer is left out."""
        return self.config.num_hidden_layers == config_of(self.folder).num_hidden_layers

    def has_head(self, task: str) -> bool:
        """Whether the model has learned this task."""
        return bool(self.known.classes if task == "task_a" else self.known.types)


def read_starting_model(settings: Settings, folder: Path) -> StartingModel:
    """The model in a folder. Raises InputError if the settings ask for more than it has."""
    m, t = settings.model, settings.training
    config = encoder_config(m, folder)
    for name in ("gradient_cosine", "gradient_checkpointing"):
        if getattr(t, name) and not trains_encoder(m, config):
            raise InputError(
                f"model.freeze_layers is {m.freeze_layers}, all of the encoder: training.{name} needs an "
                "encoder that trains"
            )
    if not trains_encoder(m, config) and not any(trains_head(settings, task) for task in TASKS):
        raise InputError("nothing is left to train: all layers and the heads of the trained tasks are frozen")
    return StartingModel(folder, config, labels_from_config(config))


def encoder_config(m: ModelSettings, folder: Path) -> MultiTaskFields:
    """The configuration in a model folder.

    Raises InputError if the settings ask for more positions or layers than it has."""
    config = config_of(folder, m.keep_layers)
    positions, layers = config.num_positions, config.num_hidden_layers
    problems = []
    if m.max_length != "auto" and m.max_length > positions:
        problems.append(f"model.max_length is {m.max_length}, but the encoder has {positions} positions")
    if m.freeze_layers > layers:
        problems.append(f"model.freeze_layers is {m.freeze_layers}, but the encoder has {layers} layers")
    elif m.lora.rank and m.freeze_layers == layers:
        problems.append(
            f"model.freeze_layers is {layers}, all of the encoder: no layer is left for model.lora"
        )
    if m.attention not in ("auto", *config.family.attentions):
        problems.append(
            f"model.attention is {m.attention}, but transformers' {config.family.name} has only "
            f"{' and '.join(config.family.attentions)}: set model.attention to auto"
        )
    if problems:
        raise InputError(list_problems(problems))
    return config


def choose_pooling(m: ModelSettings, folder: Path) -> str:
    """The pooling that the settings ask for, or for auto that of the encoder in the folder."""
    return own_pooling(folder) if m.pooling == "auto" else m.pooling


def check_kept_layers(settings: Settings, start: StartingModel, kept: Collection[str]) -> None:
    """Raises InputError if a head that is kept can't read an encoder of fewer layers, or would not learn to.

    `kept`: the tasks whose head is the starting model's."""
    if start.keeps_all_layers:
        return
    for task in kept:
        if not trains_head(settings, task):
            raise InputError(
                f"model.keep_layers changes what {task} predicts, which is not trained: set it to null"
            )
        if task == "task_b" and start.config.token_head.startswith("convolution"):
            raise InputError(
                "model.keep_layers leaves out layers, but the starting model's token head reads all of them: "
                "set model.new_heads to task_b"
            )


def check_kept_pooling(m: ModelSettings, start: StartingModel) -> None:
    """Raises InputError if the settings ask for another pooling than that of a sentence head that is kept."""
    own = own_pooling(start.folder)
    if m.pooling not in ("auto", own):
        raise InputError(
            f"model.pooling is {m.pooling}, but the starting model's sentence head reads {own}, and its "
            "weights are kept: set model.pooling to auto"
        )


def choose_window(m: ModelSettings, folder: Path) -> tuple[int, int]:
    """The window's length and stride that the settings ask for, or for auto those of the model in the folder.
    Raises InputError if windows can't overlap by the stride."""
    fields = read_config(folder)
    own = {"max_length": min(MAX_LENGTH, config_of(folder).num_positions), "stride": STRIDE}
    if fields.get("classes") or fields.get("tag_scheme"):  # an encoder alone has no windows of its own
        own |= {name: fields[name] for name in own if name in fields}
    max_length = own["max_length"] if m.max_length == "auto" else m.max_length
    if m.stride == "auto":
        return max_length, max_length // 4 if window_problem(max_length, own["stride"]) else own["stride"]
    if problem := window_problem(max_length, m.stride):
        raise InputError(f"model.stride is {m.stride}; with model.max_length {max_length} {problem}")
    return max_length, m.stride


def check_kept_window(settings: Settings, start: StartingModel) -> None:
    """Raises InputError if the settings ask for other windows than those of a head that is kept without
    training: its predictions would change."""
    m = settings.model
    untrained = [task for task in TASKS if start.has_head(task) and not trains_head(settings, task)]
    own = choose_window(ModelSettings(), start.folder)
    problems = [
        f"{key} is {asked}, but {untrained[0]} is not trained, and the starting model's is {kept}: set {key} "
        f"to {kept}, or to auto"
        for key, asked, kept in (
            ("model.max_length", m.max_length, own[0]),
            ("model.stride", m.stride, own[1]),
        )
        if untrained and asked not in ("auto", kept)
    ]
    if problems:
        raise InputError(list_problems(problems))


def trains_encoder(m: ModelSettings, config: MultiTaskFields) -> bool:
    """Whether the settings train a part of the encoder."""
    return not m.freeze_backbone and m.freeze_layers < config.num_hidden_layers


def trains_head(settings: Settings, task: str) -> bool:
    """Whether the settings train the head of a task."""
    return task in trained_tasks(settings) and not getattr(settings.model, f"freeze_{task}")


def choose_token_head(settings: Settings, config: MultiTaskFields, kept: bool) -> str:
    """The kind of the token head; `kept`: it is that of the starting model, which has this configuration.

    For auto, a head that is trained anew is the one that measures best (docs/results.md). Raises InputError
    if the settings ask for another kind than that of a head that is kept."""
    m, asked = settings.model, settings.model.token_head
    if kept:
        own = getattr(config, "token_head", "linear")
        if asked not in ("auto", own):
            raise InputError(
                f"model.token_head is {asked}, but the starting model's token head is {own}, and its "
                "weights are kept: set model.token_head to auto"
            )
        return own
    if asked != "auto":
        return asked
    if "task_b" not in trained_tasks(settings):
        return "linear"
    return "convolution_crf" if m.freeze_backbone else "window_crf"
