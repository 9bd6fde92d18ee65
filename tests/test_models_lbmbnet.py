"""LB-MBNet: the paper's eleven parameter counts and eleven FLOPs, and its fixed kernels."""

import pytest
import torch
from torch import Tensor, nn

from leancnn.count import Cost, count
from leancnn.errors import MismatchError
from leancnn.layers import LocalBinaryConv2d, SqueezeExcite, ternary_codes
from leancnn.models import create_model
from leancnn.models.lbmbnet import LBMBConv
from tests.few import few

AT_32 = (3, 32, 32)
PRINTED = {  # (layers, r): trainable in millions as printed, FLOPs in 1e8 before rounding
    (59, 3): (3.63, 2.329),
    (59, 6): (7.11, 4.574),
    (59, 10): (11.75, 7.567),
    (59, 18): (21.03, 13.553),
    (59, 20): (23.36, 15.049),
    (59, 30): (34.96, 22.532),
    (59, 40): (46.57, 30.014),
    (59, 60): (69.78, 44.979),
    (59, 80): (92.99, 59.944),
    (32, 6): (3.19, 2.157),
    (32, 80): (40.84, 27.746),
}
REPEATS = {59: 6, 32: 3}


def flat(layers: int, expansion: int, **arguments: object) -> nn.Module:
    with torch.device("meta"):
        return create_model(
            "lbmbnet59_r6", repeats=REPEATS[layers], expansion=expansion, **arguments
        ).eval()


def cost(layers: int, expansion: int, **arguments: object) -> Cost:
    return count(flat(layers, expansion, **arguments), AT_32)


@pytest.mark.parametrize(("layers", "r"), PRINTED)
def test_trainable_weights_follow_the_law_and_the_paper(layers: int, r: int) -> None:
    law = {59: 1_160_528 * r + 145_302, 32: 508_688 * r + 142_278}[layers]
    with torch.device("meta"):
        net = create_model(f"lbmbnet{layers}_r{r}")
    assert sum(p.numel() for p in net.parameters()) == law
    assert round(law / 1e6, 2) == PRINTED[layers, r][0]
    frozen = sum(b.numel() for b in net.buffers() if b.dtype == torch.int8)
    assert frozen == {59: 9 * (2448 * r + 32), 32: 9 * (1104 * r + 32)}[layers]


def flops(layers: int, r: int) -> float:
    """2 per MAC, batch-norm output and activation (SiLU); 1 per added shortcut and gate's bias."""
    net = flat(layers, r)
    found = 2 * count(net, AT_32).macs

    def add(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal found
        found += out.numel() * (1 if isinstance(layer, LBMBConv) else 2)

    for layer in net.modules():
        adds = isinstance(layer, LBMBConv) and layer.residual
        if adds or isinstance(layer, nn.BatchNorm2d | nn.SiLU):
            layer.register_forward_hook(add)
        elif isinstance(layer, SqueezeExcite):
            found += layer.reduce.out_features + layer.expand.out_features
    net(torch.empty(1, *AT_32, device="meta"))
    return found / 1e8


@pytest.mark.parametrize("layers", few([59, 32]))
def test_flops_are_those_of_the_paper_to_the_last_digit(layers: int) -> None:
    six, ten = flops(layers, 6), flops(layers, 10)
    for (depth, r), (_, expected) in PRINTED.items():
        if depth == layers:  # all of them lie on one line
            assert six + (r - 6) * (ten - six) / 4 == pytest.approx(expected, abs=0.001)


def test_one_more_of_the_expansion_costs_what_the_specification_adds_up() -> None:
    def parts(r: int) -> dict[str, int]:
        sizes = dict.fromkeys(("expand", "project", "gate", "gate's bias", "norms"), 0)
        for name, p in flat(59, r).named_parameters():
            kind = (
                "expand"
                if name.endswith("expand.0.weight")
                else "project"
                if name.endswith("project.0.weight")
                else "gate"
                if ".gate." in name and p.ndim == 2
                else "gate's bias"
                if name.endswith("gate.expand.bias")
                else "norms"
            )
            sizes[kind] += p.numel()
        return sizes

    six, seven = parts(6), parts(7)
    slope = {kind: seven[kind] - six[kind] for kind in six}
    assert slope == {
        "expand": 450_816,
        "project": 472_064,
        "gate": 225_408,
        "gate's bias": 2_448,
        "norms": 4 * 2_448,
    }
    assert sum(slope.values()) == 1_160_528
    assert 1_160_528 - slope["gate's bias"] == 1_158_080  # without biases: 92.79 M at r80
    assert 1_160_528 + 9 * 2_448 == 1_182_560  # with trained kernels: 94.75 M


def test_counts_are_linear_in_the_expansion() -> None:
    six, ten, eighteen = (cost(32, r) for r in (6, 10, 18))
    assert eighteen.trainable - ten.trainable == 2 * (ten.trainable - six.trainable)
    assert eighteen.macs - ten.macs == 2 * (ten.macs - six.macs)


def test_the_layers_are_59_and_32() -> None:
    for layers in (59, 32):
        net = flat(layers, 6)
        gates = {
            id(part)
            for gate in net.modules()
            if type(gate).__name__ == "SqueezeExcite"
            for part in gate.modules()
        }
        kinds = (nn.Conv2d, nn.Linear, LocalBinaryConv2d)
        found = [p for p in net.modules() if isinstance(p, kinds) and id(p) not in gates]
        assert len(found) == layers


def test_the_gate_of_stage_0_is_552_weights_of_choice() -> None:
    with_gate, without = flat(59, 6), flat(59, 6, gate_stage0=False)
    weights = [sum(p.numel() for p in net.parameters()) for net in (with_gate, without)]
    assert weights[0] - weights[1] == 552
    assert {round(n / 1e6, 2) for n in weights} == {7.11}  # both readings fit


def test_the_hidden_width_of_a_gate_does_not_depend_on_the_expansion() -> None:
    for r in (3, 6):
        net = flat(32, r)
        assert [block.gate.reduce.out_features for block in net.blocks] == [
            4, 16, 16, 16, 32, 32, 32, 64, 64,
        ]  # fmt: skip


def test_kernels_stay_fixed_in_training_and_pack_into_two_bytes() -> None:
    net = create_model("lbmbnet32_r6", repeats=1, expansion=2, seed=0)
    layers = [part for part in net.modules() if isinstance(part, LocalBinaryConv2d)]
    before = [layer.weight.clone() for layer in layers]
    descent = torch.optim.SGD(net.parameters(), lr=0.1)
    net(torch.rand(4, 3, 32, 32)).sum().backward()
    descent.step()
    for layer, kernels in zip(layers, before, strict=True):
        assert layer.weight.dtype == torch.int8
        assert torch.equal(layer.weight, kernels)
    kernels = 2448 * 6 + 32
    assert 2 * kernels == 29_440  # bytes of r6's kernels as uint16, against 529,920 as float32
    assert 4 * 9 * kernels == 529_920
    assert ternary_codes(layers[0].weight).element_size() == 2


def test_norms_and_the_gates_activation_are_arguments() -> None:
    usual = flat(32, 6)
    norms = [part for part in usual.modules() if isinstance(part, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.1)}
    assert not any(isinstance(part, nn.ReLU) for part in usual.modules())
    other = flat(32, 6, gate_act="relu", bn_eps=1e-3, bn_momentum=0.01)
    for part in other.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert (part.eps, part.momentum) == (1e-3, 0.01)
        if isinstance(part, SqueezeExcite):
            assert isinstance(part.act, nn.ReLU)
    assert isinstance(other.blocks[0].act, nn.SiLU)
    with pytest.raises(MismatchError, match=r"eps above 0 and momentum .* not 0\.0 and 0\.1"):
        flat(32, 6, bn_eps=0.0)


def test_density_and_activation_are_arguments() -> None:
    dense = create_model("lbmbnet32_r6", repeats=1, density=1.0, act="relu", seed=0)
    assert not any(
        (layer.weight == 0).any()
        for layer in dense.modules()
        if isinstance(layer, LocalBinaryConv2d)
    )
    assert not any(isinstance(part, nn.SiLU) for part in dense.modules())
    for wrong, text in (
        ({"density": 0.0}, "0.0"),
        ({"act": "gelu"}, "silu, relu, not 'gelu'"),
        ({"repeats": 0}, "0 and 6"),
    ):
        with pytest.raises(MismatchError, match=text):
            create_model("lbmbnet32_r6", **wrong)
