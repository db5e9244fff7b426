"""Where things run: the environment's part of the configuration (*what* to do is in the job file)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipelines.base.cores import usable_cores
from pipelines.base.paths import expect_local, from_home
from pipelines.errors import SettingsError

PREFIX = "KINTSUGI_"


class Settings(BaseSettings):
    """Read from `KINTSUGI_*` variables; every field has a default that needs no server."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, env_ignore_empty=True)

    home: Path = Field(
        default_factory=lambda: Path.home() / ".kintsugi",
        description="Embedded registry, caches, checkpoints.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where networks run.")
    workers: int = Field(
        default_factory=usable_cores,
        ge=1,
        description="Decode threads, and threads of the session; default: the cores that this process may use.",
    )
    max_pixels: int = Field(
        250_000_000, ge=1, description="Larger images are refused as decompression bombs (pixels per image)."
    )

    cache_gb: float = Field(
        50.0, ge=0, description="Decoded images and features of past trainings are kept up to this many gigabytes."
    )

    log: Literal["text", "json"] = Field("text", description="Lines on stderr: for people, or a JSON object each.")
    notify: SecretStr | None = Field(
        None, description="Who hears of alarms, champions and failures: addresses of services, or Prefect's blocks."
    )

    review_secret: SecretStr | None = Field(
        None, description="What the web server before `review --behind` adds to each request."
    )

    @field_validator("home", mode="before")
    @classmethod
    def _home_is_local(cls, home: object) -> object:
        return expect_local(home)

    @field_validator("home")
    @classmethod
    def _home_may_begin_with_a_tilde(cls, home: Path) -> Path:
        """Expand what no shell has: variables come from files of services and containers, too."""
        return from_home(home)

    @property
    def tracking_uri(self) -> str:
        """MLflow's address: `MLFLOW_TRACKING_URI`, or SQLite under `home`."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.home.resolve() / 'mlflow.db'}"

    @property
    def artifact_root(self) -> Path:
        """Where the embedded registry keeps its files (unused with a tracking server)."""
        return self.home.resolve() / "artifacts"


def settings() -> Settings:
    """The settings as the environment stands now (read again at each call, so that tests can change it).

    Raises:
        SettingsError: A variable holds a value that cannot be used; the message names each, its value and the limit.
    """
    try:
        return Settings()
    except ValidationError as error:
        problems = [
            f"{PREFIX}{str(each['loc'][0]).upper()}={each['input']}: {each['msg'].removeprefix('Value error, ')}"
            for each in error.errors()
        ]
        msg = f"{'; '.join(problems)}; set another value, or unset the variable for its default"
        raise SettingsError(msg) from None
