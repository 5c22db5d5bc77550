"""Malicious repositories and tasks, with real git: our own commands run nothing of theirs and follow nothing out.

Each test that takes `any_runner` holds with and without a sandbox: what keeps our own git safe is not the sandbox.
A witness is a file outside of everything, written by whatever the repository or the task tries to have run.
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
import pytest_asyncio

from sidecar.core.assignment import ChangeRef, Done
from sidecar.repo import box
from tests.support import gitrepo
from tests.support import sidecar_hands as hands
from tests.support.gitrepo import git
from tests.support.sidecar_hands import TASK, assignment, check

BRANCH = f"agentcom/{hands.AGENT}/{TASK}"
WIP = f"refs/agentcom/wip/{TASK}/1"


@pytest_asyncio.fixture(params=["confined", "unconfined"])
async def any_runner(request, tmp_path):
    if request.param == "confined":
        request.getfixturevalue("bubblewrap")
        made = hands.confined(tmp_path / "work", progress_every_s=0.02)
    else:
        made = hands.runner(tmp_path / "work", progress_every_s=3600.0)
    yield made
    await made.close()


@pytest.fixture
def witness(tmp_path):
    return tmp_path / "witness"


def work(origin, command, **changed):
    return assignment(**{"repo": origin.repo, "delivery": "branch", "executor": "shell", "command": command, **changed})


def stored(origin, content, *options):
    """The id of an object with this content in the clone, also of one that no git would write."""
    made = subprocess.run(
        ["git", "hash-object", "-w", "--stdin", *options],
        cwd=origin.clone,
        input=content if isinstance(content, bytes) else content.encode(),
        capture_output=True,
        check=True,
    )
    return made.stdout.decode().strip()


def tree_of(origin, entries):
    """A tree of (mode, name, id), whatever the names are."""
    data = b"".join(f"{mode} ".encode() + name + b"\0" + bytes.fromhex(sha) for mode, name, sha in entries)
    return stored(origin, data, "-t", "tree", "--literally")


def push_tree(origin, tree):
    sha = git("commit-tree", tree, "-p", "HEAD", "-m", "planted", cwd=origin.clone)
    git("push", "--quiet", "origin", f"{sha}:refs/heads/main", cwd=origin.clone)
    return sha


def push_submodule(origin, modules):
    """main gets a submodule at `sub`, of a commit that is nowhere."""
    readme = git("rev-parse", "HEAD:README.md", cwd=origin.clone)
    entries = [("100644", b".gitmodules", stored(origin, modules)), ("100644", b"README.md", readme)]
    push_tree(origin, tree_of(origin, [*entries, ("160000", b"sub", "1" * 40)]))


# What a repository can say to git


@pytest.fixture
def owners_drivers(tmp_path, witness, monkeypatch):
    """The machine's owner has filters and drivers (git-lfs is one) that leave a trace when they run."""
    spy = f"sh -c 'echo $0 >> {witness}; cat'"
    keys = ("filter.lfs.clean", "filter.lfs.smudge", "filter.lfs.process", "diff.lfs.textconv", "diff.lfs.command")
    keys += ("merge.lfs.driver", "diff.external", "core.fsmonitor", "gpg.program", "core.pager")
    file = tmp_path / "gitconfig"
    for key in keys:
        git("config", "--file", str(file), key, f"{spy} {key}", cwd=tmp_path)
    git("config", "--file", str(file), "commit.gpgSign", "true", cwd=tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(file))


async def test_filters_and_drivers_of_the_owner_are_not_run_at_a_repositorys_word(
    owners_drivers, any_runner, origin, witness
):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    origin.commit({".gitattributes": "* filter=lfs diff=lfs merge=lfs ident\n", "big.bin": pointer})
    checks = (check("grep -q git-lfs big.bin"),)
    done = await hands.done(any_runner, work(origin, "echo 1 > a.txt; cat big.bin", checks=checks))
    await hands.done(any_runner, merge_of(origin, done))
    assert not witness.exists()
    assert origin.read("a.txt") == "1"


def merge_of(origin, done, **changed):
    told = {"branch": done.branch, "head_sha": done.head_sha, "base_sha": done.base_sha}
    change = ChangeRef(name="changes/c1", task=f"tasks/{TASK}", **told)
    return assignment(
        holding=hands.holding(task="0" * 18 + "m1"), kind="merge", repo=origin.repo, change=change, **changed
    )


async def test_attributes_and_hooks_paths_of_a_repository_run_nothing(any_runner, origin, witness):
    origin.commit({
        ".gitattributes": "* filter=x diff=x merge=x text working-tree-encoding=UTF-8\n",
        ".gitconfig": f"[filter \"x\"]\n\tclean = touch {witness}\n[include]\n\tpath = evil\n",
        "evil": f"[core]\n\tfsmonitor = touch {witness}\n", ".husky/pre-commit": f"#!/bin/sh\ntouch {witness}\n",
    })  # fmt: skip
    done = await hands.done(any_runner, work(origin, "chmod +x .husky/*; echo 1 > a.txt", checks=(check("true"),)))
    await hands.done(any_runner, merge_of(origin, done))
    assert not witness.exists()


async def test_an_encoding_that_is_a_lie_is_the_tasks_own_fault(any_runner, origin):
    command = "echo '*.txt working-tree-encoding=UTF-16' > .gitattributes; printf 'odd' > a.txt"
    outcome = await hands.not_done(any_runner, work(origin, command))
    assert (outcome.failure.reason, outcome.failure.attribution) == ("TREE_UNSAFE", "task")


# Repositories inside the tree


SUBMODULE = """
git -c init.defaultBranch=main init -q sub 2>/dev/null || true
cd sub
printf '*.txt filter=x\\n' > .gitattributes
echo one > file.txt
git add -A; git commit -qm sub
git config filter.x.clean 'touch {witness}; cat'
git config core.fsmonitor 'touch {witness}; false'
git config core.sshCommand 'touch {witness}'
sleep 0.01; echo two > file.txt; touch -d '1 hour ago' file.txt
cd ..
"""


async def test_filters_of_a_repository_that_a_task_puts_into_a_submodule_are_not_run(any_runner, origin, witness):
    # git runs `git status` inside every submodule that it knows, under the configuration that it finds there.
    push_submodule(origin, '[submodule "sub"]\n\tpath = sub\n\turl = ../sub\n')
    command = SUBMODULE.format(witness=witness) + "sleep 0.2; echo 1 > a.txt"
    outcome = await any_runner.run(work(origin, command), hands.Control())
    assert not witness.exists()
    assert isinstance(outcome, Done), outcome
    assert f"160000 commit {'1' * 40}\tsub" in git("ls-tree", BRANCH, cwd=origin.path)


async def test_a_repository_that_a_task_commits_as_a_submodule_is_refused(any_runner, origin, witness):
    command = SUBMODULE.format(witness=witness) + "git add -A; git commit -qm 'with sub'; echo 1 > a.txt"
    outcome = await hands.not_done(any_runner, work(origin, command))
    assert not witness.exists()
    assert outcome.failure.reason == "EMBEDDED_REPOSITORY"
    assert "sub" in outcome.failure.message


async def test_a_repository_in_an_ignored_folder_is_nobodys_business(any_runner, origin, witness):
    command = "mkdir -p build; cd build;" + SUBMODULE.format(witness=witness) + "cd ..; echo build/ > .gitignore"
    await hands.done(any_runner, work(origin, command))
    assert origin.files(BRANCH) == [".gitignore", "README.md"]
    assert not witness.exists()


URLS = ["ext::sh -c touch% {witness}", "file:///etc", "-u./evil", "--upload-pack=touch {witness}", "../../../../etc"]


@pytest.mark.parametrize("url", URLS)
async def test_submodules_are_never_followed(any_runner, origin, witness, url):
    modules = f'[submodule "../../evil"]\n\tpath = sub\n\turl = {url.format(witness=witness)}\n'
    push_submodule(origin, f"{modules}\tupdate = !touch {witness}\n\tignore = none\n")
    done = await hands.done(any_runner, work(origin, "echo 1 > a.txt", checks=(check("test -d sub"),)))
    await hands.done(any_runner, merge_of(origin, done))
    assert not witness.exists()


# What a task does to its git folder


PLANTED = """
for key in core.fsmonitor core.sshCommand core.pager core.editor core.gitProxy credential.helper diff.external \
  gpg.program filter.x.clean filter.x.smudge filter.x.process merge.x.driver diff.x.textconv sequence.editor \
  alias.push alias.status uploadpack.packObjectsHook core.alternateRefsCommand remote.origin.uploadpack \
  remote.origin.receivepack
do git config "$key" "touch {witness}; false"; done
git config remote.origin.url "ext::sh -c touch% {witness}"
git config url."ext::sh -c touch% {witness} ".insteadOf "/"
git config include.path "{evil}"
git config core.worktree "{elsewhere}"
git config core.hooksPath "$PWD/.hooks"
hooks=$(git rev-parse --git-path hooks 2>/dev/null || echo .hooks); mkdir -p .hooks "$hooks"
for hook in pre-commit commit-msg post-commit post-index-change post-checkout reference-transaction pre-push; do
  printf '#!/bin/sh\\ntouch {witness}\\n' | tee ".hooks/$hook" > "$hooks/$hook"
done; chmod +x .hooks/* "$hooks"/* 2>/dev/null
printf '* filter=x diff=x merge=x\\n' > .gitattributes
info=$(git rev-parse --git-dir)/info; mkdir -p "$info"; printf '* filter=x diff=x\\n' > "$info/attributes"
echo 1 > a.txt; sleep 0.1; echo 2 >> a.txt; true
"""


async def test_nothing_planted_in_the_git_folder_is_run_by_our_commands(any_runner, origin, witness, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = PLANTED.format(witness=witness, evil=tmp_path / "evil", elsewhere=elsewhere)
    # core.worktree and friends may break the task's own git: its business.
    done = await any_runner.run(
        work(origin, f"({command}) >/dev/null 2>&1; git config --unset core.worktree; true", checks=(check("true"),)),
        hands.Control(),
    )
    assert isinstance(done, Done), done
    await hands.done(any_runner, merge_of(origin, done))
    assert not witness.exists()
    assert list(elsewhere.iterdir()) == []
    assert origin.read("a.txt") == "1\n2"


async def test_what_a_confined_task_does_to_refs_and_objects_stays_in_its_box(confined, origin, tmp_path):
    command = """
    git update-ref refs/heads/main HEAD~0; git branch -q evil; git tag evil
    git update-ref refs/remotes/origin/main 0000000000000000000000000000000000000000 2>/dev/null
    common=$(git rev-parse --git-common-dir); touch $common/escaped $common/../escaped $common/../../config 2>/dev/null
    touch $common/../../objects/escaped 2>/dev/null && echo ESCAPED
    rm -rf $common/../../objects 2>/dev/null; echo 1 > a.txt; git add a.txt; git commit -qm one
    """
    done = await hands.done(confined, work(origin, command))
    cache = next((tmp_path / "work" / "repos").glob("*.git"))
    refs = git("for-each-ref", "--format=%(refname)", cwd=cache).splitlines()
    assert [ref for ref in refs if "evil" in ref] == []
    assert "ESCAPED" not in done.artifacts[-1].content.decode()
    assert not list(tmp_path.rglob("escaped"))
    git("fsck", "--strict", cwd=cache)


async def test_objects_that_lie_about_their_names_are_not_taken_over(confined, origin):
    # A loose object of another content under the name of the README's: a check would read the lie.
    command = """
    set -e; echo lie > README.md; git add README.md; lie=$(git rev-parse :README.md)
    truth=$(git rev-parse HEAD:README.md); dir=$(git rev-parse --git-dir)/objects
    mkdir -p $dir/$(echo $truth | cut -c1-2)
    cp $dir/$(echo $lie | cut -c1-2)/$(echo $lie | cut -c3-) $dir/$(echo $truth | cut -c1-2)/$(echo $truth | cut -c3-)
    git checkout -q HEAD -- . 2>/dev/null || true; echo 1 > a.txt; rm -f README.md; git update-index --index-info <<END
100644 $truth\tREADME.md
END
    git checkout -q -- README.md || true
    """
    outcome = await confined.run(work(origin, command, checks=(check("cat README.md"),)), hands.Control())
    cached = git("show", "main:README.md", cwd=origin.path)
    assert cached == "hello"
    if isinstance(outcome, Done):
        assert origin.read("README.md", BRANCH) in ("hello", "lie")
    else:
        assert outcome.failure.attribution == "task"


async def test_broken_repositories_of_a_confined_task_are_its_own_fault_and_its_files_are_saved(confined, origin):
    command = "echo 1 > a.txt; rm -rf $(git rev-parse --git-dir)/*"
    outcome = await hands.not_done(confined, work(origin, command))
    assert (outcome.failure.reason, outcome.failure.attribution) == ("WORKTREE_BROKEN", "task")
    assert origin.read("a.txt", WIP) == "1"


RUSES = [
    "ln -s /etc/passwd $out",
    "mkdir $out; mkfifo $out/pack",
    'git config core.fsmonitor "rm -rf $out; ln -s /etc $out; echo"',
    "git config pack.packSizeLimit 1; git config core.bare true",
    "git config alias.pack-objects '!false'; git config core.compression 99",
]


@pytest.mark.parametrize("ruse", RUSES)
async def test_ruses_where_commits_are_taken_over_end_well_or_as_the_tasks_fault(confined, origin, ruse):
    outcome = await confined.run(
        work(origin, f"out=$(git rev-parse --git-dir)/agentcom-out; {ruse}; echo 1 > a.txt; true"), hands.Control()
    )
    assert isinstance(outcome, Done) or outcome.failure.attribution == "task", outcome


# Links


async def test_links_out_of_the_tree_are_kept_as_links_and_not_followed(any_runner, origin, tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("CANARY")
    command = f"""
    rm README.md; ln -s {secret}/key README.md; ln -s {secret} folder; ln -s / root; ln -s ../../.. up; ln -s loop loop
    """
    outcome = await hands.done(any_runner, work(origin, command))
    assert (secret / "key").read_text() == "CANARY"
    assert "CANARY" not in str(outcome)
    assert origin.read("README.md", BRANCH) == str(secret / "key")
    assert origin.files(BRANCH) == ["README.md", "folder", "loop", "root", "up"]


async def test_pipes_and_sockets_in_place_of_files_are_not_opened(any_runner, origin):
    command = "rm README.md; mkfifo README.md fifo .gitattributes .gitignore; echo 1 > a.txt"
    outcome = await hands.done(any_runner, work(origin, command))
    assert origin.files(BRANCH) == ["a.txt"], outcome


@pytest.mark.parametrize("name", [".gitignore", "sub/.gitattributes"])
async def test_a_file_that_git_would_read_into_memory_has_a_bound(any_runner, origin, name):
    command = f"mkdir sub; truncate -s 20G {name}; echo 1 > a.txt"
    outcome = await hands.not_done(any_runner, work(origin, command))
    assert (outcome.failure.reason, outcome.failure.attribution) == ("FILE_TOO_LARGE", "task")


async def test_a_pointer_that_a_command_writes_opens_no_other_tasks_box(confined, origin, tmp_path):
    await confined.start()
    spaces = confined._tools.workspaces
    space = await spaces.open(work(origin, "true"))
    mine = box.of(tmp_path / "work", space.tree)
    assert mine is not None and mine.git_dir == Path(space.place.git_dir)
    folder = tmp_path / "work" / "scratch" / "other"
    folder.mkdir(parents=True)
    (folder / ".git").write_text((space.tree / ".git").read_text())
    assert box.of(tmp_path / "work", folder) is None


async def test_unfinished_work_is_saved_and_removed_without_following_links(any_runner, origin, tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("CANARY")
    command = f"ln -s {secret} folder; rm -rf .agentcom; ln -s {secret} .agentcom; echo 1 > a.txt; exit 1"
    outcome = await hands.not_done(any_runner, work(origin, command))
    assert outcome.wip_ref == WIP
    assert sorted(path.name for path in secret.iterdir()) == ["key"]
    assert (secret / "key").read_text() == "CANARY"


async def test_a_folder_named_like_the_contract_is_no_hindrance(any_runner, origin):
    origin.commit({".agentcom/task.md/inner": "x"})
    await hands.done(any_runner, work(origin, 'test -s "$AGENTCOM_CONTRACT" && echo 1 > a.txt'))


# Sizes and shapes


async def test_a_file_that_is_too_large_is_a_failure_with_its_name_and_the_limit(tmp_path, origin):
    runner = hands.runner(tmp_path / "own", file_bytes_max=1000)
    outcome = await hands.not_done(runner, work(origin, "head -c 1001 /dev/zero > big.bin; echo 1 > a.txt"))
    await runner.close()
    assert (outcome.failure.reason, outcome.failure.attribution) == ("FILE_TOO_LARGE", "task")
    assert "big.bin" in outcome.failure.message and "1000 bytes" in outcome.failure.message
    # The rest is saved, and nothing is left to fill the disk.
    assert origin.files(WIP) == ["README.md", "a.txt"]
    assert list((tmp_path / "own" / "trees").iterdir()) == []


async def test_a_large_file_that_a_commit_brings_and_the_next_removes_is_found(any_runner, origin, tmp_path):
    command = """
    head -c 200000 /dev/urandom > big.bin; git add -A; git commit -qm big
    git rm -q big.bin; git commit -qm gone; echo 1 > a.txt
    """
    settings = any_runner._tools.workspaces.keeper.settings
    object.__setattr__(settings, "file_bytes_max", 100_000)
    outcome = await hands.not_done(any_runner, work(origin, command))
    assert outcome.failure.reason == "FILE_TOO_LARGE"


async def test_a_change_that_is_too_large_as_a_whole_is_a_failure(any_runner, origin):
    settings = any_runner._tools.workspaces.keeper.settings
    object.__setattr__(settings, "change_bytes_max", 100_000)
    outcome = await hands.not_done(
        any_runner, work(origin, "for i in 1 2 3; do head -c 50000 /dev/urandom > $i.bin; done")
    )
    assert (outcome.failure.reason, outcome.failure.attribution) == ("CHANGE_TOO_LARGE", "task")
    object.__setattr__(settings, "change_file_count_max", 10)
    outcome = await hands.not_done(
        any_runner, work(origin, "for i in $(seq 11); do echo > $i; done", holding=hands.holding(2))
    )
    assert outcome.failure.reason == "CHANGE_TOO_LARGE"


async def test_a_commit_too_large_to_take_over_is_a_failure(confined, origin):
    settings = confined._tools.workspaces.keeper.settings
    object.__setattr__(settings, "change_bytes_max", 1000)
    command = "head -c 20000000 /dev/urandom > big.bin; git add -A; git commit -qm big; rm big.bin; echo 1 > a.txt"
    outcome = await hands.not_done(confined, work(origin, command))
    assert (outcome.failure.reason, outcome.failure.attribution) == ("CHANGE_TOO_LARGE", "task")


async def test_folders_a_thousand_levels_deep_do_no_harm(any_runner, origin, tmp_path):
    command = "python3 - <<'E'\nimport os\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')\nE\necho 1 > a.txt"
    await hands.done(any_runner, work(origin, command))
    assert origin.files(BRANCH) == ["README.md", "a.txt"]
    assert list((tmp_path / "work" / "trees").iterdir()) == []


def names_in(origin, revision):
    listed = subprocess.run(["git", "ls-tree", "-z", "--name-only", revision], cwd=origin.path, capture_output=True)
    return listed.stdout.split(b"\0")


async def test_odd_names_are_carried_and_never_taken_for_options(any_runner, origin):
    names = [
        b"-rf",
        b"--upload-pack=touch x",
        b"two\nlines",
        b'quo"te',
        b"\xff\xfe",
        "sp\u2028ace".encode(),
        b"CASE",
        b"case",
        b"...",
        b"$(touch x)",
        b":000000 160000 a\tb",
    ]
    script = f"import os\nfor name in {names!r}: open(b'./' + name, 'w').close()"
    outcome = await hands.done(any_runner, work(origin, f"python3 -c {shlex.quote(script)}", checks=(check("ls"),)))
    raw = names_in(origin, BRANCH)
    assert set(raw) >= set(names)
    assert outcome.diff_stat.files == len(names)


@pytest.mark.parametrize("name", [b".git", b".GIT", b"..", b".", b"git~1", b"a/../../b", b"/etc"])
async def test_names_that_would_lead_into_the_git_folder_or_out_of_the_tree_are_not_checked_out(
    any_runner, origin, tmp_path, witness, name
):
    inner = tree_of(origin, [("100644", b"config", stored(origin, f"[core]\n\tfsmonitor = touch {witness}\n"))])
    readme = git("rev-parse", "HEAD:README.md", cwd=origin.clone)
    entries = sorted([("100644", b"README.md", readme), ("40000", name, inner)], key=lambda entry: entry[1])
    push_tree(origin, tree_of(origin, entries))
    outcome = await any_runner.run(work(origin, "echo 1 > a.txt"), hands.Control())
    assert not witness.exists()
    assert not (tmp_path / "b").exists()
    if not isinstance(outcome, Done):
        assert (outcome.failure.reason, outcome.failure.attribution) == ("REPOSITORY_UNSAFE", "environment"), (
            outcome.failure
        )


async def test_a_change_that_leads_into_the_git_folder_is_not_merged_and_goes_back_to_its_task(
    any_runner, origin, witness
):
    inner = tree_of(origin, [("100644", b"config", stored(origin, f"[core]\n\tfsmonitor = touch {witness}\n"))])
    readme, before = git("rev-parse", "HEAD:README.md", cwd=origin.clone), origin.sha()
    tree = tree_of(origin, [("40000", b".GIT", inner), ("100644", b"README.md", readme)])
    sha = git("commit-tree", tree, "-p", "HEAD", "-m", "evil", cwd=origin.clone)
    git("push", "--quiet", "origin", f"{sha}:refs/heads/agentcom/x/y", cwd=origin.clone)
    for style in ("", "fast_forward"):
        pushed = Done(summary="", branch="agentcom/x/y", head_sha=sha, base_sha=before)
        outcome = await hands.not_done(any_runner, merge_of(origin, pushed, labels={"merge_style": style}))
        assert (outcome.failure.reason, outcome.failure.attribution) == ("REPOSITORY_UNSAFE", "task")
    assert origin.sha() == before


async def test_a_file_below_a_link_is_not_written_through_it(any_runner, origin, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    link = stored(origin, str(target))
    inner = tree_of(origin, [("100644", b"stolen", stored(origin, "x"))])
    push_tree(origin, tree_of(origin, [("120000", b"a", link), ("40000", b"a", inner)]))
    outcome = await any_runner.run(work(origin, "echo 1 > b.txt"), hands.Control())
    assert list(target.iterdir()) == []
    assert isinstance(outcome, Done) or outcome.failure.attribution in ("task", "environment"), outcome


async def test_messages_of_any_length_and_with_control_characters_are_carried(any_runner, origin):
    command = r"""
    printf 'fine \033[2J\033]0;pwned\007 \r hidden\n\n' > m; head -c 300000 /dev/zero | tr '\0' 'x' >> m
    echo 1 > a.txt; git add a.txt; git commit -q -F m; rm m
    """
    outcome = await hands.done(any_runner, work(origin, command))
    assert f"AgentCom-Task: tasks/{TASK}" in origin.message(BRANCH)
    assert outcome.branch == BRANCH


async def test_names_of_branches_are_never_options(any_runner, origin):
    for name in ("--upload-pack=touch", "-x", "a..b", "refs/heads/x", "$(x)"):
        repo = gitrepo.RepoAccess(name="repos/demo", url=str(origin.path), default_branch=name)
        outcome = await hands.not_done(any_runner, work(origin, "true", repo=repo))
        assert outcome.failure.attribution == "environment", (name, outcome.failure)


async def test_a_tree_without_rights_is_removed_all_the_same(any_runner, origin, tmp_path):
    command = "mkdir -p locked/inner; echo 1 > locked/inner/file; chmod 0 locked/inner locked; echo locked > .gitignore"
    await hands.done(any_runner, work(origin, command))
    assert list((tmp_path / "work" / "trees").iterdir()) == []
