from __future__ import annotations

import errno
import sqlite3

import httpx
import pytest
from mlflow.exceptions import MlflowException, RestException

from flows.retries import is_transient
from pipelines.errors import FolderError, RegistryError


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def on_the_way(error: Exception, context: Exception) -> Exception:
    error.__context__ = context
    return error


REQUEST = httpx.Request("GET", "http://host/")


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        TimeoutError(),
        OSError(errno.ESTALE, "Stale file handle"),
        httpx.ConnectError("no route"),
        httpx.HTTPStatusError("", request=REQUEST, response=httpx.Response(503)),
        sqlite3.OperationalError("database is locked"),
        RestException({"error_code": "TEMPORARILY_UNAVAILABLE", "message": "later"}),
        raised_from(RegistryError("the registry does not answer"), ConnectionResetError()),
        raised_from(RegistryError("the registry does not answer"), on_the_way(MlflowException("?"), ConnectionError())),
    ],
    ids=repr,
)
def test_what_time_may_mend_is_tried_again(error):
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        FolderError("there is no folder /in"),
        raised_from(FolderError("there is no folder /in"), FileNotFoundError()),
        on_the_way(FolderError("there is no folder /in"), ConnectionResetError()),
        FileNotFoundError(errno.ENOENT, "No such file"),
        PermissionError(errno.EACCES, "Permission denied"),
        OSError(errno.ENOSPC, "No space left on device"),
        sqlite3.OperationalError("no such table"),
        MlflowException("a wrong argument"),
        RestException({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such model"}),
        httpx.HTTPStatusError("", request=REQUEST, response=httpx.Response(404)),
        ValueError("a bug"),
    ],
    ids=repr,
)
def test_what_the_user_has_to_mend_is_not(error):
    assert not is_transient(error)
