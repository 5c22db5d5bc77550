"""`agentcom notify`: how people are told, whether it works, and the browsers that asked."""

from __future__ import annotations

from typing import Annotated

import typer

from agentcom.v1 import notify_pb2, notify_service_pb2
from cli import output, words
from cli.command import command
from cli.session import Session

app = typer.Typer(help="How people are told: sinks, a test of one, and browsers.")
push = typer.Typer(help="Browsers that are told. They subscribe on the alerts page of the dashboard.")
app.add_typer(push, name="push", no_args_is_help=True)

SINKS: list[output.Column[notify_pb2.Sink]] = [
    ("SINK", lambda one: words.short_name(one.name)),
    ("IS", lambda one: "failing" if one.failing else "on" if one.enabled else "off"),
    ("TO", lambda one: one.target),
    ("DIGEST", lambda one: "yes" if one.digest else ""),
    ("WAITING", lambda one: str(one.backlog or "")),
    ("LAST TOLD", lambda one: words.time_text(one.last_success_time)),
    ("LAST FAILURE", lambda one: words.time_text(one.last_failure_time)),
    ("WHY", lambda one: one.last_error),
]
BROWSERS: list[output.Column[notify_pb2.PushSubscription]] = [
    ("BROWSER", lambda one: words.short_name(one.name)),
    ("NAME", lambda one: one.display_name),
    ("PUSH SERVICE", lambda one: one.host),
    ("WHOSE", lambda one: one.principal),
    ("SINCE", lambda one: words.time_text(one.create_time)),
    ("LAST TOLD", lambda one: words.time_text(one.last_success_time)),
    ("WHY NOT", lambda one: one.last_error),
]


@command(app, "sinks")
async def sinks(session: Session) -> None:
    """Show the sinks and how they do."""
    reply = await session.call(session.notify.ListSinks, notify_service_pb2.ListSinksRequest())
    session.output.many(list(reply.sinks), SINKS)
    if not session.output.is_json:
        session.output.show(output.cell(f"next digest: {words.time_text(reply.next_digest_time)}"))


@command(app, "test")
async def test(session: Session, sink: Annotated[str, typer.Argument(help="webhook, ntfy, email or webpush")]) -> None:
    """Send a notice that says that it is a test, now, and tell whether it was taken."""
    ask = notify_service_pb2.TestSinkRequest(name=words.full_name("sinks", sink))
    reply = await session.call(session.notify.TestSink, ask, again=False)
    session.output.one(reply.sink, lambda one: output.cell(f"{words.short_name(one.name)} took it"))


@command(push, "list")
async def list_browsers(session: Session) -> None:
    """List the browsers that are told: your own, or all for an operator."""
    ask = notify_service_pb2.ListPushSubscriptionsRequest()
    reply = await session.call(session.notify.ListPushSubscriptions, ask)
    session.output.many(list(reply.push_subscriptions), BROWSERS, empty="no browsers")


@command(push, "remove")
async def remove(
    session: Session, browser: Annotated[str, typer.Argument(metavar="BROWSER", help="as `push list` names it")]
) -> None:
    """Tell a browser nothing more."""
    name = words.full_name("pushSubscriptions", browser)
    ask = notify_service_pb2.DeletePushSubscriptionRequest(name=name)
    reply = await session.call(session.notify.DeletePushSubscription, ask, again=False)
    session.output.one(reply, lambda _: output.cell(f"{name} is told nothing more"))
