"""The compiler's rule for weights worth compressing: against its own flags, against its definition, on networks."""

import itertools
import json
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path

import numpy as np
import pytest

import amct_lite
from amct_lite.errors import ParameterError
from amct_lite.quantize.weight_traffic import SOCS, Soc, WeightTraffic, convolution_traffic, find_soc, matrix_traffic

SAMPLE = Path(__file__).resolve().parents[3] / "shared" / "amct-samples" / "onnx-resnet101/resnet-101_quantized.json"


def attributes(part: dict) -> dict:
    return {entry["key"]: entry["value"] for entry in part["attr"]}


def shape(description: dict) -> list[int]:
    return attributes(description)["origin_shape"]["list"]["i"]


@dataclass(frozen=True)
class Compiled:
    """What the compiler says of one operator."""

    name: str
    flag: bool
    data: list[int]
    weight: list[int]
    output: list[int]

    @property
    def conv(self) -> str:
        """The convolution among what was fused into it: Conv_313Relu_315 is Conv_313 with a Relu behind it."""
        return "_".join(self.name.split("_")[:2]).removesuffix("Relu").removesuffix("Add")

    def by_our_rule(self, soc: str) -> WeightTraffic:
        channels_out, channels_in, *kernel = self.weight
        return convolution_traffic(tuple(kernel), channels_in, channels_out, tuple(self.output[2:]), find_soc(soc))


def compiled_operators(kind: str) -> list[Compiled]:
    """The operators of a type in a compiled ResNet-101."""
    if not SAMPLE.is_file():
        pytest.skip(f"{SAMPLE} is not there")
    return [
        Compiled(
            one["name"],
            bool((attributes(one).get("_fe_weight_compress") or {}).get("b")),
            *map(shape, (*one["input_desc"][:2], one["output_desc"][0])),
        )
        for one in json.loads(SAMPLE.read_text())["graph"][0]["op"]
        if one["type"] == kind
    ]


def test_the_rule_reproduces_all_104_flags_of_the_compiled_resnet_101() -> None:
    operators = compiled_operators("Conv2D")
    assert len(operators) == 104
    assert sum(one.flag for one in operators) == 9
    ours = {one.name: one.by_our_rule("Ascend310").flagged for one in operators}
    assert ours == {one.name: one.flag for one in operators}


def test_the_rule_reproduces_the_flag_of_its_inner_product() -> None:
    (gemm,) = compiled_operators("MatMulV2")
    assert gemm.flag
    assert matrix_traffic(int(np.prod(gemm.weight))).flagged


def test_a_chip_with_less_memory_traffic_would_not_give_the_same_flags() -> None:
    assert sum(one.by_our_rule("Ascend310P").flagged for one in compiled_operators("Conv2D")) > 9


@pytest.fixture
def resnet_layers(write_network) -> tuple[Path, list[Compiled]]:
    """Convolutions of the sample as operators of an ONNX file, which knows the sizes of its inputs alone."""
    lines, inputs, weights = [], [], {}
    distinct = {(tuple(one.weight), tuple(one.output)): one for one in compiled_operators("Conv2D")}
    operators = [one for one in distinct.values() if np.prod(one.weight) > 200_000]
    for number, one in enumerate(operators):
        stride, pad = one.data[2] // one.output[2], one.weight[2] // 2
        window = f"kernel_shape={one.weight[2:]}, strides=[{stride},{stride}], pads=[{pad},{pad},{pad},{pad}]"
        inputs.append(f"float[N,{one.data[1]},{one.data[2]},{one.data[3]}] x{number}")
        lines.append(f"[{one.conv}] c{number} = Conv <{window}> (x{number}, w{number}) y{number} = Relu(c{number})")
        weights[f"w{number}"] = np.zeros(one.weight, np.float32)
    outputs = ", ".join(f"float[N,C,H,W] y{number}" for number in range(len(operators)))
    network = write_network(f"g ({', '.join(inputs)}) => ({outputs}) {{ {' '.join(lines)} }}", weights)
    return network, operators


def test_a_network_of_the_samples_layers_gives_the_flags_of_the_compiler(resnet_layers) -> None:
    network, operators = resnet_layers
    found = amct_lite.candidates(network)
    assert {one.flag for one in operators} == {True, False}
    assert found.flags == {one.conv: one.flag for one in operators}
    assert [one.output_size for one in found.layers] == [tuple(one.output[2:]) for one in operators]
    assert found.names == tuple(one.conv for one in operators if one.flag)


def test_the_compilers_file_and_our_rule_make_the_same_config(resnet_layers, tmp_path: Path) -> None:
    network, operators = resnet_layers
    configs = []
    for source in (f'mapping_file: "{SAMPLE}"', ""):
        (tmp_path / "nuq.cfg").write_text(f"nuq_config {{ {source} nuq_quantize {{ num_steps: 16 }} }}")
        amct_lite.create_quant_config(
            tmp_path / "config.json", network, config_defination=tmp_path / "nuq.cfg", target="ascend-rank4"
        )
        configs.append(json.loads((tmp_path / "config.json").read_text()))
    assert configs[0] == configs[1]
    algorithms = {one.conv: configs[0][one.conv]["weight_quant_params"]["wts_algo"] for one in operators}
    assert algorithms == {one.conv: "nuq_quantize" if one.flag else "arq_quantize" for one in operators}


def by_definition(kernel: int, channels_in: int, channels_out: int, size: int, soc: Soc) -> bool:
    weights = kernel * kernel * channels_in * channels_out
    cube = ceil(Fraction(size * size, 16)) * ceil(Fraction(kernel * kernel * channels_in, 32)) * ceil(channels_out / 16)
    return weights > 262144 and Fraction(weights, soc.ddr_rate) >= Fraction(4, 5) * cube


@pytest.mark.parametrize("soc", SOCS)
def test_the_rule_is_its_definition_in_exact_numbers(soc: str) -> None:
    flags = set()
    for kernel, cin, cout, size in itertools.product(
        (1, 2, 3, 5), (33, 256, 512), (96, 500, 1024), (1, 7, 12, 13, 24, 56)
    ):
        ours = convolution_traffic((kernel, kernel), cin, cout, (size, size), SOCS[soc]).flagged
        assert ours == by_definition(kernel, cin, cout, size, SOCS[soc])
        flags.add(ours)
    assert flags == {True, False}


@pytest.mark.parametrize(("soc", "largest"), [("Ascend310", 144), ("Ascend910B4", 320), ("Ascend310P3", 592)])
def test_up_to_how_many_outputs_a_chip_waits_for_weights(soc: str, largest: int) -> None:
    def flagged(outputs: int) -> bool:
        return convolution_traffic((3, 3), 512, 512, (1, outputs), find_soc(soc)).flagged

    assert flagged(largest)
    assert not flagged(largest + 1)


@pytest.mark.parametrize("name", ["Ascend310X", "Ascend910_93", "ascend310", "", "Kirin990"])
def test_a_chip_that_nothing_is_known_of_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(ParameterError, match=r"must be one of Ascend310, Ascend310P"):
        find_soc(name)


def test_reasons_have_the_figures_and_print_as_a_table(write_network) -> None:
    text = """g (float[1,512,9,9] x) => (float[1,300] y) {
        [wide] a = Conv <kernel_shape=[3,3]> (x, w)
        [deep] b = Conv <kernel_shape=[3,3], group=512> (a, v)
        [flat] f = Flatten(b)
        [fc] y = MatMul(f, u)
    }"""
    weights = {
        "w": np.ones((512, 512, 3, 3), np.float32),
        "v": np.ones((512, 1, 3, 3), np.float32),
        "u": np.ones((12800, 300), np.float32),
    }
    found = amct_lite.candidates(write_network(text, weights))
    wide, deep, fc = found.layers
    assert (wide.weights, wide.output_size) == (2359296, (7, 7))
    assert (wide.traffic.cube_cycles, round(wide.traffic.weight_cycles)) == (18432, 35213)
    assert wide.traffic.ratio == pytest.approx(1.9104, abs=1e-4)
    assert (
        "2359296 weights take 35213 cycles to arrive, 7 x 7 outputs 18432 to compute: ratio 1.91" in wide.traffic.reason
    )
    assert "depthwise" in deep.traffic.reason
    assert not deep.flagged
    assert fc.flagged
    assert found.soc == "Ascend310"
    assert "2 of 3 layers profit" in str(found)


def test_a_size_that_is_open_is_never_flagged_and_says_so_an_open_batch_does_no_harm(write_network) -> None:
    weights = {"w": np.ones((512, 512, 3, 3), np.float32)}
    text = "g (float[N,512,{0},9] x) => (float[N,512,K,7] y) {{ [c] y = Conv <kernel_shape=[3,3]> (x, w) }}"
    open_size = amct_lite.candidates(write_network(text.format("H"), weights, name="open.onnx"))
    assert open_size.names == ()
    assert "dynamic" in open_size.layers[0].traffic.reason
    text = text.replace("float[N,512,K,7] y", "float[N,512,7,7] y")
    assert amct_lite.candidates(write_network(text.format("9"), weights, name="fixed.onnx")).names == ("c",)


def test_a_transposed_convolution_counts_its_own_outputs(write_network) -> None:
    text = "g (float[1,512,7,7] x) => (float[1,256,14,14] y) { [up] y = ConvTranspose <strides=[2,2]> (x, w) }"
    (layer,) = amct_lite.candidates(write_network(text, {"w": np.ones((512, 256, 2, 2), np.float32)})).layers
    assert layer.output_size == (14, 14)
    assert layer.traffic == convolution_traffic((2, 2), 512, 256, (14, 14), SOCS["Ascend310"])


def test_a_caffe_network_is_looked_at_by_its_layers_names(find_model) -> None:
    folder = find_model("squeezenet1.1/deploy.prototxt").parent
    found = amct_lite.candidates(folder / "deploy.prototxt", folder / "squeezenet_v1.1.caffemodel", "Ascend310P")
    sizes = {one.layer: one.output_size for one in found.layers}
    assert sizes["conv10"] == (14, 14)
    assert found.names == ("conv10",)
