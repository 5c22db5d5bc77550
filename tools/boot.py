"""The start of a built file: unpacks the archive once, then runs the node from what was unpacked.

`tools/build.py` puts this file into each archive as its `__main__.py`, and Python runs it in two ways:

    python -I -S agentcom-hub ARGUMENTS                    the archive: the node's program
    python -I -S TREE/__main__.py FILE MODULE ARGUMENTS    the unpacked tree: one module of it (kit.program.part)

Theory. Native modules cannot be loaded out of an archive, so it is unpacked into a cache folder under the name of its
content: a folder of that name is whole, because it got its name when it was, and every version has its own, so that an
upgrade takes nothing away from what still runs. Each process holds a shared lock on its tree; who unpacks a new version
takes away those that nobody has locked and nobody has started for two weeks.

Only code of the archive and of Python's own library is run: a tree that somebody else could write to is refused. This
file imports the standard library only, for it runs before there is anything else.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

# What only a first start needs (zipfile, shutil, ...) is imported there: `agentcom` is called often.

CACHE_VARIABLE = "AGENTCOM_CACHE_DIR"
BUILD_FILE = "build.json"
#: The program, as an archive inside of the archive: Python reads the list of the outer one at each start.
PAYLOAD_FILE = "payload.zip"
LOCK_FILE = ".used"
#: A version that nobody has started for so long is not come back to.
KEEP_S = 14 * 86_400.0
#: Between finding a tree and locking it somebody may take it away; more often than this it is not bad luck.
TRY_COUNT_MAX = 5
EXIT_USAGE = 2

#: Held open, and so locked, to the end of the process.
_held: list[int] = []


class Refused(Exception):
    """Why the program cannot run, in one line for a person."""


def main() -> None:
    """Run what was asked for. Never returns."""
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        if os.path.isdir(here):
            hold(here)
            file, module = sys.argv[1:3]
            sys.argv = [f"{here}/{module}", *sys.argv[3:]]
            enter(here, file)
            runpy = importlib.import_module("runpy")
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            sys.exit(0)
        build = read_archive(here)
        check_python(build)
        tree = unpacked(here, build, os.environ)
    except Refused as refusal:
        sys.stderr.write(f"{os.path.basename(here)}: {refusal}\n")
        sys.exit(EXIT_USAGE)
    sys.argv[0] = here
    enter(tree, here)
    sys.exit(importlib.import_module(build["module"]).main())


def enter(tree: str, file: str) -> None:
    """From here on modules come out of the tree, and kit.program knows."""
    site = os.path.join(tree, "site")
    own = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [site, *(path for path in sys.path if path not in (own, site))]
    program = importlib.import_module("kit.program")
    pathlib = importlib.import_module("pathlib")
    program.begin(program.Built(pathlib.Path(file), pathlib.Path(tree)))


def check_python(build: Mapping[str, Any]) -> None:
    """Native modules fit one version of one Python on one kind of machine, and no older glibc. Raises Refused."""
    ours = tag()
    if ours != build["python"]:
        raise Refused(
            f"was built for {build['python']} and was started with {ours} ({sys.executable}); "
            "AGENTCOM_PYTHON names the Python that is taken"
        )
    have, need = glibc(), tuple(build["glibc"])
    if have < need:
        raise Refused("needs glibc {}.{} or newer, this machine has {}.{}".format(*need, *have))


def glibc() -> tuple[int, ...]:
    """Version of the C library, e.g. (2, 36); where it is another library no version of glibc is new enough."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        found = tuple(int(part) for part in version.split(".")[:2]) if name == "glibc" else ()
    except (OSError, ValueError):
        found = ()
    return found if len(found) == 2 else (0, 0)


def tag() -> str:
    """What a native module must fit: implementation and version, system, machine; e.g. cpython-311-linux-x86_64."""
    return f"{sys.implementation.cache_tag}-{sys.platform}-{os.uname().machine}"


def unpacked(file: str, build: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """The tree of this archive, locked against removal; unpacks it when there is none yet. Raises Refused."""
    name = f"{build['name']}-{build['id']}"
    wrong = []
    for cache, is_asked_for in caches(environment):
        tree = os.path.join(cache, name)
        try:
            for _ in range(TRY_COUNT_MAX):
                if not os.path.isdir(tree):
                    unpack(file, build, cache, tree)
                check_owner(tree)
                if hold(tree):
                    return tree
            raise Refused(f"{tree} is taken away again and again")
        except (OSError, Refused) as error:
            wrong.append(f"{cache}: {(error.strerror or error) if isinstance(error, OSError) else error}")
            if is_asked_for:
                break
    raise Refused(f"has no folder to unpack itself into ({'; '.join(wrong)}); {CACHE_VARIABLE} names another one")


def caches(environment: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
    """Where it may be unpacked, best first; what somebody asked for has no second choice behind it."""
    asked = environment.get(CACHE_VARIABLE)
    if asked:
        yield os.path.abspath(asked), True
        return
    # CACHE_DIRECTORY is systemd's; it may name several.
    service = environment.get("CACHE_DIRECTORY", "").split(":")[0]
    if service:
        yield service, False
    home = environment.get("HOME") or ""
    if not home:
        with contextlib.suppress(KeyError):
            import pwd

            home = pwd.getpwuid(os.getuid()).pw_dir
    shared = environment.get("XDG_CACHE_HOME", "")
    if not shared.startswith("/"):
        shared = os.path.join(home, ".cache")
    if shared.startswith("/"):
        yield os.path.join(shared, "agentcom"), False


def unpack(file: str, build: Mapping[str, Any], cache: str, tree: str) -> None:
    """Make the tree of this archive. Raises OSError, Refused."""
    import shutil
    import zipfile

    os.makedirs(cache, mode=0o700, exist_ok=True)
    check_owner(cache)
    if os.statvfs(cache).f_flag & os.ST_NOEXEC:
        raise Refused("is mounted noexec, and native modules are run from it")
    lock = os.open(os.path.join(cache, f".{build['name']}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.isdir(tree):  # somebody else has done it meanwhile
            return
        fresh = f"{tree}.new"
        shutil.rmtree(fresh, ignore_errors=True)  # of one that was killed
        old = os.umask(0o022)
        try:
            with (
                zipfile.ZipFile(file) as outer,
                outer.open(PAYLOAD_FILE) as payload,
                zipfile.ZipFile(payload) as archive,
            ):
                archive.extractall(fresh)
            with open(os.path.join(fresh, LOCK_FILE), "wb"):
                pass
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        finally:
            os.umask(old)
        # The name says that it is whole, also after a power cut: what it names is on the disk first.
        os.sync()
        os.rename(fresh, tree)
        tidy(cache, build["name"], os.path.basename(tree), time.time())
    finally:
        os.close(lock)


def check_owner(folder: str) -> None:
    """What others may write to could be anybody's code. Raises OSError, Refused."""
    status = os.stat(folder)
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        raise Refused(f"{folder} could be written to by others")


def hold(tree: str) -> bool:
    """Lock a tree for the life of this process, and note that it was used; False when it is gone."""
    path = os.path.join(tree, LOCK_FILE)
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    fcntl.flock(lock, fcntl.LOCK_SH)
    try:
        is_there = os.path.samestat(os.fstat(lock), os.stat(path))
    except FileNotFoundError:
        is_there = False
    if not is_there:
        os.close(lock)
        return False
    _held.append(lock)
    with contextlib.suppress(OSError):  # of another owner, or on a disk that is read only
        os.utime(path)
    return True


def tidy(cache: str, name: str, own: str, now: float) -> None:
    """Take away the trees of older versions that nobody uses."""
    import shutil

    for entry in sorted(os.listdir(cache)):
        tree = os.path.join(cache, entry)
        id = entry.removeprefix(f"{name}-")
        if entry == own or id == entry or not is_id(id):
            continue
        with contextlib.suppress(OSError):
            lock = os.open(os.path.join(tree, LOCK_FILE), os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if now - os.fstat(lock).st_mtime > KEEP_S:
                    gone = f"{tree}.gone"
                    os.rename(tree, gone)
                    shutil.rmtree(gone, ignore_errors=True)
            finally:
                os.close(lock)


def is_id(text: str) -> bool:
    """Sixteen hexadecimal digits."""
    return len(text) == 16 and all(character in "0123456789abcdef" for character in text)


def read_archive(file: str) -> dict[str, Any]:
    """What an archive says of itself; Python has it open, as it runs us out of it."""
    loader: Any = globals()["__loader__"]
    return dict(json.loads(loader.get_data(os.path.join(file, BUILD_FILE))))


if __name__ == "__main__":
    main()
