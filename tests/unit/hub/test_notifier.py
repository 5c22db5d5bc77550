"""The notifier over a real store and sinks of the test: told once, told after a fall, never in the way of anything."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from hub.core.alerts import alert
from hub.core.notices import notice
from hub.core.notices.notice import Kind, Notice
from hub.core.notices.subscription import Subscription
from hub.core.token import Scope
from hub.engine.desk.vault import Vault
from hub.engine.live.context import Context
from hub.engine.notify import book, reading
from hub.engine.notify.notifier import Notifier, Settings
from hub.store.base import Txn
from hub.store.memory import MemoryStore
from kit import errors
from tests.support.stage import Stage

GATHER_S = 10.0
SETTINGS = Settings(gather_s=GATHER_S, digest_every_s=86_400.0)


class Sink:
    """Takes what it is told, or fails as the test says."""

    def __init__(self) -> None:
        self.target = "the test"
        self.told: list[Notice] = []
        self.problem: Exception | None = None
        self.entered = asyncio.Event()
        self.hold: asyncio.Event | None = None

    async def send(self, notice: Notice) -> None:
        self.entered.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.problem is not None:
            raise self.problem
        self.told.append(notice)


class Pusher:
    """The same for browsers."""

    def __init__(self) -> None:
        self.public_key = b"key"
        self.told: list[tuple[str, Notice]] = []
        self.problems: dict[str, Exception] = {}

    def check(self, endpoint: str, public_key: bytes) -> None: ...

    async def send(self, notice: Notice, to: Subscription) -> None:
        if to.id in self.problems:
            raise self.problems[to.id]
        self.told.append((to.id, notice))


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    await made.close()


def notifier(stage: Stage, *sinks: Sink, push: Pusher | None = None, **more: Any) -> Notifier:
    """A hub that has just started on this store."""
    fixed = dict(zip(("webhook", "ntfy"), sinks, strict=False))
    settings = more.pop("settings", SETTINGS)
    ctx = Context.make(stage.store, stage.clock, stage.ctx.rng, stage.ctx.settings)
    return Notifier(ctx, fixed, push, frozenset(fixed), settings=settings, **more)


async def happens(stage: Stage, *types: str, **fields: str) -> None:
    """Events of these types, about things that are all different."""

    def write(txn: Txn) -> None:
        for type in types:
            txn.append(stage.clock.now(), type, f"tasks/{txn.position() + 1:020}", **fields)

    await stage.do(write)


async def dies(stage: Stage, count: int = 1) -> None:
    await happens(stage, *["task.dead"] * count, reason="POISON", attribution="TASK")


async def after(stage: Stage, one: Notifier, seconds: float) -> None:
    stage.clock.advance(seconds)
    await one.run_once(stage.clock.now())


async def ready(stage: Stage, *sinks: Sink, **more: Any) -> Notifier:
    one = notifier(stage, *sinks, **more)
    await one.run_once(stage.clock.now())
    return one


async def test_a_burst_is_told_once_when_it_is_over(stage: Stage) -> None:
    sink = Sink()
    one = await ready(stage, sink)
    await dies(stage, 60)
    assert one.wake.is_set(), "nobody has to wait for the next look"
    await after(stage, one, GATHER_S - 1)
    await dies(stage, 40)
    assert not sink.told
    await after(stage, one, 1.0)
    assert [told.title for told in sink.told] == ["100 tasks dead-lettered"]
    await after(stage, one, 3_600)
    assert len(sink.told) == 1


async def test_what_does_not_need_a_person_waits_for_the_digest(stage: Stage) -> None:
    sink = Sink()
    one = await ready(stage, sink)
    await happens(stage, "change.merged", "change.merged", "task.failed")
    await after(stage, one, 3_600)
    assert not sink.told
    await after(stage, one, 86_400)
    assert [told.kind for told in sink.told] == [Kind.DIGEST]
    assert "2 changes merged" in sink.told[0].text and "1 attempt failed" in sink.told[0].text
    await after(stage, one, 86_400)
    assert len(sink.told) == 1, "nothing to tell, no digest"


async def test_a_hub_that_died_before_it_told_tells_when_it_is_back(stage: Stage) -> None:
    first = Sink()
    await ready(stage, first)
    await dies(stage, 3)  # and the hub dies before its next look
    second = Sink()
    one = await ready(stage, second)
    await after(stage, one, GATHER_S)
    assert not first.told
    assert [told.title for told in second.told] == ["3 tasks dead-lettered"]


async def test_a_hub_that_died_while_it_told_tells_again_under_the_same_id(stage: Stage) -> None:
    first = Sink()
    first.hold = asyncio.Event()
    one = await ready(stage, first)
    await dies(stage)
    stage.clock.advance(GATHER_S)
    first.entered.clear()
    running = asyncio.create_task(one.run_once(stage.clock.now()))
    await first.entered.wait()
    waiting = stage.see(book.read)
    assert waiting is not None
    (id,) = waiting.box.notices
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    second = Sink()
    await ready(stage, second)
    assert [told.id for told in second.told] == [id]
    third = Sink()
    await ready(stage, third)
    assert not third.told, "what was taken and written down is not told again"


async def test_a_sink_that_was_down_is_told_later_and_once_and_holds_nobody_up(stage: Stage) -> None:
    down, up = Sink(), Sink()
    down.problem = notice.Failed("host answered 503")
    one = await ready(stage, down, up)
    await dies(stage)
    await after(stage, one, GATHER_S)
    assert len(up.told) == 1 and one.failed["webhook"] == 1
    assert one.box.lane("webhook").failing
    down.problem = None
    for _ in range(3):
        await after(stage, one, 3_600)
    assert [told.id for told in down.told] == [up.told[0].id]
    assert len(up.told) == 1 and one.box.notices == {}


async def test_a_fault_of_ours_in_one_sink_leaves_the_others_and_the_loop_alone(stage: Stage) -> None:
    broken, good = Sink(), Sink()
    broken.problem = KeyError("secret")
    one = await ready(stage, broken, good)
    await dies(stage)
    await after(stage, one, GATHER_S)
    assert len(good.told) == 1
    assert one.box.lane("webhook").error == "internal: KeyError"


async def test_a_sink_that_is_taken_out_of_the_configuration_is_forgotten(stage: Stage) -> None:
    down = Sink()
    down.problem = notice.Failed("no")
    one = await ready(stage, down)
    await dies(stage)
    await after(stage, one, GATHER_S)
    await ready(stage)
    assert stage.see(book.read) is None
    stage.clock.advance(3_600)
    again = Sink()
    await ready(stage, again)
    assert not again.told, "and what is old is not told when one is set up again"


async def test_with_the_log_alone_nothing_is_written(stage: Stage) -> None:
    one = await ready(stage)
    commits = stage.store.facts().commits
    await dies(stage)
    await after(stage, one, GATHER_S)
    await after(stage, one, 86_400)
    assert stage.store.facts().commits == commits + 1


async def test_an_idle_hub_writes_nothing(stage: Stage) -> None:
    one = await ready(stage, Sink())
    commits = stage.store.facts().commits
    for _ in range(5):
        await after(stage, one, 3_600)
    assert stage.store.facts().commits == commits


async def test_a_busy_hub_is_written_down_now_and_then(stage: Stage) -> None:
    one = await ready(stage, Sink())
    commits = stage.store.facts().commits
    await happens(stage, *["task.created"] * 100)
    await after(stage, one, 1)
    assert stage.store.facts().commits == commits + 1, "a hundred events are quickly read again"
    await after(stage, one, 60)
    assert stage.store.facts().commits == commits + 2
    kept = stage.see(book.read)
    assert kept is not None and kept.position == stage.see(lambda reader: reader.position())


async def test_a_long_log_is_read_in_steps(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "CHUNK", 10)
    monkeypatch.setattr(reading, "CHUNKS_MAX", 3)
    await ready(stage, Sink())
    await dies(stage, 75)
    sink, steps = Sink(), 0
    one = notifier(stage, sink)
    one.wake.set()
    while one.wake.is_set():
        one.wake.clear()
        await one.run_once(stage.clock.now())
        steps += 1
    assert steps >= 3
    await after(stage, one, GATHER_S)
    assert [told.title for told in sink.told] == ["75 tasks dead-lettered"]


async def test_a_commit_that_it_was_not_handed_is_read_from_the_log(stage: Stage) -> None:
    sink = Sink()
    one = await ready(stage, sink)
    listeners = one._ctx.bus._listeners
    kept = list(listeners)
    listeners.clear()
    await dies(stage, 2)
    listeners += kept
    await dies(stage, 3)
    assert one.wake.is_set()
    await one.run_once(stage.clock.now())
    await after(stage, one, GATHER_S)
    assert [told.title for told in sink.told] == ["5 tasks dead-lettered"]


async def test_events_that_were_forgotten_before_they_were_read_are_counted(stage: Stage) -> None:
    await ready(stage, Sink())
    await happens(stage, *["task.created"] * 50)
    await dies(stage)
    await stage.do(lambda txn: txn.drop_events(before=stage.clock.now() + 1, keep=1, limit=1_000))
    sink = Sink()
    one = await ready(stage, sink)
    await after(stage, one, GATHER_S)
    await after(stage, one, 86_400)
    assert [told.kind for told in sink.told] == [Kind.URGENT, Kind.DIGEST]
    assert "50 events that were forgotten before they were read" in sink.told[1].text


class Full:
    """A store that takes no writes."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.full = False
        self.damaged = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def read(self, fn: Any) -> Any:
        if self.damaged:
            raise errors.DataLoss("a page is damaged", reason="STORE_DEGRADED")
        return self._inner.read(fn)

    async def write(self, fn: Any, *, essential: bool = False) -> Any:
        if self.full:
            raise errors.Exhausted("the disk is full", reason="STORE_FULL")
        return await self._inner.write(fn, essential=essential)


async def test_a_store_that_takes_no_writes_keeps_nobody_from_being_told() -> None:
    store = Full(MemoryStore.open())
    stage = Stage(store)
    sink = Sink()
    one = await ready(stage, sink)
    await dies(stage)
    store.full = True
    await after(stage, one, GATHER_S)
    await after(stage, one, 60)
    assert len(sink.told) == 1
    store.full = False
    await after(stage, one, 60)
    kept = stage.see(book.read)
    assert kept is not None and kept.box.notices == {}
    await stage.close()


def raised(severity: alert.Severity, told: int) -> alert.Alert:
    return alert.Alert(
        id="store-degraded", rule="store-degraded", severity=severity, message="the store is damaged", told=told
    )


async def test_a_damaged_store_is_told_of_although_no_event_says_so(stage: Stage) -> None:
    sink, alerts = Sink(), list[alert.Alert]()
    one = await ready(stage, sink, alerts=lambda: alerts)
    one._ctx.gate.damage = "a page is damaged"
    alerts.append(raised(alert.Severity.CRITICAL, told=2))
    await after(stage, one, 1)
    await after(stage, one, GATHER_S)
    assert [told.title for told in sink.told] == ["Alert: the store is damaged"]
    for _ in range(5):
        await after(stage, one, 60)
    assert len(sink.told) == 1


async def test_a_store_that_cannot_be_read_keeps_nobody_from_being_told() -> None:
    store, sink, push = Full(MemoryStore.open()), Sink(), Pusher()
    stage = Stage(store)
    one = await ready(stage, sink, push=push, alerts=lambda: [raised(alert.Severity.CRITICAL, told=2)])
    await browser(one, "b1")
    await dies(stage)
    store.full = store.damaged = True
    one._ctx.gate.damage = "a page is damaged"
    await after(stage, one, 1)
    await after(stage, one, GATHER_S)
    await after(stage, one, 86_400)
    assert [told.kind for told in sink.told] == [Kind.URGENT, Kind.DIGEST]
    assert sink.told[0].title == "1 critical alert, 1 task dead-lettered"
    assert len(push.told) == 1
    store.damaged = False
    await stage.close()


async def test_a_browser_that_is_gone_is_not_tried_without_end_when_nothing_can_be_written() -> None:
    store, push = Full(MemoryStore.open()), Pusher()
    stage = Stage(store)
    one = await ready(stage, push=push)
    await browser(one, "b1")
    await dies(stage)
    store.full = True
    push.problems["b1"] = notice.Gone("410")
    await after(stage, one, GATHER_S)
    assert one.browsers.all == () and one.failed["webpush"] == 1
    await after(stage, one, 60)
    assert one.failed["webpush"] == 1
    await stage.close()


async def test_of_a_damaged_store_nobody_is_told_what_is_muted(stage: Stage) -> None:
    sink = Sink()
    one = await ready(stage, sink, alerts=lambda: [raised(alert.Severity.CRITICAL, told=0)])
    one._ctx.gate.damage = "a page is damaged"
    await after(stage, one, 1)
    await after(stage, one, GATHER_S)
    assert not sink.told


async def test_a_secret_in_a_title_is_not_told(stage: Stage) -> None:
    secret = "ghp_" + "a1B2" * 9
    sink = Sink()
    one = await ready(stage, sink)
    await happens(stage, "goal.failed", reason=f"cannot push with {secret}")
    await after(stage, one, GATHER_S)
    assert secret not in sink.told[0].text + sink.told[0].title
    assert "[hidden]" in sink.told[0].text


# Browsers


async def browser(one: Notifier, id: str, principal: str = "local") -> None:
    await one.browsers.add(
        Subscription(
            id=id,
            principal=principal,
            endpoint=f"https://push.example/{id}",
            public_key=b"p",
            auth=b"a",
            made_for=b"key",
        )
    )


async def test_each_browser_has_a_lane_of_its_own(stage: Stage) -> None:
    push = Pusher()
    one = await ready(stage, push=push)
    await browser(one, "b1")
    await browser(one, "b2")
    push.problems["b1"] = notice.Failed("no")
    await dies(stage)
    await after(stage, one, GATHER_S)
    assert [id for id, _ in push.told] == ["b2"]
    push.problems.clear()
    await after(stage, one, 3_600)
    assert [id for id, _ in push.told] == ["b2", "b1"]
    assert push.told[0][1].id == push.told[1][1].id


async def test_a_browser_that_is_gone_is_forgotten_for_good(stage: Stage) -> None:
    push = Pusher()
    one = await ready(stage, push=push)
    await browser(one, "b1")
    push.problems["b1"] = notice.Gone("410")
    await dies(stage)
    await after(stage, one, GATHER_S)
    assert one.browsers.all == () and one.box.notices == {}
    assert (await ready(stage, push=push)).browsers.all == ()


@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_whoever_may_not_look_any_more_is_not_told_any_more(stage: Stage, how: str) -> None:
    push = Pusher()
    one = await ready(stage, push=push)
    token, _ = await Vault(stage.ctx).create(Scope.VIEWER, "", 60.0 if how == "expired" else None, actor="test")
    await browser(one, "b1", f"tokens/{token.id}")
    await browser(one, "b2")
    if how == "revoked":
        await Vault(stage.ctx).revoke(token.id, actor="test")
    stage.clock.advance(61)
    await dies(stage)
    await after(stage, one, GATHER_S)
    assert [id for id, _ in push.told] == ["b2"]
    assert [each.id for each in one.browsers.all] == ["b2"]


async def test_the_same_address_again_takes_the_place_of_the_first(stage: Stage) -> None:
    one = await ready(stage, push=Pusher())
    await browser(one, "b1")
    again = msgspec.structs.replace(one.browsers.all[0], id="b9")
    await one.browsers.add(again)
    assert [each.id for each in one.browsers.all] == ["b9"]


async def test_a_book_that_cannot_be_read_is_begun_anew(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    await stage.do(lambda txn: txn.set_meta(book.KEY, b"\xc1 not a book"))
    await stage.do(lambda txn: txn.set_meta(book.BROWSERS_KEY, b"\xc1"))
    with caplog.at_level(logging.CRITICAL):
        sink = Sink()
        one = await ready(stage, sink, push=Pusher())
    await dies(stage)
    await after(stage, one, GATHER_S)
    assert len(sink.told) == 1 and one.browsers.all == ()


async def test_the_clock_that_is_set_back_delays_nothing_for_long(stage: Stage) -> None:
    sink = Sink()
    one = await ready(stage, sink)
    await dies(stage)
    stage.clock.jump(-86_400 * 30)
    await after(stage, one, 1)
    assert len(sink.told) == 1
    await happens(stage, "change.merged")
    await after(stage, one, 86_400)
    assert len(sink.told) == 2


async def test_the_timer_rings_for_what_is_due_and_stops(stage: Stage) -> None:
    sink = Sink()
    one = await ready(stage, sink, settings=Settings(gather_s=0.01, digest_every_s=86_400.0))
    await dies(stage)
    one.wake.clear()
    await one.run_once(stage.clock.now())
    async with asyncio.timeout(20):
        await one.wake.wait()
    one.stop()
