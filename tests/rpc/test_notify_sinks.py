"""Each sink against a real server on this machine: what it sends, what it makes of every answer, and what it hides."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import socket
import time
from pathlib import Path

import pytest

from hub.core.notices import notice
from hub.core.notices.notice import Kind, Notice
from hub.core.notices.subscription import Subscription
from hub.notify import config as settings
from hub.notify import http, ntfy, sinks, smtp, vapid, webhook, webpush
from kit import errors
from tests.support.authority import Authority
from tests.support.collector import gone
from tests.support.receiver import Browser, post_office, receiving, vapid_claims

NOTICE = Notice(
    id="06gzxss09qatcvzcf5rs",
    kind=Kind.URGENT,
    title="Goal failed: Größer, schneller",
    text="Goal failed: Größer, schneller (goals/g1): A1 does not hold\nand more",
    at=1_700_000_000.0,
    path="/goals/g1",
)
LINK = "https://agents.example"
KEY = b"0123456789abcdef"
TIMEOUT_S = 5.0
#: For servers that never answer: nobody waits longer than this.
SHORT_S = 0.2


def hook(url, *, timeout_s=TIMEOUT_S, key=KEY, ca_file=None):
    poster = http.Poster(timeout_s=timeout_s, ca_file=ca_file)
    return webhook.Webhook(poster, url, host="127.0.0.1", key=key, link=LINK, now=time.time)


async def failed(sink, *more):
    with pytest.raises(notice.Failed) as caught:
        await sink.send(NOTICE, *more)
    return caught.value


async def test_a_webhook_is_json_with_a_signature_that_can_be_checked():
    with receiving() as receiver:
        await hook(f"{receiver.url}/hooks/x?y=1").send(NOTICE)
        request = await receiver.next()
    assert request.path == "/hooks/x?y=1"
    stamp = request.headers["webhook-timestamp"]
    assert abs(int(stamp) - time.time()) < 60
    expected = hmac.new(KEY, f"{NOTICE.id}.{stamp}.".encode() + request.body, hashlib.sha256).digest()
    assert request.headers["webhook-signature"] == f"v1,{base64.b64encode(expected).decode()}"
    assert request.headers["webhook-id"] == NOTICE.id
    assert json.loads(request.body) == {
        "type": "notice.urgent",
        "timestamp": "2023-11-14T22:13:20+00:00",
        "data": {
            "id": NOTICE.id,
            "title": NOTICE.title,
            "text": NOTICE.text,
            "url": f"{LINK}/goals/g1",
            "path": "/goals/g1",
            "notices": 1,
        },
    }


def test_the_signature_is_that_of_the_standard():
    # The example of the Standard Webhooks specification's libraries.
    key = webhook.key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = webhook.signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("status", "kind"),
    [(200, None), (204, None), (301, notice.Failed), (401, notice.Failed), (404, notice.Failed), (413, notice.Refused),
     (422, notice.Refused), (429, notice.Failed), (500, notice.Failed), (503, notice.Failed)],
)  # fmt: skip
async def test_what_an_answer_means(status, kind):
    with receiving() as receiver:
        receiver.answer(status, retry_after="7", location=f"{receiver.url}/elsewhere")
        sink = hook(f"{receiver.url}/x")
        if kind is None:
            await sink.send(NOTICE)
        else:
            problem = await failed(sink)
            assert type(problem) is kind
            assert str(status) in problem.message
            assert problem.retry_delay_s == 7.0
        await receiver.next()
        assert receiver.rest() == [], "a redirect is not followed"


async def test_whoever_does_not_answer_costs_the_timeout_and_no_more():
    with receiving() as receiver:
        receiver.silent.set()
        async with asyncio.timeout(TIMEOUT_S):
            problem = await failed(hook(receiver.url, timeout_s=SHORT_S))
        assert "did not answer within 0.2 s" in problem.message
    assert "cannot be reached" in (await failed(hook(gone()))).message


async def test_an_answer_that_drips_costs_no_more_either():
    ended = asyncio.Event()

    async def drip(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\n")
        with contextlib.suppress(OSError):
            while not writer.is_closing():
                writer.write(b"x: y\r\n")
                await writer.drain()
                await asyncio.sleep(0.02)  # the pace of the drip, and nothing that is waited for
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        ended.set()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server:
        async with asyncio.timeout(TIMEOUT_S):
            problem = await failed(hook(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", timeout_s=SHORT_S))
            await ended.wait()
        assert "did not answer within 0.2 s" in problem.message


async def test_an_answer_without_an_end_is_not_read():
    with receiving() as receiver:
        receiver.answer(200, b"x" * 50_000_000)
        await hook(receiver.url).send(NOTICE)
        receiver.answer(200, b"", content_length="1000000000000")
        await hook(receiver.url).send(NOTICE)


async def test_what_is_no_http_is_a_failure_that_quotes_nothing():
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        problem = await failed(hook(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/secret-path"))
    assert "secret-path" not in problem.message and "SSH" not in problem.message


async def test_certificates_are_checked_with_the_authority_that_is_set(tmp_path):
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    with receiving(authority.pair().write(tmp_path)) as receiver:
        problem = await failed(hook(receiver.url))
        assert "certificate" in problem.message.lower(), problem.message
        assert receiver.rest() == []
        await hook(receiver.url, ca_file=tmp_path / "ca.pem").send(NOTICE)


async def test_ntfy_is_told_by_its_json_and_knows_a_notice_again():
    with receiving() as receiver:
        poster = http.Poster(timeout_s=TIMEOUT_S)
        await ntfy.Ntfy(poster, f"{receiver.url}/base/top_ic", host="h", token="tk_secret", link=LINK).send(NOTICE)
        request = await receiver.next()
        assert request.path == "/base/"
        assert request.headers["authorization"] == "Bearer tk_secret"
        assert request.headers["x-sequence-id"] == NOTICE.id
        assert json.loads(request.body) == {
            "topic": "top_ic",
            "title": NOTICE.title,
            "message": NOTICE.text,
            "priority": 4,
            "tags": ["warning"],
            "sequence_id": NOTICE.id,
            "click": f"{LINK}/goals/g1",
        }
        receiver.answer(401)
        sink = ntfy.Ntfy(poster, f"{receiver.url}/topic", host="ntfy.example", token="tk_secret", link="")
        assert (await failed(sink)).message == "ntfy.example answered 401"
    assert len(ntfy.cut("ä" * 4_000, ntfy.MESSAGE_BYTES_MAX).encode()) <= ntfy.MESSAGE_BYTES_MAX


# E-mail


def mail(post, *, security="none", user=None, password=None, ca_file=None, timeout_s=TIMEOUT_S):
    server = smtp.Server("127.0.0.1", post.port, security, user, password)
    return smtp.Email(
        server,
        sender="hub@agents.example",
        to=("ann@example.com", "bob@example.com"),
        link=LINK,
        timeout_s=timeout_s,
        context=http.tls_context(ca_file),
        now=lambda: NOTICE.at,
    )


async def test_a_message_has_all_that_mail_needs():
    async with post_office() as post:
        await mail(post).send(NOTICE)
        envelope, message = await post.next()
    assert envelope.mail_from == "hub@agents.example"
    assert envelope.rcpt_tos == ["ann@example.com", "bob@example.com"]
    assert message["Subject"] == NOTICE.title
    assert message["Message-ID"] == f"<{NOTICE.id}@agents.example>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Date"] == "Tue, 14 Nov 2023 22:13:20 +0000"
    assert message.get_content().replace("\r\n", "\n") == f"{NOTICE.text}\n\n{LINK}/goals/g1\n"


# The mail server of the test drops the plain half of a connection that went over to TLS without closing it.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_password_is_shown_by_starttls_only(tmp_path):
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    pair = authority.pair().write(tmp_path)
    who = {"user": "hub", "password": "right-password-0123"}
    async with post_office(pair, login=True) as post:
        await mail(post, security="starttls", ca_file=tmp_path / "ca.pem", **who).send(NOTICE)
        await post.next()
        assert post.logins == [("hub", "right-password-0123")]
        wrong = mail(post, security="starttls", ca_file=tmp_path / "ca.pem", user="hub", password="wrong-password-9")
        problem = await failed(wrong)
        assert "535" in problem.message and "wrong-password-9" not in problem.message
    async with post_office(login=True) as post:
        await failed(mail(post, security="starttls", **who))
        assert post.logins == [], "a server that says it has no TLS is told nothing"
    with receiving(pair) as other:
        other.port = int(other.url.rpartition(":")[2])
        problem = await failed(mail(other, security="tls", **who))
        assert "certificate" in problem.message.lower()


@pytest.mark.parametrize(("said", "kind"), [("552 too large", notice.Refused), ("451 come back", notice.Failed)])
async def test_what_a_mail_server_says_of_a_message(said, kind):
    async with post_office() as post:
        post.answers.append(said)
        problem = await failed(mail(post))
    assert type(problem) is kind and said in problem.message


async def test_a_mail_server_that_says_nothing_costs_the_timeout():
    async def silent(reader, writer):
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:

        class Post:
            port = server.sockets[0].getsockname()[1]

        async with asyncio.timeout(TIMEOUT_S):
            assert "did not answer" in (await failed(mail(Post, timeout_s=SHORT_S))).message
        Post.port = int(gone().rpartition(":")[2])
        assert (await failed(mail(Post))).message.startswith("127.0.0.1:")


# Browsers


def pusher(tmp_path, *, ca_file=None, private=True):
    signer = vapid.Vapid(vapid.load(tmp_path), "mailto:ops@example.com", time.time)
    poster = http.Poster(timeout_s=TIMEOUT_S, ca_file=ca_file, public=not private)
    return webpush.Webpush(poster, signer, private=private)


def subscribed(push, browser, **changes):
    given = {"made_for": push.public_key, **changes}
    return Subscription(
        id="b1", principal="local", endpoint=browser.endpoint, public_key=browser.public_key, auth=browser.auth, **given
    )


async def test_a_browser_reads_what_it_is_pushed(tmp_path):
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    with receiving(authority.pair().write(tmp_path)) as receiver:
        push = pusher(tmp_path, ca_file=tmp_path / "ca.pem")
        browser = Browser(f"{receiver.url}/wpush/v2/secret")
        push.check(browser.endpoint, browser.public_key)
        await push.send(NOTICE, subscribed(push, browser))
        request = await receiver.next()
        assert browser.open(request.body) == {
            "id": NOTICE.id,
            "kind": "urgent",
            "title": NOTICE.title,
            "text": NOTICE.text,
            "path": "/goals/g1",
        }
        headers = request.headers
        assert (headers["content-encoding"], headers["urgency"], headers["topic"]) == ("aes128gcm", "high", NOTICE.id)
        assert int(headers["ttl"]) > 0
        claims = vapid_claims(headers["authorization"], push.public_key)
        assert claims["aud"] == receiver.url
        for status, kind in ((404, notice.Gone), (410, notice.Gone), (413, notice.Refused), (429, notice.Failed)):
            receiver.answer(status)
            problem = await failed(push, subscribed(push, browser))
            assert type(problem) is kind and "secret" not in problem.message
        receiver.rest()
        problem = await failed(push, subscribed(push, browser, made_for=b"another"))
        assert type(problem) is notice.Gone and receiver.rest() == []


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1"])
async def test_a_name_that_leads_to_the_neighbourhood_is_not_followed(tmp_path, monkeypatch, address):
    """Whatever it led to when the browser subscribed."""
    asked = []

    async def resolve(host, port, **_):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    with receiving() as receiver:
        push = pusher(tmp_path, private=False)
        browser = Browser("https://push.example.com/x")
        push.check(browser.endpoint, browser.public_key)
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        problem = await failed(push, subscribed(push, browser))
        assert asked == ["push.example.com"]
        assert "no public address" in problem.message
        assert receiver.rest() == []


# Settings


def test_sinks_are_off_unless_they_are_set(tmp_path):
    assert not settings.NotifyConfig().active
    assert sinks.build(settings.NotifyConfig(), tmp_path, time.time) == ({}, None, frozenset())
    assert list(tmp_path.iterdir()) == []


BAD = {
    "no address": lambda: settings.WebhookConfig(url="hub.example/x"),
    "another scheme": lambda: settings.WebhookConfig(url="file:///etc/passwd"),
    "a password in an address": lambda: settings.WebhookConfig(url="https://user:canary-pw@hub.example/x"),
    "no topic": lambda: settings.NtfyConfig(url="https://ntfy.example/"),
    "a topic with a slash too many": lambda: settings.NtfyConfig(url="https://ntfy.example/topic/"),
    "an open token": lambda: settings.NtfyConfig(url="http://ntfy.example/topic", token_file=Path("x")),
    "nobody to write to": lambda: settings.EmailConfig(host="mail.example", sender="a@b.example"),
    "no sender": lambda: settings.EmailConfig(host="mail.example", to=("a@b.example",)),
    "a header in an address": lambda: settings.EmailConfig(
        host="mail.example", sender="a@b.example", to=("a@b.example\r\nBcc: c@d.example",)
    ),
    "a user without a password": lambda: settings.EmailConfig(
        host="mail.example", sender="a@b.example", to=("a@b.example",), user="x"
    ),
    "an open password": lambda: settings.EmailConfig(
        host="mail.example",
        sender="a@b.example",
        to=("a@b.example",),
        user="x",
        password_file=Path("y"),
        security="none",
    ),
    "nobody to ask": lambda: settings.WebpushConfig(enabled=True),
    "an address to ask that is none": lambda: settings.WebpushConfig(enabled=True, contact="ops@example.com"),
    "no time of the day": lambda: settings.NotifyConfig(digest_at="8"),
    "a digest every minute": lambda: settings.NotifyConfig(digest_every_s=60.0),
    "a link that is none": lambda: settings.NotifyConfig(link="javascript:alert(1)"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_work_is_refused_at_the_start_and_quotes_no_secret(case):
    with pytest.raises(errors.Invalid) as caught:
        BAD[case]()
    assert "canary" not in caught.value.message


SECRETS = {
    "nothing": b"",
    "too little": b"short",
    "too much": b"x" * 600,
    "two lines": b"canary-0123456789\nmore-0123456789",
    "no base64": b"whsec_canary-not-base64!",
    "a key that is too short": b"whsec_YWJj",
}


@pytest.mark.parametrize("case", SECRETS)
def test_a_file_that_holds_no_secret_is_refused_without_saying_what_it_holds(tmp_path, case):
    file = tmp_path / "secret"
    file.write_bytes(SECRETS[case])
    made = settings.NotifyConfig(webhook=settings.WebhookConfig(url="https://h.example/x", secret_file=file))
    with pytest.raises(errors.Invalid, match=r"notify\.webhook\.secret_file") as caught:
        sinks.build(made, tmp_path, time.time)
    assert "canary" not in caught.value.message


def test_a_missing_library_is_named_with_the_way_to_get_it(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "httpcore2", None)
    monkeypatch.delitem(sys.modules, "hub.notify.http", raising=False)
    for name in ("http", "webhook", "ntfy", "webpush"):
        monkeypatch.delitem(sys.modules, f"hub.notify.{name}", raising=False)
        monkeypatch.delattr(f"hub.notify.{name}", raising=False)
    made = settings.NotifyConfig(webhook=settings.WebhookConfig(url="https://h.example/x"))
    with pytest.raises(errors.Unavailable, match=r"httpcore2.*agentcom\[notify\]"):
        sinks.build(made, tmp_path, time.time)
