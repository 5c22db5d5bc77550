"""What opens the hub is read again for each connection, and never sent where others could read it."""

from __future__ import annotations

import random

import pytest
from structlog.testing import capture_logs

from kit import channel, errors
from sidecar import config, enrolment
from sidecar.keys import Keys
from tests.support.authority import Authority

NEAR = channel.Address("127.0.0.1", 1)


def settings(**overrides):
    return config.load(None, environment={}, overrides={key.replace("__", "."): v for key, v in overrides.items()})


def shown(keys):
    return dict(keys.metadata("act_enrolled"))["authorization"]


def test_a_token_that_is_replaced_in_its_file_is_shown_next_time(tmp_path):
    file = tmp_path / "token"
    file.write_text("act_one\n")
    keys = Keys(settings(hub__token_file=file, agent="a"), NEAR)
    assert shown(keys) == "Bearer act_one"
    file.write_text("act_two\n")
    assert shown(keys) == "Bearer act_two"


def test_a_file_that_cannot_be_read_just_now_leaves_the_last_token(tmp_path):
    file = tmp_path / "token"
    file.write_text("act_one\n")
    keys = Keys(settings(hub__token_file=file, agent="a"), NEAR)
    file.unlink()
    with capture_logs() as lines:
        assert shown(keys) == "Bearer act_one"
    assert [line["event"] for line in lines] == ["token.unreadable"]


def test_without_a_configured_token_the_one_of_the_enrolment_is_shown():
    assert shown(Keys(settings(), NEAR)) == "Bearer act_enrolled"


async def test_certificates_are_read_again_for_each_connection(tmp_path, monkeypatch):
    first, second = Authority("first"), Authority("second")
    file, dialled = tmp_path / "ca.crt", []
    file.write_bytes(first.pem)
    monkeypatch.setattr(channel, "open_channel", lambda _address, tls: dialled.append(tls.ca))
    keys = Keys(settings(hub__ca_file=file), NEAR)
    keys.dial()
    file.write_bytes(second.pem)
    keys.dial()
    file.unlink()
    with capture_logs() as lines:
        keys.dial()
    assert dialled == [first.pem, second.pem, second.pem]
    assert [line["event"] for line in lines] == ["tls.unreadable"]


async def test_a_join_key_is_not_sent_over_a_network_in_the_clear(tmp_path):
    class Stub:
        def EnrollAgent(self, *_args, **_options):  # noqa: N802  # the contract's name
            pytest.fail("the key was sent")

    made = settings(hub__address="192.0.2.1:1", hub__join_key="k", agent="a")
    with pytest.raises(errors.Invalid, match=r"a join key is not sent to .* without TLS"):
        await enrolment.enrol(made, tmp_path, Stub(), random.Random(1))


def test_a_join_key_may_come_from_a_file(tmp_path):
    file = tmp_path / "key"
    file.write_text("act_key\n")
    assert settings(hub__join_key_file=file).join_key() == "act_key"
    assert settings(hub__join_key="k", hub__join_key_file=file).join_key() == "k"
    assert settings().join_key() == ""
    file.unlink()
    with pytest.raises(errors.Invalid, match=r"hub\.join_key_file"):
        settings(hub__join_key_file=file).join_key()
