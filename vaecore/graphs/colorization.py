"""The colorization graph: the luma of an image in, colours and their error bar out; and what trains it.

Luma and chroma are those of Rec. 601, linear in red, green and blue: what is made keeps the luma that was given, and
error bars of chroma are error bars of colours.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vaecore.bound import bound_maps, training_loss
from vaecore.networks.colorizer import Colorizer
from vaecore.representations.image_format import resize

OUTPUTS = {"restored": "share of the range of values", "restored_scale": "share of the range of values"}

LUMA = (0.299, 0.587, 0.114)
BLUE, RED = 1.772, 1.402  # ranges of the differences of blue and red from luma: chroma is those divided by these
NEIGHBOURS = 16  # chroma is smooth: so many values together say as much as one
SCALE_SHARE = 0.1
SPREAD = 0.5
"""Share of the scale of p(z|c) that samples are drawn with: at all of it, half of them are one tint all over.

Source: the reduced temperature of Kingma, Dhariwal 2018, "Glow: generative flow with invertible 1x1 convolutions".
"""
RADIUS, EVENNESS = 2, 1e-3  # of the guided filter: cells of the chroma's grid, variance of luma


def to_luma(image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 H W"]:
    """Luma of red, green and blue."""
    luma: Tensor = (image * image.new_tensor(LUMA)[:, None, None]).sum(dim=1, keepdim=True)
    return luma


def to_chroma(image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 2 H W"]:
    """Differences of blue and red from luma, both from -0.5 to 0.5."""
    luma = to_luma(image)
    return torch.cat([(image[:, 2:] - luma) / BLUE, (image[:, :1] - luma) / RED], dim=1)


def to_colours(luma: Float[Tensor, "B 1 H W"], chroma: Float[Tensor, "B 2 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Red, green and blue, which may leave [0, 1]."""
    colours: Tensor = luma + torch.einsum("cd,bdhw->bchw", _of_chroma(chroma), chroma)
    return colours


def colourfulness(image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, " B"]:
    """How colourful each image looks, in 8-bit levels: 0 for grey ones, about 15 "slightly", 60 "quite".

    Source: Hasler, Suesstrunk 2003, "Measuring colourfulness in natural images", section 7 (M3).
    """
    red, green, blue = (255 * image).unbind(dim=1)
    opponent = torch.stack([red - green, (red + green) / 2 - blue], dim=1).flatten(2)
    spread, mean = opponent.std(dim=2, correction=0), opponent.mean(dim=2)
    found: Tensor = torch.linalg.vector_norm(spread, dim=1) + 0.3 * torch.linalg.vector_norm(mean, dim=1)
    return found


def _of_chroma(like: Tensor) -> Float[Tensor, "3 2"]:
    """What each colour takes of blueness and redness; the luma of all three is nothing."""
    red, green, blue = LUMA
    return like.new_tensor([[0, RED], [-BLUE * blue / green, -RED * red / green], [BLUE, 0]])


def along_edges(
    chroma: Float[Tensor, "B D h w"], luma: Float[Tensor, "B 1 H W"], small: Float[Tensor, "B 1 h w"]
) -> Float[Tensor, "B D H W"]:
    """Enlarge chroma so that its edges lie where luma has its own: in every window it is linear in luma.

    Args:
        chroma: On a coarse grid.
        luma: At the size wanted.
        small: The same on the coarse grid.

    Source: He, Sun 2015, "Fast guided filter", algorithm 2.
    """

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, 2 * RADIUS + 1, stride=1, padding=RADIUS, count_include_pad=False)

    mean_luma, mean_chroma = mean(small), mean(chroma)
    variance = mean(small.square()) - mean_luma.square()
    slope = (mean(small * chroma) - mean_luma * mean_chroma) / (variance + EVENNESS)
    offset = mean_chroma - slope * mean_luma
    size = (luma.shape[2], luma.shape[3])
    return resize(mean(slope), size) * luma + resize(mean(offset), size)


class ColorizationGraph(nn.Module):
    """Lumas as files have them, channels last, to coloured images of the same luma."""

    gain: Tensor
    factor: Tensor

    def __init__(
        self,
        network: Colorizer,
        side: int,
        gain: float = 1.0,
        factor: Float[Tensor, " 3"] | None = None,
        exponent: float = 1.0,
    ) -> None:
        """Wrap a trained network.

        Args:
            network: The network.
            side: Rows and columns that it works at; images of any size are brought to it.
            gain: Chroma of samples is multiplied by it, so that held-out images are as colourful as they should be:
                the mean over all that is likely is less colourful than any of it.
            factor: By which the scale of each colour is multiplied, learned on held-out images; default: one.
            exponent: To which it is raised before, likewise.
        """
        super().__init__()
        self.network, self.side = network, side
        self.register_buffer("gain", torch.tensor(float(gain)))
        self.register_buffer("factor", torch.ones(3) if factor is None else factor)
        self.exponent = exponent

    def forward(self, image: Float[Tensor, "N H W 1"], noise: Float[Tensor, "N Z"]) -> dict[str, Tensor]:
        """Colour a batch.

        Args:
            image: Luma, values divided by the largest that their type holds.
            noise: Standard normal, one number for each latent: another noise is another sample of the colours. Zeros
                give the colours at the mean of p(z|c).

        Returns:
            `OUTPUTS`, each (N, H, W, 3): red, green and blue, which may leave [0, 1], and their standard deviations.
        """
        luma = image.permute(0, 3, 1, 2)
        given = self.network.given(resize(luma, (self.side, self.side)))
        prior = given.prior_given
        z = prior.mean + SPREAD * prior.log_scale.exp() * noise[:, :, None, None]
        predicted = self.network.predict(given, z)
        sampled = (noise != 0).any(dim=1).to(luma.dtype)[:, None, None, None]
        chroma = predicted.mean * (1 + (self.gain - 1) * sampled)
        grid = (chroma.shape[2], chroma.shape[3])
        colours = to_colours(luma, along_edges(chroma, luma, resize(luma, grid)))
        variance = torch.einsum("cd,bdhw->bchw", _of_chroma(luma).square(), predicted.stddev.square())
        scale = resize(variance.sqrt(), (luma.shape[2], luma.shape[3])).pow(self.exponent) * self.factor[:, None, None]
        return {"restored": colours.permute(0, 2, 3, 1), "restored_scale": scale.permute(0, 2, 3, 1)}


def colorization_loss(
    network: Colorizer, c: Float[Tensor, "B 1 H W"], y: Float[Tensor, "B 2 h w"], noise: Float[Tensor, "B Z 1 1"]
) -> Float[Tensor, ""]:
    """The bound on one half of a batch, the likelihood at the mean of p(z|c) on the other, and that of the scale.

    The bound makes latents that tell colourings apart, and their prior; the second term makes one colouring good where
    nothing is drawn. Chroma counts as a composite likelihood, of one in `NEIGHBOURS` values: taken for independent,
    neighbours would make the rate cost nothing.

    Source: as `vaecore.graphs.segmentation.segmentation_loss`; the scale apart from the mean: `restoration_loss`.
    """
    half = len(c) // 2
    given = network.given(c[:half])
    weight = y.new_full((2, 1, 1), 1 / NEIGHBOURS)
    maps = bound_maps(given, y[:half], noise[:half, None], weight=weight)
    network.likelihood.observe(y[:half], maps.likelihood)  # a scale in closed form serves the next step
    rest = network.given(c[half:])
    predicted = network.predict(rest, rest.prior_given.mean)
    of_mean = -network.likelihood(predicted.mean).log_prob(y[half:]).mean() / NEIGHBOURS
    detached = type(predicted)(predicted.mean.detach(), predicted.log_scale)
    of_scale = -detached.log_prob(y[half:]).mean() / NEIGHBOURS
    loss: Tensor = (training_loss(maps) + of_mean) / 2 + SCALE_SHARE * of_scale
    return loss
