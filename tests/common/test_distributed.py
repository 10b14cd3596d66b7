"""How several processes part; what they do together is tested with training and with predictions."""

from conftest import ROOT
from several import together


def test_a_wrapped_model_that_is_no_longer_used_keeps_no_thread(tmp_path):
    script = tmp_path / "wrapping.py"
    script.write_text(
        f"import gc, sys; sys.path.insert(0, {str(ROOT)!r}); import torch\n"
        "from multitask.common import distributed\n"
        "gc.disable()\n"  # else it is chance whether a cycle is there still
        "model = distributed.wrap_ddp(torch.nn.Linear(4, 4), distributed.init_processes('cpu'))\n"
        "model(torch.ones(2, 4)).sum().backward()\n"
        "del model\n"
    )
    together(tmp_path, script)
