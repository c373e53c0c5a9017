"""Make squares by the kernels of square_kernels.py in Triton's interpreter, which needs no GPU.

`python -m tests.helpers.interpreted_squares FILE` replaces the photos in FILE by their squares. It is a process of
its own, because the interpreter is chosen when the kernels are imported.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor


def interpreted(
    photos: Sequence[Tensor],
    orientations: Sequence[int],
    samplings: Sequence[int],
    size: int,
    resize: str,
    folder: Path,
) -> Tensor:
    """The squares of photos, see SquareMaker. `folder` is for the file that the processes exchange."""
    file = folder / "photos.pt"
    torch.save((list(photos), list(orientations), list(samplings), size, resize), file)
    command = [sys.executable, "-m", "tests.helpers.interpreted_squares", str(file)]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    squares: Tensor = torch.load(file)
    return squares


def main(file: Path) -> None:
    from vggsearch.model.torch_engine import chroma_kernels, square_kernels
    from vggsearch.model.torch_engine.squares import TritonSquares

    # Few programs with much to do: the interpreter takes milliseconds for each.
    square_kernels.PIXELS, square_kernels.ROWS, square_kernels.LINES = 8192, 128, 32
    chroma_kernels.PIXELS = 8192
    photos, orientations, samplings, size, resize = torch.load(file)
    squares = torch.full((len(photos) + 1, size, size, 3), 7, dtype=torch.uint8)
    make_squares = TritonSquares(torch.device("cpu"), size, resize)
    slots = list(range(len(photos)))
    make_squares(photos, orientations, samplings, squares, slots[::-1])
    assert (squares[-1] == 7).all(), "a slot that no photo was meant for"
    torch.save(squares[slots[::-1]], file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
