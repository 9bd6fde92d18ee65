"""What several networks share. Shapes are (N, C, H, W): images, channels, rows, columns."""

from torch import Tensor, fx, nn

from leancnn.errors import MismatchError


def check_image(
    x: Tensor | fx.Proxy,
    network: str,
    *,
    channels: int,
    smallest: int = 1,
    largest: int | None = None,
) -> None:
    """Refuse an image that `network` cannot take, with the numbers; a symbolic trace has none.

    Raises `MismatchError`.
    """
    if isinstance(x, fx.Proxy):
        return
    if x.ndim != 4:
        raise MismatchError(
            f"{network} needs images as (N, C, H, W), not a shape of {tuple(x.shape)}"
        )
    _, c, height, width = x.shape
    if c != channels:
        raise MismatchError(f"{network} was built for {channels} channels, not {c}")
    if min(height, width) < smallest:
        raise MismatchError(
            f"{network} needs images of {smallest}×{smallest} or more, not {height}×{width}"
        )
    if largest is not None and max(height, width) > largest:
        raise MismatchError(
            f"{network} ends on one pixel for {smallest} to {largest}, not for {height}×{width}; "
            "allow_any_size=true averages the rest"
        )


def choose(value: str, allowed: tuple[str, ...], argument: str) -> str:
    """Return `value`; raises `MismatchError` when it is none of `allowed`."""
    if value not in allowed:
        raise MismatchError(f"{argument} is one of {', '.join(allowed)}, not '{value}'")
    return value


def grouped_conv(
    c_in: int,
    c_out: int,
    kernel: int,
    *,
    groups: int = 1,
    stride: int = 1,
    padding: int = 0,
    bias: bool = False,
) -> nn.Conv2d:
    """A square convolution whose groups are checked here, where the message can hold the numbers.

    Raises `MismatchError` when `groups` does not divide both channel counts.
    """
    if groups < 1 or c_in % groups or c_out % groups:
        raise MismatchError(f"{groups} groups do not divide {c_in} → {c_out} channels")
    return nn.Conv2d(c_in, c_out, kernel, stride, padding, groups=groups, bias=bias)


def initialise(model: nn.Module, init: str) -> None:
    """Draw the weights of convolutions and linear layers; biases become 0.

    `kaiming` is He et al. 2015 (fan out) for convolutions and std 0.01 for linear layers;
    `gaussian001` is std 0.01 for all, as the HENet paper's authors draw them. Raises
    `MismatchError` for another word.
    """
    choose(init, ("gaussian001", "kaiming"), "init")
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if init == "kaiming" and isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            else:
                nn.init.normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class ChannelShuffle(nn.Module):
    """Let the groups of the next grouped convolution see all of the last one's.

    Channel `g * n + i` (group g of `groups`, place i of n) moves to `i * groups + g`.
    Source: Zhang et al., ShuffleNet, CVPR 2018.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        width: object = c
        if isinstance(width, int) and width % self.groups:
            raise MismatchError(f"{self.groups} groups do not divide {c} channels")
        x = x.view(n, self.groups, c // self.groups, h, w)
        return x.transpose(1, 2).reshape(n, c, h, w)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"
