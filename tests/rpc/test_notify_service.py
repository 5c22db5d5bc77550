"""NotifyService of a real hub, and the commands over it: sinks, trials, and whose browser is whose."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from typer.testing import CliRunner

from agentcom.v1 import agent_service_pb2, notify_service_pb2, notify_service_pb2_grpc
from cli import command
from cli.main import app as cli
from hub.core.token import Scope
from kit import errors, metrics
from tests.support.hub import _Bound, as_token, fields, refused, running
from tests.support.receiver import Browser, receiving

PUSH = {"notify__webpush__enabled": True, "notify__webpush__contact": "mailto:ops@example.com"}
ENDPOINT = "https://updates.push.example.com/wpush/v2/canary-endpoint"


def notify(caller):
    return _Bound(notify_service_pb2_grpc.NotifyServiceStub(caller.channel), caller.metadata)


async def sinks(caller):
    reply = await notify(caller).ListSinks(notify_service_pb2.ListSinksRequest())
    return {one.name: one for one in reply.sinks}


async def subscribe(caller, endpoint=ENDPOINT, **changes):
    browser = Browser(endpoint)
    given = {"endpoint": endpoint, "public_key": browser.public_key, "auth": browser.auth, "display_name": "Firefox"}
    request = notify_service_pb2.CreatePushSubscriptionRequest(**{**given, **changes})
    return (await notify(caller).CreatePushSubscription(request)).push_subscription


async def browsers(caller):
    reply = await notify(caller).ListPushSubscriptions(notify_service_pb2.ListPushSubscriptionsRequest())
    return list(reply.push_subscriptions)


async def test_only_the_log_is_on_unless_something_is_set(tmp_path):
    async with running(tmp_path) as caller:
        found = await sinks(caller)
        assert {name for name, one in found.items() if one.enabled} == {"sinks/log"}
        assert len(found) == 5
        for name, kind in (("webhook", errors.IllegalState), ("log", errors.NotFound), ("fax", errors.NotFound)):
            problem = await refused(notify(caller).TestSink(notify_service_pb2.TestSinkRequest(name=f"sinks/{name}")))
            assert isinstance(problem, kind), name
        assert isinstance(await refused(subscribe(caller)), errors.IllegalState)
        key = notify(caller).GetPushKey(notify_service_pb2.GetPushKeyRequest())
        assert isinstance(await refused(key), errors.IllegalState)


async def test_a_trial_says_what_came_of_it_and_it_shows(tmp_path):
    with receiving() as receiver:
        async with running(tmp_path, notify__webhook__url=f"{receiver.url}/x") as caller:
            ask = notify_service_pb2.TestSinkRequest(name="sinks/webhook")
            sink = (await notify(caller).TestSink(ask)).sink
            assert sink.sent_count == 1 and sink.last_success_time.seconds and not sink.failing
            assert json.loads((await receiver.next()).body)["type"] == "notice.test"
            receiver.answer(500)
            problem = await refused(notify(caller).TestSink(ask))
            assert problem.reason == "SINK_FAILED" and "answered 500" in problem.message
            sink = (await sinks(caller))["sinks/webhook"]
            assert (sink.failed_count, sink.last_error) == (1, "127.0.0.1 answered 500")
            told = caller.hub._measured()
            assert told[metrics.NOTICES] | {("webhook", "sent"): 1, ("webhook", "failed"): 1} == told[metrics.NOTICES]
            assert told[metrics.SINKS_FAILING][("webhook",)] == 0.0


async def test_a_hub_tells_and_a_sink_that_is_down_is_seen(tmp_path):
    with receiving() as receiver:
        receiver.always = 503
        overrides = {"notify__webhook__url": f"{receiver.url}/x", "notify__gather_s": 0.0}
        async with running(tmp_path, **overrides) as caller:
            task = await caller.task("will die")
            await kill(caller, task)
            await receiver.next()
            async with asyncio.timeout(20):
                while not (sink := (await sinks(caller))["sinks/webhook"]).failing:
                    pass
            assert sink.backlog == 1 and sink.next_try_time.seconds
            receiver.always = None
            ask = notify_service_pb2.TestSinkRequest(name="sinks/webhook")
            await notify(caller).TestSink(ask)  # a trial that works brings the next try forward
            kinds = [json.loads((await receiver.next()).body) for _ in range(2)]
            assert [one["type"] for one in kinds] == ["notice.test", "notice.urgent"]
            assert kinds[1]["data"]["title"] == "Task dead-lettered: will die"
            assert kinds[1]["data"]["path"] == f"/{task.name}"


async def kill(caller, task):
    """Dead-letter a task, as the sweep would."""
    from hub.core.task import Attribution, Failure
    from hub.engine.script import lifecycle

    def write(txn):
        found = txn.task(task.name.partition("/")[2])
        failure = Failure(reason="POISON", message="it kills agents", attribution=Attribution.TASK)
        lifecycle.kill(txn, found, failure, caller.hub.ctx.clock.now())

    await caller.hub.store.write(write)


async def test_the_key_of_the_hub_outlives_a_restart_and_so_do_browsers(tmp_path):
    keys, names = [], []
    for _ in range(2):
        async with running(tmp_path, store__kind="lmdb", **PUSH) as caller:
            keys.append((await notify(caller).GetPushKey(notify_service_pb2.GetPushKeyRequest())).public_key)
            if not names:
                names.append((await subscribe(caller)).name)
            names.append((await browsers(caller))[0].name)
    assert keys[0] == keys[1] and len(keys[0]) == 65
    assert len(set(names)) == 1


BAD = {
    "the neighbourhood": {"endpoint": "https://192.168.1.1/x"},
    "this machine": {"endpoint": "https://127.0.0.1/x"},
    "plain http": {"endpoint": "http://push.example.com/x"},
    "no address": {"endpoint": "push me up"},
    "a short key": {"public_key": b"\4" * 64},
    "a key that is no point": {"public_key": b"\4" + b"\1" * 64},
    "a short secret": {"auth": b"\1" * 15},
    "a name without end": {"display_name": "x" * 101},
}


@pytest.mark.parametrize("case", BAD)
async def test_what_reaches_no_browser_is_refused_by_its_field(tmp_path, case):
    async with running(tmp_path, **PUSH) as caller:
        problem = await refused(subscribe(caller, **BAD[case]))
        assert fields(problem) == list(BAD[case])
        assert await browsers(caller) == []


async def test_a_browser_belongs_to_who_subscribed_it(tmp_path):
    async with running(tmp_path, auth__required=True, **PUSH) as caller, contextlib.AsyncExitStack() as stack:
        made = {}
        for name, scope in (("ann", Scope.VIEWER), ("bob", Scope.VIEWER), ("ops", Scope.OPERATOR)):
            _, secret = await caller.hub.vault.create(scope, name, None, actor="test")
            made[name] = await stack.enter_async_context(as_token(caller.hub, secret))
        one = await subscribe(made["ann"])
        assert one.host == "updates.push.example.com" and one.display_name == "Firefox"
        assert [found.name for found in await browsers(made["ann"])] == [one.name]
        assert await browsers(made["bob"]) == []
        assert [found.name for found in await browsers(made["ops"])] == [one.name]
        for request in ({"name": one.name}, {"endpoint": ENDPOINT}):
            ask = notify_service_pb2.DeletePushSubscriptionRequest(**request)
            assert isinstance(await refused(notify(made["bob"]).DeletePushSubscription(ask)), errors.NotFound)
        said = str(await browsers(made["ops"])) + str(await sinks(made["ops"]))
        assert "canary" not in said
        await notify(made["ann"]).DeletePushSubscription(
            notify_service_pb2.DeletePushSubscriptionRequest(endpoint=ENDPOINT)
        )
        assert await browsers(made["ops"]) == []
        nothing = notify_service_pb2.DeletePushSubscriptionRequest()
        assert fields(await refused(notify(made["ops"]).DeletePushSubscription(nothing))) == ["name"]


async def test_a_person_has_room_for_so_many_browsers(tmp_path):
    async with running(tmp_path, **PUSH) as caller:
        for number in range(10):
            await subscribe(caller, f"https://push.example.com/{number}")
        await subscribe(caller, "https://push.example.com/9")
        problem = await refused(subscribe(caller, "https://push.example.com/10"))
        assert isinstance(problem, errors.Exhausted) and "at most 10" in problem.message
        assert len(await browsers(caller)) == 10


async def test_the_commands(tmp_path, monkeypatch):
    for name in (command.ENV_ADDRESS, command.ENV_TOKEN, command.ENV_TOKEN_FILE, command.ENV_OUTPUT):
        monkeypatch.delenv(name, raising=False)
    with receiving() as receiver:
        async with running(tmp_path, notify__webhook__url=f"{receiver.url}/x", **PUSH) as caller:

            async def run(*words):
                made = await asyncio.to_thread(CliRunner().invoke, cli, ["notify", *words, "--hub", caller.hub.address])
                return made.exit_code, made.stdout, made.stderr

            one = await subscribe(caller)
            code, out, _ = await run("sinks")
            assert code == 0 and "webhook" in out and "next digest: " in out
            code, out, _ = await run("sinks", "--output", "json")
            assert {found["name"]: found["enabled"] for found in json.loads(out)}["sinks/webpush"]
            assert (await run("test", "webhook"))[:2] == (0, "webhook took it\n")
            code, _, err = await run("test", "email")
            assert code == 4 and "not configured" in err
            code, out, _ = await run("push", "list")
            assert code == 0 and "Firefox" in out and "canary" not in out
            id = one.name.partition("/")[2]
            assert (await run("push", "remove", id))[0] == 0
            assert (await run("push", "remove", id))[0] == 3
            assert (await run("push", "list"))[1] == "no browsers\n"


async def test_an_agent_has_no_part_in_this(tmp_path):
    async with running(tmp_path, auth__required=True, **PUSH) as caller:
        _, secret = await caller.hub.vault.create(Scope.ADMIN, "", None, actor="test")
        async with as_token(caller.hub, secret) as admin:
            enroll = agent_service_pb2.EnrollAgentRequest(agent_id="a1")
            token = (await admin.agents.EnrollAgent(enroll)).token
        async with as_token(caller.hub, token) as agent:
            assert isinstance(await refused(subscribe(agent)), errors.Forbidden)


async def test_people_hear_of_a_store_that_cannot_be_opened(tmp_path):
    async with running(tmp_path, store__kind="lmdb", **PUSH) as caller:
        await subscribe(caller)
    (tmp_path / "hub" / "store" / "data.mdb").write_bytes(b"\0" * 100_000)
    with receiving() as receiver:
        settings = {"store__kind": "lmdb", "notify__webhook__url": f"{receiver.url}/x", "notify__gather_s": 0.0, **PUSH}
        async with running(tmp_path, **settings) as caller:
            told = json.loads((await receiver.next()).body)["data"]
            assert "store" in told["title"] and told["path"] == "/alerts/"
            assert (await sinks(caller))["sinks/webhook"].enabled
            assert isinstance(await refused(subscribe(caller)), errors.IllegalState)
