"""What people are told, put together: the sinks of the configuration, the notifier, its desk and its figures."""

from __future__ import annotations

from typing import Any

from agentcom.v1 import notify_service_pb2_grpc
from hub.config import Config
from hub.core.notices import digest
from hub.engine.alerts.board import Board
from hub.engine.desk.measure import Numbers
from hub.engine.live.context import Context
from hub.engine.notify.desk import SORTS, Desk
from hub.engine.notify.notifier import LOOK_S, Notifier, Settings
from hub.notify import sinks
from hub.rpc.notify import NotifyService
from kit import metrics, supervise
from kit.tally import Key


class Telling:
    """One for each hub."""

    def __init__(self, ctx: Context, config: Config, board: Board) -> None:
        """Raises Unavailable when a library is missing, Invalid when a secret or a key cannot be read."""
        settings = config.notify
        found = sinks.build(settings, config.data, ctx.clock.now)
        self.notifier = Notifier(
            ctx,
            found.fixed,
            found.push,
            found.digests,
            settings=Settings(
                digest_at_s=digest.parse_clock(settings.digest_at),
                digest_every_s=settings.digest_every_s,
                gather_s=settings.gather_s,
                rate_per_h=settings.rate_per_h,
            ),
            alerts=lambda: board.alerts,
        )
        self.desk = Desk(ctx, self.notifier)

    def serve(self, server: Any) -> None:
        """Add the service to a server."""
        notify_service_pb2_grpc.add_NotifyServiceServicer_to_server(NotifyService(self.desk), server)

    def loop(self) -> supervise.Loop:
        """The duty; with a damaged store it goes on, for people must hear of that."""
        return supervise.Loop("notify", self.notifier.run_once, LOOK_S, self.notifier.wake)

    def numbers(self) -> Numbers:
        """Its part of the metrics."""
        facts = [self.desk.sink(name) for name in SORTS[1:]]
        ends: dict[Key, float] = {(one.name, "sent"): one.sent for one in facts}
        ends |= {(one.name, "failed"): one.failed for one in facts}
        return {
            metrics.NOTICES: ends,
            metrics.NOTICE_BACKLOG: {(one.name,): one.backlog for one in facts},
            metrics.SINKS_FAILING: {(one.name,): float(one.lane.failing) for one in facts},
        }
