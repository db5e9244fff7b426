"""PixelCNN: the density of a grid of values as a product, each value given all before it; of images, or of latents.

The order is that of reading: row by row, from left to right, and at one place channel by channel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vaecore.bound import DiagonalGaussian
from vaecore.likelihoods.base import Distribution, Likelihood

Draw = Callable[[Float[Tensor, "B P 1 1"]], Float[Tensor, "B 1 1 1"]]
Extend = Callable[[int, Tensor], Tensor]
Watch = Callable[[int, Float[Tensor, "B C H W"]], None]


class MaskedNetwork(nn.Module):
    """From values x to P parameters of the distribution of each, which depend on no later value and not on itself.

    Two stacks of gated convolutions: what one row knows of all rows above it, and what a place knows of its row to the
    left. Both look back by the way they are padded, so that there is no blind spot, and no weight is masked. Channels
    of one place follow each other through masked layers: a latent vector, a grid of one place, is modelled by these.

    Source: van den Oord et al. 2016, "Conditional image generation with PixelCNN decoders", section 2.2, for the
    stacks; Germain et al. 2015, "MADE: masked autoencoder for distribution estimation", for the channels.
    """

    def __init__(self, channels: int, parameters: int, *, width: int = 64, layers: int = 4, kernel: int = 3) -> None:
        """Build the network.

        Args:
            channels: C of x.
            parameters: P, for each value.
            width: Channels of both stacks; the layers over the channels of a place are four times as wide.
            layers: Gated layers after the first one; 0 where there is only one place.
            kernel: Side of a convolution, odd. The receptive field is (layers + 1) (kernel - 1) / 2 rows up, and
                kernel columns to the left with layers (kernel - 1) / 2 more.
        """
        super().__init__()
        self.channels, self.reach, self.left = channels, kernel // 2, kernel
        self.first_above = nn.Conv2d(channels, width, (self.reach, kernel))
        self.first_left = nn.Conv2d(channels, width, (1, kernel))
        self.layers = nn.ModuleList(_GatedLayer(width, self.reach) for _ in range(layers))
        self.head = _ChannelHead(channels, parameters, context=width, width=4 * width)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B PC H W"]:
        """Parameters of each value, stacked channel-wise, all of the first kind first, as likelihoods expect them."""
        reach, left = self.reach, self.left
        told = self._above(F.pad(x, (0, 0, reach, 0))[:, :, :-1], lambda _, known: F.pad(known, (0, 0, reach, 0)))
        context = self._along(F.pad(x, (left, 0))[..., :-1], told, lambda _, known: F.pad(known, (reach, 0)))
        parameters: Tensor = self.head(context, x)
        return parameters

    def _above(self, before: Tensor, extend: Extend) -> list[Tensor]:
        """What rows know of the rows above them, (B, D, rows, W) for each layer.

        Args:
            before: x, from `reach` rows above the first one to the row above the last one.
            extend: From a layer's number and its rows to the same with the `reach` rows above the first one.
        """
        known = self.first_above(F.pad(before, (self.reach, self.reach)))
        told = [known]
        for number, layer in enumerate(self.layers):
            known, tells = cast("_GatedLayer", layer).look_up(known, extend(number, known))
            told.append(tells)
        return told

    def _along(self, before: Tensor, told: list[Tensor], extend: Extend) -> Float[Tensor, "B D rows columns"]:
        """What places know of all before them, from their own row and from what the rows above tell.

        Args:
            before: x, from `left` columns before the first one to the column before the last one.
            told: What `_above` gives, of these places.
            extend: From a layer's number and its columns to the same with the `reach` columns before the first one.
        """
        known: Tensor = told[0] + self.first_left(before)
        for number, (layer, tells) in enumerate(zip(self.layers, told[1:], strict=True)):
            known = cast("_GatedLayer", layer).look_left(known, extend(number, known), tells)
        return known

    @torch.no_grad()
    def fill(self, x: Float[Tensor, "B C H W"], draw: Draw, watch: Watch | None = None) -> Float[Tensor, "B C H W"]:
        """Draw value after value, in the order of reading; each place goes through each layer once.

        Args:
            x: What is written over; its shape says how many and how large.
            draw: From the parameters of one value of each of B to that value.
            watch: Told the number of rows that are there, and x, after each row.

        Returns:
            x.
        """
        height, columns = x.shape[-2:]
        above = _Memory(2, self.reach)
        for row in range(height):
            told = self._above(F.pad(x, (0, 0, self.reach, 0))[:, :, row : row + self.reach], above)
            before, this = _Memory(3, self.reach), F.pad(x[:, :, row : row + 1], (self.left, 0))
            for column in range(columns):
                here = [each[..., column : column + 1] for each in told]
                context = self._along(this[..., column : column + self.left], here, before)
                place = this[..., self.left + column : self.left + column + 1]
                for channel in range(self.channels):
                    parameters = self.head(context, place).unflatten(1, (-1, self.channels))
                    place[:, channel : channel + 1] = draw(parameters[:, :, channel])
            x[:, :, row : row + 1] = this[..., self.left :]
            if watch is not None:
                watch(row + 1, x)
        return x


class _Memory:
    """The last rows, or columns, of what each layer was given: a sample takes each of them through a layer once."""

    def __init__(self, axis: int, length: int) -> None:
        self._axis, self._length = axis, length
        self._kept: dict[int, Tensor] = {}

    def __call__(self, number: int, known: Tensor) -> Tensor:
        """Return the next one behind those before it, which are nought at first, as padding is."""
        shape = [self._length if axis == self._axis else side for axis, side in enumerate(known.shape)]
        before = self._kept.get(number, known.new_zeros(shape))
        extended = torch.cat([before, known], dim=self._axis)
        self._kept[number] = extended.narrow(self._axis, 1, self._length)
        return extended


class _GatedLayer(nn.Module):
    """One step of both stacks: tanh of one half of the maps times sigmoid of the other, added to what was known.

    Source: van den Oord et al. 2016, as above, eq. 2 and figure 2; as a residual in both stacks.
    """

    def __init__(self, width: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.up = nn.Conv2d(width, 2 * width, (reach + 1, 2 * reach + 1))
        self.left = nn.Conv2d(width, 2 * width, (1, reach + 1))
        self.tell = nn.Conv2d(2 * width, 2 * width, 1)
        self.out = nn.Conv2d(width, width, 1)

    def look_up(self, known: Tensor, extended: Tensor) -> tuple[Tensor, Tensor]:
        """What rows know of those above, and what places are told of it."""
        seen = self.up(F.pad(extended, (self.reach, self.reach)))
        return known + _gate(seen), self.tell(seen)

    def look_left(self, known: Tensor, extended: Tensor, told: Tensor) -> Tensor:
        """What places know of those to the left, and of what they are told."""
        seen = told + self.left(extended)
        further: Tensor = known + self.out(_gate(seen))
        return further


def _gate(maps: Tensor) -> Tensor:
    signal, gate = maps.chunk(2, dim=1)
    return torch.tanh(signal) * torch.sigmoid(gate)


class _ChannelHead(nn.Module):
    """Parameters of each channel from a place's context and the channels before it: two masked hidden layers."""

    def __init__(self, channels: int, parameters: int, *, context: int, width: int) -> None:
        super().__init__()
        unit = torch.arange(width) * channels // width  # the number of channels that a hidden unit may look at
        channel = torch.arange(channels)
        self.from_context = nn.Conv2d(context, width, 1)
        self.first = _MaskedLinear(channel[None] < unit[:, None])
        self.second = _MaskedLinear(unit[None] <= unit[:, None])
        self.last = _MaskedLinear((unit[None] <= channel[:, None]).repeat(parameters, 1))

    def forward(self, context: Float[Tensor, "B D h w"], x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B PC h w"]:
        hidden = F.silu(self.from_context(F.silu(context)) + self.first(x))
        parameters: Tensor = self.last(F.silu(self.second(hidden)))
        return parameters


class _MaskedLinear(nn.Module):
    """A 1x1 convolution of which only some weights are used."""

    used: Tensor

    def __init__(self, used: Tensor) -> None:
        super().__init__()
        self.register_buffer("used", used.float()[:, :, None, None], persistent=False)
        self.linear = nn.Conv2d(used.shape[1], used.shape[0], 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.linear.weight * self.used, self.linear.bias)


class PixelCNN(nn.Module):
    """p(y) of images without latents: a product over pixels and channels, known exactly.

    It satisfies `LatentVariableModel`, so that all that is done with a bound can be done with it: the latents are y
    itself and cost nothing, and p(y | z) is p(y_i | y_1 to y_(i-1)) at each place. The distortion is -log p(y), the
    ELBO is log p(y), and no noise makes a difference.

    Source: van den Oord, Kalchbrenner, Kavukcuoglu 2016, "Pixel recurrent neural networks", eq. 1.
    """

    latent_shape: tuple[int, int, int]
    likelihood: Likelihood

    def __init__(
        self,
        *,
        channels: int,
        size: tuple[int, int],
        likelihood: Likelihood,
        levels: int,
        width: int = 64,
        layers: int = 12,
        kernel: int = 3,
    ) -> None:
        """Build the network.

        Args:
            channels: C of y.
            size: Height and width that it works at.
            likelihood: Of one value given those before it; discrete.
            levels: The largest level of y: 1 for black and white, 255 for images of 8 bits.
            width: See `MaskedNetwork`.
            layers: See `MaskedNetwork`.
            kernel: See `MaskedNetwork`.

        Raises:
            ValueError: The likelihood is continuous: its density has no unit that images could be compared in.
        """
        super().__init__()
        if not likelihood.discrete:
            msg = f"pixels have levels, and {type(likelihood).__name__} is continuous: choose a discrete likelihood"
            raise ValueError(msg)
        self.likelihood, self.latent_shape, self.levels = likelihood, (channels, *size), levels
        self.masked = MaskedNetwork(
            channels, likelihood.parameters_per_channel, width=width, layers=layers, kernel=kernel
        )

    def posterior(self, y: Float[Tensor, "B C H W"]) -> DiagonalGaussian:
        """Y itself, without width."""
        return DiagonalGaussian(y, torch.full_like(y, -torch.inf))

    def prior(self, z: Float[Tensor, "B S C H W"]) -> Free:
        """Nothing: what y costs is in the distortion."""
        del z
        return Free()

    def decode(self, z: Float[Tensor, "B C H W"]) -> Distribution:
        """p(y_i | y_1 to y_(i-1)) at each place, for y = z: what is expected there, and by how much it may vary."""
        distribution: Distribution = self.likelihood(self.masked(2 * z - 1))
        return distribution

    def sample_prior(
        self, count: int, generator: torch.Generator, watch: Watch | None = None
    ) -> Float[Tensor, "N C H W"]:
        """Images drawn from p(y), pixel by pixel, each level with its probability.

        Args:
            count: How many.
            generator: Source of chance, on the CPU.
            watch: Told the number of rows that are there, and the images, after each row.
        """
        values = torch.arange(self.levels + 1) / self.levels

        def draw(parameters: Float[Tensor, "B P 1 1"]) -> Float[Tensor, "B 1 1 1"]:
            distribution = self.likelihood(parameters)
            like = torch.zeros((len(parameters), 1, 1, 1))
            log_p = torch.stack([distribution.log_prob(like + value) for value in values], dim=-1)
            drawn = torch.multinomial(log_p.flatten(0, -2).exp(), 1, generator=generator)[:, 0]
            return 2 * values[drawn][:, None, None, None] - 1

        def show(rows: int, x: Tensor) -> None:
            if watch is not None:
                watch(rows, (x + 1) / 2)

        y: Tensor = (self.masked.fill(torch.zeros((count, *self.latent_shape)), draw, show) + 1) / 2
        return y


class Free:
    """A prior under which every latent costs nothing: for a model whose distortion is all there is."""

    def log_density(self, z: Float[Tensor, "B S Z h w"]) -> Float[Tensor, "B S"]:
        """There is none.

        Raises:
            TypeError: Always: log p(y) is known exactly, without samples.
        """
        msg = f"log p(y) is known exactly: {z.shape[1]} samples of latents have no meaning"
        raise TypeError(msg)

    def kl_from(self, posterior: DiagonalGaussian, z: Float[Tensor, "B S Z h w"]) -> Float[Tensor, "B S Z h w"]:
        """Nothing."""
        del posterior
        return torch.zeros_like(z)
