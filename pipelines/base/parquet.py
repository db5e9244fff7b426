"""Parquet files by their paths.

Arrow takes the path `run:1` for the address of a store, and no path whose bytes are not UTF-8. It is given open files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


@contextlib.contextmanager
def open_parquet(path: Path, **options: Any) -> Iterator[pq.ParquetFile]:  # noqa: ANN401 - as pyarrow's
    """Open a file to read.

    Args:
        path: The file.
        options: Of `pyarrow.parquet.ParquetFile`.
    """
    with path.open("rb") as opened, pq.ParquetFile(opened, **options) as file:
        yield file


@contextlib.contextmanager
def write_parquet(path: Path, schema: pa.Schema, **options: Any) -> Iterator[pq.ParquetWriter]:  # noqa: ANN401
    """Open a file to write tables to.

    Args:
        path: The file.
        schema: Of every table.
        options: Of `pyarrow.parquet.ParquetWriter`.
    """
    with path.open("wb") as opened, pq.ParquetWriter(opened, schema, **options) as writer:
        yield writer


def write_table(table: pa.Table, path: Path, **options: Any) -> None:  # noqa: ANN401 - as pyarrow's
    """Write one table.

    Args:
        table: Its rows.
        path: The file.
        options: Of `pyarrow.parquet.write_table`.
    """
    with path.open("wb") as opened:
        pq.write_table(table, opened, **options)
