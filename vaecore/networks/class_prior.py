"""A prior for each class of image, which is what labels teach a VAE: it scores, labels, and samples a class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vaecore.bound import DiagonalGaussian, LatentVariableModel
from vaecore.likelihoods.base import Distribution, Likelihood
from vaecore.networks.blocks import LEARNED_PRIOR

BESIDE = 1.0  # weight in training of the label's log-probability, beside the bound per dimension of y


@dataclass(frozen=True, slots=True, eq=False)
class ClassMixture:
    """p(z) = sum_c p(c) p(z | c), where c is of the image as a whole and p(z | c) a normal distribution.

    The class is a latent, too. With q(c | y) = r_c, which is best as p(c) exp(-KL_c) made to sum to one, the bound on
    log p(y) has the rate sum_c r_c KL_c + KL(r || p(c)), where KL_c = KL(q(z | y) || p(z | c)): no samples, never
    negative.

    Source: Jiang et al. 2017, "Variational deep embedding", eq. 16; Kingma et al. 2014, "Semi-supervised learning with
    deep generative models", section 3.1.
    """

    log_share: Float[Tensor, " K"]  # log p(c)
    of_class: DiagonalGaussian  # (K, Z, h, w)

    def log_joint(self, posterior: DiagonalGaussian) -> Float[Tensor, "B K"]:
        """log p(c) - KL(q(z | y) || p(z | c)): what Bayes' rule is about, up to what all classes have in common."""
        return self.log_share - self._kl(posterior).sum(dim=(2, 3, 4))

    def _kl(self, posterior: DiagonalGaussian) -> Float[Tensor, "B K Z h w"]:
        return posterior.for_samples().kl(self.of_class)

    def log_density(self, z: Float[Tensor, "B S Z h w"]) -> Float[Tensor, "B S"]:
        """Log-density of all latents together."""
        return torch.logsumexp(self.log_share + self.of_class.log_density(z.unsqueeze(2)), dim=2)

    def component_of(self, z: Float[Tensor, "N Z h w"], generator: torch.Generator) -> DiagonalGaussian:
        """p(z | c) of a class that each image may be of, drawn from p(c | z)."""
        log_joint = self.log_share + self.of_class.log_density(z[:, None, None])[:, 0]
        drawn = torch.multinomial(torch.softmax(log_joint, dim=1), 1, generator=generator)[:, 0]
        return DiagonalGaussian(self.of_class.mean[drawn], self.of_class.log_scale[drawn])

    def kl_from(self, posterior: DiagonalGaussian, z: Float[Tensor, "B S Z h w"]) -> Float[Tensor, "B S Z h w"]:
        """What each latent has of the rate; what the class takes is divided evenly among them."""
        of_image = DiagonalGaussian(posterior.mean[:, 0], posterior.log_scale[:, 0])
        joint = self.log_joint(of_image)
        log_r = torch.log_softmax(joint, dim=1)
        r = log_r.exp()
        each = torch.einsum("bk,bkzhw->bzhw", r, self._kl(of_image))
        which = (r * (log_r - self.log_share)).sum(dim=1) / math.prod(z.shape[2:])
        return (each + which[:, None, None, None]).unsqueeze(1)


@dataclass(frozen=True, slots=True, eq=False)
class OfClass:
    """A network whose images are of known classes: p(z | c), for the bound on log p(y | c)."""

    network: ClassPrior
    label: Int[Tensor, " B"]

    @property
    def likelihood(self) -> Likelihood:
        """From the network's output to p(y | z)."""
        return self.network.likelihood

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Z, h, w."""
        return self.network.latent_shape

    def posterior(self, y: Float[Tensor, "B C H W"]) -> DiagonalGaussian:
        """q(z | y)."""
        return self.network.posterior(y)

    def prior(self, z: Float[Tensor, "B S Z h w"]) -> DiagonalGaussian:
        """p(z | c)."""
        del z
        of_class = self.network.of_class()
        return DiagonalGaussian(of_class.mean[self.label], of_class.log_scale[self.label]).for_samples()

    def decode(self, z: Float[Tensor, "B Z h w"]) -> Distribution:
        """p(y | z)."""
        return self.network.decode(z)


class ClassPrior(nn.Module):
    """Any network, with a learned normal distribution of latents for each class in place of the standard normal.

    The label decides where an image's latents lie, and the decoder looks at these alone. One pass therefore gives the
    bound on log p(y | c) for every class: they differ by their KL.
    """

    latent_shape: tuple[int, int, int]
    likelihood: Likelihood
    log_share: Tensor
    temperature: Tensor

    def __init__(self, network: nn.Module, classes: int) -> None:
        """Give a network a prior for each class.

        Args:
            network: Satisfies `LatentVariableModel`.
            classes: K.
        """
        super().__init__()
        self.network = network
        self.likelihood, self.latent_shape = self._inner.likelihood, self._inner.latent_shape
        self.mean = nn.Parameter(torch.zeros(classes, *self.latent_shape))
        self.log_scale = nn.Parameter(torch.zeros(classes, *self.latent_shape))
        self.register_buffer("log_share", torch.full((classes,), -math.log(classes)))
        self.register_buffer("temperature", torch.ones(()))

    @property
    def _inner(self) -> LatentVariableModel:
        return cast("LatentVariableModel", self.network)

    @property
    def classes(self) -> int:
        """K."""
        return len(self.log_share)

    @torch.no_grad()
    def set_shares(self, counts: Float[Tensor, " K"]) -> None:
        """Let p(c) be the classes' shares of so many images."""
        self.log_share.copy_((counts / counts.sum()).log())

    def of_class(self) -> DiagonalGaussian:
        """p(z | c) of each class, (K, Z, h, w)."""
        return DiagonalGaussian(self.mean, self.log_scale.clamp(*LEARNED_PRIOR))

    def given(self, label: Int[Tensor, " B"]) -> OfClass:
        """The same for images of known classes."""
        return OfClass(self, label)

    def posterior(self, y: Float[Tensor, "B C H W"]) -> DiagonalGaussian:
        """q(z | y)."""
        return self._inner.posterior(y)

    def prior(self, z: Float[Tensor, "B S Z h w"]) -> ClassMixture:
        """p(z)."""
        del z
        return ClassMixture(self.log_share, self.of_class())

    def log_label(self, posterior: DiagonalGaussian) -> Float[Tensor, "B K"]:
        """log p(c | y) by Bayes' rule over the bounds on log p(y | c), which are log p(c) - KL_c but for a constant.

        The bounds are looser for some classes than for others, and count pixels that depend on each other as if each
        were news: as probabilities they are too sure. The temperature, found on held-out images, makes up for it.
        """
        return torch.log_softmax(
            ClassMixture(self.log_share, self.of_class()).log_joint(posterior) / self.temperature, 1
        )

    def sample_prior(self, count: int, generator: torch.Generator) -> Float[Tensor, "N Z h w"]:
        """Latents drawn from p(z)."""
        return self.sample_class(
            torch.multinomial(self.log_share.exp(), count, replacement=True, generator=generator), generator
        )

    def sample_class(self, label: Int[Tensor, " N"], generator: torch.Generator) -> Float[Tensor, "N Z h w"]:
        """Latents drawn from p(z | c)."""
        of_class, noise = self.of_class(), torch.randn((len(label), *self.latent_shape), generator=generator)
        return of_class.mean[label] + of_class.log_scale[label].exp() * noise

    def decode(self, z: Float[Tensor, "B Z h w"]) -> Distribution:
        """p(y | z)."""
        return self._inner.decode(z)


def label_loss(model: ClassPrior, posterior: DiagonalGaussian, label: Int[Tensor, " B"]) -> Float[Tensor, ""]:
    """-log p(c | y) in nats per image, at temperature one: what the bound on log p(y | c) alone leaves out.

    The bound counts the class as two nats among hundreds; beside it, this term asks that images can be told apart.

    Source: Lasserre, Bishop, Minka 2006, "Principled hybrids of generative and discriminative models"; as the term of
    Kingma et al. 2014, eq. 9.
    """
    joint = ClassMixture(model.log_share, model.of_class()).log_joint(posterior)
    return torch.nn.functional.cross_entropy(joint, label)
