"""Likelihoods p(y | z, c): one file each, every log-probability in nats per dimension."""

from vaecore.likelihoods.base import Distribution, Likelihood
from vaecore.likelihoods.bernoulli import Bernoulli, BernoulliLikelihood
from vaecore.likelihoods.categorical import Categorical, CategoricalLikelihood
from vaecore.likelihoods.gaussian import Gaussian, GaussianLikelihood, KnownScaleLikelihood, SharedGaussianLikelihood
from vaecore.likelihoods.laplace import Laplace, LaplaceLikelihood
from vaecore.likelihoods.logistic import DiscretisedLogistic, DiscretisedLogisticLikelihood

# Names of the job file, in the order in which the documentation lists them.
IMAGE_LIKELIHOODS: dict[str, type[Likelihood]] = {
    "gaussian": GaussianLikelihood,
    "shared_gaussian": SharedGaussianLikelihood,
    "laplace": LaplaceLikelihood,
    "discretised_logistic": DiscretisedLogisticLikelihood,
    "bernoulli": BernoulliLikelihood,
}

__all__ = [
    "IMAGE_LIKELIHOODS", "Bernoulli", "BernoulliLikelihood", "Categorical", "CategoricalLikelihood",
    "DiscretisedLogistic", "DiscretisedLogisticLikelihood", "Distribution", "Gaussian", "GaussianLikelihood",
    "KnownScaleLikelihood", "Laplace", "LaplaceLikelihood", "Likelihood", "SharedGaussianLikelihood",
]  # fmt: skip
