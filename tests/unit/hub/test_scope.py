"""The table of scopes: every RPC of every service has a row, and no row is without an RPC."""

from __future__ import annotations

import pytest

from hub import app
from hub.core import scope
from hub.core.token import Scope
from kit import errors

METHODS = {f"/{service.full_name}/{method.name}" for service in app.SERVICES for method in service.methods}


def test_every_rpc_has_a_row_and_every_row_has_an_rpc():
    assert set(scope.TABLE) == METHODS


def test_every_service_of_the_contract_is_served():
    from agentcom.v1 import (
        agent_service_pb2,
        goal_service_pb2,
        hub_service_pb2,
        notify_service_pb2,
        registry_service_pb2,
        task_service_pb2,
    )

    files = (task_service_pb2, agent_service_pb2, goal_service_pb2, registry_service_pb2, notify_service_pb2,
             hub_service_pb2)  # fmt: skip
    declared = {name for file in files for name in file.DESCRIPTOR.services_by_name}
    assert declared == {service.name for service in app.SERVICES}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_an_admin_may_call_everything(method):
    scope.admit(method, Scope.ADMIN)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_join_key_opens_enrolment_only(method):
    if method in scope.OPEN:
        scope.admit(method, Scope.JOIN)
    else:
        with pytest.raises(errors.Forbidden):
            scope.admit(method, Scope.JOIN)


@pytest.mark.parametrize(
    ("method", "allowed"),
    [
        ("HubService/CreateToken", {Scope.ADMIN}),
        ("HubService/PauseHub", {Scope.ADMIN, Scope.OPERATOR}),
        ("TaskService/CreateTask", {Scope.ADMIN, Scope.OPERATOR, Scope.SUBMITTER}),
        ("TaskService/CancelTask", {Scope.ADMIN, Scope.OPERATOR}),
        ("TaskService/ReportTask", {Scope.ADMIN, Scope.OPERATOR, Scope.AGENT}),
        ("AgentService/Attach", {Scope.ADMIN, Scope.AGENT}),
        ("GoalService/ListGoals", {Scope.ADMIN, Scope.OPERATOR, Scope.SUBMITTER, Scope.VIEWER}),
    ],
)
def test_a_scope_opens_what_its_word_says(method, allowed):
    assert scope.TABLE[scope.PACKAGE + method] == allowed


def test_an_rpc_without_a_row_is_refused_to_all():
    for one in Scope:
        with pytest.raises(errors.Forbidden, match="nothing may call it"):
            scope.admit("/agentcom.v1.TaskService/Forgotten", one)
