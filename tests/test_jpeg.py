"""JPEG on a device, against the CPU's way; the CPU stands in for the GPU. test_gpu.py has the real thing."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

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
    decoded,
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
from vggsearch.model.torch_engine import jpeg, jpeg_decoders, squares
from vggsearch.model.torch_engine.jpeg import SquareDecoder
from vggsearch.model.torch_engine.jpeg_decoders import BatchDecoder, NvImageCodecDecoder, TorchvisionDecoder
from vggsearch.photos.jpeg_header import jpeg_header
from vggsearch.photos.perceptual_hash import perceptual_hash
from vggsearch.photos.resize import PAD_COLOUR
from vggsearch.photos.upright import UPRIGHT

CPU = torch.device("cpu")
every_resize = pytest.mark.parametrize("resize", RESIZES)


@every_resize
@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("size", [SMALL, TALL, LARGE, (501, 337)])
@pytest.mark.parametrize("kind", MAKE)
def test_a_square_is_the_cpus_within_tolerance(
    kind: str, size: tuple[int, int], subsampling: int, resize: str
) -> None:
    data = photo(kind, size, subsampling)
    assert_near(decoded(data, cpu(resize)), on_cpu(data, resize), TOLERANCE[kind])


def test_the_tolerance_tells_one_photo_and_one_resize_from_another() -> None:
    data = photo("smooth", SMALL)
    squash, crop = on_cpu(data, "squash"), on_cpu(data, "crop")
    other = on_cpu(encoded(picture(2, SMALL)), "squash")
    shifted = np.roll(squash, 1, axis=1)
    for wrong in (crop, other, shifted):
        assert np.abs(decoded(data).astype(int) - wrong).mean() > 2 * TOLERANCE["smooth"]


def test_every_resize_mode_has_the_function_of_its_name() -> None:
    names = dict(zip(RESIZES, RESIZES, strict=True))
    assert {name: function.__name__ for name, function in squares.RESIZE_BY_NAME.items()} == names


@every_resize
def test_a_picture_of_the_right_size_is_only_decoded(resize: str) -> None:
    data = photo("grain", (SIZE, SIZE))
    pixels = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
    assert (decoded(data, cpu(resize)) == pixels.permute(1, 2, 0).numpy()).all()


@pytest.mark.parametrize("orientation", [1, *UPRIGHT])
def test_each_orientation_turns_as_pillow_does(orientation: int) -> None:
    data = photo("smooth", SMALL)
    stored = Image.fromarray(decoded(data))
    upright = stored.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else stored
    assert (decoded(turned(data, orientation)) == np.asarray(upright)).all()


@every_resize
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(501, 337), (337, 501)])
def test_the_orientation_is_applied_once(size: tuple[int, int], orientation: int, resize: str) -> None:
    data = turned(photo("smooth", size), orientation)
    ours, theirs = decoded(data, cpu(resize)), on_cpu(data, resize)
    assert_near(ours, theirs, TOLERANCE["smooth"])
    around = [(pixels == PAD_COLOUR).all(axis=2) for pixels in (ours, theirs)]
    assert (around[0].all(axis=0) == around[1].all(axis=0)).all()
    assert (around[0].all(axis=1) == around[1].all(axis=1)).all()


@pytest.mark.parametrize("data", NOT_FOR_IT.values(), ids=NOT_FOR_IT)
def test_what_is_not_for_it_is_left_to_the_cpu(data: bytes) -> None:
    assert squared(data) is None


def test_a_strip_that_padding_leaves_nothing_of_is_padding() -> None:
    strip = photo("smooth", (32, 3000))
    assert (decoded(strip, cpu("pad", 32), 32) == PAD_COLOUR).all()
    assert (on_cpu(strip, "pad", 32) == PAD_COLOUR).all()


@every_resize
@pytest.mark.parametrize("data", FOR_IT.values(), ids=FOR_IT)
def test_other_kinds_of_jpeg_are_for_it(data: bytes, resize: str) -> None:
    assert_near(decoded(data, cpu(resize)), on_cpu(data, resize), TOLERANCE["smooth"])


@settings(max_examples=examples(300))
@given(st.data())
def test_a_damaged_file_is_decoded_or_left_to_the_cpu_and_nothing_else(draws: st.DataObject) -> None:
    data = bytearray(draws.draw(st.sampled_from([photo("smooth", (48, 40)), *NOT_FOR_IT.values()])))
    for place in draws.draw(st.lists(st.integers(0, 700), max_size=8)) if data else []:
        data[place % len(data)] = draws.draw(st.integers(0, 255))
    whole = photo("smooth", (50, 40))
    decoder = cpu(draws.draw(st.sampled_from(RESIZES)), 32)
    files = [whole, bytes(data), whole]
    found, is_decoded, _ = decoder.squares(files, [jpeg_header(each, 32) for each in files])
    assert found.shape == (3, 32, 32, 3)
    assert is_decoded[[0, 2]].all()
    assert (found[[0, 2]].numpy() == decoded(whole, decoder, 32)).all()


def test_a_batch_keeps_its_order_and_costs_no_file_for_another() -> None:
    files = [photo("smooth", SMALL), NOT_FOR_IT["CMYK"], photo("grain", TALL), turned(BASELINE, 6), b"", BASELINE]
    found, is_decoded, facts = cpu().squares(files, [jpeg_header(data, SIZE) for data in files])
    assert is_decoded.tolist() == [True, False, True, True, False, True]
    assert not facts().is_blank[is_decoded].any()
    for row in np.flatnonzero(is_decoded):
        assert (found[row].numpy() == decoded(files[row])).all()


def test_blank_squares_are_told() -> None:
    files = [encoded(Image.new("RGB", SMALL, colour)) for colour in ("black", "white")]
    files.insert(1, BASELINE)
    _, _, facts = cpu("pad").squares(files, [jpeg_header(data, SIZE) for data in files])
    assert facts().is_blank.tolist() == [True, False, True]


def test_the_perceptual_hashes_are_those_of_the_cpu_but_for_rounding() -> None:
    files = [photo("grain", SMALL), photo("smooth", TALL), BASELINE]
    found, _, facts = cpu().squares(files, [jpeg_header(data, SIZE) for data in files])
    for pixels, got in zip(found.numpy(), facts().perceptual_hash, strict=True):
        assert np.bitwise_count(got ^ np.frombuffer(perceptual_hash(pixels), np.uint8)).sum() <= 4


def test_no_files_are_no_squares() -> None:
    found, is_decoded, facts = cpu().squares([], [])
    assert (len(found), len(is_decoded), len(facts().is_blank), len(facts().perceptual_hash)) == (0, 0, 0, 0)


def test_a_batch_too_large_for_the_memory_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg, "PIXELS_ON_CPU", 2 * SMALL[0] * SMALL[1])
    decoder, batches = SquareDecoder(CPU, SIZE, "squash"), list[int]()
    decoder._decoders = [Counting(TorchvisionDecoder(CPU), batches.append)]
    files = [BASELINE, BASELINE, b"", BASELINE, photo("smooth", (1000, 800)), BASELINE]
    found, is_decoded, _ = decoder.squares(files, [jpeg_header(data, SIZE) for data in files])
    assert batches == [2, 1, 1, 1]
    assert is_decoded.tolist() == [bool(data) for data in files]
    assert (found[5].numpy() == decoded(BASELINE)).all()


@dataclass
class Counting:
    """A decoder that tells how many files each batch has."""

    decoder: BatchDecoder
    tell: Callable[[int], None]
    name: str = "counting"

    def decode(self, files: Sequence[bytes]) -> Sequence[Tensor | None]:
        self.tell(len(files))
        return self.decoder.decode(files)


@dataclass
class Failing:
    """A decoder that fails for some files, or for batches of more than so many."""

    bad: Sequence[bytes]
    most: int = 1000
    calls: list[int] = field(default_factory=list)
    name: str = "failing"

    def decode(self, files: Sequence[bytes]) -> Sequence[Tensor | None]:
        self.calls.append(len(files))
        if len(files) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if any(data in self.bad for data in files):
            raise RuntimeError("nvJPEG error")
        return TorchvisionDecoder(CPU).decode(files)


def test_a_file_that_fails_in_a_batch_is_found_by_halving() -> None:
    files = [encoded(picture(seed, (40, 30))) for seed in range(32)]
    decoder = Failing([files[13]])
    found = jpeg_decoders.decode_each(decoder, files)
    assert [row for row, pixels in enumerate(found) if pixels is None] == [13]
    assert len(decoder.calls) == 1 + 2 * 5
    for pixels, data in zip(found, files, strict=True):
        if pixels is not None:
            (expected,) = TorchvisionDecoder(CPU).decode([data])
            assert (pixels == expected).all()


def test_a_full_gpu_decodes_fewer_at_once() -> None:
    files = [encoded(picture(seed, (40, 30))) for seed in range(16)]
    decoder = Failing([], most=4)
    assert all(pixels is not None for pixels in jpeg_decoders.decode_each(decoder, files))
    assert decoder.calls == [16, 8, 4, 4, 8, 4, 4]


def test_pixels_of_another_size_than_the_header_says_are_not_taken() -> None:
    decoder = SquareDecoder(CPU, SIZE, "squash")
    headers = [jpeg_header(BASELINE, SIZE), jpeg_header(photo("smooth", (501, 375)), SIZE)]
    _, is_decoded, _ = decoder.squares([BASELINE, BASELINE], headers)
    assert is_decoded.tolist() == [True, False]


def test_a_mistake_is_no_reason_to_fall_back() -> None:
    with pytest.raises(KeyError):
        SquareDecoder(CPU, SIZE, "stretch")


def test_of_two_decoders_the_faster_is_taken_once_there_are_files(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(TorchvisionDecoder):
        name = "slow"

        def decode(self, files: Sequence[bytes]) -> list[Tensor]:
            for _ in range(20):
                pixels = super().decode(files)
            return pixels

    monkeypatch.setattr(jpeg_decoders, "DECODERS", {"slow": Slow, "torchvision": TorchvisionDecoder})
    decoder = SquareDecoder(CPU, SIZE, "squash")
    assert (decoded(photo("grain", SMALL), decoder) == decoded(photo("grain", SMALL))).all()
    assert decoder.name == "torchvision"
    assert SquareDecoder(CPU, SIZE, "squash", "slow").name == "slow"


def test_without_nvjpeg_it_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_compiled(*_: object) -> Tensor:
        raise RuntimeError("torchvision not compiled with nvJPEG support")

    monkeypatch.setattr(codecs, "decode_jpeg", not_compiled)
    with pytest.raises(OptionError, match=r"on the GPU \(torchvision not compiled with nvJPEG.*decode='cpu'"):
        SquareDecoder(CPU, SIZE, "squash")


def test_a_torchvision_without_the_decoder_is_told_like_one_without_nvjpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(codecs, "decode_jpeg")
    with pytest.raises(OptionError, match=r"no attribute 'decode_jpeg'.*decode='cpu'"):
        SquareDecoder(CPU, SIZE, "squash")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_at_once() -> None:
    with pytest.raises(OptionError, match=r"JPEG cannot be decoded on the GPU.*decode='cpu'"):
        SquareDecoder(torch.device("cuda"), SIZE, "squash")


class Repeating(TorchvisionDecoder):
    """A decoder that repeats chroma: blocks of 2 x 2 pixels have the colour of their first one."""

    def decode(self, files: Sequence[bytes]) -> list[Tensor]:
        whole = super().decode(files)
        return [pixels[::2, ::2].repeat_interleave(2, 0).repeat_interleave(2, 1) for pixels in whole]


def test_decoders_are_told_apart_by_what_they_do_to_chroma() -> None:
    assert jpeg_decoders.repeats_chroma(Repeating(CPU))
    assert not jpeg_decoders.repeats_chroma(TorchvisionDecoder(CPU))


def test_only_repeated_chroma_is_interpolated(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def make_squares(photos: object, orientations: object, samplings: object, *_: object) -> None:
        asked.append(samplings)

    files = [BASELINE, photo("smooth", SMALL, 0), FOR_IT["4:2:2"]]
    headers = [jpeg_header(data, SIZE) for data in files]
    monkeypatch.setattr(jpeg, "square_maker", lambda *_: make_squares)
    for kind in (TorchvisionDecoder, Repeating):
        monkeypatch.setattr(jpeg_decoders, "DECODERS", {"torchvision": kind})
        decoder = SquareDecoder(CPU, SIZE, "squash")
        monkeypatch.setattr(jpeg, "_has_size", lambda *_: True)
        decoder.squares(files, headers)
    assert asked == [[0x11] * 3, [0x22, 0x11, 0x21]]


class PretendedCodec(ModuleType):
    """What NvImageCodecDecoder uses of nvImageCodec 0.9, on the CPU; a file it cannot decode gives None."""

    class BackendKind:
        HW_GPU_ONLY, GPU_ONLY, HYBRID_CPU_GPU = "hardware", "gpu", "hybrid"

    class ColorSpec:
        SRGB = "RGB"

    @dataclass
    class Backend:
        kind: str

    @dataclass
    class DecodeParams:
        apply_exif_orientation: bool
        color_spec: str

    @dataclass
    class Decoder:
        device_id: int
        max_num_cpu_threads: int
        backends: "list[PretendedCodec.Backend]"
        options: str

        def decode(
            self, files: list[bytes], *, params: "PretendedCodec.DecodeParams", cuda_stream: int
        ) -> list[Tensor | None]:
            assert (params.apply_exif_orientation, params.color_spec) == (False, "RGB")
            assert "cpu" not in [backend.kind for backend in self.backends]
            return [None if data in NOT_FOR_IT.values() else self.pixels(data) for data in files]

        def pixels(self, data: bytes) -> Tensor:
            encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            return decode_jpeg(encoded, ImageReadMode.RGB).permute(1, 2, 0).contiguous()  # type: ignore[no-any-return]


@pytest.fixture
def nvimagecodec(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Stream:
        cuda_stream: int = 0

    nvidia, codec = ModuleType("nvidia"), PretendedCodec("nvidia.nvimgcodec")
    monkeypatch.setattr(nvidia, "nvimgcodec", codec, raising=False)
    monkeypatch.setitem(sys.modules, "nvidia", nvidia)
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", codec)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Stream())


def test_nvimagecodec_is_used_if_it_is_installed(nvimagecodec: None) -> None:
    assert [each.name for each in jpeg_decoders.working_decoders(CPU, "auto")] == ["torchvision", "nvimagecodec"]
    decoder = SquareDecoder(CPU, SIZE, "squash", "nvimagecodec")
    assert (decoded(turned(BASELINE, 6), decoder) == decoded(turned(BASELINE, 6))).all()
    found = NvImageCodecDecoder(CPU).decode([BASELINE, NOT_FOR_IT["CMYK"], BASELINE])
    assert [pixels is None for pixels in found] == [False, True, False]


def test_a_decoder_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia", None)
    with pytest.raises(OptionError, match=r"on the GPU \(import of nvidia halted.*decode='cpu'"):
        SquareDecoder(CPU, SIZE, "squash", "nvimagecodec")
    assert SquareDecoder(CPU, SIZE, "squash").name == "torchvision"


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it repairs
def test_odd_files_come_out_as_on_the_cpu_or_are_left_to_it(shared_data: Path) -> None:
    paths = sorted(path for path in (shared_data / "odd").iterdir() if path.suffix in (".jpg", ".jpeg"))
    files = [path.read_bytes() for path in paths]
    found, is_decoded, _ = cpu().squares(files, [jpeg_header(data, SIZE) for data in files])
    taken = {paths[row].name: found[row].numpy() for row in np.flatnonzero(is_decoded)}
    assert {"made__restart.jpg", "made__exif6.jpg"} <= set(taken)
    assert {
        "made__progressive.jpg",
        "made__cmyk.jpg",
        "made__arithmetic.jpg",
        "made__truncated_50pct.jpg",
    }.isdisjoint(taken)
    for name, pixels in taken.items():
        data = (shared_data / "odd" / name).read_bytes()
        assert_near(pixels, on_cpu(data, "squash"), mean=1, largest=2 * LARGEST)


@pytest.mark.slow
@pytest.mark.network
def test_embeddings_hardly_differ(sample_photos: Path) -> None:
    files = [path.read_bytes() for path in sorted((sample_photos / "originals").iterdir())][:6]
    ours = np.stack([decoded(data) for data in files])
    theirs = np.stack([on_cpu(data, "squash") for data in files])
    spec, weights = EmbeddingOptions().resolve()
    engine = load_engine(spec, weights, EngineOptions("torch", "cpu", "fp32"))
    found, expected = engine.embed(ours), engine.embed(theirs)
    assert (found * expected).sum(axis=1).min() > 0.995
    assert (found @ expected.T).argmax(axis=1).tolist() == list(range(len(files)))
