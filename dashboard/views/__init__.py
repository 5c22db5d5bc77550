"""The pages: one file a page or a resource; each reads from the hub and renders."""

from __future__ import annotations

import flask

from dashboard.views import (
    agents,
    alerts,
    changes,
    dead,
    events,
    goals,
    live,
    login,
    overview,
    push,
    repos,
    system,
    tasks,
)

BLUEPRINTS: tuple[flask.Blueprint, ...] = (
    overview.blueprint,
    goals.blueprint,
    tasks.blueprint,
    agents.blueprint,
    changes.blueprint,
    repos.blueprint,
    dead.blueprint,
    alerts.blueprint,
    events.blueprint,
    push.blueprint,
    system.blueprint,
    live.blueprint,
    login.blueprint,
)
