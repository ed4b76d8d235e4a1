"""examples/k8s: its parts agree, and its very command line serves a host on loopback."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from loom_host import Host, load_settings
from loom_host.runtimes.grpc.tier import GrpcTier
from loom_sdk.remote_sessions import STOP_S

from .authority import Authority
from .far import Far, free_port, running
from .support import ROOT
from .test_plugin_stt import PCM, pcm_of, require

yaml = pytest.importorskip("yaml", reason="needs PyYAML")
EXAMPLE = ROOT / "examples" / "k8s"
PLUGIN = ROOT / "plugins" / "grpc" / "stt-whisper"


def documents(name: str) -> dict[tuple[str, str], Any]:
    parts = yaml.safe_load_all((EXAMPLE / name).read_text())
    return {(part["kind"], part["metadata"]["name"]): part for part in parts}


STT = documents("stt.yaml")
POD = STT["Deployment", "stt"]["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
TABLE = tomllib.loads((EXAMPLE / "loom.toml").read_text())["plugins"]["stt-whisper"]


def option(name: str) -> str:
    command: list[str] = CONTAINER["command"]
    return command[command.index(name) + 1]


def test_ports_names_and_labels_agree() -> None:
    service = STT["Service", "stt"]["spec"]
    assert service["clusterIP"] in ("None", None)
    assert service["selector"] == POD["metadata"]["labels"]
    port = service["ports"][0]["port"]
    assert option("--listen") == f"0.0.0.0:{port}"
    assert TABLE["address"] == f"dns:///stt.voice.svc.cluster.local:{port}"
    health = int(option("--health").rpartition(":")[2])
    assert {p["containerPort"] for p in CONTAINER["ports"]} == {port, health}
    probes = [CONTAINER[f"{kind}Probe"]["grpc"] for kind in ("startup", "readiness", "liveness")]
    assert {probe["port"] for probe in probes} == {health}
    assert POD["spec"]["terminationGracePeriodSeconds"] > float(option("--grace")) + 1 + STOP_S


def test_certificates_are_those_that_are_mounted_and_bear_the_name_of_the_address() -> None:
    certificates = documents("certificates.yaml")
    own = certificates["Certificate", "stt-tls"]["spec"]
    assert TABLE["address"].removeprefix("dns:///").rpartition(":")[0] in own["dnsNames"]
    secrets = {v["secret"]["secretName"] for v in POD["spec"]["volumes"] if "secret" in v}
    assert secrets == {own["secretName"]}
    (mount,) = (m["mountPath"] for m in CONTAINER["volumeMounts"] if m["name"] == "certs")
    ours = [option(name) for name in ("--cert", "--key", "--client-ca")]
    assert ours == [f"{mount}/{name}" for name in ("tls.crt", "tls.key", "ca.crt")]
    authority = certificates["Issuer", "loom-ca"]["spec"]["ca"]["secretName"]
    assert authority == certificates["Certificate", "loom-ca"]["spec"]["secretName"]


def secret(authority: Authority, name: str, dns: str) -> Path:
    """The folder of a Secret as cert-manager fills it."""
    folder = authority.folder / f"{name}-secret"
    folder.mkdir()
    cert, key = authority.issue(name, [dns])
    for source, target in ((cert, "tls.crt"), (key, "tls.key"), (authority.ca, "ca.crt")):
        shutil.copy(source, folder / target)
    return folder


@pytest.mark.slow
async def test_the_command_of_the_container_transcribes_for_the_host_of_loom_toml(
    tmp_path: Path,
) -> None:
    require("stt-whisper")
    authority = Authority(tmp_path)
    name = TABLE["address"].removeprefix("dns:///").rpartition(":")[0]
    certs, ours = secret(authority, "stt", name), secret(authority, "host", "loom-host")
    places = {
        option("--listen"): "127.0.0.1:0",
        option("--health"): f"127.0.0.1:{free_port()}",
    }
    python, module, *command = CONTAINER["command"]
    assert (python, module) == ("python", "-m")
    words = [places.get(word, word).replace("/certs", str(certs)) for word in command]

    async def resolve(host: str, port: int) -> list[str]:
        assert host == name
        return ["127.0.0.1"]

    with running(Far(*words, folder=PLUGIN)) as process:
        text = (EXAMPLE / "loom.toml").read_text()
        text = text.replace("/certs", str(ours)).replace(":50051", f":{process.port}")
        (tmp_path / "loom.toml").write_text(text)
        overrides = {
            "host": {"runtime_dir": str(tmp_path / "run"), "data_dir": str(tmp_path / "data")},
            "telemetry": {"log_level": "error"},
        }
        tier = GrpcTier(tmp_path / "run", resolve=resolve)
        settings = load_settings(tmp_path / "loom.toml", overrides)
        async with Host(settings, runtimes={"grpc": tier}) as host:
            sound = pcm_of("espeak_us_f3_12x9_clean.wav")
            answer = await host.invoke("stt.transcribe", payload=sound, content_type=PCM)
            assert answer.output["text"]
