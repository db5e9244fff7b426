"""Export: one ONNX file with pre-processing, network, bound and metadata in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.compose
import torch
from torch import nn
from torch.export import Dim

from vaecore.graphs.colorization import OUTPUTS as COLORIZATION_OUTPUTS
from vaecore.graphs.colorization import ColorizationGraph
from vaecore.graphs.quiet import quiet
from vaecore.graphs.restoration import OUTPUTS, RestorationGraph
from vaecore.graphs.scoring import DecoderGraph, ScoringGraph
from vaecore.graphs.segmentation import OUTPUTS as SEGMENTATION_OUTPUTS
from vaecore.graphs.segmentation import SegmentationGraph
from vaecore.representations import Representation
from vaecore.representations.image_format import ImageFormat

OPSET = 20
HALF = "_half"  # ends the name of a tensor that is stored in half precision
HALVED_FROM = 1024  # numbers of a tensor that is worth storing in half precision
HALF_LARGEST = 65_000.0  # what half precision can hold
EXTRACTED = "extracted"  # what y is made of, between the two parts of a scoring graph
METADATA_KEY = "kintsugi"  # one JSON document under one key of the ONNX metadata


def export_scoring(graph: ScoringGraph, path: Path, metadata: Mapping[str, Any], extractor: Path | None = None) -> None:
    """Write a scoring graph: batch, height, width and number of samples stay dynamic.

    Large weights that lose nothing by it are stored in half precision.

    Args:
        graph: The trained model in its graph, on any device.
        path: The `.onnx` file to write.
        metadata: The contract between training and scoring, stored as JSON inside the file.
        extractor: What `export_extractor` wrote of the same representation: that part is then taken from it, and only
            the rest is exported, in a fraction of the time.
    """
    working = graph.representation.input_size
    height, width = working[0] + 24, working[1] + 40  # unlike the working size: nothing is specialised to it
    channels = graph.image_format.channels
    image = torch.zeros((2, height, width, channels), dtype=torch.int32).to(graph.image_format.dtype)
    noise = torch.zeros((2, 3, *graph.network.latent_shape))
    batch = Dim("n", min=1)
    dynamic: dict[str, dict[int, Any]] = {
        "image": {0: batch, 1: Dim("height", min=1), 2: Dim("width", min=1)},
        "noise": {0: batch, 1: Dim("samples", min=1)},
    }
    outputs = list(graph.outputs)
    if extractor is None:
        proto = _exported(graph, (image, noise), dynamic, ["image", "noise"], outputs)
    else:
        with torch.no_grad():
            extracted = graph.representation.extract(graph.image_format.to_unit(image))
        dynamic = {"extracted": {0: batch}, **dynamic}
        head = _exported(_Head(graph), (extracted, image, noise), dynamic, [EXTRACTED, "image", "noise"], outputs)
        proto = _joined(onnx.load(extractor), head)
    halve_weights(proto, lossless=True)
    _write(proto, path, metadata)


def export_extractor(representation: Representation, image_format: ImageFormat, path: Path) -> None:
    """Write the part of a scoring graph that has nothing trained in it: an image in, what y is made of out."""
    working = representation.input_size
    shape = (2, working[0] + 24, working[1] + 40, image_format.channels)
    image = torch.zeros(shape, dtype=torch.int32).to(image_format.dtype)
    dynamic = {"image": {0: Dim("n", min=1), 1: Dim("height", min=1), 2: Dim("width", min=1)}}
    proto = _exported(_Extractor(representation, image_format), (image,), dynamic, ["image"], [EXTRACTED])
    path.write_bytes(proto.SerializeToString(deterministic=True))


class _Extractor(nn.Module):
    def __init__(self, representation: Representation, image_format: ImageFormat) -> None:
        super().__init__()
        self.representation, self.image_format = representation, image_format

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.representation.extract(self.image_format.to_unit(image))


class _Head(nn.Module):
    """The rest of a scoring graph; of the image it takes its size alone, or what a picture is drawn with."""

    def __init__(self, graph: ScoringGraph) -> None:
        super().__init__()
        self.scoring = graph  # a module named graph would hide the exporter's own

    def forward(self, extracted: torch.Tensor, image: torch.Tensor, noise: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.scoring.score_extracted(extracted, image, noise)


def _joined(body: onnx.ModelProto, head: onnx.ModelProto) -> onnx.ModelProto:
    """One model of two: the first one's output is an input of the second."""
    head = onnx.compose.add_prefix(head, "head/", rename_inputs=False, rename_outputs=False)
    graph = onnx.helper.make_graph(
        [*body.graph.node, *head.graph.node],
        "scoring",
        [each for each in head.graph.input if each.name != EXTRACTED],
        list(head.graph.output),
        initializer=[*body.graph.initializer, *head.graph.initializer],
        value_info=[*body.graph.value_info, *head.graph.value_info],
    )
    joined = onnx.helper.make_model(graph, opset_imports=head.opset_import, ir_version=head.ir_version)
    joined.functions.extend([*body.functions, *head.functions])
    return joined


def export_decoder(graph: DecoderGraph, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write the decoder alone, for sampling; the batch is dynamic."""
    latent = torch.zeros((2, *graph.network.latent_shape))
    _export(graph, (latent,), {"latent": {0: Dim("n", min=1)}}, ["latent"], ["image"], path, metadata)


def export_restoration(graph: RestorationGraph, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a restoration graph: batch, height and width stay dynamic, the sides being multiples of the network's."""
    multiple, channels = graph.network.multiple, graph.network.channels
    image = torch.zeros((2, 3 * multiple, 5 * multiple, channels))
    sides = {1: multiple * Dim("rows", min=1), 2: multiple * Dim("columns", min=1)}
    _export(graph, (image,), {"image": {0: Dim("n", min=1), **sides}}, ["image"], list(OUTPUTS), path, metadata)


def export_segmentation(graph: SegmentationGraph, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a segmentation graph: batch, height and width stay dynamic, the sides being multiples of the network's."""
    network = graph.network
    image = torch.zeros((2, 3 * network.multiple, 5 * network.multiple, network.channels))
    noise = torch.zeros((2, 3, 5, network.latent_channels))
    batch, rows, columns = Dim("n", min=1), Dim("rows", min=1), Dim("columns", min=1)
    dynamic = {
        "image": {0: batch, 1: network.multiple * rows, 2: network.multiple * columns},
        "noise": {0: batch, 1: rows, 2: columns},
    }
    _export(graph, (image, noise), dynamic, ["image", "noise"], list(SEGMENTATION_OUTPUTS), path, metadata)


def export_colorization(graph: ColorizationGraph, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a colorization graph: batch, height and width stay dynamic. Weights are stored in half precision."""
    image, noise = (
        torch.zeros((2, graph.side + 24, graph.side + 40, 1)),
        torch.zeros((2, graph.network.latent_channels)),
    )
    batch = Dim("n", min=1)
    dynamic = {"image": {0: batch, 1: Dim("height", min=1), 2: Dim("width", min=1)}, "noise": {0: batch}}
    _export(
        graph, (image, noise), dynamic, ["image", "noise"], list(COLORIZATION_OUTPUTS), path, metadata, halved=True
    )  # fmt: skip


def _export(
    graph: nn.Module,
    example: tuple[torch.Tensor, ...],
    dynamic: Mapping[str, Mapping[int, Any]],
    inputs: list[str],
    outputs: list[str],
    path: Path,
    metadata: Mapping[str, Any],
    *,
    halved: bool = False,
) -> None:
    proto = _exported(graph, example, dynamic, inputs, outputs)
    if halved:
        halve_weights(proto)
    _write(proto, path, metadata)


def _exported(
    graph: nn.Module,
    example: tuple[torch.Tensor, ...],
    dynamic: Mapping[str, Mapping[int, Any]],
    inputs: list[str],
    outputs: list[str],
) -> onnx.ModelProto:
    graph = graph.cpu().eval()
    with quiet("torch.onnx", "onnxscript"), torch.no_grad():
        program = torch.onnx.export(
            graph,
            example,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes={name: dict(axes) for name, axes in dynamic.items()},
            input_names=inputs,
            output_names=outputs,
            verbose=False,
        )
    assert program is not None  # noqa: S101 - dynamo=True always returns a program
    proto: onnx.ModelProto = program.model_proto
    _strip(proto)
    return proto


def _write(proto: onnx.ModelProto, path: Path, metadata: Mapping[str, Any]) -> None:
    proto.metadata_props.add(key=METADATA_KEY, value=json.dumps(metadata, sort_keys=True))
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def halve_weights(proto: onnx.ModelProto, *, lossless: bool = False) -> None:
    """Store large weights in half precision; ONNX Runtime brings them back once, when it loads the file.

    Args:
        proto: The model, which is changed.
        lossless: Only the weights that half precision holds to the last bit.
    """
    casts = []
    for tensor in proto.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < HALVED_FROM or np.abs(values).max() > HALF_LARGEST:
            continue
        if lossless and not np.array_equal(values.astype(np.float16).astype(np.float32), values):
            continue
        name, stored = tensor.name, f"{tensor.name}{HALF}"
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(onnx.helper.make_node("Cast", [stored], [name], to=onnx.TensorProto.FLOAT))
    rest = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*casts, *rest])


def _strip(proto: onnx.ModelProto) -> None:
    """Take out what names this machine's files and lines: the exporter leaves stack traces on every node."""
    del proto.metadata_props[:]
    graphs = [proto.graph, *proto.functions]
    for graph in graphs:
        graph.doc_string = ""
        del graph.metadata_props[:]
        for node in graph.node:
            node.doc_string = ""
            del node.metadata_props[:]
        for value in [
            *graph.value_info,
            *([*graph.input, *graph.output] if isinstance(graph, onnx.GraphProto) else []),
        ]:
            value.doc_string = ""
            del value.metadata_props[:]
    for tensor in proto.graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
