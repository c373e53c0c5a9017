import hashlib
import json
import os
import pickle
import urllib.error
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vggsearch.defaults import EMBEDDING, RESIZES
from vggsearch.errors import OptionError, SpecMismatch, WeightsError
from vggsearch.model.layers import needed_modules
from vggsearch.model.poolings import POOLINGS
from vggsearch.model.spec import EmbeddingOptions, EmbeddingSpec, spec_from_json
from vggsearch.model.weights import (
    PACKAGED,
    PACKAGED_FILES,
    Kernel,
    WeightsFile,
    find_again,
    find_weights,
    load_weights,
)

PACKAGED_SHA256 = "44a1e7d7bd5ed81479c75aa4a772e74ef8f062b1cc6a15dd59a67860c52a11ec"
FORMATS = [".pth", ".safetensors"]
SPEC = EmbeddingSpec("vgg16", "pool4+pool5", "spoc", (192,), "squash", PACKAGED_SHA256)


class Bait:
    """Runs code where it is unpickled: makes a folder."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.trace),)


def random_tensors(model: str = "vgg16", layer: str = "pool1") -> dict[str, Tensor]:
    torch.manual_seed(0)
    shapes = {key: shape for module in needed_modules(model, layer) for key, shape in module.shapes.items()}
    return {key: torch.rand(shape) + 0.5 for key, shape in shapes.items()}


def save(tensors: Mapping[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(dict(tensors), path)
    else:
        torch.save(dict(tensors), path)
    return path


def load(path: Path, model: str = "vgg16", layer: str = "pool1") -> dict[str, Kernel]:
    return load_weights(find_weights(model, layer, path), model, layer)


def refusal(path: Path, model: str = "vgg16", layer: str = "pool1") -> str:
    """Return the message with which a file is refused, which always names it, in one line."""
    with pytest.raises(WeightsError) as refused:
        load(path, model, layer)
    message = str(refused.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def assert_equal(found: dict[str, Kernel], tensors: Mapping[str, Tensor]) -> None:
    assert list(found) == ["conv1_1", "conv1_2"]
    for kernel, key in zip(found.values(), ("features.0", "features.2"), strict=True):
        np.testing.assert_array_equal(kernel.weight, tensors[f"{key}.weight"].float().numpy())
        np.testing.assert_array_equal(kernel.bias, tensors[f"{key}.bias"].float().numpy())
        assert kernel.weight.dtype == kernel.bias.dtype == np.float32


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torchvision, on a machine without a network. Returns where its files lie."""

    def no_network(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    return tmp_path / "hub" / "checkpoints"


def test_the_packaged_file_is_the_one_that_was_measured() -> None:
    assert PACKAGED.stat().st_size == 29_431_816
    assert hashlib.sha256(PACKAGED.read_bytes()).hexdigest() == PACKAGED_SHA256


def test_every_packaged_file_holds_the_network_of_its_name() -> None:
    for model, path in PACKAGED_FILES.items():
        assert load_weights(find_weights(model, "pool5"), model, "pool5"), path


def test_the_packaged_weights_of_the_fast_network_are_small() -> None:
    assert PACKAGED_FILES[EMBEDDING.fast_model].stat().st_size < 20_000_000


def test_the_default_layer_is_served_by_the_package() -> None:
    assert find_weights(EMBEDDING.model, EMBEDDING.layer) == WeightsFile(PACKAGED, PACKAGED_SHA256)


@pytest.mark.network
def test_the_default_layer_loads_the_convolutions_and_nothing_else() -> None:
    found = load_weights(find_weights("vgg16", EMBEDDING.layer), "vgg16", EMBEDDING.layer)
    depths = enumerate((2, 2, 3, 3, 3), start=1)
    assert list(found) == [f"conv{block}_{number}" for block, depth in depths for number in range(1, depth + 1)]
    assert sum(kernel.weight.size + kernel.bias.size for kernel in found.values()) == 14_714_688
    assert all(kernel.weight.dtype == kernel.bias.dtype == np.float32 for kernel in found.values())


@pytest.mark.network
def test_a_shallow_layer_loads_only_the_kernels_up_to_it() -> None:
    assert list(load_weights(find_weights("vgg16", "pool1"), "vgg16", "pool1")) == ["conv1_1", "conv1_2"]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_named_file_gives_its_numbers_in_either_format(suffix: str, dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {key: tensor.to(dtype) for key, tensor in random_tensors().items()}
    assert_equal(load(save(tensors, tmp_path / f"weights{suffix}")), tensors)


def test_safetensors_are_known_by_their_bytes_and_not_by_their_name(tmp_path: Path) -> None:
    tensors = random_tensors()
    save(tensors, tmp_path / "weights.safetensors").rename(tmp_path / "weights.pth")
    assert_equal(load(tmp_path / "weights.pth"), tensors)


def test_a_pth_is_known_by_its_bytes_and_not_by_its_name(tmp_path: Path) -> None:
    tensors = random_tensors()
    save(tensors, tmp_path / "weights.pth").rename(tmp_path / "weights.safetensors")
    assert_equal(load(tmp_path / "weights.safetensors"), tensors)


def test_a_file_of_the_time_before_zip_archives_loads(tmp_path: Path) -> None:
    tensors = random_tensors()
    torch.save(tensors, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert_equal(load(tmp_path / "old.pth"), tensors)


def test_bfloat16_loads_from_pth_and_is_explained_for_safetensors(tmp_path: Path) -> None:
    tensors = {key: tensor.bfloat16() for key, tensor in random_tensors().items()}
    assert_equal(load(save(tensors, tmp_path / "short.pth")), tensors)
    message = refusal(save(tensors, tmp_path / "short.safetensors"))
    assert "BF16" in message
    assert "float16 or float32" in message


def test_trained_parameters_load_as_tensors_do(tmp_path: Path) -> None:
    tensors = random_tensors()
    save({key: torch.nn.Parameter(tensor) for key, tensor in tensors.items()}, tmp_path / "trained.pth")
    assert_equal(load(tmp_path / "trained.pth"), tensors)


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    path = save(random_tensors(), tmp_path / "weights.pth")
    assert find_weights("vgg16", "pool1", path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("missing", ["features.2.weight", "features.0.bias"])
def test_a_missing_tensor_is_named(suffix: str, missing: str, tmp_path: Path) -> None:
    tensors = random_tensors()
    del tensors[missing]
    message = refusal(save(tensors, tmp_path / f"weights{suffix}"))
    assert f"no tensor {missing}" in message
    assert "vgg16" in message


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_wrong_shape_is_named_with_both_shapes(suffix: str, tmp_path: Path) -> None:
    tensors = random_tensors() | {"features.2.weight": torch.zeros(64, 32, 3, 3)}
    message = refusal(save(tensors, tmp_path / f"weights{suffix}"))
    assert "features.2.weight has shape (64, 32, 3, 3), vgg16 needs (64, 64, 3, 3)" in message


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("key", ["features.2.weight", "features.0.bias"])
def test_one_number_that_is_not_finite_is_refused(suffix: str, number: float, key: str, tmp_path: Path) -> None:
    tensors = random_tensors()
    tensors[key].view(-1)[-1] = number
    message = refusal(save(tensors, tmp_path / f"weights{suffix}"))
    assert f"{key} contains NaN or infinity" in message


@pytest.mark.parametrize("name", ["weight", "bias", "running_mean", "running_var"])
def test_every_tensor_of_a_batch_normalisation_is_checked(name: str, tmp_path: Path) -> None:
    whole = random_tensors("vgg11_bn")
    assert list(load(save(whole, tmp_path / "whole.pth"), "vgg11_bn")) == ["conv1_1"]
    key = f"features.1.{name}"
    lacking = {kept: tensor for kept, tensor in whole.items() if kept != key}
    assert f"no tensor {key}" in refusal(save(lacking, tmp_path / "lacking.pth"), "vgg11_bn")
    broken = whole | {key: torch.full((64,), float("nan"))}
    assert f"{key} contains NaN" in refusal(save(broken, tmp_path / "broken.pth"), "vgg11_bn")
    other = whole | {key: torch.ones(32)}
    assert f"{key} has shape (32,), vgg11_bn needs (64,)" in refusal(
        save(other, tmp_path / "other.pth"), "vgg11_bn"
    )


def test_batch_normalisation_is_folded_as_worked_out_by_hand(tmp_path: Path) -> None:
    tensors = random_tensors("vgg11_bn")
    for name, value in {"weight": 6.0, "bias": 0.25, "running_mean": 0.5, "running_var": 9.0 - 1e-5}.items():
        tensors[f"features.1.{name}"] = torch.full((64,), value)
    kernel = load(save(tensors, tmp_path / "weights.pth"), "vgg11_bn")["conv1_1"]
    np.testing.assert_allclose(kernel.weight, 2 * tensors["features.0.weight"].numpy(), rtol=1e-6)
    np.testing.assert_allclose(kernel.bias, 2 * (tensors["features.0.bias"].numpy() - 0.5) + 0.25, rtol=1e-6)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    message = refusal(save(random_tensors("vgg16", "pool3"), tmp_path / "vgg16.pth"), "vgg11", "pool3")
    assert "features.3.weight, which vgg11 needs for conv2_1" in message


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_cut_short_anywhere_is_refused(suffix: str, tmp_path: Path) -> None:
    data = save(random_tensors(), tmp_path / f"whole{suffix}").read_bytes()
    cut = tmp_path / f"cut{suffix}"
    for length in [9, 100, 1000, *range(5000, len(data), len(data) // 20), len(data) - 1]:
        cut.write_bytes(data[:length])
        message = refusal(cut)
        assert "truncated" in message or "cannot be read" in message


@pytest.mark.parametrize("length", [0, 1, 8])
def test_a_pth_of_hardly_a_byte_is_refused(length: int, tmp_path: Path) -> None:
    whole = save(random_tensors(), tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[:length])
    assert "truncated" in refusal(tmp_path / "cut.pth")


@pytest.mark.parametrize("data", [b"", b"\x00", b"version https://git-lfs.github.com/spec/v1", b"<!DOCTYPE html>"])
def test_a_safetensors_that_is_none_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(data)
    refusal(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    ("header", "numbers"),
    [
        ("[]", 0),
        ("{" * 100_000, 0),
        ('{"features.0.weight": 3}', 0),
        ('{"features.0.weight": {}}', 0),
        ('{"features.0.weight": {"data_offsets": [0, 8], "shape": [2]}}', 8),
        ('{"features.0.weight": {"data_offsets": [0, 8], "dtype": "F32", "shape": [3]}}', 8),
        ('{"features.0.weight": {"data_offsets": [0, 7], "dtype": "F32", "shape": [2]}}', 7),
        ('{"features.0.weight": {"data_offsets": ["0", "8"], "dtype": "F32", "shape": [2]}}', 8),
        ('{"features.0.weight": {"data_offsets": [0, 8], "dtype": "F32", "shape": [2]}}', 9),
        ('{"other": {"data_offsets": [0, 8], "dtype": "F32", "shape": [2]}}', 4),
        ('{"features.0.weight": {"data_offsets": [8, 0], "dtype": "F32", "shape": [2]}}', 8),
        ('{"features.0.weight": {"data_offsets": [-8, 0], "dtype": "F32", "shape": [2]}}', 8),
        ('{"features.0.weight": {"data_offsets": [0, 8], "dtype": "F32", "shape": [4611686018427387905, 4]}}', 8),
        ('{"features.0.weight": {"data_offsets": [0, 8], "dtype": "F32", "shape": [-1, -2]}}', 8),
        (
            '{"features.0.weight": {"data_offsets": [0, 8], "dtype": "F32", "shape": [2]},'
            ' "other": {"data_offsets": [4, 12], "dtype": "F32", "shape": [2]}}',
            12,
        ),
    ],
)
def test_a_safetensors_with_a_nonsensical_header_is_refused(header: str, numbers: int, tmp_path: Path) -> None:
    length = len(header).to_bytes(8, "little")
    (tmp_path / "odd.safetensors").write_bytes(length + header.encode() + bytes(numbers))
    assert "odd.safetensors is damaged or truncated" in refusal(tmp_path / "odd.safetensors")


@pytest.mark.parametrize("length", [2**32, 2**62, 2**64 - 1])
def test_a_safetensors_that_claims_a_longer_header_than_it_has_is_refused(length: int, tmp_path: Path) -> None:
    (tmp_path / "long.safetensors").write_bytes(length.to_bytes(8, "little") + b'{"a": 1}')
    assert "long.safetensors is damaged or truncated" in refusal(tmp_path / "long.safetensors")


def test_an_old_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    torch.save(random_tensors(), tmp_path / "whole.pth", _use_new_zipfile_serialization=False)
    data = (tmp_path / "whole.pth").read_bytes()
    for length in [*range(1000), len(data) // 2, len(data) - 1]:
        (tmp_path / "cut.pth").write_bytes(data[:length])
        assert "truncated" in refusal(tmp_path / "cut.pth")


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff\xe0 a photo, not a network",
        b"<!DOCTYPE html>",
        b"PK\x03\x04 no zip",
        b"some text\n",
    ],
)
def test_a_file_of_something_else_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "photo.pth").write_bytes(data)
    assert ".safetensors file, or a .pth of torchvision" in refusal(tmp_path / "photo.pth")


@pytest.mark.parametrize("packing", ["zip", "old", "bare"])
def test_a_pickle_that_would_run_code_does_not_run(packing: str, tmp_path: Path) -> None:
    trap, trace = tmp_path / "trap.pth", tmp_path / "trace"
    content = {**random_tensors(), "features.0.weight": Bait(trace)}
    if packing == "bare":
        trap.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, trap, _use_new_zipfile_serialization=packing == "zip")
    assert "contains more than tensors" in refusal(trap)
    assert not trace.exists()


def test_the_bait_of_that_pickle_does_run_where_code_may(tmp_path: Path) -> None:
    torch.save(Bait(tmp_path / "trace"), tmp_path / "trap.pth")
    torch.load(tmp_path / "trap.pth", weights_only=False)
    assert (tmp_path / "trace").is_dir()


def test_a_whole_pickled_network_is_refused_in_plain_text_that_does_not_say_to_trust_it(tmp_path: Path) -> None:
    torch.save(torch.nn.Conv2d(3, 64, 3), tmp_path / "network.pth")
    message = refusal(tmp_path / "network.pth")
    assert message.isprintable()
    assert "can still be loaded" not in message


@pytest.mark.parametrize(("content", "kind"), [([1, 2], "list"), (torch.ones(3), "Tensor"), (None, "NoneType")])
def test_a_pth_that_holds_no_tensors_by_name_is_refused(content: object, kind: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    assert f"contains a {kind}, not tensors by name" in refusal(tmp_path / "other.pth")


def test_a_value_that_is_no_tensor_counts_as_missing(tmp_path: Path) -> None:
    torch.save({**random_tensors(), "features.0.weight": [1.0, 2.0]}, tmp_path / "odd.pth")
    assert "no tensor features.0.weight" in refusal(tmp_path / "odd.pth")


@pytest.mark.parametrize("name", ["absent.pth", "folder"])
def test_a_name_that_is_no_file_is_refused_with_the_formats(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    message = refusal(tmp_path / name)
    assert "is not a file" in message
    assert ".safetensors file, or a .pth of torchvision" in message


@pytest.mark.parametrize("name", ["absent.pth", "folder"])
def test_a_file_that_is_gone_when_it_is_loaded_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(WeightsError, match="cannot be read") as refused:
        load_weights(WeightsFile(tmp_path / name, ""), "vgg16", "pool1")
    assert str(tmp_path / name) in str(refused.value)


def test_a_classifier_of_nan_is_refused_for_fc7_and_serves_pool5(tmp_path: Path) -> None:
    """As torchvision's IMAGENET1K_FEATURES. One number, spread over each tensor, keeps the file small."""
    tensors = {
        key: torch.full((1,), float("nan") if key.startswith("classifier") else 0.5).expand(shape)
        for module in needed_modules("vgg16", "fc7")
        for key, shape in module.shapes.items()
    }
    path = save(tensors, tmp_path / "features_only.pth")
    assert "classifier.0.weight contains NaN or infinity, so fc6 cannot be used" in refusal(path, "vgg16", "fc7")
    assert len(load(path, "vgg16", "pool5")) == 13


@pytest.mark.parametrize(
    ("model", "layer", "name", "size"),
    [
        ("vgg16", "fc7", "vgg16-397923af.pth", "528 MB"),
        ("vgg19", "pool5", "vgg19-dcbb9e9d.pth", "548 MB"),
        ("vgg11_bn", "pool1", "vgg11_bn-6002323d.pth", "507 MB"),
        ("googlenet", "inception3a", "googlenet-1378be20.pth", "50 MB"),
        ("resnet18", "layer4", "resnet18-f37072fd.pth", "45 MB"),
        ("resnet50", "avgpool", "resnet50-0676ba61.pth", "98 MB"),
    ],
)
def test_without_a_network_the_error_names_the_file_its_size_and_its_place(
    model: str, layer: str, name: str, size: str, hub: Path
) -> None:
    with pytest.raises(WeightsError) as refused:
        find_weights(model, layer)
    message = str(refused.value)
    assert "\n" not in message
    for expected in (model, name, size, "no network", str(hub / name), "weights="):
        assert expected in message


def test_a_download_that_arrives_damaged_is_an_error(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: object, **__: object) -> None:
        raise RuntimeError('invalid hash value (expected "397923af", got "00")')

    monkeypatch.setattr(torch.hub, "download_url_to_file", damaged)
    with pytest.raises(WeightsError, match="invalid hash value"):
        find_weights("vgg16", "fc6")


def test_a_download_goes_to_torchvisions_cache_with_its_hash_checked(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(url: str, target: str, hash_prefix: str, progress: bool) -> None:
        assert url.startswith("https://download.pytorch.org/models/")
        assert not progress
        Path(target).write_text(f"{url.rsplit('/', 1)[-1]} {hash_prefix}")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    assert find_weights("vgg16", "pool5+fc6").path == hub / "vgg16-397923af.pth"
    assert (hub / "vgg16-397923af.pth").read_text() == "vgg16-397923af.pth 397923af"


def test_a_file_in_torchvisions_cache_is_used_without_a_download(hub: Path) -> None:
    hub.mkdir(parents=True)
    cached = save(random_tensors("vgg11"), hub / "vgg11-8a719046.pth")
    found = find_weights("vgg11", "pool1")
    assert found.path == cached
    assert list(load_weights(found, "vgg11", "pool1")) == ["conv1_1"]


def test_the_package_serves_maps_of_vgg16_without_a_network(hub: Path) -> None:
    assert find_weights("vgg16", "pool1+pool5").path == PACKAGED


def test_a_named_file_comes_before_the_package(tmp_path: Path) -> None:
    named = save(random_tensors(), tmp_path / "mine.pth")
    assert find_weights("vgg16", "pool1", named).path == named


def test_the_remembered_file_is_found_again_by_its_hash(hub: Path, tmp_path: Path) -> None:
    mine = find_weights("vgg16", "pool1", save(random_tensors(), tmp_path / "mine.pth"))
    assert find_again("vgg16", "pool1", mine.sha256, None, mine.path) == mine


def test_a_remembered_file_that_moved_is_found_where_it_is_named(tmp_path: Path) -> None:
    moved = find_weights("vgg16", "pool1", save(random_tensors(), tmp_path / "moved.pth"))
    assert find_again("vgg16", "pool1", moved.sha256, moved.path, tmp_path / "gone.pth") == moved


@pytest.mark.parametrize("remembered", [None, Path("gone.pth")])
def test_the_package_is_found_again_without_a_name(remembered: Path | None) -> None:
    assert find_again("vgg16", "pool5", PACKAGED_SHA256, None, remembered).path == PACKAGED


def test_a_named_file_with_another_hash_is_refused_with_both(tmp_path: Path) -> None:
    mine = find_weights("vgg16", "pool1", save(random_tensors(), tmp_path / "mine.pth"))
    with pytest.raises(SpecMismatch) as refused:
        find_again("vgg16", "pool5", PACKAGED_SHA256, mine.path, PACKAGED)
    for expected in (PACKAGED_SHA256[:12], mine.sha256[:12], str(mine.path), "weights=", "create another index"):
        assert expected in str(refused.value)


def test_a_remembered_file_that_changed_is_refused_with_both_hashes(tmp_path: Path) -> None:
    path = save(random_tensors(), tmp_path / "mine.pth")
    before = find_weights("vgg16", "pool1", path)
    save({key: tensor + 1 for key, tensor in random_tensors().items()}, path)
    with pytest.raises(SpecMismatch) as refused:
        find_again("vgg16", "pool1", before.sha256, None, path)
    for expected in (before.sha256[:12], PACKAGED_SHA256[:12], str(path), str(PACKAGED)):
        assert expected in str(refused.value)


def test_options_left_out_resolve_to_the_measured_defaults() -> None:
    assert EmbeddingOptions().resolve() == (SPEC, WeightsFile(PACKAGED, PACKAGED_SHA256))


def test_options_that_are_asked_for_are_kept() -> None:
    spec, _ = EmbeddingOptions(layer="0.50*pool3 + 1*pool5", pooling="rmac", size=160, resize="pad").resolve()
    assert spec == EmbeddingSpec("vgg16", "0.5*pool3+pool5", "rmac", (160,), "pad", PACKAGED_SHA256)


@pytest.mark.parametrize(
    ("layer", "size", "pooling"), [("fc7", 224, "flat"), ("fc6+fc7", 224, "flat"), ("pool5+fc6", 224, "spoc")]
)
def test_a_connected_layer_defaults_to_224_and_no_pooling(
    layer: str, size: int, pooling: str, tmp_path: Path
) -> None:
    weights = save(random_tensors(), tmp_path / "any.pth")
    spec, found = EmbeddingOptions(layer=layer, weights=weights).resolve()
    assert (spec.layer, spec.size, spec.pooling) == (layer, size, pooling)
    assert spec.weights_sha256 == found.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_fc7_at_192_is_refused_with_both_numbers() -> None:
    with pytest.raises(OptionError) as refused:
        EmbeddingOptions(layer="fc7", size=192).resolve()
    assert "224" in str(refused.value)
    assert "192" in str(refused.value)


@pytest.mark.parametrize("pooling", [name for name in POOLINGS if name != "flat"])
def test_a_pooling_for_fc7_alone_is_refused(pooling: str) -> None:
    with pytest.raises(OptionError, match=rf"fc7 is a vector already.*{pooling}"):
        EmbeddingOptions(layer="fc7", pooling=pooling).resolve()


def test_a_pooling_beside_fc7_pools_the_map(tmp_path: Path) -> None:
    options = EmbeddingOptions(
        layer="pool5+fc7", pooling="gem", weights=save(random_tensors(), tmp_path / "any.pth")
    )
    assert options.resolve()[0].pooling == "gem"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (EmbeddingOptions(pooling="mean"), ("pooling", "'mean'", *POOLINGS)),
        (EmbeddingOptions(resize="stretch"), ("resize", "'stretch'", *RESIZES)),
        (EmbeddingOptions(model="resnet49"), ("model", "'resnet49'", "vgg16", "resnet50")),
        (EmbeddingOptions(layer="pool6"), ("layer", "'pool6'", "pool5")),
        (EmbeddingOptions(size=0), ("size", "32", "1024", "not 0")),
    ],
)
def test_an_unknown_value_is_refused_with_the_choices(options: EmbeddingOptions, named: tuple[str, ...]) -> None:
    with pytest.raises(OptionError) as refused:
        options.resolve()
    assert all(part in str(refused.value) for part in named)


@pytest.mark.parametrize(
    "options",
    [
        EmbeddingOptions(),
        EmbeddingOptions("vgg16", "pool4+pool5", "spoc", 192, "squash"),
        EmbeddingOptions(layer="1*pool4 + pool5", size="192", mirror=False),
        EmbeddingOptions(weights=Path("elsewhere.pth")),
    ],
)
def test_an_index_serves_what_it_holds(options: EmbeddingOptions) -> None:
    options.check(SPEC, "indexes/photos")


@pytest.mark.parametrize(
    ("options", "asked", "held"),
    [
        (EmbeddingOptions(layer="fc7"), "layer fc7", "layer pool4+pool5"),
        (EmbeddingOptions(model="vgg19"), "model vgg19", "model vgg16"),
        (EmbeddingOptions(pooling="gem", size=224), "pooling gem, size 224", "pooling spoc, size 192"),
        (EmbeddingOptions(resize="crop"), "resize crop", "resize squash"),
        (EmbeddingOptions(size="224+160"), "size 160+224", "size 192"),
        (EmbeddingOptions(size="192", mirror=True), "mirror on", "mirror off"),
        (EmbeddingOptions(layer="0.5*pool4+pool5"), "layer 0.5*pool4+pool5", "layer pool4+pool5"),
    ],
)
def test_an_index_of_another_kind_is_refused_with_both_sides(
    options: EmbeddingOptions, asked: str, held: str
) -> None:
    with pytest.raises(SpecMismatch) as refused:
        options.check(SPEC, "indexes/photos")
    message = str(refused.value)
    assert f"indexes/photos contains embeddings with {held}, which cannot be compared with {asked}" in message
    assert str(SPEC) in message


def test_an_index_serves_the_sum_it_was_made_with_however_it_is_spaced() -> None:
    options = EmbeddingOptions(layer="pool4 + pool5")
    options.check(options.resolve()[0], "indexes/photos")


def test_a_spec_reads_as_messages_name_it() -> None:
    assert str(SPEC) == "vgg16 pool4+pool5 spoc, 192 squash, weights 44a1e7d7 (1024 dimensions)"


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        EmbeddingSpec("vgg11_bn", "pool1+fc7", "gem", (224,), "pad", "ab" * 32),
        replace(SPEC, sizes=(32, 64), mirror=True),
    ],
)
def test_a_spec_survives_json(spec: EmbeddingSpec) -> None:
    assert spec_from_json(asdict(spec)) == spec
    assert spec_from_json(json.loads(json.dumps(asdict(spec)))) == spec


@pytest.mark.parametrize("name", sorted(asdict(SPEC)))
def test_a_spec_that_lacks_a_field_is_refused(name: str) -> None:
    with pytest.raises(KeyError, match="embedding has"):
        spec_from_json({key: value for key, value in asdict(SPEC).items() if key != name})


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"engine": "torch"}, KeyError),
        ({"size": 192}, KeyError),
        ({"sizes": 192}, TypeError),
        ({"sizes": "192"}, TypeError),
        ({"sizes": [192.0]}, TypeError),
        ({"sizes": None}, TypeError),
        ({"sizes": []}, OptionError),
        ({"sizes": [5000]}, OptionError),
        ({"sizes": [224, 160]}, OptionError),
        ({"mirror": 1}, TypeError),
        ({"mirror": None}, TypeError),
        ({"layer": "conv9"}, OptionError),
        ({"pooling": "median"}, OptionError),
        ({"model": ["vgg16"]}, OptionError),
    ],
)
def test_a_damaged_spec_is_refused(change: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        spec_from_json({**asdict(SPEC), **change})


def test_the_path_of_weights_may_be_a_text(tmp_path: Path) -> None:
    path = save(random_tensors(), tmp_path / "mine.pth")
    as_text, as_path = (EmbeddingOptions(layer="pool1", weights=kind(path)).resolve() for kind in (str, Path))
    assert as_text == as_path
    assert as_text[1].path == path
