"""Write, check and lint gen/: the Python code of the contract in protos/.

    python tools/gen.py write | check | lint

The protos import buf/validate/validate.proto, which is not vendored: its descriptor is taken out of the installed
protovalidate and given to protoc as a descriptor set, so the generated rules and the engine that runs them can
never differ. The grpc plugins see only *_service.proto; a resource file would get an empty *_pb2_grpc.py.
buf reads images that protoc made, for the same reason.
"""

from __future__ import annotations

import argparse
import filecmp
import importlib.resources
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml
from google.protobuf import descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
from grpc_tools import protoc
from protovalidate._gen.buf.validate import validate_pb

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
GEN = ROOT / "gen"
PACKAGE = "agentcom"
RULES = "buf/validate/validate.proto"
BREAKING_BASE = "main"
# What the rules and the project's files import; protoc's own include folder serves the rest (struct, any, ...).
WELL_KNOWN = (descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("command", choices=("write", "check", "lint"))
    command = parser.parse_args(argv).command
    if not sources(PROTOS):
        print(f"gen: no .proto files under {PROTOS.name}/{PACKAGE}")
        return 1
    if command == "lint":
        return lint()
    with tempfile.TemporaryDirectory(prefix="agentcom-gen-") as folder:
        fresh = Path(folder) / "gen"
        generate(fresh)
        return write(fresh) if command == "write" else check(fresh)


def sources(protos: Path) -> list[str]:
    """The project's .proto files, as import paths, in a fixed order."""
    return sorted(path.relative_to(protos).as_posix() for path in (protos / PACKAGE).rglob("*.proto"))


def generate(out: Path) -> None:
    """Make the whole generated tree in a new folder `out`."""
    out.mkdir(parents=True)
    files = sources(PROTOS)
    with tempfile.TemporaryDirectory(prefix="agentcom-gen-") as folder:
        rules = rules_set(Path(folder))
        messages = [f"--python_out={out}", f"--mypy_out=quiet:{out}"]
        run_protoc([f"--descriptor_set_in={rules}", f"-I{PROTOS}", *messages, *files])
        run_protoc([f"--descriptor_set_in={rules}", *messages, RULES])
        services = [name for name in files if name.endswith("_service.proto")]
        if services:
            stubs = [f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}"]
            run_protoc([f"--descriptor_set_in={rules}", f"-I{PROTOS}", *stubs, *services])


def rules_set(folder: Path) -> Path:
    """Write the descriptor set that stands in for validate.proto and the well-known types it imports."""
    bundle = descriptor_pb2.FileDescriptorSet()
    for module in WELL_KNOWN:
        module.DESCRIPTOR.CopyToProto(bundle.file.add())
    bundle.file.add().ParseFromString(validate_pb._DESC.proto.to_binary())
    path = folder / "rules.binpb"
    path.write_bytes(bundle.SerializeToString(deterministic=True))
    return path


def run_protoc(arguments: Iterable[str]) -> None:
    """Run the bundled protoc with its plugins; raises SystemExit when it fails (protoc has said why)."""
    plugins = Path(sys.executable).parent
    include = importlib.resources.files("grpc_tools") / "_proto"
    code = protoc.main(
        [
            "protoc",
            f"--plugin=protoc-gen-mypy={plugins / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={plugins / 'protoc-gen-mypy_grpc'}",
            f"-I{include}",
            *arguments,
        ]
    )
    if code:
        raise SystemExit(code)


def write(fresh: Path) -> int:
    """Replace gen/ by `fresh`; untouched files keep their time stamps."""
    wanted = tree(fresh)
    for name in sorted(tree(GEN) - wanted):
        (GEN / name).unlink()
    changed = 0
    for name in sorted(wanted):
        target = GEN / name
        if target.is_file() and filecmp.cmp(fresh / name, target, shallow=False):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(fresh / name, target)
        changed += 1
    print(f"gen: {len(wanted)} files, {changed} changed")
    return 0


def check(fresh: Path) -> int:
    """Compare gen/ with `fresh`, byte for byte."""
    wanted, have = tree(fresh), tree(GEN)
    stale = {name for name in wanted & have if not filecmp.cmp(fresh / name, GEN / name, shallow=False)}
    for name in sorted(wanted ^ have | stale):
        print(f"gen: {'stale' if name in stale else 'missing' if name in wanted else 'left over'}: gen/{name}")
    if wanted != have or stale:
        print("gen: run `make gen` and commit the result")
        return 1
    print(f"gen: {len(wanted)} files, all fresh")
    return 0


def tree(folder: Path) -> set[str]:
    """The files below `folder`, without what Python and its tools leave there."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.py*") if path.suffix in (".py", ".pyi")}


def lint() -> int:
    """Run buf lint, and buf breaking against main where main has protos; returns the first exit code that is not 0."""
    buf = Path(sys.executable).parent / "buf"
    with tempfile.TemporaryDirectory(prefix="agentcom-buf-") as name:
        folder = Path(name)
        config = image_config(folder)
        new = image(PROTOS, folder / "new.binpb")
        code = subprocess.call([buf, "lint", new, "--config", config])
        base = base_protos(folder / "base")
        if base is None:
            return code
        old = image(base, folder / "old.binpb")
        return code or subprocess.call(
            [buf, "breaking", new, "--against", old, "--config", config, "--exclude-imports"]
        )


def image(protos: Path, path: Path) -> Path:
    """Write the buf image of a proto folder: our files with their comments, their imports marked as imports."""
    raw = path.with_suffix(".raw")
    run_protoc(
        [
            f"--descriptor_set_in={rules_set(path.parent)}",
            f"-I{protos}",
            "--include_imports",
            "--include_source_info",
            f"--descriptor_set_out={raw}",
            *sources(protos),
        ]
    )
    own = set(sources(protos))
    files = descriptor_pb2.FileDescriptorSet.FromString(raw.read_bytes())
    path.write_bytes(b"".join(image_file(file, is_import=file.name not in own) for file in files.file))
    return path


def image_file(file: descriptor_pb2.FileDescriptorProto, *, is_import: bool) -> bytes:
    """One file of a buf image: a FileDescriptorProto, plus buf's extension 8042 {is_import = 1}, which spares it."""
    data = file.SerializeToString(deterministic=True)
    if is_import:
        data += varint(8042 << 3 | 2) + b"\x02\x08\x01"
    return b"\x0a" + varint(len(data)) + data


def varint(number: int) -> bytes:
    """Protobuf's base-128 encoding of a natural number."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def image_config(folder: Path) -> Path:
    """Write buf.yaml without its modules: an image has no folders. Returns the file."""
    config = yaml.safe_load((ROOT / "buf.yaml").read_text(encoding="utf-8"))
    del config["modules"]
    path = folder / "buf.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def base_protos(folder: Path) -> Path | None:
    """Unpack protos/ of the base branch into `folder`; None (and a line that says why) when there is nothing."""
    said = b""
    for base in (BREAKING_BASE, f"origin/{BREAKING_BASE}"):
        found = subprocess.run(["git", "-C", ROOT, "archive", base, "protos"], capture_output=True, check=False)
        if found.returncode == 0:
            folder.mkdir()
            subprocess.run(["tar", "-x", "-C", folder], input=found.stdout, check=True)
            return folder / "protos"
        said = said or found.stderr
    print(f"gen: {BREAKING_BASE} has no protos to compare with ({said.decode(errors='replace').strip()})")
    return None


if __name__ == "__main__":
    raise SystemExit(main())
