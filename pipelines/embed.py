"""Write the embeddings of a folder of images: one row for each file, with its nearest image and its copies.

    find images -> decode -> run the model -> neighbours and near-duplicates -> one Parquet file

Belongs to the scoring side: the exported graph does the work, so this needs no torch.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.anomaly.group_thresholds import group_of
from pipelines.base.concurrency import in_order
from pipelines.base.files import appearing
from pipelines.base.parquet import write_parquet
from pipelines.base.progress import progress
from pipelines.base.subsample import evenly_spaced
from pipelines.batch.output_folder import check_file
from pipelines.errors import FolderError, ModelError
from pipelines.images import Decoded, Failed, FileList, Found, list_images
from pipelines.images.resaved import SIDE, alike, coarse, saved_again
from pipelines.latents.copies import Metric, Neighbours, find_closest, fit_metric
from pipelines.latents.vectors import StoredVectors
from pipelines.models.gallery import Gallery
from pipelines.models.inputs import batches, bytes_ahead, decode_for, in_halves, weight_of
from pipelines.models.model_file import METADATA_KEY, Metadata, ModelFile
from pipelines.models.session import DOES, Session, kind_of
from pipelines.registry.resolve import find_model
from pipelines.settings import settings

log = logging.getLogger(__name__)
MEAN, SCALE = "embedding", "embedding_scale"
SAVED_IMAGES = 64  # images that are saved again, to measure how far copies are from their originals
BLOCK_FILES = 1024  # files whose embeddings may come in any order
GROUP_FILES, GROUP_BYTES = 65_536, 64 * 2**20  # limits of a row group
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
Store = Callable[[int], StoredVectors]  # takes the length of the vectors, returns storage for them


@dataclass(frozen=True, slots=True)
class EmbedSummary:
    """Counts of a finished run, and the metric of its distances."""

    out: Path  # the .parquet file
    files: int  # number of image files that were found
    ok: int  # number of files with a result
    failed: int  # number of files without a result
    latents: int  # length of an embedding
    duplicates: int | None  # number of copies; None if neighbours were not searched
    metric: Metric | None  # metric of the distances; None if there are none


@dataclass(frozen=True, slots=True, eq=False)
class _Embedded:
    """The model's outputs for the files, in the order of the files.

    Attributes:
        digests: sha256 of each file as 32 bytes, (N, 32).
        unread: Places of the files that could not be read and have no digest.
        reasons: Reasons of the files that failed, by place.
        mean: Embeddings of the files that did not fail, in order.
        scale: Scales of the embeddings, in the same order; None if the model has none.
    """

    digests: NDArray[np.uint8]
    unread: set[int]
    reasons: dict[int, str]
    mean: StoredVectors
    scale: StoredVectors | None

    @property
    def readable(self) -> NDArray[np.int64]:
        """Return the places of the files that did not fail."""
        return np.delete(np.arange(len(self.digests)), sorted(self.reasons))


def embed_folder(
    folder: Path | str, model: str | Path | ModelFile, out: Path | str, *, neighbours: bool = True
) -> EmbedSummary:
    """Write the embedding of every image under a folder, and the most similar other image.

    `embedding` is the posterior mean of each latent, averaged over the grid of latents. `embedding_scale` is the
    standard deviation of that average under the posterior. The time to search for neighbours grows with the square of
    the number of images: see `pipelines.latents.copies`.

    Args:
        folder: Images, in sub-folders or not.
        model: An anomaly model: a reference such as `tiles@champion`, a path, or a `ModelFile`.
        out: The `.parquet` file to write. It appears only when it is complete.
        neighbours: Search for the most similar image and for copies; without it, these columns are null.

    Returns:
        Counts, and the metric of the distances.

    Raises:
        KintsugiError: Wrong usage or bad input; the message has the next step.
    """
    folder, out = Path(folder), Path(out)
    _check_output(out)
    found = list_images(folder)
    found.left_out.log()
    file = model if isinstance(model, ModelFile) else find_model(model)
    session = _open(file)
    with contextlib.ExitStack() as stored:

        def store(width: int) -> StoredVectors:
            return stored.enter_context(StoredVectors(width, out.resolve().parent))

        embedded = _embed(session, found.files, store)
        near, metric = _find_neighbours(session, found.files, embedded, store) if neighbours else (None, None)
        session.close()
        facts: dict[str, Any] = {"model_sha256": file.sha256}
        facts |= {"unit": metric.unit, "alike": metric.limit} if metric else {}
        facts |= {"left_out": list(found.left_out.rows)} if found.left_out.rows else {}
        schema = EMBEDDINGS.with_metadata({METADATA_KEY: json.dumps(facts, sort_keys=True)})
        named = {"model": file.name or session.metadata.name, "version": file.version}
        with appearing(out) as temporary, write_parquet(temporary, schema, compression="zstd") as writer:
            for table in _build_tables(found, embedded, near, named):
                writer.write_table(table.cast(schema))
    files, failed = len(found.files) + len(found.unreadable), len(embedded.reasons) + len(found.unreadable)
    return EmbedSummary(
        out=out,
        files=files,
        ok=files - failed,
        failed=failed,
        latents=embedded.mean.shape[1],
        duplicates=int((near.copy_of >= 0).sum()) if near else None,
        metric=metric,
    )


def _check_output(out: Path) -> None:
    if out.suffix.lower() != ".parquet":
        raise FolderError(f"the output {out} does not end in .parquet: give a file such as embeddings.parquet")
    if out.is_dir():
        raise FolderError(f"the output {out} is a folder: give a file such as {out / 'embeddings.parquet'}")
    check_file(out)


def _open(file: ModelFile) -> Session:
    if (kind := kind_of(file)) is not Metadata:
        raise ModelError(
            f"{file.ref} {DOES[kind]}: only anomaly models give embeddings; train one with `kintsugi train`"
        )
    session = Session(file, device=settings().device, threads=1, calls=settings().workers)
    if MEAN not in session.metadata.outputs:
        raise ModelError(f"{file.ref} was exported by kintsugi {session.metadata.kintsugi}, without embeddings")
    if SCALE not in session.metadata.outputs:
        log.warning(
            "%s was exported by kintsugi %s, which wrote no scale of the embedding: the column embedding_scale is "
            "null; train the model again to get it", file.ref, session.metadata.kintsugi,
        )  # fmt: skip
    return session


def _embed(session: Session, files: FileList, store: Store) -> _Embedded:
    """Run the model over blocks of files, and return its outputs in the order of the list."""
    metadata = session.metadata
    outputs = tuple(name for name in (MEAN, SCALE) if name in metadata.outputs)
    vectors = {name: store(metadata.latent_shape[0]) for name in outputs}
    digests, unread, reasons = np.zeros((len(files), 32), np.uint8), set[int](), dict[int, str]()
    start = 0

    def embedded(batch: Sequence[Decoded] | Failed) -> list[tuple[Decoded, dict[str, Floats]] | Failed]:
        return [batch] if isinstance(batch, Failed) else _run(session, batch, outputs)

    with progress(log, "embed", len(files), "images") as advance:
        for block in files.blocks(BLOCK_FILES):
            places = {name: at for at, name in enumerate(block.relatives.to_pylist())}
            values = {name: np.empty((len(block), metadata.latent_shape[0]), np.float32) for name in outputs}
            there = np.ones(len(block), bool)
            parts = batches(decode_for(block, metadata), lambda: session.batch_size)
            coming = in_order(embedded, parts, workers=session.calls, weight=weight_of, limit=bytes_ahead())
            for done in coming:
                for each in done:
                    whose = each if isinstance(each, Failed) else each[0]
                    at, sha256 = start + places[whose.file.relative], whose.sha256
                    if sha256 is None:
                        unread.add(at)
                    else:
                        digests[at] = np.frombuffer(bytes.fromhex(sha256), np.uint8)
                    if isinstance(each, Failed):
                        reasons[at], there[at - start] = each.reason, False
                        continue
                    for name, value in each[1].items():
                        values[name][at - start] = value
                advance(len(done))
            for name in outputs:
                vectors[name].add(values[name][there])
            start += len(block)
    return _Embedded(digests, unread, reasons, vectors[MEAN], vectors.get(SCALE))


def _run(
    session: Session, batch: Sequence[Decoded], outputs: tuple[str, ...]
) -> list[tuple[Decoded, dict[str, Floats]] | Failed]:
    """Run a batch through the model, and return its outputs for each image."""
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
                done.append(
                    Failed(image.file, "the model returned an infinite or NaN embedding for this image", image.sha256)
                )
    return done


def _find_neighbours(
    session: Session, files: FileList, embedded: _Embedded, store: Store
) -> tuple[Neighbours | None, Metric | None]:
    """Find the closest other image of each, among the files that did not fail."""
    there = embedded.readable
    if len(there) < 2:
        return None, None
    mean = embedded.mean
    metric = fit_metric(mean, embedded.scale, _measure_shifts(session, files, embedded), Gallery.of(session.model))
    if metric.by_chance:
        log.warning(
            "some copies may be missed: the model describes %d images with %d numbers each, too few to distinguish all "
            "images (limit %.2g %s)", len(mean), mean.shape[1], metric.limit, metric.unit,
        )  # fmt: skip
    with progress(log, "neighbours", len(there), "images") as advance:
        near = find_closest(mean, metric, advance=advance)
    return replace(near, copy_of=_confirm_copies(session, files, there, near.copy_of, store)), metric


def _confirm_copies(
    session: Session, files: FileList, there: NDArray[np.int64], copy_of: NDArray[np.int64], store: Store
) -> NDArray[np.int64]:
    """Return the copies that also look like their originals: a model may give different images similar embeddings.

    The first image that does not look like its original becomes an original itself; the others are compared with it.
    """
    copies = np.flatnonzero(copy_of >= 0)
    wanted = np.unique(np.concatenate([copies, copy_of[copies]]))
    looks = store(SIDE * SIDE)  # a row for each of `wanted`
    for image in decode_for(files.take(there[wanted]), session.metadata):
        found = coarse(image.pixels) if isinstance(image, Decoded) else np.full(SIDE * SIDE, np.nan)
        looks.add(found[None])

    def differ(one: int, other: int) -> bool:
        """Return whether two images look different; a file that is gone by now stays a copy."""
        first, second = looks[np.searchsorted(wanted, [one, other])]
        return not (np.isnan(first[0]) or np.isnan(second[0]) or alike(first, second))

    kept = copy_of.copy()
    together = copies[np.argsort(copy_of[copies], kind="stable")]
    for copies_of_one in np.split(together, np.flatnonzero(np.diff(copy_of[together])) + 1) if len(copies) else ():
        left, first = copies_of_one.tolist(), int(copy_of[copies_of_one[0]])
        while left:
            kept[left] = first
            left = [at for at in left if differ(at, first)]
            if left:
                first = left.pop(0)
                kept[first] = -1
    return kept


def _measure_shifts(session: Session, files: FileList, embedded: _Embedded) -> Floats:
    """Measure how much the embeddings of some images change when the images are saved again."""
    there = embedded.readable
    some = np.array(evenly_spaced(range(len(there)), SAVED_IMAGES))
    moved = []
    for at, image in zip(some, decode_for(files.take(there[some]), session.metadata), strict=True):
        if isinstance(image, Decoded):  # not gone meanwhile
            found = _run(session, [replace(image, pixels=saved_again(image.pixels))], (MEAN,))[0]
            if not isinstance(found, Failed):
                moved.append(found[1][MEAN] - embedded.mean[[at]][0])
    return np.array(moved).reshape(-1, embedded.mean.shape[1])


def _build_tables(
    found: Found, embedded: _Embedded, near: Neighbours | None, named: dict[str, str | None]
) -> Iterator[pa.Table]:
    """Build the rows in blocks: all files in the order of their names, and the unreadable sub-folders."""
    names = found.files.relatives
    closed: list[dict[str, str | None]] = [
        {"path": place.relative, "status": "failed", "error": f"the folder cannot be read: {place.reason}", **named}
        for place in found.unreadable
    ]
    there, start, first = embedded.readable, 0, 0
    for block in found.files.blocks(max(1, min(GROUP_FILES, GROUP_BYTES // (8 * embedded.mean.shape[1])))):
        places = range(start, start + len(block))
        reasons = [embedded.reasons.get(at) for at in places]
        ok = np.array([reason is None for reason in reasons])
        rows = slice(first, first + int(ok.sum()))
        columns: dict[str, Any] = {
            "path": block.relatives.cast(pa.string()),
            "sha256": [None if at in embedded.unread else embedded.digests[at].tobytes().hex() for at in places],
            "status": ["ok" if reason is None else "failed" for reason in reasons],
            "error": reasons,
            **{name: [value] * len(block) for name, value in named.items()},
            "label": [group_of(name) or None for name in block.relatives.to_pylist()],
            MEAN: _to_lists(embedded.mean[rows], ok),
            SCALE: pa.nulls(len(block)) if embedded.scale is None else _to_lists(embedded.scale[rows], ok),
        }
        if near is not None:
            row = np.cumsum(ok) - 1
            at = pa.array(row, mask=~ok)  # of each file its place among those that did not fail
            copies = near.copy_of[rows]
            originals = pa.array(there[copies], mask=copies < 0)
            columns |= {
                "nearest": names.take(pa.array(there[near.nearest[rows]])).take(at),
                "nearest_distance": pa.array(near.distance[rows]).take(at),
                "duplicate_of": names.take(originals).take(at),
            }
        table = pa.table({name: columns.get(name, pa.nulls(len(block))) for name in EMBEDDINGS.names}).cast(EMBEDDINGS)
        now = [row for row in closed if str(row["path"]) <= block.relatives[-1].as_py()]
        closed = closed[len(now) :]
        yield pa.concat_tables([table, pa.Table.from_pylist(now, schema=EMBEDDINGS)]).sort_by("path") if now else table
        start, first = start + len(block), rows.stop
    if closed:
        yield pa.Table.from_pylist(closed, schema=EMBEDDINGS)


def _to_lists(values: Floats, there: NDArray[np.bool_]) -> pa.Array:
    """Return rows of an array as lists; null where there is none."""
    offsets = np.concatenate([[0], np.cumsum(there * values.shape[1])]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(values.ravel()), mask=pa.array(~there))
