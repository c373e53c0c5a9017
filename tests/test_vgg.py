import re

import pytest
import torch
from torch import nn
from torchvision.models import get_model

from vggsearch.errors import OptionError
from vggsearch.model.layers import (
    canonical,
    check_layer,
    check_size,
    factors,
    has_connected,
    has_maps,
    needed_modules,
    parts,
)
from vggsearch.model.modules import ModuleReport
from vggsearch.model.networks import NETWORKS, describe, modules

PUBLISHED_PARAMETERS = {  # num_params in torchvision's documentation of each model
    "vgg11": 132_863_336,
    "vgg11_bn": 132_868_840,
    "vgg13": 133_047_848,
    "vgg13_bn": 133_053_736,
    "vgg16": 138_357_544,
    "vgg16_bn": 138_365_992,
    "vgg19": 143_667_240,
    "vgg19_bn": 143_678_248,
}
MODELS = tuple(PUBLISHED_PARAMETERS)
PUBLISHED_GFLOPS = {"vgg11": 7.61, "vgg13": 11.31, "vgg16": 15.47, "vgg19": 19.63}  # torchvision's _ops


def on_meta(model: str) -> nn.Module:
    with torch.device("meta"):
        built: nn.Module = get_model(model, weights=None, init_weights=False)
    return built


def reports(model: str, size: int = 224) -> dict[str, ModuleReport]:
    return {report.module.name: report for report in describe(model, size)}


def test_the_eight_published_configurations_are_there() -> None:
    assert {model for model, row in NETWORKS.items() if model.startswith("vgg") and not row.original} == set(MODELS)


@pytest.mark.parametrize(("model", "published"), PUBLISHED_PARAMETERS.items())
def test_parameters_number_what_is_published(model: str, published: int) -> None:
    assert sum(module.parameters for module in modules(model)) == published


def test_the_convolutions_of_vgg16_hold_a_ninth_of_its_parameters() -> None:
    assert sum(module.parameters for module in modules("vgg16") if module.kind == "conv") == 14_714_688


@pytest.mark.parametrize("model", MODELS)
def test_every_weight_has_the_name_and_shape_it_has_in_torchvision(model: str) -> None:
    theirs = {key: tuple(tensor.shape) for key, tensor in on_meta(model).state_dict().items()}
    counters = {key for key in theirs if key.endswith("num_batches_tracked")}
    ours = {key: shape for module in modules(model) for key, shape in module.shapes.items()}
    assert ours == {key: shape for key, shape in theirs.items() if key not in counters}


@pytest.mark.parametrize("model", MODELS)
def test_parameters_of_a_module_are_its_shapes_less_the_running_statistics(model: str) -> None:
    theirs = dict(on_meta(model).named_parameters())
    for module in modules(model):
        assert module.parameters == sum(theirs[key].numel() for key in module.shapes if key in theirs)


def test_an_unknown_model_is_refused_with_the_choices() -> None:
    with pytest.raises(OptionError) as refused:
        modules("vgg12")
    assert "'vgg12'" in str(refused.value)
    assert all(model in str(refused.value) for model in NETWORKS)


def test_shapes_of_vgg16_at_224_are_those_of_the_paper() -> None:
    found = {name: report.shape for name, report in reports("vgg16").items()}
    assert found == {
        "conv1_1": (64, 224, 224),
        "conv1_2": (64, 224, 224),
        "pool1": (64, 112, 112),
        "conv2_1": (128, 112, 112),
        "conv2_2": (128, 112, 112),
        "pool2": (128, 56, 56),
        "conv3_1": (256, 56, 56),
        "conv3_2": (256, 56, 56),
        "conv3_3": (256, 56, 56),
        "pool3": (256, 28, 28),
        "conv4_1": (512, 28, 28),
        "conv4_2": (512, 28, 28),
        "conv4_3": (512, 28, 28),
        "pool4": (512, 14, 14),
        "conv5_1": (512, 14, 14),
        "conv5_2": (512, 14, 14),
        "conv5_3": (512, 14, 14),
        "pool5": (512, 7, 7),
        "fc6": (4096,),
        "fc7": (4096,),
        "fc8": (1000,),
    }


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("size", [32, 100, 224])
def test_map_shapes_are_those_torchvision_computes(model: str, size: int) -> None:
    x = torch.empty(1, 3, size, size, device="meta")
    theirs = []
    for layer in on_meta(model).get_submodule("features").children():
        x = layer(x)
        if isinstance(layer, nn.MaxPool2d):
            theirs.append(tuple(x.shape[1:]))
    assert [reports(model, size)[f"pool{block}"].shape for block in range(1, 6)] == theirs


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("conv1_1", 3),
        ("conv1_2", 5),
        ("pool1", 6),
        ("pool2", 16),
        ("pool3", 44),
        ("pool4", 100),
        ("conv5_3", 196),
        ("pool5", 212),
        ("fc6", 404),
        ("fc7", 404),
    ],
)
def test_receptive_fields_of_vgg16_are_known(name: str, field: int) -> None:
    assert reports("vgg16")[name].receptive_field == field


def test_a_pixel_beyond_the_receptive_field_changes_nothing() -> None:
    """pool3 of vgg16 sees 44 pixels: found by the gradient of one cell with weights that let all through."""
    x = torch.ones(1, 1, 96, 96, requires_grad=True)
    y = x
    for module in needed_modules("vgg16", "pool3"):
        if module.kind == "conv":
            y = nn.functional.conv2d(y, torch.full((1, 1, 3, 3), 1 / 9), padding=1)
        else:
            y = nn.functional.avg_pool2d(y, 2)
    y[0, 0, 6, 6].backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    seen = x.grad[0, 0] != 0
    assert int(seen.any(0).sum()) == int(seen.any(1).sum()) == reports("vgg16")["pool3"].receptive_field


@pytest.mark.parametrize(("model", "published"), PUBLISHED_GFLOPS.items())
def test_multiply_adds_are_what_is_published(model: str, published: float) -> None:
    assert round(sum(report.multiply_adds for report in describe(model)) / 1e9, 2) == published


def test_multiply_adds_of_one_convolution_are_known_by_hand() -> None:
    found = reports("vgg16", 64)
    assert found["conv1_1"].multiply_adds == 3 * 64 * 9 * 64 * 64
    assert found["conv5_1"].multiply_adds == 512 * 512 * 9 * 4 * 4
    assert found["pool5"].multiply_adds == 0
    assert found["fc7"].multiply_adds == 4096 * 4096


@pytest.mark.parametrize(("size", "windows"), [(224, 1), (255, 1), (256, 2), (288, 3), (1024, 26)])
def test_connected_layers_see_every_window_of_a_larger_map(size: int, windows: int) -> None:
    found = reports("vgg16", size)
    for name, inputs in (("fc6", 512 * 49), ("fc7", 4096)):
        assert found[name].shape == ((4096,) if windows == 1 else (4096, windows, windows))
        assert found[name].multiply_adds == inputs * 4096 * windows**2


def test_a_sum_of_layers_is_split_in_its_order() -> None:
    assert parts("pool5") == ("pool5",)
    assert parts("pool4+pool5") == ("pool4", "pool5")
    assert parts("fc7 + pool1") == ("fc7", "pool1")


@pytest.mark.parametrize(
    ("layer", "names", "expected", "text"),
    [
        ("0.5*pool3+pool4", ("pool3", "pool4"), (0.5, 1), "0.5*pool3+pool4"),
        (" 2.50 * pool5 +  1*fc7 ", ("pool5", "fc7"), (2.5, 1), "2.5*pool5+fc7"),
        ("1e-3*pool5+1e3*pool4", ("pool5", "pool4"), (0.001, 1000), "0.001*pool5+1000*pool4"),
        ("0.12345678*pool5+pool4", ("pool5", "pool4"), (0.123457, 1), "0.123457*pool5+pool4"),
        ("3*pool5", ("pool5",), (3,), "pool5"),
    ],
)
def test_a_sum_has_factors_and_one_way_to_be_written(
    layer: str, names: tuple[str, ...], expected: tuple[float, ...], text: str
) -> None:
    assert (parts(layer), factors(layer), canonical(layer)) == (names, expected, text)
    assert canonical(text) == text
    assert len(names) == 1 or factors(text) == expected


@pytest.mark.parametrize("factor", ["0", "-1", "nan", "inf", "1001", "0.0009", "", "half", "1e400"])
def test_what_is_no_factor_is_refused_with_the_range(factor: str) -> None:
    with pytest.raises(OptionError, match=r"from 0\.001 to 1000, not") as refused:
        parts(f"pool4+{factor}*pool5")
    assert repr(factor) in str(refused.value)
    assert f"as in {factor}*pool5" in str(refused.value)


@pytest.mark.parametrize("layer", ["conv1_1", "fc8", "", "pool4+", "pool4 pool5", "POOL5", "2*", "2*3*pool4"])
def test_an_unknown_layer_is_refused_with_the_choices(layer: str) -> None:
    with pytest.raises(OptionError) as refused:
        check_layer("vgg16", layer)
    assert f"vgg16 has no layer {layer.split('+')[-1].removeprefix('2*')!r}" in str(refused.value)
    assert all(known in str(refused.value) for known in NETWORKS["vgg16"].layers)


def test_a_layer_named_twice_is_refused_with_the_sum() -> None:
    for layer in ("pool4+pool5+pool4", "pool4+0.5*pool4"):
        with pytest.raises(OptionError, match=rf"{re.escape(layer)} contains a layer twice"):
            parts(layer)


def test_a_sum_knows_whether_it_has_maps_and_connected_layers() -> None:
    assert (has_maps("pool4+pool5"), has_connected("pool4+pool5")) == (True, False)
    assert (has_maps("fc6+fc7"), has_connected("fc6+fc7")) == (False, True)
    assert (has_maps("pool5+fc6"), has_connected("pool5+fc6")) == (True, True)


def test_pool4_and_pool5_need_no_classifier() -> None:
    needed = needed_modules("vgg16", "pool4+pool5")
    assert needed[-1].name == "pool5"
    assert [module.kind for module in needed].count("conv") == 13
    assert not any(key.startswith("classifier") for module in needed for key in module.shapes)


@pytest.mark.parametrize(
    ("layer", "last", "count"),
    [("pool1", "pool1", 3), ("pool5+pool2", "pool5", 18), ("pool1+fc6", "fc6", 19), ("fc7", "fc7", 20)],
)
def test_nothing_beyond_the_deepest_layer_of_a_sum_is_needed(layer: str, last: str, count: int) -> None:
    needed = needed_modules("vgg16", layer)
    assert (needed[-1].name, len(needed)) == (last, count)


@pytest.mark.parametrize(("layer", "size"), [("fc7", 224), ("pool5+fc6", 225), ("fc6", 1024), ("pool5", 32)])
def test_a_size_the_network_takes_passes(layer: str, size: int) -> None:
    check_size(layer, size)


@pytest.mark.parametrize("layer", ["fc6", "fc7", "pool5+fc6"])
@pytest.mark.parametrize("size", [32, 192, 223])
def test_a_connected_layer_refuses_a_smaller_size_with_both_numbers(layer: str, size: int) -> None:
    with pytest.raises(OptionError) as refused:
        check_size(layer, size)
    assert layer in str(refused.value)
    assert "at least 224 x 224" in str(refused.value)
    assert f"not {size}" in str(refused.value)


@pytest.mark.parametrize("size", [-1, 0, 31, 1025])
def test_a_size_out_of_range_is_refused_with_the_range(size: int) -> None:
    with pytest.raises(OptionError, match=rf"32 to 1024 pixels, not {size}\."):
        check_size("pool5", size)
