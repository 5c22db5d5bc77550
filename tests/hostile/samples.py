"""One request for each method that a hub serves, over the things of a world: where the mutations start."""

from __future__ import annotations

from typing import Any

from google.protobuf import message_factory, text_format

from tests.hostile.messages import Names
from tests.hostile.world import METHODS

SPEC = 'title: "t" command: "true"'
GOAL = f"""title: "g" repo: "repos/main" assertions {{ id: "A1" text: "x" check {{ run: "make" }} }}
    plan {{ tasks {{ id: "T1" fulfills: "A1" spec {{ {SPEC} checks {{ run: "make" }} }} }} }}"""
REPO = 'url: "https://example.com/x.git"'

TEXTS = {
    "CreateTask": f"spec {{ {SPEC} }}",
    "BatchCreateTasks": f"specs {{ {SPEC} }} specs {{ {SPEC} labels {{ key: 'a' value: 'b' }} }}",
    "GetTaskArtifact": 'name: "TASK" artifact: "diff"',
    "ClaimTask": 'name: "TASK" agent: "agents/anna"',
    "ReportTask": 'holding { task: "TASK" generation: 1 } failure { reason: "X" message: "y" }',
    "WatchTasks": 'names: "TASK" position: -1',
    "WatchGoals": "position: -1",
    "WatchEvents": "position: -1",
    "EnrollAgent": 'agent_id: "new" display_name: "a new one"',
    "UpdateAgent": 'agent { name: "agents/anna" display_name: "x" } update_mask { paths: "display_name" }',
    "CreateGoal": f"goal {{ {GOAL} }}",
    "LintPlan": f"goal {{ {GOAL} }}",
    "CreateRepo": f'repo_id: "new" repo {{ {REPO} }}',
    "UpdateRepo": f'repo {{ name: "repos/main" {REPO} }} update_mask {{ paths: "url" }}',
    "CreateToken": "scope: SCOPE_VIEWER ttl { seconds: 60 }",
    "ForgiveViolator": 'principal: "local"',
    "TestSink": 'name: "sinks/webhook"',
    "CreatePushSubscription": 'endpoint: "https://push.example.com/x" auth: "0123456789abcdef" public_key: "'
    + "x" * 65
    + '"',
    "DeletePushSubscription": 'endpoint: "https://push.example.com/x"',
    "AckAlert": 'name: "alerts/no-agents" note: "x"',
    "MuteAlert": 'name: "alerts/agent-offline.anna" duration { seconds: 60 } reason: "x"',
    "UnmuteAlert": 'name: "alertRules/agent-offline"',
    "UpdateAlertRule": """alert_rule { name: "alertRules/agent-offline" threshold: 300 hold_duration { seconds: 60 } }
        update_mask { paths: "threshold" paths: "hold_duration" }""",
    "ResetAlertRule": 'name: "alertRules/agent-offline"',
}
"""Where "TASK" stands for a task that there is; the others need a name or nothing."""

HELLO = 'hello { agent: "agents/anna" offer { capabilities: "os" executors: "shell" tiers: 1 kinds: 1 slots: 2 } }'


def likely(path: str, names: Names) -> Any:
    """A request that this method serves."""
    method = METHODS[path]
    made: Any = message_factory.GetMessageClass(method.input_type)()
    text = TEXTS.get(method.name, "").replace("TASK", names.of("tasks")[0])
    text_format.Parse(text, made)
    one = method.input_type.fields_by_name.get("name")
    if one is not None and not made.name:
        for collection in ("task", "agent", "goal", "repo", "token"):
            if collection in method.name.lower():
                made.name = names.of(f"{collection}s")[0]
                break
    return made
