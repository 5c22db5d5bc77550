"""`agentcom up`: a hub and one sidecar in the foreground, for trying.

Everything is kept under one folder, so that the next `up` goes on where this one ended. The hub listens on the loopback
only. Ctrl-C stops the sidecar first (it finishes or saves what it holds), then the hub; a second one hurries
what is being stopped.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli import children, command
from cli.failure import Code
from kit import errors, program

READY_S = 30.0
FOLDER_DEFAULT = Path(".agentcom")


def up(
    folder: Annotated[Path, typer.Option("--dir", help="where both keep what they know")] = FOLDER_DEFAULT,
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="0: any free one")] = 0,
    slots: Annotated[int, typer.Option("--slots", min=1, max=256, help="tasks at once")] = 2,
    agent: Annotated[str, typer.Option("--agent", help="id of the agent")] = "local",
    executors: Annotated[str, typer.Option("--executors", help="comma-separated")] = "shell",
) -> None:
    """Run a hub and one sidecar in the foreground, for trying. Ctrl-C stops both."""
    command.ending(lambda: asyncio.run(_run(folder.expanduser().absolute(), port, slots, agent, executors)))


async def start_hub(folder: Path, *, port: int = 0) -> tuple[children.Child, str]:
    """A hub that serves on the loopback, and its address; its data is in `folder`/hub."""
    data = folder / "hub"
    goals = folder / "goals"
    try:
        for made in (data, goals):
            made.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise errors.Invalid.of("--dir", f"{error.filename}: {error.strerror}") from error
    address_file = data / "hub.addr"
    address_file.unlink(missing_ok=True)  # one that an earlier hub left would be taken for this one's
    hub = await children.Child.start(
        "hub",
        program.node("hub"),
        log=folder / "hub.log",
        environment={
            "AGENTCOM_HUB_DATA": str(data),
            "AGENTCOM_HUB_SERVER_LISTEN": f"127.0.0.1:{port}",
            "AGENTCOM_HUB_INTAKE_FOLDER": str(goals),
            "AGENTCOM_HUB_LOG_FORM": "json",
        },
    )
    try:
        await hub.until(lambda: address_file.exists() and address_file.read_text().endswith("\n"), READY_S)
    except errors.Problem as problem:
        await hub.stop()
        raise errors.Unavailable(f"{problem}; the end of {hub.log}:\n{hub.tail()}") from problem
    except BaseException:
        await hub.stop()
        raise
    return hub, address_file.read_text().strip()


async def start_sidecar(
    folder: Path, address: str, agent: str, *, slots: int, executors: str = "shell"
) -> children.Child:
    """A sidecar of the hub at `address`; its state is in `folder`/<agent>."""
    return await children.Child.start(
        f"sidecar {agent}",
        [
            *(*program.node("sidecar"), "--hub", address, "--agent", agent),
            *("--state-dir", str(folder / agent), "--slots", str(slots), "--executors", executors),
        ],
        log=folder / f"{agent}.log",
        environment={"AGENTCOM_SIDECAR_LOG_FORM": "json"},
    )


async def _run(folder: Path, port: int, slots: int, agent: str, executors: str) -> int:
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def ask() -> None:
        if asked.is_set():
            # The sidecar first, and it alone: what it stops it can only report to a hub that is still there.
            hurried = next((child for child in reversed(running) if child.is_running), None)
            if hurried is not None:
                os.kill(hurried.pid, signal.SIGTERM)
        asked.set()

    running: list[children.Child] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, ask)
    try:
        hub, address = await start_hub(folder, port=port)
        running.append(hub)
        running.append(await start_sidecar(folder, address, agent, slots=slots, executors=executors))
        _greet(folder, address)
        return await _until_asked(running, asked)
    finally:
        for child in reversed(running):
            await child.stop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)


async def _until_asked(running: list[children.Child], asked: asyncio.Event) -> int:
    """0 when somebody asked to stop; raises Unavailable when a child ended by itself."""
    async with asyncio.TaskGroup() as group:
        waits = {group.create_task(child.wait(), name=child.name): child for child in running}
        stop = group.create_task(asked.wait(), name="asked")
        done, _ = await asyncio.wait({stop, *waits}, return_when=asyncio.FIRST_COMPLETED)
        for job in (stop, *waits):
            job.cancel()
    ended = [child for job, child in waits.items() if job in done]
    if ended and not asked.is_set():
        sys.stderr.write(ended[0].tail())
        raise errors.Unavailable(f"the {ended[0].name} ended by itself; its log is {ended[0].log}")
    print("stopping", flush=True)
    return Code.OK


def _greet(folder: Path, address: str) -> None:
    print(f"hub       {address}")
    print(f"folder    {folder} (hub.log, the sidecar's log, goals/ is watched for goal files)")
    print("in another terminal:")
    print(f"  export {command.ENV_ADDRESS}={address}")
    print("  agentcom hub status")
    print("  agentcom agent list")
    print("Ctrl-C stops both", flush=True)
