"""Turns an async function `(session, ...)` into a command, with the options that every command has.

The options may stand before or after the command's words (`agentcom --output json goal list`, `agentcom goal list
--output json`); after wins. What neither says comes from the environment, then from the defaults.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import sys
import typing
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import failure, output, session
from kit import channel, errors, wire

TIMEOUT_S_DEFAULT = 30.0
TOKEN_BYTES_MAX = 1024
# A bundle of a few hundred authorities; more is a mistaken path.
CA_BYTES_MAX = 1024 * 1024

ENV_ADDRESS = wire.ADDRESS_VARIABLE
ENV_TOKEN = "AGENTCOM_TOKEN"
ENV_TOKEN_FILE = "AGENTCOM_TOKEN_FILE"
ENV_CA_FILE = "AGENTCOM_CA_FILE"
ENV_CERTIFICATE_FILE = "AGENTCOM_CERTIFICATE_FILE"
ENV_KEY_FILE = "AGENTCOM_KEY_FILE"
# Instead of a path: the token is the first line of standard input.
STDIN = "-"
ENV_OUTPUT = "AGENTCOM_OUTPUT"

Hub = Annotated[
    str | None,
    typer.Option(
        "--hub",
        metavar="ADDR",
        help=f"host:port, grpcs:// for TLS [env: {ENV_ADDRESS}; default: {wire.ADDRESS_DEFAULT}]",
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token", metavar="TOKEN", help=f"others see it in the list of processes: rather use a file [env: {ENV_TOKEN}]"
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file", metavar="FILE", help=f"file that holds the token, - for standard input [env: {ENV_TOKEN_FILE}]"
    ),
]
Format = Annotated[
    output.Format | None,
    typer.Option("--output", "-o", help=f"table for people, json for scripts [env: {ENV_OUTPUT}; default: table]"),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout", metavar="SECONDS", min=0.1, max=3600.0, help=f"for each call [default: {TIMEOUT_S_DEFAULT:.0f}]"
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option("--ca-file", metavar="FILE", help=f"PEM of the authority that signed the hub [env: {ENV_CA_FILE}]"),
]
CertificateFile = Annotated[
    Path | None,
    typer.Option(
        "--certificate-file", metavar="FILE", help=f"PEM of our own certificate [env: {ENV_CERTIFICATE_FILE}]"
    ),
]
KeyFile = Annotated[
    Path | None, typer.Option("--key-file", metavar="FILE", help=f"PEM of its key [env: {ENV_KEY_FILE}]")
]
Plaintext = Annotated[bool | None, typer.Option("--plaintext", help="allow a token to cross a network without TLS")]
COMMON: dict[str, Any] = {
    "hub": Hub,
    "token": Token,
    "token_file": TokenFile,
    "format": Format,
    "timeout_s": Timeout,
    "ca_file": CaFile,
    "certificate_file": CertificateFile,
    "key_file": KeyFile,
    "plaintext": Plaintext,
}

Work = Callable[..., Awaitable[object]]


def command(app: typer.Typer, name: str | None = None, **settings: Any) -> Callable[[Work], Work]:
    """Register an async function as a command of `app`; its first parameter is the session, the rest are Typer's.

    It may return an exit code; None is 0.
    """

    def register(function: Work) -> Work:
        app.command(name, **settings)(_wrapped(function))
        return function

    return register


def ending(work: Callable[[], int | None]) -> None:
    """Run `work`, tell its problem if it has one, and leave with the exit code."""
    try:
        code = work()
    except errors.Problem as problem:
        failure.tell(problem)
        code = failure.code_of(problem)
    except KeyboardInterrupt:
        code = failure.Code.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone; there is nobody left to tell anything.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = failure.Code.REFUSED
    if code:
        raise typer.Exit(int(code))


def resolve(before: dict[str, Any] | None, after: dict[str, Any]) -> session.Options:
    """The options of one command: those after its words, those before, the environment, the defaults."""
    chosen = {key: (before or {}).get(key) if after.get(key) is None else after[key] for key in COMMON}
    environment = os.environ.get
    form = chosen["format"] or _format(environment(ENV_OUTPUT) or output.Format.TABLE.value)
    return session.Options(
        address=chosen["hub"] or environment(ENV_ADDRESS) or wire.ADDRESS_DEFAULT,
        token=_token(chosen["token"], chosen["token_file"]),
        format=form,
        timeout_s=chosen["timeout_s"] or TIMEOUT_S_DEFAULT,
        plaintext=bool(chosen["plaintext"]),
        tls=_tls(chosen),
        files=session.TlsFiles(
            _file(chosen["ca_file"], ENV_CA_FILE),
            _file(chosen["certificate_file"], ENV_CERTIFICATE_FILE),
            _file(chosen["key_file"], ENV_KEY_FILE),
        ),
    )


def secret_in(path: Path, field: str) -> str:
    """The token or key that a file holds. Raises Invalid."""
    return _token_in(path, field)


def one_of(option: str, word: str, known: Sequence[str]) -> None:
    """Raise Invalid when an option is given a word that it does not know."""
    if word not in known:
        raise errors.Invalid.of(option, f"must be one of {', '.join(known)}, not {word!r}")


def _wrapped(function: Work) -> Callable[..., None]:
    hints = typing.get_type_hints(function, include_extras=True)
    own = [
        parameter.replace(annotation=hints[parameter.name])
        for parameter in list(inspect.signature(function).parameters.values())[1:]
    ]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in COMMON.items()
    ]
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)

    @functools.wraps(function)
    def wrapper(context: typer.Context, **given: Any) -> None:
        def work() -> int | None:
            after = {name: given.pop(name) for name in COMMON}
            options = resolve(context.obj, after)
            return asyncio.run(_work(function, options, given))

        ending(work)

    parameters = [context, *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own), *shared]
    # Typer reads the signature that a function says it has; the type of functions does not know that attribute.
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # inspect reads it
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    del wrapper.__wrapped__  # inspect would look through to the function
    return wrapper


async def _work(function: Work, options: session.Options, given: dict[str, Any]) -> int | None:
    result = await session.run(options, lambda open_session: function(open_session, **given))
    return result if isinstance(result, int) else None


def _token(token: str | None, file: Path | None) -> str | None:
    """A flag wins over the environment; the token itself wins over a file."""
    if token is not None or file is not None:
        return token or (_token_in(file, "--token-file") if file is not None else None)
    if os.environ.get(ENV_TOKEN):
        return os.environ[ENV_TOKEN]
    path = os.environ.get(ENV_TOKEN_FILE)
    return _token_in(Path(path), ENV_TOKEN_FILE) if path else None


def _token_in(path: Path, field: str) -> str:
    data = sys.stdin.buffer.readline(TOKEN_BYTES_MAX) if str(path) == STDIN else _read(path, field, TOKEN_BYTES_MAX)
    token = data.decode("ascii", "replace").strip()
    if not token or not token.isprintable() or " " in token:
        raise errors.Invalid.of(field, f"{path} does not hold a token")
    return token


def _tls(chosen: dict[str, Any]) -> channel.Tls:
    """The authority to trust (none: those of the system), and our own certificate with its key."""
    ca = _pem(chosen["ca_file"], "--ca-file", ENV_CA_FILE)
    certificate = _pem(chosen["certificate_file"], "--certificate-file", ENV_CERTIFICATE_FILE)
    key = _pem(chosen["key_file"], "--key-file", ENV_KEY_FILE)
    if (certificate is None) != (key is None):
        raise errors.Invalid.of("--certificate-file", "goes together with --key-file")
    return channel.Tls(ca, certificate, key)


def _pem(file: Path | None, option: str, variable: str) -> bytes | None:
    if file is not None:
        return _read(file, option, CA_BYTES_MAX)
    path = os.environ.get(variable)
    return _read(Path(path), variable, CA_BYTES_MAX) if path else None


def _file(file: Path | None, variable: str) -> Path | None:
    path = str(file or os.environ.get(variable) or "")
    # Links in it stay: a renewed certificate is often a link that leads elsewhere then.
    return Path(os.path.abspath(os.path.expanduser(path))) if path else None


def _read(path: Path, field: str, bytes_max: int) -> bytes:
    try:
        with path.expanduser().open("rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise errors.Invalid.of(field, f"{path}: {error.strerror}") from error
    if len(data) > bytes_max:
        raise errors.Invalid.of(field, f"{path} is larger than {bytes_max} bytes")
    return data


def _format(text: str) -> output.Format:
    try:
        return output.Format(text)
    except ValueError as error:
        raise errors.Invalid.of(ENV_OUTPUT, f"must be table or json, not {text!r}") from error
