"""A model's weights beside its file, and the network made of them again: for what an exported graph cannot do."""

from __future__ import annotations

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipelines.data.plan import Plan, choose_experts
from pipelines.errors import ModelError
from pipelines.jobfile.job import load_job
from pipelines.models.model_file import JOB_FILE, WEIGHTS_FILE, ModelFile
from pipelines.models.session import Session, keyed_noise
from pipelines.training.network import build_network, build_representation
from pipelines.training.options import find_score_kind, find_task
from vaecore.graphs.scoring import ScoringGraph
from vaecore.representations import Features, Representation
from vaecore.representations.image_format import ImageFormat

BACKBONE = "representation.backbone."  # frozen: its weights are where they came from
PARITY = 1e-3  # of the ELBO of a made-up image: coarse, since it only has to tell one network from another


def write_weights(file: ModelFile, graph: ScoringGraph) -> None:
    """Write network and statistics of y into the bundle; of a backbone only the digest."""
    tensors = {name: value.clone().contiguous() for name, value in _learned(graph).items()}  # two names, one tensor
    facts = {"model_sha256": file.sha256, "backbone": _digest(graph.representation)}
    save_file(tensors, file.folder / WEIGHTS_FILE, metadata=facts)


def load_network(file: ModelFile) -> ScoringGraph:
    """The network and y of a model file as they were trained, on the CPU; without pooling and what else makes scores.

    Raises:
        ModelError: The bundle has no weights or no job, they are damaged or of another file, the backbone has changed,
            or this version builds another network from them.
    """
    for name in (WEIGHTS_FILE, JOB_FILE):
        if not (file.folder / name).is_file():
            msg = (
                f"{file.ref} has no {name} beside it: copy it from the folder that `kintsugi models show NAME@alias` "
                "prints, or train again if it never had one"
            )
            raise ModelError(msg)
    session = Session(file, device="cpu")
    if session.metadata.window_overlap is not None:
        msg = f"{file.ref} is a model of windows: its network cannot take a whole image, which this command needs"
        raise ModelError(f"{msg}; scores, maps, figures of `evaluate` and embeddings are there, pooled over windows")
    graph = _built(file, session)
    _fill(graph, file)
    _compare(graph, session)
    return graph


def _built(file: ModelFile, session: Session) -> ScoringGraph:
    metadata = session.metadata
    job = load_job(file.folder / JOB_FILE)
    if metadata.stages is None or metadata.standardised is None:
        raise ModelError(f"{file.ref} was exported by kintsugi {metadata.kintsugi}, which kept no weights")
    target = find_task(job).targets[metadata.target]
    plan = Plan(
        image_format=ImageFormat(channels=metadata.channels, bit_depth=metadata.bit_depth),
        target_name=metadata.target,
        target=target,
        size=metadata.size,
        stages=metadata.stages,
        strides=metadata.strides,
        layers=metadata.layers,
        experts=choose_experts(job, target),
    )
    representation = build_representation(
        job, plan, standardise=metadata.standardised, recentre=bool(metadata.recentred)
    )
    model = build_network(
        job, plan, representation, classes=len(metadata.classes), latents=metadata.latent_shape[0], trained=True
    )
    kind = find_score_kind(job, plan)
    bound = kind if kind in ("ratio", "iwae") else "elbo"
    return ScoringGraph(model, plan.image_format, representation, kind=bound).eval()


def _fill(graph: ScoringGraph, file: ModelFile) -> None:
    path = file.folder / WEIGHTS_FILE
    try:
        with safe_open(path, framework="pt") as stored:
            facts = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} is damaged ({error}): fetch the model again") from None
    if facts.get("model_sha256") != file.sha256:
        raise ModelError(f"{path} does not belong to the model file {file.path}: fetch the model again")
    if facts.get("backbone") != _digest(graph.representation):
        raise ModelError(f"{file.ref}: the backbone's weights are not those of the training: restore them")
    wanted = _learned(graph)
    if {name: value.shape for name, value in wanted.items()} != {name: value.shape for name, value in tensors.items()}:
        raise ModelError(f"this version of kintsugi builds a different network from {path}: train the model again")
    with torch.no_grad():
        for name, value in wanted.items():
            value.copy_(tensors[name])


@torch.no_grad()
def _compare(graph: ScoringGraph, session: Session) -> None:
    """The same weights in another network would give other numbers without a word: one image tells."""
    form = graph.image_format
    largest, pixel = form.maximum + 1, np.uint8 if form.bit_depth == 8 else np.uint16
    image = np.random.default_rng(0).integers(0, largest, (1, *graph.representation.input_size, form.channels), pixel)
    noise = keyed_noise("0" * 64, (session.metadata.samples, *graph.network.latent_shape))
    maps = graph.bound(graph.to_y(torch.from_numpy(image)), torch.from_numpy(noise[None]))
    here, exported = float(maps.total().value[0]), float(session.run(image, ["0" * 64], ("elbo",))["elbo"][0])
    if not abs(here - exported) <= PARITY * max(abs(exported), 1.0):
        msg = f"this version of kintsugi makes another network of the weights of {session.model.ref}: train it again"
        raise ModelError(msg)


def _learned(graph: ScoringGraph) -> dict[str, Tensor]:
    return {
        name: value
        for name, value in graph.state_dict().items()
        if name.startswith(("model.", "representation.")) and not name.startswith(BACKBONE)
    }


def _digest(representation: Representation) -> str:
    return representation.backbone.digest() if isinstance(representation, Features) else ""
