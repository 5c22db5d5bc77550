"""`agentcom token`: the tokens that open the hub."""

from __future__ import annotations

from typing import Annotated

import typer

from agentcom.v1 import hub_pb2, hub_service_pb2
from cli import output, words
from cli.command import command
from cli.session import LIST_COUNT, Session

app = typer.Typer(help="Tokens: who may do what. Those of agents come from `agent enroll`.")

COLUMNS: list[output.Column[hub_pb2.Token]] = [
    ("TOKEN", lambda token: words.short_name(token.name)),
    ("SCOPE", lambda token: words.enum_word(hub_pb2.Scope, token.scope, "SCOPE_")),
    ("FOR", lambda token: token.display_name or token.agent),
    ("CREATED", lambda token: words.time_text(token.create_time)),
    ("EXPIRES", lambda token: words.time_text(token.expire_time) or "never"),
    ("LAST USED", lambda token: words.time_text(token.last_use_time)),
    ("REVOKED", lambda token: words.time_text(token.revoke_time)),
]


@command(app, "create")
async def create(
    session: Session,
    scope: Annotated[str, typer.Option("--scope", help="admin, operator, submitter, viewer, or join (a one-time key)")],
    display_name: Annotated[str, typer.Option("--name", help="what it is for, for people")] = "",
    ttl: Annotated[str, typer.Option("--ttl", help="how long it is good: 90s, 2h, 30d")] = "",
) -> None:
    """Make a token and show it, once."""
    number = words.enum_number("--scope", scope, hub_pb2.Scope, "SCOPE_")
    ask = hub_service_pb2.CreateTokenRequest(display_name=display_name, scope=number)
    if ttl:
        ask.ttl.CopyFrom(words.duration("--ttl", ttl))
    reply = await session.call(session.hub.CreateToken, ask, again=False)
    session.output.one(
        reply, lambda reply: output.sheet([("name", reply.token.name), ("secret (shown only now)", reply.secret)])
    )


@command(app, "list")
async def list_tokens(
    session: Session,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="at most so many")] = LIST_COUNT,
) -> None:
    """List tokens, without their secrets, oldest first."""

    async def fetch(size: int, token: str) -> tuple[list[hub_pb2.Token], str]:
        ask = hub_service_pb2.ListTokensRequest(page_size=size, page_token=token)
        reply = await session.call(session.hub.ListTokens, ask)
        return list(reply.tokens), reply.next_page_token

    session.output.many(await session.pages(fetch, limit), COLUMNS, empty="no tokens")


@command(app, "revoke")
async def revoke(
    session: Session, name: Annotated[str, typer.Argument(metavar="TOKEN", help="tokens/ID or ID, not the secret")]
) -> None:
    """Make a token void at once."""
    ask = hub_service_pb2.RevokeTokenRequest(name=words.full_name("tokens", name))
    reply = await session.call(session.hub.RevokeToken, ask, again=False)
    session.output.one(reply.token, lambda token: output.cell(f"{token.name} is void"))
