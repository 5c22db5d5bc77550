"""Who looks: the token in a cookie of theirs, and the proof that a form came from one of our pages.

The dashboard keeps no sessions. The token is the login, held by the browser in a cookie that scripts cannot read and
other sites cannot send; the hub judges it at every call. A second cookie of random bytes is the key of the form's
proof (HMAC), so that a form of another site proves nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

import flask

from kit import errors, tokens

TOKEN_COOKIE: Final = "agentcom_token"
KEY_COOKIE: Final = "agentcom_key"
PROOF_FIELD: Final = "proof"
COOKIE_S: Final = 30 * 86_400
"""A month without a visit ends a login."""
KEY_BYTES: Final = 32


def token() -> str | None:
    """The visitor's token; None: not logged in."""
    found = flask.request.cookies.get(TOKEN_COOKIE, "")
    return found if tokens.is_token(found) else None


def key() -> str:
    """The key of this browser's forms; made at the first page."""
    found = flask.request.cookies.get(KEY_COOKIE, "")
    if len(found) >= KEY_BYTES:
        return found
    if "new_key" not in flask.g:
        flask.g.new_key = secrets.token_urlsafe(KEY_BYTES)
    return str(flask.g.new_key)


def proof() -> str:
    """What a form of ours carries."""
    return hmac.new(key().encode(), b"form", hashlib.sha256).hexdigest()


def must_be_ours() -> None:
    """Raise Forbidden unless the request comes from a form of ours in this browser."""
    request = flask.request
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    origin = request.headers.get("Origin")
    own = request.host_url.rstrip("/")
    foreign = origin not in (None, own, own.replace("http://", "https://", 1))
    shown = request.form.get(PROOF_FIELD, "")
    has_key = bool(request.cookies.get(KEY_COOKIE))
    if site not in ("same-origin", "none") or foreign or not has_key or not hmac.compare_digest(shown, proof()):
        raise errors.Forbidden("the form did not come from this page; load the page again", reason="FOREIGN_FORM")


def remember(response: flask.Response, secret: str | None, *, secure: bool) -> None:
    """Log in with a token, or out with None."""
    if secret is None:
        response.delete_cookie(TOKEN_COOKIE, httponly=True, samesite="Strict", secure=secure)
    else:
        response.set_cookie(
            TOKEN_COOKIE, secret, max_age=COOKIE_S, httponly=True, samesite="Strict", secure=secure, path="/"
        )


def keep_key(response: flask.Response, *, secure: bool) -> None:
    """Give the browser its key when it was made during this request."""
    if "new_key" in flask.g:
        response.set_cookie(
            KEY_COOKIE, flask.g.new_key, max_age=COOKIE_S, httponly=True, samesite="Strict", secure=secure, path="/"
        )
