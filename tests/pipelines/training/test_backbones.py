"""Other backbones than the one that ships, through the whole product: trained, exported, scored, evaluated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models import VisionTransformer, build_model_with_cfg, register_model

from pipelines.data.plan import Plan, Survey, make_plan
from pipelines.errors import JobError
from pipelines.evaluate import evaluate_model
from pipelines.jobfile.job import Job, job_from_document
from pipelines.models.session import Session
from pipelines.registry.resolve import find_model
from pipelines.score import score_folder
from pipelines.train import train_model
from pipelines.training.network import describe_licence
from pipelines.training.options import find_task
from pipelines.training.weights import load_network
from vaecore.representations.image_format import ImageFormat


@register_model
def little_transformer(pretrained: bool = False, **options) -> VisionTransformer:
    """Four layers of 32 channels, patches of 14 pixels and registers, as DINOv2 has them."""
    sizes = {"patch_size": 14, "embed_dim": 32, "depth": 4, "num_heads": 2, "img_size": 70, "num_classes": 0}
    registers = {"reg_tokens": 3, "no_embed_class": True, "init_values": 0.5}
    getter = {"out_indices": 3, "feature_cls": "getter"}
    return build_model_with_cfg(
        VisionTransformer, "little_transformer", pretrained, feature_cfg=getter, **{**sizes, **registers, **options}
    )


def job_of(folder: Path, backbone: str, **model) -> Job:
    document = {
        "name": "plates",
        "task": "reconstruct",
        "data": {"train": str(folder / "good")},
        "model": {"backbone": backbone, **model},
    }
    return job_from_document(document, folder / "job.toml")


def plan_of(folder: Path, backbone: str, sides: tuple[int, int] = (300, 400), **model) -> Plan:
    job = job_of(folder, backbone, **model)
    return make_plan(job, find_task(job), Survey(ImageFormat(channels=1, bit_depth=8), *sides))


def write_weights(folder: Path, name: str) -> Path:
    torch.manual_seed(0)
    network = timm.create_model(name)
    path = folder / f"{name}.safetensors"
    save_file(network.state_dict(), path)
    return path


def draw(folder: Path, count: int, seed: int, *, marked: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        pixels = 90 + 12 * np.sin(np.arange(70) / 3 + random.uniform(0, 6)) + random.normal(0, 4, (56, 70))
        if marked:
            row = int(random.integers(4, 40))
            pixels[row : row + 8, 10:50] = 235
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:03}.png")


@pytest.mark.parametrize(
    ("backbone", "strides", "layers"),
    [("little_transformer", [14, 14], [2, 3]), ("test_convnext", [4, 8, 16], None)],
)
def test_from_weights_to_verdicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: str, strides: list[int], layers: list[int] | None
) -> None:
    monkeypatch.setenv("KINTSUGI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    draw(tmp_path / "good", 24, 0)
    draw(tmp_path / "new" / "test" / "good", 6, 1)
    draw(tmp_path / "new" / "test" / "scratched", 6, 2, marked=True)
    weights = write_weights(tmp_path, backbone)
    train_model(job_of(tmp_path, backbone, backbone_weights=str(weights), size=[56, 70]))  # compares torch and the file
    file = find_model("plates@champion")
    metadata = Session(file, device="cpu").metadata
    document = json.loads(metadata.model_dump_json())
    assert (document["backbone"], document["strides"], document["layers"]) == (backbone, strides, layers)
    assert metadata.size[0] % max(strides) == metadata.size[1] % max(strides) == 0
    card = (file.folder / "card.md").read_text()
    where = "layers 2, 3 (one patch is 14 x 14 pixels)" if layers else "strides 4, 8, 16"
    assert f"features of `{backbone}`, a frozen network, at {where}" in card
    score_folder(tmp_path / "new", "plates@champion", tmp_path / "out")
    assert (tmp_path / "out" / "report.html").is_file()
    found = evaluate_model(tmp_path / "new", "plates@champion")
    assert found["image_auroc"] > 0.9
    assert load_network(file).representation.backbone.layers == (tuple(layers) if layers else None)
    weights.unlink()
    with pytest.raises(JobError, match=r"'model.backbone' .*: there is no file of weights .*safetensors"):
        load_network(file)


def test_a_vision_transformer_needs_no_further_settings(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "vit_small_patch14_dinov2.lvd142m", (300, 400))
    assert (plan.strides, plan.layers, plan.size) == ((14, 14), (6, 9), (294, 406))
    assert plan_of(tmp_path, "vit_small_patch14_dinov2", (600, 800)).size == (336, 448)  # at most 32 patches long
    assert plan_of(tmp_path, "vit_base_patch16_dinov3", (600, 800)).size == (384, 512)
    windows = plan_of(tmp_path, "vit_small_patch14_dinov2", (1350, 1800))  # resized, they would be shrunk to a quarter
    assert (windows.size, windows.overlap) == ((252, 252), 63)
    assert plan_of(tmp_path, "vit_small_patch14_dinov2", size=[230, 644]).size == (224, 644)
    three = plan_of(tmp_path, "vit_small_patch14_dinov2", layers=[3, 6, 9])
    assert (three.strides, three.layers) == ((14, 14, 14), (3, 6, 9))
    assert plan_of(tmp_path, "vit_small_patch14_dinov2", target="whole").layers == (12,)
    assert plan_of(tmp_path, "vit_small_patch14_dinov2", vae="deep").layers == (6, 9)


def test_what_a_backbone_has_not_is_an_error_of_the_job(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"'model.backbone' vit_small_patch14_dinov2: .* leave 'strides' out; 'layers'"):
        plan_of(tmp_path, "vit_small_patch14_dinov2", strides=[8, 16])
    with pytest.raises(JobError, match=r"'model.backbone' resnet18: .*it has strides, \[2, 4, 8, 16, 32\]"):
        plan_of(tmp_path, "resnet18", layers=[6])
    with pytest.raises(JobError, match=r"'model.backbone' nonsense: 'nonsense' is not a backbone"):
        plan_of(tmp_path, "nonsense")


def test_licences_of_weights(tmp_path: Path) -> None:
    licences = {
        name: describe_licence(job_of(tmp_path, name))
        for name in ("efficientnet_lite2", "vit_small_patch16_dinov3.lvd1689m", "little_transformer")
    }
    assert licences["efficientnet_lite2"] == "backbone weights: Apache-2.0"
    assert "dinov3-license, if they are those that timm lists" in str(licences["vit_small_patch16_dinov3.lvd1689m"])
    assert licences["little_transformer"] is None
