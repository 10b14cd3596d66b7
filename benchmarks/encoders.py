"""What an encoder costs: sentences a second and memory by architecture, with random weights.

    python benchmarks/encoders.py [--rounds 3] [--only NAME] [--output FILE.json]

Each architecture has the sizes of a published model and runs in processes of its own. Measured are a pass of
both heads, and a training step of everything (AdamW), on batches of 32 sentences of 16 tokens and of 4 texts
of 128, in float32. The last line is JSON."""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.provenance import finish, parse, provenance
from benchmarks.tables import markdown
from multitask.common.device import prepare_threads, usable_cpus
from multitask.common.errors import InputError
from multitask.common.shell import run_script

_BERT = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
_DEBERTA = {
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
}
# a published model → model_type and sizes; what is not named has transformers' default
ENCODERS = {
    "MiniLM-L6": (
        "bert",
        {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    ),
    "ELECTRA-small": ("electra", {}),
    "DistilBERT": ("distilbert", {}),
    "BERT-base": ("bert", _BERT),
    "RoBERTa-base": ("roberta", {**_BERT, "max_position_embeddings": 514, "type_vocab_size": 1}),
    "XLM-R-base": (
        "xlm-roberta",
        {**_BERT, "vocab_size": 250002, "max_position_embeddings": 514, "type_vocab_size": 1},
    ),
    "CamemBERT-base": (
        "camembert",
        {**_BERT, "vocab_size": 32005, "max_position_embeddings": 514, "type_vocab_size": 1},
    ),
    "ModernBERT-base": ("modernbert", {}),
    "EuroBERT-210m": ("eurobert", {}),
    "DeBERTa-v3-base": ("deberta-v2", {**_BERT, **_DEBERTA}),
}
SHAPES = {"16": (32, 16), "128": (4, 128)}  # batch, tokens
STEPS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what encoders cost.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=ENCODERS, help="one architecture")
    parser.add_argument("--measure", choices=ENCODERS, help=argparse.SUPPRESS)
    arguments = parse(parser)
    if arguments.measure:
        prepare_threads()  # before torch is imported
        print(json.dumps(measure(*ENCODERS[arguments.measure])))
        return
    names = [arguments.only] if arguments.only else list(ENCODERS)
    rounds: dict[str, list] = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name in names:
            rounds[name].append(run(name))
    record = {**provenance([0], usable_cpus(), ("torch", "transformers")), "architectures": rounds}
    print(table(rounds))
    finish(record, arguments.output)


def run(name: str) -> dict:
    """Measure an architecture in a new process."""
    command = [sys.executable, str(Path(__file__)), "--measure", name]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if ended.returncode:
        raise InputError(f"{name}: {ended.stderr.strip().splitlines()[-1]}")
    return json.loads(ended.stdout.splitlines()[-1])


def measure(kind: str, sizes: dict) -> dict:
    """Parameters, sentences a second of each shape, and the peak memory of prediction and of training."""
    import torch

    from model import MultiTaskTransformer
    from model_config import CONFIGS

    torch.manual_seed(0)
    config = CONFIGS[kind](**sizes, num_classes_task_a=3, num_labels_task_b=4)
    model = MultiTaskTransformer(config).eval()
    figures: dict = {"parameters": sum(weight.numel() for weight in model.parameters())}

    def loss(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        output = model(ids, mask)
        return output.sentence_logits.square().mean() + output.token_logits.square().mean()

    def step(ids: torch.Tensor, mask: torch.Tensor) -> None:
        loss(ids, mask).backward()
        optimizer.step()
        optimizer.zero_grad()

    for shape, (batch, tokens) in SHAPES.items():
        ids = torch.randint(5, 1000, (batch, tokens))
        with torch.inference_mode():
            figures[f"predict {shape}"] = batch / seconds_of(model, ids, torch.ones_like(ids))
    figures["predict_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-5, fused=True)
    for shape, (batch, tokens) in SHAPES.items():
        ids = torch.randint(5, 1000, (batch, tokens))
        figures[f"train {shape}"] = batch / seconds_of(step, ids, torch.ones_like(ids))
    figures["train_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return figures


def seconds_of(call, *arguments) -> float:
    """The median time of a call, after one that does not count."""
    times = []
    for _ in range(STEPS + 1):
        started = time.perf_counter()
        call(*arguments)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def table(rounds: dict[str, list[dict]]) -> str:
    """Medians over the rounds."""
    rows = [
        [
            "architecture",
            "parameters, million",
            "predict, 16 tokens",
            "128 tokens",
            "train, 16 tokens",
            "128 tokens",
            "MiB predicting",
            "MiB training",
        ]
    ]
    for name, runs in rounds.items():
        middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        speeds = [f"{middle[f'{what} {shape}']:,.1f}" for what in ("predict", "train") for shape in SHAPES]
        memory = [f"{middle[f'{what}_mib']:,.0f}" for what in ("predict", "train")]
        rows.append([name, f"{middle['parameters'] / 1e6:,.0f}", *speeds, *memory])
    return markdown(rows)


if __name__ == "__main__":
    run_script(main)
