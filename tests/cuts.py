"""Networks that are small enough to cut in a test, and cuts of them."""

import numpy as np
import torch

from leancnn import models
from leancnn.channels.dependencies import find_dependencies
from leancnn.channels.remove import cut_body, silence
from leancnn.channels.select import best
from leancnn.channels.sizes import reshape, widths_of
from tests import tiny  # noqa: F401 - the network of that name

LARGE = {"alexnet", "vgg16"}  # hundreds of MB: in the slow tests


SMALLER = {  # the same blocks, fewer of them
    "lbmbnet59": {"repeats": 2, "expansion": 2},
    "lbmbnet32": {"repeats": 2, "expansion": 2},
    "resnetv2": {"repeats": 2},
}


def arguments(name):
    return SMALLER.get(name.split("_")[0], {})


def body(name, **changes):
    """A network whose norms do something, in double precision."""
    net = models.create_model(name, seed=0, classes=5, **arguments(name), **changes).eval()
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                tensor.uniform_(-0.5, 0.5, generator=generator)
    return net if name in LARGE else net.double()


def images(name, net):
    card = models.card(name)
    side = card.image[1] if card.image[1] < 64 else max(card.smallest, 64)
    generator = torch.Generator().manual_seed(2)
    dtype = next(net.parameters()).dtype
    return torch.randn(2, 3, side, side, generator=generator, dtype=dtype)


def kept(dependencies, share, seed=0):
    """Coupled channels that stay when every channel group is cut to a share of its channels."""
    generator = np.random.default_rng(seed)
    keep = np.ones(dependencies.coupled_count, bool)
    for channel_group in dependencies.channel_groups:
        most = {
            path: max(1, round(share * len(dependencies.writes[path])))
            for path in channel_group.layers
        }
        keep[channel_group.coupled] = best(
            channel_group, dependencies, generator.random(len(channel_group.coupled)), most
        )
    return keep


def check_cut(name, share):
    net = body(name)
    x, dependencies = images(name, net), find_dependencies(net, 3)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    keep = kept(dependencies, share)
    small, widths = cut_body(net, dependencies, keep)
    with torch.no_grad():
        features = small.features(x)
        found, expected, whole = small.fc(features), silence(net, dependencies, keep).run(x), net(x)
    assert small.fc.in_features == features.shape[1], "the centre loss asks for it"
    scale = expected.abs().max()
    assert (found - expected).abs().max() <= (1e-5 if name in LARGE else 1e-12) * scale
    assert (whole - expected).abs().max() > 1e-3 * scale, "nothing was cut"
    for key, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[key]), f"{key} of the whole network changed"
    again = models.create_model(name, seed=3, classes=5, **arguments(name))
    reshape(again, widths)
    assert widths_of(again) == widths_of(small)
    again.to(x.dtype).load_state_dict(small.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(x), found)


FAMILIES = {  # one of each kind in the quick tests
    "henet_r2", "shufflenet_r2", "lbmbnet32_r6", "nvmnet_g4", "rsenet", "resnet20", "resnetv2_56",
    "mobilenetv3_small", "shufflenetv2_x0_5", "squeezenet1_1", "resnet8", "mobilenetv2",
}  # fmt: skip
