"""How several processes communicate and end. Other modules test training and prediction with them."""

from conftest import ROOT
from several import together

HEAD = f"""
import gc, sys; sys.path.insert(0, {str(ROOT)!r})
import torch
from multitask.common import distributed
"""

COLLECTIVES = """
import numpy as np
distributed.init_processes("cpu")
rank = distributed.rank()
assert distributed.world_size() == 2
total = torch.tensor([1.0 + rank, 2.0])
assert distributed.all_reduce(total) is total and total.tolist() == [3, 4]
assert distributed.any_process([rank == 0, rank == 1, False]) == [True, True, False]
assert distributed.all_gather([rank]) == [[0], [1]]
assert distributed.scatter(["a", "b"] if rank == 0 else []) == "ab"[rank]
assert distributed.gather(rank) == (None if rank else [0, 1])
assert distributed.concatenate(np.full((1 + rank, 2), rank)).tolist() == [[0, 0], [1, 1], [1, 1]]
assert distributed.share_of_rows(5) == ((2, 5) if rank else (0, 2))
model = torch.nn.Linear(1, 1)
model.weight.data.fill_(rank), model.bias.data.fill_(rank)
distributed.broadcast_weights(model)
assert (model.weight.item(), model.bias.item()) == (0, 0)
"""


def test_two_processes_exchange_values(tmp_path):
    script = tmp_path / "exchanging.py"
    script.write_text(HEAD + COLLECTIVES)
    together(tmp_path, script)


def test_an_unused_ddp_model_leaves_no_thread_of_the_process_group(tmp_path):
    script = tmp_path / "wrapping.py"
    script.write_text(
        f"{HEAD}\ngc.disable()\n"  # else the reference cycle may be collected early
        "model = distributed.wrap_ddp(torch.nn.Linear(4, 4), distributed.init_processes('cpu'))\n"
        "model(torch.ones(2, 4)).sum().backward()\n"
        "del model\n"
    )
    together(tmp_path, script)
