"""Frozen backbones: pretrained networks whose inner maps describe an image better than its pixels do.

The default ships with the software: EfficientNet-Lite0, trained on ImageNet, with weights from a Python package, as
those of EfficientNet-Lite2 are. Any other convolutional network or vision transformer of timm can be named; its weights
come from a file, or are downloaded because they were asked for.

Source: Tan and Le 2019, "EfficientNet"; the Lite variants leave out squeeze-and-excitation and swish. Dosovitskiy et
al. 2021, "An image is worth 16x16 words"; Oquab et al. 2024, "DINOv2".
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import timm
import torch
from jaxtyping import Float
from timm.models import FeatureInfo
from torch import Tensor, nn

from vaecore.representations.weights import EMBEDDED, PACKAGED, convert_weights, fill, packaged_weights, read_weights


@dataclass(frozen=True, slots=True)
class Maps:
    """Where a backbone's maps are taken."""

    strides: tuple[int, ...]  # reductions of the image's sides
    layers: tuple[int, ...] | None = None  # of a vision transformer, from 1: they all have one stride


def choose_maps(
    name: str,
    usual: Sequence[int],
    *,
    strides: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    whole: bool = False,
) -> Maps:
    """Choose where maps are taken, where that is left open.

    Of a convolutional network, at its strides nearest to the usual ones. Of a vision transformer, in the middle and at
    three quarters of its depth, where tokens know their surroundings and still say what is at their place; where the
    image is judged as a whole, at the end.

    Args:
        name: Of the backbone, as `Backbone` takes it.
        usual: Strides that suit what the maps are for.
        strides: These strides, of a convolutional network.
        layers: These layers, of a vision transformer.
        whole: Maps are averaged over the image.

    Raises:
        ValueError: The name is unknown, or the network has no such strides or layers.
    """
    found = _look_up(_architecture(name))
    if found.depth is None:
        if layers is not None:
            msg = f"backbone '{name}' is no vision transformer: it has strides, {sorted(found.strides)}, no 'layers'"
            raise ValueError(msg)
        nearest = {min(found.strides, key=lambda each: abs(math.log(each / stride))) for stride in usual}
        return Maps(tuple(sorted(nearest)) if strides is None else tuple(strides))
    if strides is not None:
        msg = (
            f"backbone '{name}' is a vision transformer, whose maps all have the stride {found.strides[0]}: leave "
            f"'strides' out; 'layers' says which of its {found.depth} layers are taken"
        )
        raise ValueError(msg)
    if layers is None:
        shares = (1.0,) if whole else (0.5, 0.75)
        layers = sorted({max(1, round(share * found.depth)) for share in shares})
    return Maps(found.strides * len(layers), tuple(layers))


class Backbone(nn.Module):
    """Maps of a frozen network at chosen strides or layers, for images with values in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str = EMBEDDED,
        *,
        strides: Sequence[int] = (16,),
        layers: Sequence[int] | None = None,
        weights: Path | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        """Load a pretrained network and keep the part that the maps need.

        Args:
            name: A key of `PACKAGED`, or a model that timm knows.
            strides: Reductions of the image's sides at which maps are taken, such as (8, 16).
            layers: Of a vision transformer, and in place of strides: the layers whose tokens are the maps, from 1, in
                ascending order, after its final norm and without class token and registers, as the authors of DINOv2
                take intermediate layers.
            weights: File of weights for a timm model (safetensors, or a state dict that torch wrote; names are timm's
                or those of the network's authors, as far as timm knows these). Without it the weights are those that
                timm downloads, or those of a package.
            size: Height and width of the images: the position embeddings of a vision transformer are resized to them
                once, here. Default: the size that it was trained at.

        Raises:
            ValueError: The name is unknown, the network has no such map, the weights are missing or do not fit it, or
                the size is not a multiple of a vision transformer's stride.
        """
        super().__init__()
        architecture = _architecture(name)
        found = _look_up(architecture)
        self.name = name
        self.layers = None if layers is None else tuple(layers)
        self.strides = tuple(strides) if layers is None else found.strides * len(layers)
        self._check(found, size)
        state = self._find_weights(architecture, weights, size)
        if self.layers is None:
            order = sorted(self.strides)
            last = dict(zip(found.strides, found.indices, strict=True))  # the deepest map of each stride
            self.network: nn.Module = timm.create_model(
                architecture, pretrained=state is None, features_only=True, out_indices=[last[s] for s in order]
            )
            self._positions = [order.index(stride) for stride in self.strides]
            widths = _info(self.network).channels()
        else:
            self.network = _transformer(architecture, size, pretrained=state is None)
            self.network.prune_intermediate_layers(self._indices, prune_norm=False, prune_head=True)  # type: ignore[operator]
            self._positions = list(range(len(self.layers)))
            widths = [cast("int", self.network.num_features)] * len(self.layers)
        self.channels: tuple[int, ...] = tuple(widths[position] for position in self._positions)
        if state is not None:
            fill(self.network, state, name)
        _clamp(self.network)
        facts = timm.get_pretrained_cfg(architecture)
        self.register_buffer("mean", torch.tensor(facts.mean if facts else (0.5,) * 3)[:, None, None])
        self.register_buffer("std", torch.tensor(facts.std if facts else (0.5,) * 3)[:, None, None])
        self.to(memory_format=torch.channels_last)
        self.requires_grad_(requires_grad=False)
        self.eval()

    @property
    def _indices(self) -> list[int]:
        """The layers as timm counts them."""
        return [layer - 1 for layer in self.layers or ()]

    def _check(self, found: _Known, size: tuple[int, int] | None) -> None:
        """Refuse maps that the network has not, and a size that a vision transformer cannot cut into patches."""
        if self.layers is None:
            if missing := sorted(set(self.strides) - set(() if found.depth else found.strides)):
                has = f"{sorted(found.strides)}" if found.depth is None else f"'layers' 1 to {found.depth} instead"
                msg = f"backbone '{self.name}' has no map at stride {missing[0]}; it has {has}"
                raise ValueError(msg)
            return
        depth, stride = found.depth or 0, found.strides[0]
        if not self.layers or list(self.layers) != sorted(set(self.layers) & set(range(1, depth + 1))):
            msg = f"backbone '{self.name}' has the layers 1 to {depth}, in this order, and not {list(self.layers)}"
            raise ValueError(msg)
        if size is not None and (size[0] % stride or size[1] % stride):
            msg = f"size {size[0]} x {size[1]} is not a multiple of the backbone's stride {stride}"
            raise ValueError(msg)

    def _find_weights(
        self, architecture: str, weights: Path | None, size: tuple[int, int] | None
    ) -> dict[str, Tensor] | None:
        """Weights by timm's names; None where timm is to download them."""
        if weights is not None:
            with torch.device("meta"):
                network = timm.create_model(architecture) if self.layers is None else _transformer(architecture, size)
            return convert_weights(read_weights(weights), network, self.name)
        if self.name in PACKAGED:
            return packaged_weights(self.name)
        if (facts := timm.get_pretrained_cfg(architecture)) is None or not facts.has_weights:
            msg = f"timm has no weights of '{self.name}': name a file of them in 'backbone_weights'"
            raise ValueError(msg)
        return None

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B C h w"]]:
        """Maps at `strides`, in that order."""
        # Several times faster on a CPU, and nothing to an exported graph.
        shown = ((image - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        if self.layers is None:
            maps = self.network(shown)
        else:
            maps = self.network.forward_intermediates(  # type: ignore[operator]
                shown, indices=self._indices, norm=True, intermediates_only=True
            )
        return [maps[position] for position in self._positions]

    def train(self, mode: bool = True) -> Backbone:  # noqa: ARG002 - a frozen network has one mode
        """Stay in evaluation mode, whatever the rest of the model does: statistics of batches are frozen, too."""
        return super().train(mode=False)

    def digest(self) -> str:
        """sha256 over all weights: features are cached under it."""
        where = f"{self.strides}" if self.layers is None else f"{self.strides} {self.layers}"
        stamp = hashlib.sha256(f"{self.name} {where}".encode())
        for key, value in self.state_dict().items():
            stamp.update(key.encode())
            stamp.update(value.cpu().contiguous().numpy().tobytes())
        return stamp.hexdigest()


class _Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(0, 6)


def _clamp(network: nn.Module) -> None:
    """Replace each ReLU6 by a clamp: the same to the last bit, and nearly twice as fast to export."""
    for name, child in network.named_children():
        if isinstance(child, nn.ReLU6):
            setattr(network, name, _Clamp())
        else:
            _clamp(child)


def find_licence(name: str) -> str | None:
    """The licence that timm lists for a backbone's weights; None where it lists none."""
    facts = timm.get_pretrained_cfg(_architecture(name))
    return facts.license if facts else None


class _Known(NamedTuple):
    """What is known of an architecture before it has weights."""

    strides: tuple[int, ...]  # of its maps; of a vision transformer the one of all its layers
    indices: tuple[int, ...]  # by which timm knows these maps
    depth: int | None  # layers of a vision transformer; None: a convolutional network


@lru_cache(maxsize=8)
def _look_up(architecture: str) -> _Known:
    with torch.device("meta"):  # no weights are made: a large network takes no longer than a small one
        info = _info(timm.create_model(architecture, features_only=True))
    every = [each["reduction"] for each in info.info]
    if len(every) > 1 and len(set(every)) == 1:
        return _Known((every[0],), (), len(every))
    last = dict(zip(info.reduction(), info.out_indices, strict=True))
    return _Known(tuple(last), tuple(last.values()), None)


def _architecture(name: str) -> str:
    """Timm's name of a backbone."""
    architecture = PACKAGED[name].architecture if name in PACKAGED else name
    try:
        known = timm.is_model(architecture)
        timm.get_pretrained_cfg(architecture)
    except RuntimeError:  # timm knows the network, and not the weights that are named after the full stop
        known = False
    if not known:
        msg = f"'{name}' is not a backbone: use '{EMBEDDED}', which ships, or a model that timm lists"
        raise ValueError(msg)
    return architecture


def _info(network: nn.Module) -> FeatureInfo:
    info: FeatureInfo = network.feature_info  # type: ignore[assignment]  # timm sets it on the module
    return info


def _transformer(architecture: str, size: tuple[int, int] | None, *, pretrained: bool = False) -> nn.Module:
    options: dict[str, Any] = {} if size is None else {"img_size": size}
    try:
        network: nn.Module = timm.create_model(architecture, pretrained=pretrained, **options)
    except TypeError as error:
        msg = f"'{architecture}' works at one size of images alone, and is no backbone here ({error})"
        raise ValueError(msg) from None
    return network
