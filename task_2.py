"""Both heads on a batch: python task_2.py [SENTENCE ...] [--config FILE]"""

from multitask.common.device import prepare_threads

if __name__ == "__main__":
    prepare_threads()  # before torch is imported

import argparse
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from model import MultiTaskTransformer
from multitask.common.device import choose_device
from multitask.common.shell import run_script
from multitask.config.loading import load_settings
from multitask.config.schema import ModelSettings
from multitask.data.batching import collate
from multitask.data.corpus import encode
from multitask.data.examples import example_from_text
from multitask.data.labels import LabelSpace
from multitask.encoders.pretrained import find_backbone, load_model, load_tokenizer
from multitask.plan.starting_model import choose_pooling, choose_token_head, choose_window, encoder_config

SAMPLES = ["Marit Solheim won the final in Oslo.", "Lawmakers voted to raise the retirement age."]


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Show the outputs of two untrained heads, and what each freezing choice trains."
    )
    parser.add_argument("sentences", nargs="*", metavar="SENTENCE", help="input (default: two samples)")
    parser.add_argument("--config", default="config.yml", metavar="FILE", help="settings file (config.yml)")
    arguments = parser.parse_args()
    settings = load_settings(arguments.config)
    device = choose_device(settings.device)
    m, defaults = settings.model, ModelSettings.model_validate({})
    backbone = find_backbone(m.backbone, m.offline_backbone, m.revision)
    config = encoder_config(m, backbone.folder)
    print(f"Using device: {device}")
    torch.manual_seed(settings.training.seed)
    model = load_model(
        MultiTaskTransformer,
        backbone.folder,
        new_heads=True,
        layers=m.keep_layers,
        num_classes_task_a=m.num_classes_task_a or defaults.num_classes_task_a,
        num_labels_task_b=m.num_labels_task_b or defaults.num_labels_task_b,
        pooling=choose_pooling(m, backbone.folder),
        token_head=choose_token_head(settings, config, kept=getattr(config, "tag_scheme", None) is not None),
    ).to(device)
    window = choose_window(m, backbone.folder)
    show_outputs(model, load_tokenizer(backbone.folder), arguments.sentences or SAMPLES, *window)
    show_freezing(model)


def show_outputs(
    model: MultiTaskTransformer, tokenizer: Tokenizer, sentences: list[str], max_length: int, stride: int
) -> None:
    """Print the shapes of the sentences' embeddings and of both heads' logits, all from one pass."""
    corpus = encode(
        list(map(example_from_text, sentences)), tokenizer, LabelSpace((), ()), max_length, stride
    )
    windows = np.arange(len(corpus.window_start))
    batch = {name: tensor.to(model.device) for name, tensor in collate(corpus, windows).items()}
    with torch.inference_mode():
        states = model.states(batch["input_ids"], batch["attention_mask"])
        embeddings = model.pool(states[-1], batch["attention_mask"])
        output = model.heads(states, batch["attention_mask"])
    if len(windows) > len(sentences):
        print(f"{len(sentences)} sentences in {len(windows)} windows of at most {max_length} tokens")
    print(f"Embedding shape: {embeddings.shape}")
    print(f"Sentence logits shape: {output.sentence_logits.shape}")
    print(f"Token logits shape: {output.token_logits.shape}")


def show_freezing(model: MultiTaskTransformer) -> None:
    """Print how many parameters remain trainable under each freezing choice."""
    total = sum(parameter.numel() for parameter in model.parameters())
    choices: dict[str, dict[str, Any]] = {
        "nothing": {},
        "lowest half of the layers": {"layers": model.config.num_hidden_layers // 2},
        "backbone": {"backbone": True},
        "task A head": {"task_a": True},
        "task B head": {"task_b": True},
        "backbone and task A head": {"backbone": True, "task_a": True},
        "backbone and task B head": {"backbone": True, "task_b": True},
        "everything": {"backbone": True, "task_a": True, "task_b": True},
    }
    print(f"Parameters: {total:,}\n  {'frozen':<26} {'trainable':>12}   share")
    for name, choice in choices.items():
        model.freeze(**choice)
        trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        print(f"  {name:<26} {trainable:>12,}  {trainable / total:7.2%}")


if __name__ == "__main__":
    run_script(main)
