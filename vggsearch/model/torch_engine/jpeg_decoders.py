"""JPEG decoders that decode a batch on a GPU: torchvision's, and nvImageCodec if it is installed."""

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from vggsearch.errors import OptionError, option
from vggsearch.model.torch_engine.torchvision_io import torchvision_io

TORCHVISION, NVIMAGECODEC = "torchvision", "nvimagecodec"


class BatchDecoder(Protocol):
    """A decoder for one GPU. `name` is one of DECODERS."""

    name: str

    def decode(self, files: Sequence[bytes]) -> Sequence[Tensor | None]:
        """Return the pixels of files as stored: uint8 (height, width, 3), RGB, with any strides, on the GPU.

        They are complete in the current stream. None is returned for a file that cannot be decoded; or RuntimeError
        is raised, which does not tell which file it was.
        """


class TorchvisionDecoder:
    """nvJPEG by torchvision, where it is deprecated."""

    name = TORCHVISION

    def __init__(self, gpu: torch.device) -> None:
        """Raise ImportError if torchvision is not installed."""
        self._gpu, self._io = gpu, torchvision_io()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given buffer is not writable")  # torch warns once per process
            torch.frombuffer(b"\0", dtype=torch.uint8)

    def decode(self, files: Sequence[bytes]) -> list[Tensor]:
        """See BatchDecoder."""
        encoded = [torch.frombuffer(data, dtype=torch.uint8) for data in files]
        pixels = self._io.decode_jpeg(encoded, self._io.ImageReadMode.RGB, self._gpu)
        return [each.permute(1, 2, 0) for each in pixels]


class NvImageCodecDecoder:
    """NVIDIA's nvImageCodec, without its decoders that run on the CPU: they accept damaged files."""

    name = NVIMAGECODEC

    def __init__(self, gpu: torch.device) -> None:
        """Raise ImportError if nvImageCodec is not installed."""
        from nvidia import nvimgcodec

        kinds = nvimgcodec.BackendKind
        backends = [nvimgcodec.Backend(kind) for kind in (kinds.HW_GPU_ONLY, kinds.GPU_ONLY, kinds.HYBRID_CPU_GPU)]
        self._gpu = gpu
        self._decoder = nvimgcodec.Decoder(
            device_id=gpu.index or 0, max_num_cpu_threads=THREADS, backends=backends, options=":fancy_upsampling=1"
        )
        self._parameters = nvimgcodec.DecodeParams(
            apply_exif_orientation=False, color_spec=nvimgcodec.ColorSpec.SRGB
        )

    def decode(self, files: Sequence[bytes]) -> list[Tensor | None]:
        """See BatchDecoder."""
        stream = torch.cuda.current_stream(self._gpu).cuda_stream
        images = self._decoder.decode(list(files), params=self._parameters, cuda_stream=stream)
        return [None if image is None else from_dlpack(image) for image in images]


ROUNDING = 2  # levels by which two pixels of the same chroma may differ in red minus blue
THREADS = 8  # that read the entropy codes of files that the hardware does not decode

DECODERS: dict[str, Callable[[torch.device], BatchDecoder]] = {
    TORCHVISION: TorchvisionDecoder,
    NVIMAGECODEC: NvImageCodecDecoder,
}


def working_decoders(gpu: torch.device, wanted: str) -> list[BatchDecoder]:
    """Return the decoders that decode a small file: the wanted one of DECODERS, or for "auto" all.

    Raises OptionError if there are none.
    """
    found, reasons = list[BatchDecoder](), list[str]()
    for name in DECODERS if wanted == "auto" else [wanted]:
        try:
            decoder = DECODERS[name](gpu)
            if all(pixels is not None for pixels in decoder.decode([_small_file()])):
                found.append(decoder)
        except (RuntimeError, AttributeError, ImportError) as error:
            reasons.append(str(error).partition("\n")[0])
    if not found:
        raise OptionError(
            f"JPEG cannot be decoded on the GPU ({reasons[0] if reasons else 'a test failed'}). Use ",
            option("decode", "cpu"),
            ".",
        )
    return found


def _small_file() -> bytes:
    """Return a file in 4:2:0 of 64 x 64 pixels, of which each 2 x 2 have a colour of their own, not too bright."""
    file, colours = io.BytesIO(), bytes(64 + 97 * number % 128 for number in range(32 * 32 * 3))
    image = Image.frombytes("RGB", (32, 32), colours).resize((64, 64), Image.Resampling.NEAREST)
    image.save(file, "JPEG", quality=95)
    return file.getvalue()


def repeats_chroma(decoder: BatchDecoder) -> bool:
    """Return whether the decoder gives four pixels of 4:2:0 the same chroma, instead of interpolating it."""
    (pixels,) = decoder.decode([_small_file()])
    assert pixels is not None  # noqa: S101 - working_decoders has decoded this file
    differences = (pixels[..., 0].int() - pixels[..., 2].int()).cpu().reshape(32, 2, 32, 2)  # only chroma is left
    spread = differences.amax(dim=(1, 3)) - differences.amin(dim=(1, 3))
    return bool(spread.float().median() <= ROUNDING)


def decode_each(decoder: BatchDecoder, files: Sequence[bytes]) -> list[Tensor | None]:
    """Return what `decoder` returns, None for the files for which it raises RuntimeError.

    A batch that fails is halved until the file is found. A batch too large for the memory of the GPU is, too.
    """
    try:
        return list(decoder.decode(files))
    except RuntimeError:
        if len(files) <= 1:
            return [None] * len(files)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()  # the decoder may still be writing to memory that it has given back
    middle = len(files) // 2
    return decode_each(decoder, files[:middle]) + decode_each(decoder, files[middle:])
