"""The maths of Kintsugi: likelihoods, the bound, networks, tasks and the export of the graph. Torch, and no services."""
