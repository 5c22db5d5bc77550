"""A hub that is killed between an event and its telling, or while it tells: everybody hears of it, under one id.

And what it takes to tell people is found nowhere: not in logs, events, answers or command lines.
"""

from __future__ import annotations

import json
from pathlib import Path

from agentcom.v1 import hub_service_pb2, notify_service_pb2, notify_service_pb2_grpc
from tests.support.fleet import DEAD, Fleet, spec
from tests.support.receiver import Receiver, Request, post_office, receiving

CANARIES = {
    "the path of the webhook": "canary-hook-0123456789",
    "the key of the signature": "canary-key-0123456789",
    "the topic": "canary-topic-0123456789",
    "the token of ntfy": "tk_canary0123456789",
    "the password of the mail server": "right-password-0123",
}


async def dead_letter(fleet: Fleet, title: str) -> str:
    """A task that fails for good."""
    (name,) = await fleet.submit(spec(title, "false", attempts_max=1))
    await fleet.until_tasks([name], DEAD)
    return name


def said(request: Request) -> tuple[str, str]:
    """Id and title."""
    data = json.loads(request.body)["data"]
    return data["id"], data["title"]


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


async def start(fleet: Fleet, receiver: Receiver, **settings: object) -> None:
    await fleet.start_hub(notify_webhook_url=f"{receiver.url}/x", **settings)
    await fleet.start_sidecars("ada")


async def test_a_hub_that_is_killed_before_it_tells_tells_when_it_is_back_and_once(fleet: Fleet) -> None:
    with receiving() as receiver:
        await start(fleet, receiver, notify_gather_s=600)
        await dead_letter(fleet, "the first")
        await fleet.kill_hub()
        assert receiver.rest() == []
        await fleet.restart_hub(notify_gather_s=0.1)
        assert said(await receiver.next())[1] == "Task dead-lettered: the first"
        await fleet.kill_hub()  # it was told, and perhaps that is not written down yet
        await fleet.restart_hub()
        await dead_letter(fleet, "the second")
        later = [said(await receiver.next())]
        while later[-1][1] != "Task dead-lettered: the second":
            later.append(said(await receiver.next()))
        assert len({id for id, _ in later}) == len(later) <= 2


async def test_a_hub_that_is_killed_while_it_tells_tells_again_under_the_same_id(fleet: Fleet) -> None:
    with receiving() as receiver:
        receiver.silent.set()
        await start(fleet, receiver, notify_gather_s=0.1)
        await dead_letter(fleet, "the first")
        before = said(await receiver.next())
        await fleet.kill_hub()
        receiver.silent.clear()
        await fleet.restart_hub()
        assert said(await receiver.next()) == before


async def test_what_it_takes_to_tell_people_is_found_nowhere(fleet: Fleet, tmp_path: Path) -> None:
    files = {}
    for what in ("the key of the signature", "the token of ntfy", "the password of the mail server"):
        files[what] = tmp_path / what.replace(" ", "-")
        files[what].write_text(CANARIES[what] + "\n")
    with receiving() as receiver:
        async with post_office(login=True) as post:
            receiver.always = 500
            settings = {
                "notify_webhook_url": f"{receiver.url}/{CANARIES['the path of the webhook']}",
                "notify_webhook_secret_file": files["the key of the signature"],
                "notify_ntfy_url": f"{receiver.url}/{CANARIES['the topic']}",
                "notify_ntfy_token_file": files["the token of ntfy"],
                "notify_email_host": "127.0.0.1",
                "notify_email_port": post.port,
                "notify_email_security": "none",
                "notify_email_user": "hub",
                "notify_email_password_file": files["the password of the mail server"],
                "notify_email_sender": "hub@agents.example",
                "notify_email_to": "ann@example.com",
                "notify_gather_s": 0.1,
                "log_level": "debug",
            }
            await fleet.start_hub(**settings)
            await fleet.start_sidecars("ada")
            await dead_letter(fleet, "the first")
            _, message = await post.next()
            assert message["Subject"] == "Task dead-lettered: the first"
            came = [await receiver.next() for _ in range(2)]
            seen = b"".join(request.body + str(request).encode() for request in came)
            for what in ("the path of the webhook", "the topic", "the token of ntfy"):
                assert CANARIES[what].encode() in seen, "the search sees what is sent"
            notify = notify_service_pb2_grpc.NotifyServiceStub(fleet.channel)
            reply = await notify.ListSinks(notify_service_pb2.ListSinksRequest())
            told = str(reply) + str(await fleet.history())
            for _ in range(2):
                for name in ("webhook", "ntfy"):
                    try:
                        await notify.TestSink(notify_service_pb2.TestSinkRequest(name=f"sinks/{name}"))
                    except Exception as error:
                        told += str(error)
            assert "answered 500" in told
            await fleet.hubs.CreateBackup(hub_service_pb2.CreateBackupRequest())
            assert fleet.hub is not None
            told += command_line(fleet.hub.pid)
            await fleet.hub.stop()
    left = {path: path.read_bytes() for path in fleet.root.rglob("*") if path.is_file()}
    assert any(b"notice.sent" in data for data in left.values()), "the search sees the log"
    wrong = [what for what, canary in CANARIES.items() if canary in told]
    wrong += [
        f"{what} in {path}"
        for what, canary in CANARIES.items()
        for path, data in left.items()
        if canary.encode() in data
    ]
    assert not wrong
