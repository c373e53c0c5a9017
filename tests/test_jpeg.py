"""JPEG on a device, against the CPU's way; the CPU stands in for the GPU. test_gpu.py has the real thing."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import Barrier, get_ident

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision import io as codecs
from torchvision.io import ImageReadMode, decode_jpeg

from tests.fakes import picture
from tests.helpers.examples import examples
from tests.helpers.jpegs import (
    BASELINE,
    FOR_IT,
    LARGE,
    LARGEST,
    MAKE,
    NOT_FOR_IT,
    SIZE,
    SMALL,
    TALL,
    TOLERANCE,
    assert_near,
    cpu,
    encoded,
    on_cpu,
    photo,
    squared,
    turned,
)
from vggsearch.defaults import RESIZES
from vggsearch.errors import OptionError
from vggsearch.model.engine import EngineOptions
from vggsearch.model.loading import load_engine
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.model.torch_engine import jpeg
from vggsearch.model.torch_engine.jpeg import DeviceJpeg
from vggsearch.photos import resize as resizing
from vggsearch.photos.decode import UPRIGHT
from vggsearch.photos.resize import PAD_COLOUR

every_resize = pytest.mark.parametrize("resize", RESIZES)


@every_resize
@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("size", [SMALL, TALL, LARGE, (501, 337)])
@pytest.mark.parametrize("kind", MAKE)
def test_a_square_is_the_cpus_within_tolerance(
    kind: str, size: tuple[int, int], subsampling: int, resize: str
) -> None:
    data = photo(kind, size, subsampling)
    assert_near(squared(data, resize), on_cpu(data, resize), TOLERANCE[kind])


def test_the_tolerance_tells_one_photo_and_one_resize_from_another() -> None:
    data = photo("smooth", SMALL)
    squash, crop = on_cpu(data, "squash"), on_cpu(data, "crop")
    other = on_cpu(encoded(picture(2, SMALL)), "squash")
    shifted = np.roll(squash, 1, axis=1)
    for wrong in (crop, other, shifted):
        assert np.abs(squared(data).astype(int) - wrong).mean() > 2 * TOLERANCE["smooth"]


def test_every_resize_mode_has_the_function_of_its_name() -> None:
    names = dict(zip(RESIZES, RESIZES, strict=True))
    assert {name: function.__name__ for name, function in jpeg.RESIZE_BY_NAME.items()} == names


@every_resize
def test_a_picture_of_the_right_size_is_only_decoded(resize: str) -> None:
    data = photo("grain", (SIZE, SIZE))
    pixels = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
    assert (squared(data, resize) == pixels.permute(1, 2, 0).numpy()).all()


@every_resize
def test_the_square_belongs_to_the_caller(resize: str) -> None:
    pixels = squared(photo("smooth", SMALL), resize, orientation=6)
    assert pixels.shape == (SIZE, SIZE, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.owndata
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("orientation", [0, 1, *UPRIGHT, 9])
def test_each_orientation_turns_as_pillow_does(orientation: int) -> None:
    data = photo("smooth", SMALL)
    stored = Image.fromarray(squared(data))
    upright = stored.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else stored
    assert (squared(data, orientation=orientation) == np.asarray(upright)).all()


@every_resize
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(501, 337), (337, 501)])
def test_the_orientation_is_applied_once(size: tuple[int, int], orientation: int, resize: str) -> None:
    data = turned(photo("smooth", size), orientation)
    ours, theirs = squared(data, resize, orientation), on_cpu(data, resize)
    assert_near(ours, theirs, TOLERANCE["smooth"])
    around = [(pixels == PAD_COLOUR).all(axis=2) for pixels in (ours, theirs)]
    assert (around[0].all(axis=0) == around[1].all(axis=0)).all()
    assert (around[0].all(axis=1) == around[1].all(axis=1)).all()


@pytest.mark.parametrize("data", NOT_FOR_IT.values(), ids=NOT_FOR_IT)
def test_what_is_not_for_it_is_left_to_the_cpu(data: bytes) -> None:
    assert cpu().square(data, SIZE, "squash", 1) is None


def test_a_strip_that_padding_leaves_nothing_of_is_left_to_the_cpu() -> None:
    strip = photo("smooth", (32, 3000))
    assert cpu().square(strip, 32, "pad", 1) is None
    assert (on_cpu(strip, "pad", 32) == PAD_COLOUR).all()
    assert cpu().square(strip, 32, "squash", 1) is not None


@every_resize
@pytest.mark.parametrize("data", FOR_IT.values(), ids=FOR_IT)
def test_other_kinds_of_jpeg_are_for_it(data: bytes, resize: str) -> None:
    assert_near(squared(data, resize), on_cpu(data, resize), TOLERANCE["smooth"])


@settings(max_examples=examples(300))
@given(st.data())
def test_a_damaged_file_is_decoded_or_left_to_the_cpu_and_nothing_else(draws: st.DataObject) -> None:
    data = bytearray(draws.draw(st.sampled_from([photo("smooth", (48, 40)), *NOT_FOR_IT.values()])))
    for place in draws.draw(st.lists(st.integers(0, 700), max_size=8)) if data else []:
        data[place % len(data)] = draws.draw(st.integers(0, 255))
    pixels = cpu().square(bytes(data), 32, draws.draw(st.sampled_from(RESIZES)), draws.draw(st.integers(0, 9)))
    assert pixels is None or (pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8)


def test_threads_get_what_one_thread_gets() -> None:
    files = [encoded(picture(seed, (400 + seed, 300))) for seed in range(40)]
    expected = [squared(data, "crop", seed % 9) for seed, data in enumerate(files)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda seed: squared(files[seed], "crop", seed % 9), [*range(40)] * 3))
    for ours, theirs in zip(found, expected * 3, strict=True):
        assert (ours == theirs).all()


class CpuAsGpu:
    """A GPU made of CPU: counts streams, and notes in which one each thread decodes."""

    def __init__(self) -> None:
        self.streams = 0
        self.current: dict[int, int] = {}
        self.used: list[tuple[int, int]] = []

    def open_stream(self, device: torch.device) -> int:
        assert device.type == "cuda"
        self.streams += 1
        return self.streams

    def enter(self, stream: int) -> AbstractContextManager[None]:
        self.current[get_ident()] = stream
        return nullcontext()

    def decode(self, data: Tensor, mode: ImageReadMode, device: torch.device) -> Tensor:
        assert device.type == "cuda"
        self.used.append((get_ident(), self.current[get_ident()]))
        pixels: Tensor = decode_jpeg(data, mode)
        return pixels


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> CpuAsGpu:
    fake = CpuAsGpu()
    monkeypatch.setattr(torch.cuda, "Stream", fake.open_stream)
    monkeypatch.setattr(torch.cuda, "stream", fake.enter)
    monkeypatch.setattr(codecs, "decode_jpeg", fake.decode)
    return fake


def test_on_a_gpu_each_thread_decodes_in_one_stream_of_its_own(fake_gpu: CpuAsGpu) -> None:
    device = DeviceJpeg([torch.device("cuda")])
    together = Barrier(4)

    def work(_: int) -> None:
        together.wait()  # so that no thread takes two of the four
        for _ in range(3):
            assert_near(squared(BASELINE, device=device), on_cpu(BASELINE, "squash"), TOLERANCE["smooth"])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert len(fake_gpu.used) == 1 + 4 * 3
    assert len(set(fake_gpu.used)) == fake_gpu.streams == 1 + 4


def test_threads_are_spread_over_the_gpus() -> None:
    device, together = DeviceJpeg([torch.device("cpu", index) for index in (0, 1)]), Barrier(3)
    used = []

    def work(_: int) -> None:
        together.wait()
        for _ in range(2):
            with device._stream() as mine:
                used.append((get_ident(), mine.index))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    assert sorted(gpu for _, gpu in set(used)) == [0, 1, 1], "the first was used to try the decoder out"


def test_a_full_gpu_leaves_the_file_to_the_cpu(fake_gpu: CpuAsGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    device = DeviceJpeg([torch.device("cuda")])
    assert device.square(BASELINE, SIZE, "squash", 1) is not None
    monkeypatch.setattr(codecs, "decode_jpeg", no_memory)
    assert device.square(BASELINE, SIZE, "squash", 1) is None


def test_a_mistake_is_no_reason_to_fall_back() -> None:
    with pytest.raises(KeyError):
        cpu().square(BASELINE, SIZE, "stretch", 1)


def test_without_nvjpeg_it_says_so_at_once(fake_gpu: CpuAsGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_compiled(*_: object) -> Tensor:
        raise RuntimeError("torchvision not compiled with nvJPEG support")

    monkeypatch.setattr(codecs, "decode_jpeg", not_compiled)
    with pytest.raises(OptionError, match=r"on the GPU \(torchvision not compiled with nvJPEG.*decode='cpu'"):
        DeviceJpeg([torch.device("cuda")])


def test_a_torchvision_without_the_decoder_is_told_like_one_without_nvjpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(codecs, "decode_jpeg")
    with pytest.raises(OptionError, match=r"no attribute 'decode_jpeg'.*decode='cpu'"):
        DeviceJpeg([torch.device("cpu")])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_at_once() -> None:
    with pytest.raises(OptionError, match=r"JPEG cannot be decoded on the GPU.*decode='cpu'"):
        DeviceJpeg([torch.device("cuda")])


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it repairs
def test_odd_files_come_out_as_on_the_cpu_or_are_left_to_it(shared_data: Path) -> None:
    taken = {}
    for path in sorted((shared_data / "odd").iterdir()):
        pixels = cpu().square(path.read_bytes(), SIZE, "squash", 1)
        if pixels is not None:
            taken[path.name] = pixels
    assert {"made__progressive.jpg", "made__restart.jpg", "made__exif6.jpg"} <= set(taken)
    assert {"made__cmyk.jpg", "made__arithmetic.jpg", "made__truncated_50pct.jpg"}.isdisjoint(taken)
    for name, pixels in taken.items():
        stored = Image.open(shared_data / "odd" / name).convert("RGB")
        assert_near(pixels, resizing.square(stored, SIZE, "squash"), mean=1, largest=2 * LARGEST)


@pytest.mark.network
def test_embeddings_hardly_differ(sample_photos: Path) -> None:
    files = [path.read_bytes() for path in sorted((sample_photos / "originals").iterdir())][:6]
    ours = np.stack([squared(data) for data in files])
    theirs = np.stack([on_cpu(data, "squash") for data in files])
    spec, weights = EmbeddingOptions().resolve()
    engine = load_engine(spec, weights, EngineOptions("torch", "cpu", "fp32"))
    found, expected = engine.embed(ours), engine.embed(theirs)
    assert (found * expected).sum(axis=1).min() > 0.995
    assert (found @ expected.T).argmax(axis=1).tolist() == list(range(len(files)))
