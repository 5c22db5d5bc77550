"""Which addresses a browser may name: only those that lead out to the internet."""

from __future__ import annotations

import pytest

from hub.core.notices import subscription
from hub.core.notices.subscription import Subscription
from kit import errors

GOOD = (
    "https://updates.push.services.mozilla.com/wpush/v2/gAAAA-_x",
    "https://fcm.googleapis.com/fcm/send/abc:def",
    "https://web.push.apple.com/QOq1",
    "https://fcm.googleapis.com:443/x",
    "https://8.8.8.8/x",
    "https://[2606:4700::1111]/x",
)
BAD = (
    "http://fcm.googleapis.com/x",
    "ftp://h.example/x",
    "https://user:pw@h.example/x",
    "https://h.example:8443/x",
    "https://localhost/x",
    "https://x.localhost/x",
    "https://printer.local/x",
    "https://metadata.google.internal/x",
    "https://intranet/x",
    "https://127.0.0.1/x",
    "https://127.1/x",
    "https://2130706433/x",
    "https://0.0.0.0/x",
    "https://10.0.0.1/x",
    "https://172.16.3.4/x",
    "https://192.168.1.1/x",
    "https://169.254.169.254/latest/meta-data",
    "https://100.64.0.1/x",
    "https://[::1]/x",
    "https://[::]/x",
    "https://[fe80::1]/x",
    "https://[fc00::1]/x",
    "https://[::ffff:127.0.0.1]/x",
    "https://[64:ff9b::7f00:1]/x",
    "https://[2002:7f00:1::]/x",
    "https://224.0.0.1/x",
    "https://h.example/x y",
    "https://h.example/\r\nx",
    "https:///x",
    "https://h.example/é",
    "",
)


@pytest.mark.parametrize("endpoint", GOOD)
def test_a_push_service_is_let_in(endpoint):
    subscription.check(endpoint, private=False)
    assert subscription.host_of(endpoint)


@pytest.mark.parametrize("endpoint", BAD)
def test_anything_else_is_refused_and_the_field_is_named(endpoint):
    with pytest.raises(errors.Invalid) as caught:
        subscription.check(endpoint, private=False)
    assert [one.field for one in caught.value.violations] == ["endpoint"]


def test_a_push_service_of_ones_own_is_let_in_when_that_is_set():
    subscription.check("https://192.168.1.1:8443/x", private=True)
    with pytest.raises(errors.Invalid):
        subscription.check("http://192.168.1.1/x", private=True)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "10.1.2.3", "fe80::1%eth0", "::ffff:10.0.0.1", "64:ff9b::a00:1", "no"]
)
def test_addresses_of_the_neighbourhood_are_not_public(address):
    assert not subscription.is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_addresses_of_the_internet_are_public(address):
    assert subscription.is_public(address)


def one(principal, number):
    return Subscription(
        id=f"s{number}",
        principal=principal,
        endpoint=f"https://h.example/{number}",
        public_key=b"",
        auth=b"",
        made_for=b"",
    )


def test_a_person_and_the_hub_have_room_for_so_many():
    own = [one("tokens/a", n) for n in range(subscription.OF_ONE_MAX)]
    subscription.room(own[:-1], "tokens/a")
    with pytest.raises(errors.Exhausted, match="at most 10"):
        subscription.room(own, "tokens/a")
    subscription.room(own, "tokens/b")
    everybody = [one(f"tokens/{n}", n) for n in range(subscription.COUNT_MAX)]
    with pytest.raises(errors.Exhausted, match="at most 100"):
        subscription.room(everybody, "tokens/x")
