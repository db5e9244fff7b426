"""p(z) = N(0, I): what networks have by themselves."""

from vaecore.priors.base import PriorKind

PRIOR = PriorKind(summary="standard normal", wrap=lambda network, _: network)
