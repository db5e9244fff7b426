"""What a model makes of a folder of images, as numbers: one row for each file, with its neighbours and its copies.

    find images -> decode -> run the model -> neighbours and near-duplicates -> one Parquet file

Belongs to the scoring side: the exported graph does the work, so this needs no torch.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.closest import Closest, Metric, closest, metric_of
from pipelines.errors import FolderError, ModelError
from pipelines.files import write_atomically
from pipelines.groups import group_of
from pipelines.images import Decoded, Failed, FileList, Found, list_images
from pipelines.inputs import batches, decode_for, in_halves
from pipelines.modelfile import METADATA_KEY, Metadata, ModelFile
from pipelines.models import find_model
from pipelines.neighbours import Gallery
from pipelines.output import check_file
from pipelines.parquet import write_table
from pipelines.progress import progress
from pipelines.resaved import alike, coarse, saved_again
from pipelines.session import DOES, Session, kind_of
from pipelines.settings import settings
from pipelines.spacing import evenly_spaced
from pipelines.stages import in_order

log = logging.getLogger(__name__)
MEAN, SCALE = "embedding", "embedding_scale"
SAVED_IMAGES = 64  # that are saved again, to see how far copies are from their originals
BLOCK_FILES = 1024  # whose embeddings come in any order
EMBEDDINGS = pa.schema(
    [
        ("path", pa.string()),
        ("sha256", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("model", pa.string()),
        ("version", pa.string()),
        ("label", pa.string()),  # the sub-folder that the file lies in, if there is one
        (MEAN, pa.list_(pa.float32())),
        (SCALE, pa.list_(pa.float32())),
        ("nearest", pa.string()),
        ("nearest_distance", pa.float64()),
        ("duplicate_of", pa.string()),
    ]
)

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EmbedSummary:
    """What a finished job has to say."""

    out: Path
    files: int
    ok: int
    failed: int
    latents: int
    duplicates: int | None  # None: not looked for
    metric: Metric | None  # None: there are no distances


@dataclass(frozen=True, slots=True, eq=False)
class _Embedded:
    """What the model says of the files, in their order.

    Attributes:
        digests: sha256 of each; None where it could not even be read.
        reasons: Why a file failed; None where it did not.
        mean: (N, E), not-a-number where it failed.
        scale: The same of the scale; None where the model has none.
    """

    digests: list[str | None]
    reasons: list[str | None]
    mean: Floats
    scale: Floats | None

    @property
    def there(self) -> NDArray[np.int64]:
        """Which files did not fail."""
        return np.flatnonzero([reason is None for reason in self.reasons])


def embed_folder(
    folder: Path | str, model: str | Path | ModelFile, out: Path | str, *, neighbours: bool = True
) -> EmbedSummary:
    """Write the posterior of every image under a folder, and which of the others it is closest to.

    `embedding` is the posterior mean of each latent, averaged over the grid of latents, `embedding_scale` the standard
    deviation of that average under the posterior. Looking for neighbours takes time with the square of the number of
    images: see `pipelines.closest`.

    Args:
        folder: Images, in sub-folders or not.
        model: Reference to a scoring model, such as `tiles@champion` or a path, or what it resolved to.
        out: The `.parquet` file to write; it appears whole.
        neighbours: Look for neighbours and copies; else these columns are null.

    Returns:
        Counts, and how distances are measured.

    Raises:
        KintsugiError: Wrong usage or bad input as a whole; the message says what to do.
    """
    folder, out = Path(folder), Path(out)
    _check(out)
    found = list_images(folder)
    found.left_out.log()
    file = model if isinstance(model, ModelFile) else find_model(model)
    session = _open(file)
    embedded = _embed(session, found.files)
    near, metric = _neighbours(session, found.files, embedded) if neighbours else (None, None)
    session.close()
    table = _table(found, embedded, near, (file.name or session.metadata.name, file.version))
    facts: dict[str, Any] = {"model_sha256": file.sha256}
    facts |= {"unit": metric.unit, "alike": metric.alike} if metric else {}
    facts |= {"left_out": list(found.left_out.rows)} if found.left_out.rows else {}
    table = table.replace_schema_metadata({METADATA_KEY: json.dumps(facts, sort_keys=True)})
    write_atomically(out, lambda temporary: write_table(table, temporary, compression="zstd"))
    return EmbedSummary(
        out=out,
        files=len(table),
        ok=len(embedded.there),
        failed=len(table) - len(embedded.there),
        latents=embedded.mean.shape[1],
        duplicates=int((near.copy_of >= 0).sum()) if near else None,
        metric=metric,
    )


def _check(out: Path) -> None:
    if out.suffix.lower() != ".parquet":
        raise FolderError(f"the output {out} does not end in .parquet: give a file such as embeddings.parquet")
    if out.is_dir():
        raise FolderError(f"the output {out} is a folder: give a file such as {out / 'embeddings.parquet'}")
    check_file(out)


def _open(file: ModelFile) -> Session:
    if (kind := kind_of(file)) is not Metadata:
        raise ModelError(
            f"{file.ref} {DOES[kind]}: embeddings are of models that score; train one with `kintsugi train`"
        )
    session = Session(file, device=settings().device, threads=1, calls=settings().workers)
    if MEAN not in session.metadata.outputs:
        raise ModelError(f"{file.ref} was exported by kintsugi {session.metadata.kintsugi}, without embeddings")
    if SCALE not in session.metadata.outputs:
        log.warning(
            "%s was exported by kintsugi %s, which wrote no scale of the embedding: the column embedding_scale is "
            "null; train it again to have it", file.ref, session.metadata.kintsugi,
        )  # fmt: skip
    return session


def _embed(session: Session, files: FileList) -> _Embedded:
    """Run the model over files, some at a time, and put what it says where the file is in the list."""
    metadata = session.metadata
    outputs = tuple(name for name in (MEAN, SCALE) if name in metadata.outputs)
    values = {name: np.full((len(files), metadata.latent_shape[0]), np.nan, np.float32) for name in outputs}
    digests, reasons = list[str | None](), list[str | None]()

    def embedded(batch: Sequence[Decoded] | Failed) -> list[tuple[Decoded, dict[str, Floats]] | Failed]:
        return [batch] if isinstance(batch, Failed) else _run(session, batch, outputs)

    with progress(log, "embed", len(files), "images") as advance:
        for block in files.blocks(BLOCK_FILES):
            start, places = len(digests), {name: at for at, name in enumerate(block.relatives.to_pylist())}
            digests += [None] * len(block)
            reasons += [None] * len(block)
            parts = batches(decode_for(block, metadata), lambda: session.batch_size)
            for done in in_order(embedded, parts, workers=session.calls):
                for each in done:
                    at = start + places[(each if isinstance(each, Failed) else each[0]).file.relative]
                    if isinstance(each, Failed):
                        digests[at], reasons[at] = each.sha256, each.reason
                        continue
                    digests[at] = each[0].sha256
                    for name, value in each[1].items():
                        values[name][at] = value
                advance(len(done))
    return _Embedded(digests, reasons, values[MEAN], values.get(SCALE))


def _run(
    session: Session, batch: Sequence[Decoded], outputs: tuple[str, ...]
) -> list[tuple[Decoded, dict[str, Floats]] | Failed]:
    """A batch through the model, and what it says of each image."""
    done: list[tuple[Decoded, dict[str, Floats]] | Failed] = []
    for part in in_halves(batch, lambda some: session.run_images(some, outputs), "embedded"):
        if isinstance(part, Failed):
            done.append(part)
            continue
        for at, image in enumerate(part[0]):
            found = {name: value[at] for name, value in part[1].items()}
            if all(np.isfinite(value).all() for value in found.values()):
                done.append((image, found))
            else:
                done.append(Failed(image.file, "the model gives no finite embedding for this image", image.sha256))
    return done


def _neighbours(session: Session, files: FileList, embedded: _Embedded) -> tuple[Closest | None, Metric | None]:
    """Who is closest to whom, among the files that did not fail."""
    there = embedded.there
    if len(there) < 2:
        return None, None
    mean, scale = embedded.mean[there], None if embedded.scale is None else embedded.scale[there]
    metric = metric_of(mean, scale, _moved(session, files, embedded), Gallery.of(session.model))
    if metric.by_chance:
        log.warning(
            "the model describes %d images by %d numbers, too few to tell all of them apart: some copies may be missed "
            "(limit %.2g %s)", len(mean), mean.shape[1], metric.alike, metric.unit,
        )  # fmt: skip
    with progress(log, "neighbours", len(there), "images") as advance:
        near = closest(mean, metric, advance=advance)
    return replace(near, copy_of=_looked_at(session, files, there, near.copy_of)), metric


def _looked_at(
    session: Session, files: FileList, there: NDArray[np.int64], copy_of: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Copies that also look like what they are copies of: a model may describe different images alike.

    Of those that do not, the first is an original of its own, which the others may be copies of, and so on.
    """
    copies = np.flatnonzero(copy_of >= 0)
    wanted = np.unique(np.concatenate([copies, copy_of[copies]]))
    images = decode_for(files.take(there[wanted]), session.metadata)
    looks = {
        int(at): coarse(image.pixels) for at, image in zip(wanted, images, strict=True) if isinstance(image, Decoded)
    }
    kept = copy_of.copy()
    together = copies[np.argsort(copy_of[copies], kind="stable")]
    for copies_of_one in np.split(together, np.flatnonzero(np.diff(copy_of[together])) + 1) if len(copies) else ():
        left, first = copies_of_one.tolist(), int(copy_of[copies_of_one[0]])
        while left:
            kept[left] = first
            # Where a file is gone meanwhile, nobody can look: it stays a copy.
            left = [at for at in left if at in looks and first in looks and not alike(looks[at], looks[first])]
            if left:
                first = left.pop(0)
                kept[first] = -1
    return kept


def _moved(session: Session, files: FileList, embedded: _Embedded) -> Floats:
    """By how much the embeddings of some images change when these are saved again."""
    some = np.array(evenly_spaced(embedded.there.tolist(), SAVED_IMAGES))
    moved = []
    for at, image in zip(some, decode_for(files.take(some), session.metadata), strict=True):
        if isinstance(image, Decoded):  # not gone meanwhile
            found = _run(session, [replace(image, pixels=saved_again(image.pixels))], (MEAN,))[0]
            if not isinstance(found, Failed):
                moved.append(found[1][MEAN] - embedded.mean[at])
    return np.array(moved).reshape(-1, embedded.mean.shape[1])


def _table(found: Found, embedded: _Embedded, near: Closest | None, model: tuple[str, str | None]) -> pa.Table:
    """The rows: of all files in the order of their names, and of sub-folders that could not be read."""
    names, there, count = found.files.relatives.cast(pa.string()), embedded.there, len(found.files)
    columns: dict[str, Any] = {
        "path": names,
        "sha256": pa.array(embedded.digests, pa.string()),
        "status": pa.array(["ok" if reason is None else "failed" for reason in embedded.reasons]),
        "error": pa.array(embedded.reasons, pa.string()),
        "label": pa.array([group_of(name) or None for name in names.to_pylist()], pa.string()),
        MEAN: _lists(embedded.mean, there, count),
        SCALE: _lists(embedded.scale, there, count),
    }
    if near is not None:
        row = np.full(count, -1)
        row[there] = np.arange(len(there))
        at = pa.array(row, mask=row < 0)  # of each file its place among those that did not fail
        there_names = names.take(pa.array(there))
        columns |= {
            "nearest": there_names.take(pa.array(near.nearest)).take(at),
            "nearest_distance": pa.array(near.distance).take(at),
            "duplicate_of": there_names.take(pa.array(near.copy_of, mask=near.copy_of < 0)).take(at),
        }
    table = pa.table({name: columns.get(name, pa.nulls(count)) for name in EMBEDDINGS.names}).cast(EMBEDDINGS)
    if found.unreadable:
        said = [(place.relative, f"the folder cannot be read: {place.reason}") for place in found.unreadable]
        closed = [{"path": path, "status": "failed", "error": error} for path, error in said]
        table = pa.concat_tables([table, pa.Table.from_pylist(closed, schema=EMBEDDINGS)]).sort_by("path")
    for name, value in zip(("model", "version"), model, strict=True):
        at = EMBEDDINGS.get_field_index(name)
        table = table.set_column(at, EMBEDDINGS.field(name), pa.array([value] * len(table), pa.string()))
    return table


def _lists(values: Floats | None, there: NDArray[np.int64], count: int) -> pa.Array:
    """Rows of an array as lists; null where there is none."""
    if values is None:
        return pa.nulls(count)
    lengths = np.zeros(count, np.int32)
    lengths[there] = values.shape[1]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(values[there].ravel()), mask=pa.array(lengths == 0))
