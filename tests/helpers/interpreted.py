"""Run kernels of vggsearch.model.torch_engine.triton_kernels in Triton's interpreter, which needs no GPU.

`python -m tests.helpers.interpreted FILE` replaces the calls in FILE by their results. It is a process of its own,
because the interpreter is chosen when the kernels are imported.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

Call: TypeAlias = tuple[str, tuple[Any, ...]]  # a function of triton_kernels, and its arguments


def interpreted(calls: Sequence[Call], folder: Path) -> list[Tensor]:
    """Return the result of each call. `folder` is for the file with which the processes exchange tensors."""
    file = folder / "calls.pt"
    torch.save(list(calls), file)
    command = [sys.executable, "-m", "tests.helpers.interpreted", str(file)]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results: list[Tensor] = torch.load(file)
    return results


if __name__ == "__main__":
    from vggsearch.model.torch_engine import triton_kernels

    torch.save([getattr(triton_kernels, name)(*given) for name, given in torch.load(sys.argv[1])], sys.argv[1])
