"""A model's weights beside its file, and the network made of them again: for what an exported graph cannot do."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipelines.build import build_network, build_representation, find_task, score_kind
from pipelines.errors import ModelError
from pipelines.job import load_job
from pipelines.modelfile import JOB_FILE, WEIGHTS_FILE, ModelFile
from pipelines.plan import Plan
from pipelines.session import Session
from vaecore.image_format import ImageFormat
from vaecore.representations import Features, Representation
from vaecore.scoring import ScoringGraph

BACKBONE = "representation.backbone."  # frozen: its weights are where they came from


def write_weights(file: ModelFile, graph: ScoringGraph) -> None:
    """Write network and statistics of y into the bundle; of a backbone only the digest."""
    tensors = {name: value.contiguous() for name, value in _learned(graph).items()}
    facts = {"model_sha256": file.sha256, "backbone": _digest(graph.representation)}
    save_file(tensors, file.folder / WEIGHTS_FILE, metadata=facts)


def load_network(file: ModelFile) -> ScoringGraph:
    """The network and y of a model file as they were trained, on the CPU; without pooling and what else makes scores.

    Raises:
        ModelError: The bundle has no weights, they are damaged or belong to another file, or the backbone has changed.
    """
    path = file.folder / WEIGHTS_FILE
    if not path.is_file():
        raise ModelError(f"{file.ref} has no {WEIGHTS_FILE} beside it, only the exported graph: train it again")
    metadata = Session(file, device="cpu").metadata
    job = load_job(file.folder / JOB_FILE)
    task = find_task(job)
    if metadata.stages is None:
        raise ModelError(
            f"{file.ref} was exported by kintsugi {metadata.kintsugi}, without what this needs: train it again"
        )
    plan = Plan(
        image_format=ImageFormat(channels=metadata.channels, bit_depth=metadata.bit_depth),
        target_name=metadata.target,
        target=task.targets[metadata.target],
        size=metadata.size,
        stages=metadata.stages,
        strides=metadata.strides,
    )
    representation = build_representation(job, plan, standardise=metadata.standardised)
    model = build_network(job, plan, representation)
    graph = ScoringGraph(model, plan.image_format, representation, kind=score_kind(job)).eval()
    _fill(graph, path, file)
    return graph


def _fill(graph: ScoringGraph, path: Path, file: ModelFile) -> None:
    try:
        with safe_open(path, framework="pt") as stored:
            facts = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} is damaged ({error}): fetch the model again") from None
    if facts.get("model_sha256") != file.sha256:
        raise ModelError(f"{path} belongs to another model file than {file.path}: fetch the model again")
    if facts.get("backbone") != _digest(graph.representation):
        raise ModelError(
            f"{file.ref}: the backbone's weights are others than in training: restore them, or train again"
        )
    wanted = _learned(graph)
    if wanted.keys() != tensors.keys():
        raise ModelError(f"{path} holds another network than {file.path.name} says: train it again")
    with torch.no_grad():
        for name, value in wanted.items():
            value.copy_(tensors[name])


def _learned(graph: ScoringGraph) -> dict[str, Tensor]:
    return {
        name: value
        for name, value in graph.state_dict().items()
        if name.startswith(("model.", "representation.")) and not name.startswith(BACKBONE)
    }


def _digest(representation: Representation) -> str:
    return representation.backbone.digest() if isinstance(representation, Features) else ""
