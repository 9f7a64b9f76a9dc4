"""Settings from the environment: GAP_DATA and others."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from etl.images import roots_in
from service.errors import BadSetting, UnknownSetting
from service.options import SETTINGS

_PREFIX = "GAP_"


class Settings(BaseSettings):
    """What can be moved, by an environment variable GAP_<NAME>."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="forbid")

    data: Path = Field(Path("data"), description=SETTINGS["data"])
    host: str = Field("127.0.0.1", description=SETTINGS["host"])
    port: int = Field(8000, ge=1, le=65535, description=SETTINGS["port"])
    threads: int | None = Field(None, ge=1, description=SETTINGS["threads"])
    memory_gb: float | None = Field(None, gt=0, description=SETTINGS["memory_gb"])
    device: Literal["cpu", "cuda"] | None = Field(None, description=SETTINGS["device"])
    images: Annotated[tuple[Path, ...], NoDecode] = Field((), description=SETTINGS["images"])

    strict: bool = Field(False, description=SETTINGS["strict"])

    token: SecretStr | None = Field(None, description=SETTINGS["token"])
    token_file: Path | None = Field(None, description=SETTINGS["token_file"])
    hosts: Annotated[tuple[str, ...], NoDecode] = Field((), description=SETTINGS["hosts"])
    log: Literal["debug", "info", "warning", "error"] = Field("info", description=SETTINGS["log"])

    @field_validator("data")
    @classmethod
    def _no_pattern(cls, value: Path) -> Path:
        if set("[]*?") & set(str(value.resolve())):  # views look for files below it
            raise ValueError("a folder without [, ], * and ? in its whole path is wanted")
        return value

    @field_validator("hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(name.strip() for name in value.split(",") if name.strip())

    @field_validator("images", mode="before")
    @classmethod
    def _split_roots(cls, value: object) -> object:
        return roots_in(value) if isinstance(value, str) else value


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings, and refuse a GAP_ name that is none of them.

    Raises
    ------
    UnknownSetting
        With the nearest known name: a misspelt setting must not be ignored in silence.
    BadSetting
        A value of the wrong kind or out of range.
    """
    known = {_PREFIX + name.upper() for name in Settings.model_fields}
    for name in environment:
        if name.upper().startswith(_PREFIX) and name.upper() not in known:
            near = difflib.get_close_matches(name.upper(), sorted(known), n=1, cutoff=0)[0]
            raise UnknownSetting(
                f"wanted one of {', '.join(sorted(known))}, got {name} in the environment. "
                f"Did you mean {near}? Rename or unset it."
            )
    try:
        return Settings()
    except ValidationError as error:
        fault = error.errors()[0]
        raise BadSetting(
            f"wanted another value of {_PREFIX}{str(fault['loc'][0]).upper()}, got "
            f"{fault['input']!r}: {fault['msg']}. Correct or unset it."
        ) from error
