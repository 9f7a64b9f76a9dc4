"""The container files, checked without a container engine: schema, lint, and what they refer to."""

import fnmatch
import http.server
import os
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from fastapi.routing import APIRoute

from service import api, cli
from service.settings import Settings, read_settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SHUTDOWN_S = 20  # at most: uvicorn, then the worker
each_service = pytest.mark.parametrize("name", SERVICES)


@pytest.fixture(autouse=True)
def _no_settings_of_this_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.upper().startswith("GAP_")]:
        monkeypatch.delenv(variable)


class Step(NamedTuple):
    """One instruction of the Dockerfile; `words` is the exec form or the line in words."""

    verb: str
    words: list[str]


def dockerfile() -> list[Step]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    steps = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            verb, rest = line.split(maxsplit=1)
            words = yaml.safe_load(rest) if rest.startswith("[") else shlex.split(rest)
            steps.append(Step(verb, words))
    return steps


def last(verb: str) -> list[str]:
    return [step.words for step in dockerfile() if step.verb == verb][-1]


def image_environment() -> dict[str, str]:
    return dict(
        word.split("=", 1) for step in dockerfile() if step.verb == "ENV" for word in step.words
    )


def environment(name: str) -> dict[str, str | None]:
    """Variables in a service's container; None is handed on from the host where it is set there."""
    return image_environment() | SERVICES[name].get("environment", {})


def settings(name: str) -> Settings:
    """Settings that the service's container comes to."""
    said = environment(name).items()
    given = {k: interpolated(v) for k, v in said if k.startswith("GAP_") and v is not None}
    return Settings(**{variable.removeprefix("GAP_").lower(): v for variable, v in given.items()})


def parsed(words: list[str]) -> Namespace:
    """Parse a whole command line as the `gapscope` in it would."""
    program, *arguments = words
    assert program == "gapscope"
    return cli._parser().parse_args(arguments)


def command(name: str) -> Namespace:
    service = SERVICES[name]
    start = service.get("entrypoint", last("ENTRYPOINT"))
    default = [] if "entrypoint" in service else last("CMD")
    return parsed(start + service.get("command", default))


def interpolated(text: str, **variables: str) -> str:
    """Fill in `${NAME:-default}`; a variable without a default is a KeyError."""

    def value(match: re.Match[str]) -> str:
        return variables.get(match["name"]) or match["default"]

    filled = re.sub(r"\$\{(?P<name>\w+):-(?P<default>[^}]*)\}", value, text)
    assert "$" not in filled
    return filled


def mounts(name: str) -> dict[str, tuple[str, bool]]:
    """Source and whether it is read-only, by the place in the container."""
    found = {}
    for volume in SERVICES[name].get("volumes", []):
        if isinstance(volume, str):
            source, target, *mode = interpolated(volume).split(":")
            found[target] = (source, mode == ["ro"])
        else:
            found[volume["target"]] = (
                interpolated(volume["source"]),
                volume.get("read_only", False),
            )
    return found


def run(*words: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False, **more)


@contextmanager
def answering(status: int) -> Iterator[tuple[int, list[str]]]:
    """A server that answers everything with one status; its port and the paths asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_words: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port, asked
        finally:
            server.shutdown()
            thread.join()


# the tools that know the formats


def test_compose_file_meets_the_compose_specification() -> None:
    tool = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    found = run(*tool, ROOT / "docker-compose.yml")
    assert found.returncode == 0, found.stdout + found.stderr


def test_hadolint_has_no_complaint() -> None:
    found = run(Path(sys.executable).with_name("hadolint"), "--no-color", "Dockerfile", cwd=ROOT)
    assert found.returncode == 0, found.stdout + found.stderr


# commands


@each_service
def test_each_service_runs_a_command_that_gapscope_knows(name: str) -> None:
    wanted = {"etl": cli._load, "service": cli._serve, "sql": cli._sql}
    assert command(name).command is wanted[name]


def test_image_alone_serves() -> None:
    assert parsed(last("ENTRYPOINT") + last("CMD")).command is cli._serve


def test_etl_loads_the_input_folder_else_the_demo() -> None:
    arguments = command("etl")
    assert arguments.demo_if_empty
    assert [str(source) for source in arguments.sources] == ["/input"]
    assert mounts("etl")["/input"] == ("./input", True)


def test_input_folder_is_chosen_with_gap_input() -> None:
    (bind,) = [v for v in SERVICES["etl"]["volumes"] if isinstance(v, dict)]
    assert bind["type"] == "bind"
    assert interpolated(bind["source"], GAPSCOPE_INPUT="../features") == "../features"


# what up starts, and in which order


def test_up_loads_then_serves_and_leaves_the_tool_alone() -> None:
    assert {name for name, s in SERVICES.items() if "profiles" not in s} == {"etl", "service"}
    assert SERVICES["service"]["depends_on"] == {
        "etl": {"condition": "service_completed_successfully"}
    }


@each_service
def test_what_a_service_waits_for_is_declared_and_not_behind_a_profile(name: str) -> None:
    for other in SERVICES[name].get("depends_on", {}):
        assert "profiles" not in SERVICES[other]


def test_one_build_makes_the_one_image() -> None:
    assert len({s["image"] for s in SERVICES.values()}) == 1
    (build,) = [s["build"] for s in SERVICES.values() if "build" in s]
    declared = {word.split("=")[0] for s in dockerfile() if s.verb == "ARG" for word in s.words}
    assert set(build["args"]) <= declared
    assert (ROOT / build["context"] / build.get("dockerfile", "Dockerfile")).is_file()


# environment


@each_service
def test_service_accepts_the_environment(name: str) -> None:
    read_settings({variable: value or "" for variable, value in environment(name).items()})
    assert settings(name)
    assert "env_file" not in SERVICES[name]  # it would hand on GAPSCOPE_INPUT, which is no setting


def test_image_alone_accepts_its_environment() -> None:
    read_settings(image_environment())


@pytest.mark.parametrize("file", ["Dockerfile", "docker-compose.yml"])
def test_no_address_but_this_machine_is_named(file: str) -> None:
    hosts = re.findall(r"https?://([^/:\s\"']+)", (ROOT / file).read_text(encoding="utf-8"))
    assert set(hosts) <= {"127.0.0.1"}


# data


@each_service
def test_data_folder_is_the_declared_volume(name: str) -> None:
    source, read_only = mounts(name)[str(settings(name).data)]
    assert source in COMPOSE["volumes"]
    assert not read_only  # `sql` notes each look
    assert last("VOLUME") == [str(settings(name).data)]


@each_service
def test_each_named_volume_is_declared(name: str) -> None:
    named = {source for source, _ in mounts(name).values() if not source.startswith((".", "/"))}
    assert named <= set(COMPOSE["volumes"])


def test_data_folder_belongs_to_the_user_before_it_becomes_a_volume() -> None:
    steps = dockerfile()
    (user,) = last("USER")
    volume = next(i for i, step in enumerate(steps) if step.verb == "VOLUME")
    made = [" ".join(step.words) for step in steps[:volume] if step.verb == "RUN"]
    assert any("mkdir /data " in words and f"chown {user} /data" in words for words in made)


# network


def test_service_is_reached_from_this_machine_alone() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["service"]
    (port,) = SERVICES["service"]["ports"]
    assert interpolated(port) == "127.0.0.1:8000:8000"
    assert interpolated(port, GAP_PORT="9000") == "127.0.0.1:9000:9000"
    assert SERVICES["service"].get("network_mode") is None


def test_service_listens_where_its_port_is_published() -> None:
    inside = settings("service")
    assert inside.host == "0.0.0.0"
    (port,) = SERVICES["service"]["ports"]
    assert interpolated(port).split(":")[-1] == str(inside.port)
    # and so `gapscope token` in the container prints the port outside
    assert interpolated(environment("service")["GAP_PORT"], GAP_PORT="9000") == "9000"
    assert last("EXPOSE") == [str(inside.port)]


@pytest.mark.parametrize("name", ["etl", "sql"])
def test_what_only_reads_and_writes_files_has_no_network(name: str) -> None:
    assert SERVICES[name]["network_mode"] == "none"


# health check


def test_health_check_asks_a_route_of_the_service() -> None:
    *_, code = SERVICES["service"]["healthcheck"]["test"]
    ((path, port),) = re.findall(
        r"\"http://127\.0\.0\.1:%s(/\w*)\" % os\.environ\[\"(\w+)\"\]", code
    )
    assert port == "GAP_PORT" in environment("service")
    gets = {r.path for r in api.router.routes if isinstance(r, APIRoute) and "GET" in r.methods}
    assert path in gets


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_health_check_follows_the_answer(status: int, healthy: bool) -> None:
    kind, program, *arguments = SERVICES["service"]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    with answering(status) as (port, asked):
        there = {"GAP_PORT": str(port), "http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
        found = run(sys.executable, "-S", *arguments, env=os.environ | there)
    assert asked == ["/ready"]
    assert (found.returncode == 0) == healthy, found.stderr


# hardening


def test_container_user_is_fixed_and_not_root() -> None:
    (user,) = last("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    uid, gid = user.split(":")
    made = " ".join(word for step in dockerfile() if step.verb == "RUN" for word in step.words)
    assert f"useradd --uid {uid} --gid {gid} " in made


@each_service
def test_each_service_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert "user" not in service
    assert "privileged" not in service
    assert "cap_add" not in service
    assert service["read_only"] is True
    assert [place.split(":")[0] for place in service["tmpfs"]] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert 0 < service["pids_limit"] <= 4096
    assert interpolated(service["mem_limit"]) == "16g"
    assert interpolated(service["mem_limit"], GAPSCOPE_MEMORY="40g") == "40g"
    assert service["init"] is True
    grace = re.fullmatch(r"(\d+)s", service["stop_grace_period"])
    assert grace is not None
    assert int(grace[1]) > SHUTDOWN_S


@each_service
def test_nothing_of_the_host_is_writable(name: str) -> None:
    for source, read_only in mounts(name).values():
        assert read_only or source in COMPOSE["volumes"]


def test_home_lies_where_a_read_only_container_can_write() -> None:
    assert image_environment()["HOME"] == "/tmp"


# image


def is_ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path of the repository's root out: the last match decides."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#") and fnmatch.fnmatch(path, line.removeprefix("!")):
            ignored = not line.startswith("!")
    return ignored


def copied() -> list[str]:
    return [source for step in dockerfile() if step.verb == "COPY" for source in step.words[:-1]]


def test_copied_files_are_in_the_repository_and_in_the_build() -> None:
    for source in copied():
        assert (ROOT / source).exists(), source
        assert not is_ignored(source), source


def test_image_holds_all_that_the_source_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {p.rstrip("*") for p in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages | {"sql", "pyproject.toml", "constraints.txt"} == set(copied())
    where = [step.words for step in dockerfile() if step.verb == "COPY"]
    for source, target in where:  # COPY of a folder copies what is in it
        assert target == (f"./{source}" if (ROOT / source).is_dir() else "./")
    assert next(s.words for s in dockerfile() if s.verb == "WORKDIR") == ["/app"]
    assert image_environment()["PYTHONPATH"] == "/app"


@pytest.mark.parametrize("path", [".git", ".venv", ".env", "input", "data", "tests", "val_eva.csv"])
def test_private_and_heavy_files_stay_out_of_the_build(path: str) -> None:
    assert is_ignored(path)


def test_image_installs_the_versions_of_the_constraints() -> None:
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    installs = [
        s.words for s in dockerfile() if s.verb == "RUN" and s.words[:2] == ["pip", "install"]
    ]
    assert len(installs) == 2
    for words in installs:
        assert words[words.index("-c") + 1] == "constraints.txt"
        assert "--no-cache-dir" in words
        assert {word for word in words if "==" in word} <= set(constraints)
    assert any(word.startswith("torch==") for word in installs[0])
    assert installs[1][-2:] == ["-e", "."]


def test_base_image_is_pinned_to_the_python_of_the_project() -> None:
    (image,) = last("FROM")
    pinned = re.fullmatch(r"python:(\d+\.\d+)-slim-bookworm", image)
    assert pinned is not None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["requires-python"] == f">={pinned[1]}"
