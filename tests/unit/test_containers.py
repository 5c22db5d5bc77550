"""deploy/containers: no container is run in these tests, so every word of the files is held to what it names.

Variables are read by the configurations themselves, commands by the programs that they start, paths are looked up here,
and a port, a secret, a volume or a stage is taken only where it is declared.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli import main as cli_main
from dashboard import config as dashboard_config
from hub import config as hub_config
from kit import channel
from sidecar import config as sidecar_config
from tools import build

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "deploy" / "containers"
NODES = ("hub", "dashboard", "sidecar")
OTHERS = ("collector", "prometheus")
#: Made by the person who sets it up; docs/deployment.md says how.
MADE = {"tls/hub", "tls/clients/operator", "tls/clients/dashboard", "tls/clients/sidecar", "secrets/join_key"}
#: What agentcom-tls puts into such a folder.
TLS_FILES = {"tls/hub": {"hub.crt", "hub.key", "ca.crt"}}
CLIENT_FILES = {"client.crt", "client.key", "ca.crt"}
#: A name with a version that does not move; where it is had from is for whoever builds to say.
PINNED = re.compile(r"([a-z]+/)?[a-z-]+:v?\d+\.\d+\.\d+(-[a-z]+)*")


class Loader(yaml.SafeLoader):
    """Takes no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.value != "<<"]
        assert len(keys) == len(set(keys)), f"{node.start_mark}: a key twice: {keys}"
        return super().construct_mapping(node, deep)


def read(name: str) -> dict[str, Any]:
    made: dict[str, Any] = yaml.load((FOLDER / name).read_text(), Loader)  # it is a SafeLoader
    return made


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return read("compose.yaml")


def instructions() -> list[tuple[str, list[str]]]:
    """The Containerfile: each instruction with its words."""
    text = re.sub(r"(?m)^#.*\n", "", (FOLDER / "Containerfile").read_text()).replace("\\\n", " ")
    found = []
    for line in filter(str.strip, text.splitlines()):
        name, _, rest = line.strip().partition(" ")
        found.append((name, re.findall(r'"((?:[^"\\]|\\.)*)"', rest) if rest.startswith("[") else shlex.split(rest)))
    return found


def stages() -> dict[str, list[tuple[str, list[str]]]]:
    """The instructions of each stage, with those of the stages that it builds upon before them."""
    found: dict[str, list[tuple[str, list[str]]]] = {}
    name = ""
    for instruction, words in instructions():
        if instruction == "FROM":
            assert words[1] == "AS", words
            name = words[2]
            assert words[0] in found or PINNED.fullmatch(words[0]), f"{words[0]} moves"
            found[name] = list(found.get(words[0], []))
        found[name].append((instruction, words))
    return found


def last(stage: str, instruction: str) -> list[str]:
    return [words for name, words in stages()[stage] if name == instruction][-1]


def variables(stage: str) -> dict[str, str]:
    words = [word for name, words in stages()[stage] if name == "ENV" for word in words]
    return dict(word.split("=", 1) for word in words)


def volumes_of(service: dict[str, Any]) -> dict[str, str]:
    """Source by the path inside."""
    found = {}
    for one in service.get("volumes", []):
        if isinstance(one, str):
            source, _, target = one.partition(":")
            found[target] = source
        else:
            assert one["type"] == "bind"
            assert one["read_only"] is True, f"{one['source']} could be changed from inside"
            found[one["target"]] = one["source"]
    return found


def test_what_is_copied_into_an_image_is_there_and_is_what_is_built_from():
    copied = [words for name, words in stages()["build"] if name == "COPY"]
    sources = {source for words in copied for source in words[:-1]}
    assert {source for source in sources if not (ROOT / source).exists()} == set()
    needed = {"pyproject.toml", "tools", *(name.split("/")[0] for name in build.SHARED)}
    needed |= {package for program in build.PROGRAMS for package in program.packages}
    assert sources == needed
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert not needed & set(ignored)
    assert {".git", ".venv", "deploy"} <= set(ignored), "keys of deploy/containers are in no image"
    # What each stage takes from the first one is what is built.
    names = {program.name for program in build.PROGRAMS}
    for stage in NODES:
        taken = {Path(w).name for name, words in stages()[stage] if name == "COPY" for w in words[1:-1]}
        assert f"agentcom-{stage}" in taken
        assert taken <= names
        # Unpacked by root while the image is made: the one who runs it can write nowhere.
        unpacked = next(words for name, words in stages()[stage] if name == "RUN" and "--version" in words)
        assert set(unpacked) - {"--version", "&&"} == taken


def test_extras_of_the_build_are_all_that_a_program_asks_for():
    line = next(" ".join(words) for name, words in stages()["build"] if name == "RUN" and words[0] == "pip")
    extras = set(re.search(r"\.\[([a-z,]+)\]", line)[1].split(","))
    assert extras == {"build", *(extra for program in build.PROGRAMS for extra in program.extras)}
    assert "tools/build.py --out /dist" in line


@pytest.mark.parametrize("node", NODES)
def test_an_image_runs_as_a_user_without_rights_under_an_init(node: str):
    assert last(node, "USER") == ["10001:10001"]
    assert last(node, "ENTRYPOINT") == ["tini", "--", f"agentcom-{node}"]
    apt = [words for name, words in stages()[node] if name == "RUN" and "apt-get" in words]
    assert any("tini" in words for words in apt)
    assert all("--no-install-recommends" in words for words in apt)
    if node == "sidecar":
        assert {"git", "bubblewrap"} <= {word for words in apt for word in words}
    assert variables(node)["AGENTCOM_PYTHON"].endswith("python{}.{}".format(*sys.version_info)), "as it is tested with"
    assert f":{sys.version_info[0]}.{sys.version_info[1]}." in stages()["build"][0][1][0]


@pytest.mark.parametrize("node", NODES)
def test_the_configuration_takes_the_variables_of_image_and_compose(node: str, compose: dict[str, Any]):
    service = compose["services"][node]
    given = {**variables(node), **service["environment"]}
    assert all(isinstance(value, str) for value in given.values()), "a bare true or 1 is not a text"
    # What belongs to this node is read by its configuration, which refuses what it does not know.
    if node == "hub":
        made: Any = hub_config.load(None, given)
        assert made.address.port == 7420
        assert made.server.tls_client_ca is not None
        assert made.telemetry.page is not None
        assert made.telemetry.page.port == 9464
        data = made.data
    elif node == "sidecar":
        made = sidecar_config.load(None, environment=given)
        data = made.state_path
    else:
        made = dashboard_config.load(None, given)
        assert made.login_required
        assert made.address.port == 7421
        data = None
    # What is written lies in a volume.
    if data is not None:
        assert str(data) in volumes_of(service)
        assert last(node, "VOLUME") == [str(data)]
    # What is named is mounted, and made by agentcom-tls under that name.
    mounts = volumes_of(service)
    for name, value in given.items():
        if not value.startswith("/run/"):
            continue
        if value.startswith("/run/secrets/"):
            assert Path(value).name in service["secrets"]
            continue
        folder, file = str(Path(value).parent), Path(value).name
        source = mounts[folder].removeprefix("./")
        assert source in MADE
        assert file in TLS_FILES.get(source, CLIENT_FILES), name


def test_the_address_of_the_hub_is_the_service_under_a_name_of_its_certificate(compose: dict[str, Any]):
    services = compose["services"]
    addresses = {
        services["dashboard"]["environment"]["AGENTCOM_DASHBOARD_HUB_ADDRESS"],
        services["sidecar"]["environment"]["AGENTCOM_SIDECAR_HUB_ADDRESS"],
        services["hub"]["environment"]["AGENTCOM_HUB_ADDRESS"],
    }
    hosts = {channel.parse_address(address).host for address in addresses}
    assert all(channel.parse_address(address).tls for address in addresses)
    asked = re.search(r"agentcom-tls --dir deploy/containers/tls hub (.*)", (ROOT / "docs/deployment.md").read_text())
    assert asked is not None
    assert hosts <= set(asked[1].split())


@pytest.mark.parametrize("node", NODES)
def test_a_container_can_write_to_its_volume_alone_and_gains_no_right(node: str, compose: dict[str, Any]):
    service = compose["services"][node]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [one.split(":")[0] for one in service["tmpfs"]] == ["/tmp"]
    assert (service["image"], service["build"]["target"]) == (f"agentcom-{node}", node)
    context = FOLDER / service["build"]["context"]
    assert context.resolve() == ROOT
    assert (context / service["build"]["dockerfile"]).resolve() == FOLDER / "Containerfile"


def test_everything_that_is_named_is_declared(compose: dict[str, Any]):
    services = compose["services"]
    assert set(services) == {*NODES, *OTHERS}
    used = {source for service in services.values() for source in volumes_of(service).values()}
    for source in used:
        if source.startswith("."):
            path = source.removeprefix("./")
            assert path in MADE or (FOLDER / source).is_file(), source
        else:
            assert source in compose["volumes"]
    assert set(compose["volumes"]) <= used
    assert {path for path in MADE if path.startswith("secrets")} == {
        one["file"].removeprefix("./") for one in compose["secrets"].values()
    }
    for service in services.values():
        assert set(service.get("secrets", [])) <= set(compose["secrets"])
    for name in OTHERS:
        assert PINNED.fullmatch(services[name]["image"])
    ignored = (FOLDER / ".gitignore").read_text().split()
    assert {path.split("/")[0] for path in MADE} == {line.rstrip("/") for line in ignored if line.endswith("/")}


def test_the_hub_is_waited_for_until_it_is_healthy(compose: dict[str, Any]):
    waiting = {name: service.get("depends_on", {}) for name, service in compose["services"].items()}
    for name in ("dashboard", "sidecar", "prometheus"):
        assert waiting[name] == {"hub": {"condition": "service_healthy"}}
    assert last("hub", "HEALTHCHECK") != ["NONE"]


def test_the_health_of_the_hub_is_asked_by_a_command_that_there_is(capsys: pytest.CaptureFixture[str]):
    (line,) = re.findall(r"(?m)^ +CMD (\[.*\"hub\", \"status\"\])$", (FOLDER / "Containerfile").read_text())
    command = yaml.safe_load(line)
    assert command[0] == "agentcom"
    with pytest.raises(SystemExit) as ended:
        cli_main.app([*command[1:], "--help"])
    assert ended.value.code == 0
    assert "exit 0" in capsys.readouterr().out


@pytest.mark.parametrize("stage", NODES)
def test_ports_are_those_that_are_exposed(stage: str, compose: dict[str, Any]):
    exposed = {word for name, words in stages()[stage] if name == "EXPOSE" for word in words}
    published = {one.rpartition(":")[2] for one in compose["services"][stage].get("ports", [])}
    assert published <= exposed
    public = {one for one in compose["services"][stage].get("ports", []) if not one.startswith("127.0.0.1:")}
    assert public == ({"7420:7420"} if stage == "hub" else set()), "only the hub, which asks for a certificate"


def test_collector_and_prometheus_are_told_where_the_hub_is(compose: dict[str, Any]):
    hub = compose["services"]["hub"]["environment"]
    collector, page = read("collector.yaml"), read("prometheus.yaml")
    endpoint = collector["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
    port = endpoint.rpartition(":")[2]
    assert hub["AGENTCOM_HUB_TELEMETRY_OTLP_ENDPOINT"] == f"http://collector:{port}"
    assert set(collector["service"]["pipelines"]) == {"metrics", "traces"}, "what the hub is told to push"
    for pipeline in collector["service"]["pipelines"].values():
        for kind, names in pipeline.items():
            assert set(names) <= set(collector[kind])
    assert page["scrape_configs"][0]["static_configs"][0]["targets"] == ["hub:9464"]
    usual = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    assert page["rule_files"] == usual["rule_files"]
    for service, file in (("collector", "config"), ("prometheus", "config.file")):
        (path,) = [w.partition("=")[2] for w in compose["services"][service]["command"] if w.startswith(f"--{file}=")]
        assert path in volumes_of(compose["services"][service])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on this machine")
def test_prometheus_takes_its_configuration(tmp_path: Path):
    for file in (FOLDER / "prometheus.yaml", ROOT / "deploy/prometheus/rules.yml"):
        shutil.copy(file, tmp_path)
    done = subprocess.run(
        ["promtool", "check", "config", str(tmp_path / "prometheus.yaml")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done
