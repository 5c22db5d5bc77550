"""`agentcom hub violators` and `agentcom hub forgive`: who breaks the rules, and what is forgiven."""

from __future__ import annotations

from typing import Annotated

import typer

from agentcom.v1 import hub_pb2, hub_service_pb2
from cli import output, words
from cli.command import command
from cli.session import Session

COLUMNS: list[output.Column[hub_pb2.Violator]] = [
    ("WHO", lambda one: one.principal),
    ("REFUSED", lambda one: ", ".join(f"{kind.count} {kind.kind.lower()}" for kind in one.kinds)),
    ("LAST", lambda one: words.time_text(one.last_time)),
    ("UNTIL", lambda one: words.time_text(one.refuse_until_time)),
    ("WHAT", lambda one: one.last_message),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the group of the hub."""
    command(app, "violators")(violators)
    command(app, "forgive")(forgive)


async def violators(session: Session) -> None:
    """Show whose requests broke the rules since the start of the hub, the most recent first."""
    reply = await session.call(session.hub.ListViolators, hub_service_pb2.ListViolatorsRequest())
    session.output.many(list(reply.violators), COLUMNS, empty="nobody broke a rule")


async def forgive(
    session: Session, who: Annotated[str, typer.Argument(metavar="WHO", help="as `hub violators` names it")]
) -> None:
    """Forget what a caller did; it is not refused any more."""
    ask = hub_service_pb2.ForgiveViolatorRequest(principal=who)
    reply = await session.call(session.hub.ForgiveViolator, ask, again=False)
    session.output.one(reply.violator, lambda one: output.cell(f"{one.principal} is forgiven"))
