"""From the blocks of a page to what a reader types, and what should come of it. Pure.

The rules are those of docs/style.md ("Pages"): ```sh blocks are typed in the order of the page; a first line that says
`# In another terminal` or `# On the machine NAME` names a shell of its own; `# exit code N` and `# runs until Ctrl-C`
stand behind a command; a ```text block right behind a ```sh block is what its last command prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tests.docs.markdown import Block, Page

_ID = "[0-9a-z]{20}"
#: The ids that a page may leave to its reader, and how one looks where it is named in full.
PLACEHOLDERS: Final = {
    "TASK": re.compile(rf"\btasks/({_ID})\b"),
    "GOAL": re.compile(rf"\bgoals/({_ID})\b"),
    "CHANGE": re.compile(rf"\bchanges/({_ID})\b"),
    "TOKEN": re.compile(rf"\btokens/({_ID})\b"),
    "KEY": re.compile(r"\b(act_[0-9A-Za-z_-]{20,})"),
    "BACKUP": re.compile(rf"\bbackups/({_ID})\b"),
}
#: In a table the heading of the first column names the kind.
_HEAD = re.compile(r"([A-Z]+)  +[A-Z]")
_ROW = re.compile(rf"({_ID})  +\S")
_PLACE = re.compile(
    r"(?<![\w$./{-])(tasks/|goals/|changes/|tokens/|backups/)?(" + "|".join(PLACEHOLDERS) + r")(?![\w=])"
)
_WHERE = re.compile(r"^# ((?:In|On) [^:]+?):?$")
_EXIT = re.compile(r"#.*\bexit code (\d+)\b")
_FOREVER = re.compile(r"#.*\bruns until Ctrl-C\b")
_HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)['\"]?")
_OPENS = re.compile(r"(?:^|\s)(do|then|\{)$")
_CLOSES: Final = {"do": "done", "then": "fi", "{": "}"}
INTERRUPT: Final = "# Ctrl-C"


@dataclass(frozen=True, slots=True)
class Step:
    """One command. `where`: the shell; `expected`: lines that it prints; None: nothing is said about that."""

    line: int
    where: str
    command: str
    code: int = 0
    forever: bool = False
    expected: tuple[str, ...] | None = None


def steps(page: Page) -> list[Step]:
    """Everything that is typed on a page."""
    return from_blocks(page.blocks, page.prose)


def from_blocks(blocks: Sequence[Block], prose: Sequence[str]) -> list[Step]:
    """The same from its blocks; a ```text block counts as output when only blank lines are between."""
    found: list[Step] = []
    for index, block in enumerate(blocks):
        if block.language != "sh":
            continue
        made = list(_steps(block))
        shown = _output(block, blocks[index + 1 : index + 2], prose)
        if shown is not None and made:
            last = made[-1]
            made[-1] = Step(last.line, last.where, last.command, last.code, last.forever, shown)
        found += made
    return found


def fill(command: str, printed: str) -> str:
    """The command with the id of each placeholder that was printed last. Raises LookupError for one that was not."""

    def put(match: re.Match[str]) -> str:
        return f"{match[1] or ''}{newest(match[2], printed)}"

    code, mark, comment = _split(command)
    return _PLACE.sub(put, code) + mark + comment


def newest(kind: str, printed: str) -> str:
    """The id of this kind that was printed last. Raises LookupError."""
    found, head = "", ""
    for line in printed.splitlines():
        heading, row = _HEAD.match(line), _ROW.match(line)
        if heading:
            head = heading[1]
        elif row and head == kind:
            found = row[1]
        elif not line.strip():
            head = ""
        named = PLACEHOLDERS[kind].findall(line)
        found = named[-1] if named else found
    if not found:
        raise LookupError(f"nothing printed so far has an id for {kind}")
    return found


def missing(expected: Sequence[str], printed: str) -> str:
    """The first expected line that does not come, in order; empty: all of them do."""
    lines = iter(printed.splitlines())
    for wanted in expected:
        pattern = _pattern(wanted)
        if not any(pattern.fullmatch(line.strip()) for line in lines):
            return wanted
    return ""


def words_of(command: str) -> str:
    """A command without what is said behind it."""
    return _split(command)[0].strip()


def _steps(block: Block) -> Iterator[Step]:
    lines = block.text.splitlines()
    where, start = "", 0
    if lines and (match := _WHERE.match(lines[0].strip())):
        where, start = match[1], 1
    at = start
    while at < len(lines):
        taken = _taken(lines[at:])
        command = "\n".join(lines[at : at + taken]).strip()
        if command == INTERRUPT or (command and not command.startswith("#")):
            said = _EXIT.search(command)
            code = int(said[1]) if said else 0
            yield Step(block.line + at, where, command, code, _FOREVER.search(command) is not None)
        at += taken


def _taken(lines: Sequence[str]) -> int:
    """How many lines the first command has: what is continued, quoted, looped or a here-document is taken whole."""
    count, end = 0, ""
    text = ""
    for line in lines:
        count += 1
        text += line + "\n"
        if end:
            if line.strip() == end:
                return count
            continue
        document, opened = _HEREDOC.search(line), _OPENS.search(line)
        if document:
            end = document[1]
        elif opened:
            end = _CLOSES[opened[1]]
        elif not line.endswith("\\") and not _comment(text)[1]:
            return count
    return count


def _split(command: str) -> tuple[str, str, str]:
    """A command, and the comment behind its last line."""
    at = _comment(command)[0]
    if at < 0 or "\n" in command[at:]:
        return command, "", ""
    return command[:at], "#", command[at + 1 :]


def _comment(command: str) -> tuple[int, bool]:
    """Where the last comment begins (-1: there is none), and whether a quote is still open at the end."""
    quote, found, at = "", -1, 0
    while at < len(command):
        letter = command[at]
        if quote:
            at += letter == "\\" and quote == '"'
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "\\":
            at += 1
        elif letter == "#" and (at == 0 or command[at - 1].isspace()):
            found = at
            end = command.find("\n", at)
            at = len(command) if end < 0 else end
        at += 1
    return found, bool(quote)


def _output(block: Block, behind: Sequence[Block], prose: Sequence[str]) -> tuple[str, ...] | None:
    if not behind or behind[0].language != "text":
        return None
    end = block.line + len(block.text.splitlines())
    if any(line.strip() for line in prose[end : behind[0].line - 2]):
        return None
    return tuple(line.strip() for line in behind[0].text.splitlines() if line.strip() not in ("", "..."))


def _pattern(wanted: str) -> re.Pattern[str]:
    pieces = [r"\s+".join(re.escape(word) for word in piece.split()) for piece in wanted.strip().split("...")]
    spaced = wanted.strip().split("...")
    text = ""
    for index, (piece, raw) in enumerate(zip(pieces, spaced, strict=True)):
        text += (r"\s*" if raw[:1].isspace() else "") + piece + (r"\s*" if raw[-1:].isspace() else "")
        text += ".*" if index < len(pieces) - 1 else ""
    return re.compile(text)
