"""The maths of Kintsugi: likelihoods, the bound, networks, tasks and the exported graph. Torch, and no services."""
