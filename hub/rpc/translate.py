"""Tasks between the wire and the records: `read_*` makes a record, `write_*` fills a message.

The numbers of the enums are the same on both sides (a test compares them), so an enum is assigned as it is; the stubs
want their own type of number there, hence `type: ignore` at each enum in these translations. Fields are assigned
one by one: the JSON mapping of protobuf costs ten times as much, and this is on the path of every task.
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf import duration_pb2, timestamp_pb2

from agentcom.v1 import task_pb2, task_service_pb2
from hub.core.holding import Holding
from hub.core.policy import Isolation, Policy
from hub.core.repo import Repo
from hub.core.task import (
    ArtifactInfo,
    Attempt,
    AttemptOutcome,
    Attribution,
    Check,
    Delivery,
    DependencyPolicy,
    DiffStat,
    Expectation,
    Failure,
    Kind,
    Lane,
    Phase,
    Receipt,
    Requirement,
    Result,
    Task,
    TaskSpec,
    Tier,
    Verdict,
)

ACCEPT_TIMEOUT_S = 60.0
CHECK_TIMEOUT_S = 600.0
RUN_TIMEOUT_S = 3600.0
SILENCE_TIMEOUT_S = 600.0
ATTEMPTS_MAX = 3
_NANOS = 1_000_000_000
# The first second of the year 1, and the last of 9999: https://protobuf.dev/reference/protobuf/google.protobuf/#timestamp
_TIME_MIN, _TIME_MAX = -62_135_596_800.0, 253_402_300_799.0


def write_time(at: float | None, into: timestamp_pb2.Timestamp) -> None:
    """Fill a timestamp; None leaves it absent. Microseconds are kept: a float of today carries no more."""
    if at is not None:
        micros = round(at * 1_000_000)
        into.seconds, rest = divmod(micros, 1_000_000)
        into.nanos = rest * 1_000


def read_time(message: timestamp_pb2.Timestamp) -> float:
    """Seconds since the epoch, within the bounds of what a Timestamp means: what is stored must be told again. Ask
    HasField first where absent means something.
    """
    return min(max((message.seconds * _NANOS + message.nanos) / _NANOS, _TIME_MIN), _TIME_MAX)


def write_duration(seconds: float | None, into: duration_pb2.Duration) -> None:
    """Fill a duration; None leaves it absent, 0 does not."""
    if seconds is not None:
        nanos = round(seconds * _NANOS)
        whole = int(nanos / _NANOS)  # towards zero: both parts of a duration have one sign
        into.seconds, into.nanos = whole, nanos - whole * _NANOS
        into.SetInParent()


def read_duration(message: duration_pb2.Duration) -> float:
    """Seconds."""
    return (message.seconds * _NANOS + message.nanos) / _NANOS


# The contract


def read_spec(message: task_pb2.TaskSpec, *, start_timeout_s: float = ACCEPT_TIMEOUT_S) -> TaskSpec:
    """The contract with every default filled in."""
    wanted = message.requirement
    repo = message.repo.removeprefix("repos/")
    kind = Kind(message.kind or Kind.WORK)
    delivers = Delivery.BRANCH if repo and kind is Kind.WORK else Delivery.NONE
    return TaskSpec(
        title=message.title,
        instructions=message.instructions,
        lane=Lane(message.lane or Lane.NORMAL),
        requirement=Requirement(
            kind=kind,
            tier=Tier(message.tier or Tier.TRIVIAL),
            capabilities=tuple(sorted(wanted.capabilities)),
            executor=wanted.executor,
            agent=wanted.agent.removeprefix("agents/"),
            repo=repo,
            sandbox=message.policy.isolation == task_pb2.Policy.ISOLATION_REQUIRED,
        ),
        command=message.command,
        checks=read_checks(message.checks) if message.checks else (),
        depends_on=tuple([name.removeprefix("tasks/") for name in message.depends_on]),
        dependency_policy=DependencyPolicy(message.dependency_policy or DependencyPolicy.FAIL),
        delivery=Delivery(message.delivery or delivers),
        attempts_max=message.attempts_max or ATTEMPTS_MAX,
        start_at=read_time(message.start_time) if message.HasField("start_time") else None,
        queue_deadline_at=read_time(message.queue_deadline) if message.HasField("queue_deadline") else None,
        start_timeout_s=read_duration(message.start_timeout) if message.HasField("start_timeout") else start_timeout_s,
        run_timeout_s=read_duration(message.run_timeout) if message.HasField("run_timeout") else RUN_TIMEOUT_S,
        silence_timeout_s=(
            read_duration(message.silence_timeout) if message.HasField("silence_timeout") else SILENCE_TIMEOUT_S
        ),
        labels=dict(message.labels),
        touches=tuple(message.touches),
        policy=read_policy(message.policy) if message.HasField("policy") else Policy(),
    )


def write_spec(spec: TaskSpec, into: task_pb2.TaskSpec) -> None:
    """Fill a contract."""
    requirement = spec.requirement
    into.title = spec.title
    into.instructions = spec.instructions
    into.kind = requirement.kind  # type: ignore[assignment]  # the numbers are the same
    into.lane = spec.lane  # type: ignore[assignment]  # the numbers are the same
    into.tier = requirement.tier  # type: ignore[assignment]  # the numbers are the same
    wanted = into.requirement
    wanted.SetInParent()
    if requirement.capabilities:
        wanted.capabilities.extend(requirement.capabilities)
    wanted.executor = requirement.executor
    wanted.agent = name("agents", requirement.agent)
    into.command = spec.command
    into.repo = name("repos", requirement.repo)
    for check in spec.checks:
        write_check(check, into.checks.add())
    if spec.depends_on:
        into.depends_on.extend([f"tasks/{id}" for id in spec.depends_on])
    into.dependency_policy = spec.dependency_policy  # type: ignore[assignment]  # the numbers are the same
    into.delivery = spec.delivery  # type: ignore[assignment]  # the numbers are the same
    into.attempts_max = spec.attempts_max
    write_time(spec.start_at, into.start_time)
    write_time(spec.queue_deadline_at, into.queue_deadline)
    write_duration(spec.start_timeout_s, into.start_timeout)
    write_duration(spec.run_timeout_s, into.run_timeout)
    write_duration(spec.silence_timeout_s, into.silence_timeout)
    if spec.labels:
        into.labels.update(spec.labels)
    if spec.touches:
        into.touches.extend(spec.touches)
    write_policy(spec.policy, into.policy)


def read_policy(message: task_pb2.Policy) -> Policy:
    """What the commands may reach."""
    return Policy(isolation=Isolation(message.isolation or Isolation.PREFERRED), network=message.network)


def write_policy(policy: Policy, into: task_pb2.Policy) -> None:
    """Fill a policy."""
    into.isolation = policy.isolation  # type: ignore[assignment]  # see above: the numbers are the same
    into.network = policy.network


def read_checks(messages: Iterable[task_pb2.Check]) -> tuple[Check, ...]:
    """The checks of a contract; one without an id is named by its position."""
    return tuple(
        Check(
            id=message.id or f"check-{number}",
            run=message.run,
            timeout_s=read_duration(message.timeout) if message.HasField("timeout") else CHECK_TIMEOUT_S,
            expect_on_base=Expectation(message.expect_on_base or Expectation.ANY),
        )
        for number, message in enumerate(messages, start=1)
    )


def write_check(check: Check, into: task_pb2.Check) -> None:
    """Fill a check."""
    into.id = check.id
    into.run = check.run
    write_duration(check.timeout_s, into.timeout)
    into.expect_on_base = check.expect_on_base  # type: ignore[assignment]  # the numbers are the same


# The task


def write_task(task: Task, spec: TaskSpec | None, into: task_pb2.Task, attempts: Iterable[Attempt] = ()) -> None:
    """Fill a task."""
    into.name = f"tasks/{task.id}"
    if spec is not None:
        write_spec(spec, into.spec)
    into.state = task.state  # type: ignore[assignment]  # the numbers are the same
    into.state_reason = task.reason
    into.generation = task.generation
    into.agent = name("agents", task.agent)
    into.attempts_used = task.attempts_used
    into.reworks = task.reworks
    into.goal = name("goals", task.goal)
    into.plan_task = task.plan_task
    into.change = name("changes", task.change)
    if task.failure is not None:
        write_failure(task.failure, into.failure)
    write_time(task.created_at, into.create_time)
    write_time(task.updated_at, into.update_time)
    write_time(task.queued_at, into.queue_time)
    write_time(task.ended_at, into.end_time)
    write_time(task.wake_at, into.wake_time)
    into.etag = str(task.revision)
    for attempt in attempts:
        write_attempt(attempt, into.attempts.add())


def write_attempt(attempt: Attempt, into: task_pb2.Attempt) -> None:
    """Fill an attempt; its artefacts are listed without their content."""
    into.generation = attempt.generation
    into.agent = name("agents", attempt.agent)
    write_time(attempt.assigned_at, into.assign_time)
    write_time(attempt.accepted_at, into.start_time)
    write_time(attempt.ended_at, into.end_time)
    if attempt.outcome is not AttemptOutcome.ACTIVE:
        into.outcome = attempt.outcome  # type: ignore[assignment]  # the numbers are the same
    if attempt.failure is not None:
        write_failure(attempt.failure, into.failure)
    into.charged = attempt.charged
    into.wip_ref = attempt.wip_ref
    if attempt.result is not None:
        write_result(attempt.result, into.result)
    elif attempt.receipts or attempt.artifacts:
        # A failed attempt has no result of its own, but the proofs and files that it left are worth seeing.
        for receipt in attempt.receipts:
            write_receipt(receipt, into.result.receipts.add())
        for artifact in attempt.artifacts:
            write_artifact(artifact, into.result.artifacts.add())


# What an attempt brings


def read_holding(message: task_pb2.Holding) -> Holding:
    """The fencing pair."""
    return Holding(message.task.removeprefix("tasks/"), message.generation)


def write_holding(holding: Holding, into: task_pb2.Holding) -> None:
    """Fill a holding."""
    into.task = f"tasks/{holding.task}"
    into.generation = holding.generation


def read_failure(message: task_pb2.Failure) -> Failure:
    """Why it did not succeed; without a word about whose fault it is, it is the task's."""
    return Failure(
        reason=message.reason or "FAILED",
        message=message.message,
        attribution=Attribution(message.attribution or Attribution.TASK),
        evidence=message.evidence,
    )


def write_failure(failure: Failure, into: task_pb2.Failure) -> None:
    """Fill a failure."""
    into.reason = failure.reason
    into.message = failure.message
    into.attribution = failure.attribution  # type: ignore[assignment]  # the numbers are the same
    into.evidence = failure.evidence


def read_receipts(messages: Iterable[task_pb2.Receipt]) -> tuple[Receipt, ...]:
    """The proofs of check runs."""
    return tuple(
        Receipt(
            check=message.check,
            command_sha256=message.command_sha256,
            base_sha=message.base_sha,
            head_sha=message.head_sha,
            tree_sha=message.tree_sha,
            exit_code=message.exit_code,
            duration_s=read_duration(message.duration),
            host=message.host,
            agent=message.agent,
            started_at=read_time(message.start_time) if message.HasField("start_time") else None,
            verdict=Verdict(message.verdict or Verdict.UNKNOWN),
            output_sha256=message.output_sha256,
            output_tail=message.output_tail,
            phase=Phase(message.phase) if message.phase else None,
        )
        for message in messages
    )


def write_receipt(receipt: Receipt, into: task_pb2.Receipt) -> None:
    """Fill a receipt."""
    into.check = receipt.check
    into.command_sha256 = receipt.command_sha256
    into.base_sha = receipt.base_sha
    into.head_sha = receipt.head_sha
    into.tree_sha = receipt.tree_sha
    into.exit_code = receipt.exit_code
    write_duration(receipt.duration_s, into.duration)
    into.host = receipt.host
    into.agent = receipt.agent
    write_time(receipt.started_at, into.start_time)
    into.verdict = receipt.verdict  # type: ignore[assignment]  # the numbers are the same
    into.output_sha256 = receipt.output_sha256
    into.output_tail = receipt.output_tail
    if receipt.phase is not None:
        into.phase = receipt.phase  # type: ignore[assignment]  # the numbers are the same


def read_artifacts(messages: Iterable[task_pb2.Artifact]) -> tuple[tuple[ArtifactInfo, ...], dict[str, bytes]]:
    """What an attempt leaves behind: what is known of each, and the contents by id."""
    infos, contents = [], {}
    for message in messages:
        size = max(message.size_bytes, len(message.content))
        infos.append(
            ArtifactInfo(id=message.id, media_type=message.media_type, size_bytes=size, truncated=message.truncated)
        )
        contents[message.id] = message.content
    return tuple(infos), contents


def write_artifact(info: ArtifactInfo, into: task_pb2.Artifact, content: bytes = b"") -> None:
    """Fill an artefact."""
    into.id = info.id
    into.media_type = info.media_type
    into.size_bytes = info.size_bytes
    into.truncated = info.truncated
    into.content = content


def read_result(message: task_pb2.Result) -> tuple[Result, dict[str, bytes]]:
    """What a successful attempt brings, and the contents of its artefacts by id."""
    infos, contents = read_artifacts(message.artifacts) if message.artifacts else ((), {})
    diff = message.diff_stat
    result = Result(
        summary=message.summary,
        base_sha=message.base_sha,
        head_sha=message.head_sha,
        branch=message.branch,
        already_done=message.already_done,
        receipts=read_receipts(message.receipts) if message.receipts else (),
        artifacts=infos,
        merge_sha=message.merge_sha,
        tokens=message.tokens if message.HasField("tokens") else None,
        change_title=message.change_title,
        change_body=message.change_body,
        diff_stat=(
            DiffStat(files=diff.files, insertions=diff.insertions, deletions=diff.deletions)
            if message.HasField("diff_stat")
            else None
        ),
    )
    return result, contents


def write_result(result: Result, into: task_pb2.Result) -> None:
    """Fill a result; artefacts without their content."""
    into.SetInParent()
    into.summary = result.summary
    into.base_sha = result.base_sha
    into.head_sha = result.head_sha
    into.branch = result.branch
    into.already_done = result.already_done
    for receipt in result.receipts:
        write_receipt(receipt, into.receipts.add())
    for artifact in result.artifacts:
        write_artifact(artifact, into.artifacts.add())
    into.merge_sha = result.merge_sha
    if result.tokens is not None:
        into.tokens = result.tokens
    into.change_title = result.change_title
    into.change_body = result.change_body
    if result.diff_stat is not None:
        write_diff_stat(result.diff_stat, into.diff_stat)


def write_diff_stat(diff: DiffStat, into: task_pb2.DiffStat) -> None:
    """Fill the size of a change; a change of nothing is not an absent one."""
    into.SetInParent()
    into.files, into.insertions, into.deletions = diff.files, diff.insertions, diff.deletions


def name(collection: str, id: str) -> str:
    """The resource name; empty for an empty id."""
    return f"{collection}/{id}" if id else ""


def write_repo_access(repo: Repo, into: task_service_pb2.RepoAccess) -> None:
    """Fill what a worker needs to reach a repository."""
    into.name = f"repos/{repo.id}"
    into.url = repo.url
    into.default_branch = repo.default_branch
