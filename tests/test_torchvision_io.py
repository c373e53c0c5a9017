import subprocess
import sys

import torchvision

from vggsearch.model.torch_engine.torchvision_io import torchvision_io

CODECS_ALONE = """
import io, sys
import torch
from PIL import Image
from vggsearch.model.torch_engine.torchvision_io import torchvision_io
codecs = torchvision_io()
print("torchvision" in sys.modules, "torch._dynamo" in sys.modules)
file = io.BytesIO()
Image.new("RGB", (40, 30), "red").save(file, "JPEG")
data = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
print([tuple(pixels.shape) for pixels in codecs.decode_jpeg([data, data], codecs.ImageReadMode.RGB)])
import torchvision
print(torchvision_io() is torchvision.io, torchvision.models.vgg16.__name__)
print(torchvision.ops.nms(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([1.0]), 0.5).tolist())
"""


def test_the_codecs_come_without_torchs_compiler_and_torchvision_can_be_imported_later() -> None:
    done = subprocess.run([sys.executable, "-c", CODECS_ALONE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["False False", "[(3, 30, 40), (3, 30, 40)]", "True vgg16", "[0]"]


def test_where_torchvision_is_imported_its_own_module_is_returned() -> None:
    assert torchvision_io() is torchvision.io
