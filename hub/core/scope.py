"""Who may call what: the one table from RPC to scopes. An RPC without a row is refused, and a test walks them all."""

from __future__ import annotations

from typing import Final

from hub.core.token import Scope
from kit import errors

_ADMIN: Final = frozenset({Scope.ADMIN})
_OPERATE: Final = _ADMIN | {Scope.OPERATOR}
_SUBMIT: Final = _OPERATE | {Scope.SUBMITTER}
_READ: Final = _SUBMIT | {Scope.VIEWER}
_LOOK: Final = _READ | {Scope.AGENT}
"""Reading that an agent needs for its own work."""
_WORK: Final = _OPERATE | {Scope.AGENT}
"""Working: an operator by hand, or the agent itself (the handler checks that it speaks only for itself)."""
_ANYONE: Final = frozenset(Scope)
"""The handler checks a key of its own."""

ROWS: Final[dict[str, frozenset[Scope]]] = {
    "TaskService/CreateTask": _SUBMIT,
    "TaskService/BatchCreateTasks": _SUBMIT,
    "TaskService/GetTask": _LOOK,
    "TaskService/ListTasks": _LOOK,
    "TaskService/CancelTask": _OPERATE,
    "TaskService/RetryTask": _OPERATE,
    "TaskService/DeleteTask": _OPERATE,
    "TaskService/ExplainTask": _LOOK,
    "TaskService/ListTaskEvents": _LOOK,
    "TaskService/WatchTasks": _READ,
    "TaskService/TailTaskLog": _READ,
    "TaskService/GetTaskArtifact": _READ,
    "TaskService/ClaimTask": _WORK,
    "TaskService/ReportTask": _WORK,
    "AgentService/EnrollAgent": _ANYONE,
    "AgentService/GetAgent": _LOOK,
    "AgentService/ListAgents": _READ,
    "AgentService/UpdateAgent": _OPERATE,
    "AgentService/DrainAgent": _OPERATE,
    "AgentService/ResumeAgent": _OPERATE,
    "AgentService/DeleteAgent": _OPERATE,
    "AgentService/RotateAgentToken": _WORK,
    "AgentService/Attach": _ADMIN | {Scope.AGENT},
    "GoalService/CreateGoal": _SUBMIT,
    "GoalService/GetGoal": _READ,
    "GoalService/ListGoals": _READ,
    "GoalService/CancelGoal": _OPERATE,
    "GoalService/PauseGoal": _OPERATE,
    "GoalService/ResumeGoal": _OPERATE,
    "GoalService/LintPlan": _READ,
    "GoalService/ListChanges": _READ,
    "GoalService/WatchGoals": _READ,
    "RegistryService/CreateRepo": _OPERATE,
    "RegistryService/GetRepo": _LOOK,
    "RegistryService/ListRepos": _LOOK,
    "RegistryService/UpdateRepo": _OPERATE,
    "RegistryService/DeleteRepo": _OPERATE,
    "RegistryService/PauseRepo": _OPERATE,
    "RegistryService/ResumeRepo": _OPERATE,
    "NotifyService/ListSinks": _READ,
    "NotifyService/TestSink": _OPERATE,
    "NotifyService/GetPushKey": _READ,
    "NotifyService/CreatePushSubscription": _READ,
    "NotifyService/ListPushSubscriptions": _READ,
    "NotifyService/DeletePushSubscription": _READ,
    "HubService/GetHub": _LOOK,
    "HubService/GetStats": _READ,
    "HubService/GetHistory": _READ,
    "HubService/PauseHub": _OPERATE,
    "HubService/ResumeHub": _OPERATE,
    "HubService/DrainHub": _OPERATE,
    "HubService/CreateToken": _ADMIN,
    "HubService/ListTokens": _ADMIN,
    "HubService/RevokeToken": _ADMIN,
    "HubService/WatchEvents": _READ,
    "HubService/ListEvents": _READ,
    "HubService/GetCaller": _LOOK,
    "HubService/ListAlerts": _READ,
    "HubService/AckAlert": _OPERATE,
    "HubService/MuteAlert": _OPERATE,
    "HubService/UnmuteAlert": _OPERATE,
    "HubService/ListAlertRules": _READ,
    "HubService/UpdateAlertRule": _OPERATE,
    "HubService/ResetAlertRule": _OPERATE,
    "HubService/CreateBackup": _OPERATE,
    "HubService/ListBackups": _READ,
    "HubService/VerifyStore": _OPERATE,
    "HubService/CompactStore": _OPERATE,
    "HubService/DiagnoseHub": _OPERATE,
    "HubService/ListViolators": _OPERATE,
    "HubService/ForgiveViolator": _OPERATE,
}

PACKAGE: Final = "/agentcom.v1."
TABLE: Final = {PACKAGE + method: scopes for method, scopes in ROWS.items()}
"""The same by the full name of the method."""

OPERATORS: Final = frozenset(scope.name.lower() for scope in _OPERATE)
"""Scopes of principals that may operate the hub."""

OPEN: Final = frozenset({PACKAGE + "AgentService/EnrollAgent"})
"""What may be called without a token even where one is required."""


def admit(method: str, scope: Scope) -> None:
    """Raise Forbidden when a token of this scope may not call this method."""
    allowed = TABLE.get(method, frozenset())
    if scope not in allowed:
        needed = ", ".join(sorted(s.name.lower() for s in allowed)) or "nothing may call it"
        raise errors.Forbidden(
            f"{method.removeprefix(PACKAGE)} is not open to the scope {scope.name.lower()} (needed: {needed})",
            reason="SCOPE",
            metadata={"method": method, "scope": scope.name, "needed": needed},
        )
