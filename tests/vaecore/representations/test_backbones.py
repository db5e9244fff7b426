"""The backbone that ships knows a cat when it sees one, stays frozen, and refuses what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import skimage.data
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from vaecore.representations.backbones import Backbone, embedded_weights

CATS = range(281, 288)  # ImageNet's classes of cats


def test_the_weights_that_ship_belong_to_the_architecture() -> None:
    """They come under other names: one tensor in another's place, and the cat would be anything."""
    network = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(embedded_weights())
    cat = torch.from_numpy(skimage.data.chelsea().copy()).permute(2, 0, 1)[None] / 255
    image = F.interpolate(cat, (224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        classes = network((image - 0.5) / 0.5).topk(4).indices[0].tolist()
    assert set(classes) <= set(CATS)


def test_maps_come_at_the_strides_asked_for_in_that_order() -> None:
    backbone = Backbone(strides=(16, 4))
    maps = backbone(torch.rand(2, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(2, 112, 4, 6), (2, 24, 16, 24)]
    assert backbone.channels == (112, 24)


def test_it_stays_frozen_inside_a_model_that_trains() -> None:
    backbone = Backbone().train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    out = backbone(torch.rand(2, 3, 64, 64))[0]
    assert not out.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert not any(module.training for module in backbone.modules())


def test_a_local_file_of_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = timm.create_model("resnet10t").state_dict()
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "w.pth")
    one = Backbone("resnet10t", strides=(8,), weights=tmp_path / "w.safetensors")
    other = Backbone("resnet10t", strides=(8,), weights=tmp_path / "w.pth")
    assert one.digest() == other.digest() != Backbone(strides=(8,)).digest()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'nonet' is not a backbone: use 'efficientnet_lite0'"):
        Backbone("nonet")
    with pytest.raises(ValueError, match=r"has no map at stride 7; it has \[2, 4, 8, 16, 32\]"):
        Backbone(strides=(7,))
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"the weights do not fit backbone 'resnet10t': conv1.0.weight is missing"):
        Backbone("resnet10t", strides=(8,), weights=tmp_path / "w.safetensors")
