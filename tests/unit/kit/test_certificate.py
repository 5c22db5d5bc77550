"""Certificates from files: what is taken, what is refused, what stays in use, and how long it is good."""

from __future__ import annotations

import contextlib
import os
import ssl
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from kit import certificate, errors
from tests.support.authority import Authority

DAY_S = 86_400.0
GOOD = Authority().pair()


@pytest.fixture(scope="module")
def authority():
    return Authority()


def files_of(folder, pair, client_ca=None):
    crt, key = pair.write(folder)
    ca = None
    if client_ca is not None:
        ca = folder / "clients.crt"
        ca.write_bytes(client_ca)
    return certificate.Files(crt, key, ca)


def test_the_dates_are_those_of_the_certificate(authority):
    first, last = certificate.dates(authority.pair(days=10).certificate)
    assert last == pytest.approx(time.time() + 10 * DAY_S, abs=60)
    assert first == pytest.approx(time.time() - 60 * DAY_S, abs=60)


def test_years_beyond_the_two_digits_are_read(authority):
    _, last = certificate.dates(authority.pair(days=40 * 365).certificate)
    assert last == pytest.approx(time.time() + 40 * 365 * DAY_S, abs=60)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"nonsense",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        b"-----END CERTIFICATE----------BEGIN CERTIFICATE-----",
        b"-----BEGIN CERTIFICATE-----\n\xff\xff\n-----END CERTIFICATE-----",
    ],
)
def test_what_is_no_certificate_is_refused_naming_the_file(tmp_path, authority, text):
    files = files_of(tmp_path, authority.pair())
    files.certificate.write_bytes(text)
    with pytest.raises(errors.Invalid, match=r"hub\.crt is no PEM certificate"):
        certificate.Keeper(files, time.time)


@given(at=st.integers(0, 600), value=st.integers(0, 255), cut=st.integers(0, 600) | st.none())
def test_a_damaged_certificate_is_refused_or_read_and_nothing_else(at, value, cut):
    der = bytearray(ssl.PEM_cert_to_DER_cert(GOOD.certificate.decode()))
    der[at % len(der)] = value
    pem = ssl.DER_cert_to_PEM_cert(bytes(der[:cut])).encode()
    with contextlib.suppress(ValueError, IndexError):
        first, last = certificate.dates(pem)
        assert isinstance(first, float) and isinstance(last, float)


@pytest.mark.parametrize("wrong", ["other", "missing", "large", "locked"])
def test_a_key_that_does_not_fit_is_refused(tmp_path, authority, wrong):
    files = files_of(tmp_path, authority.pair())
    if wrong == "other":
        files.key.write_bytes(authority.pair().key)
    elif wrong == "missing":
        files.key.unlink()
    elif wrong == "large":
        files.key.write_bytes(b"x" * (certificate.BYTES_MAX + 1))
    else:
        pair = authority.pair()
        files.certificate.write_bytes(pair.certificate)
        files.key.write_bytes(pair.locked(b"secret"))
    with pytest.raises(errors.Invalid, match=r"hub\.key") as refused:
        certificate.Keeper(files, time.time)
    assert refused.value.reason == "BAD_CERTIFICATE"


def test_an_authority_of_clients_that_is_none_is_refused(tmp_path, authority):
    with pytest.raises(errors.Invalid, match=r"clients\.crt holds no PEM certificate"):
        certificate.Keeper(files_of(tmp_path, authority.pair(), b"nonsense"), time.time)


def test_a_new_pair_is_taken_and_an_unchanged_one_is_not_read_again(tmp_path, authority, monkeypatch):
    keeper = certificate.Keeper(files_of(tmp_path, authority.pair(days=10)), time.time)
    before = keeper.fetch()
    monkeypatch.setattr(certificate, "read", lambda _files: pytest.fail("read again"))
    assert keeper.fetch() is before
    monkeypatch.undo()
    authority.pair(days=20).write(tmp_path)
    assert keeper.fetch() is not before
    assert keeper.state.not_after == pytest.approx(time.time() + 20 * DAY_S, abs=60)


def test_a_broken_new_pair_leaves_the_old_one_in_use_says_so_once_and_heals(tmp_path, authority):
    files = files_of(tmp_path, authority.pair(days=10))
    keeper = certificate.Keeper(files, time.time)
    before = keeper.fetch()
    files.certificate.write_bytes(b"half of a certi")
    with capture_logs() as lines:
        for n in range(3):
            os.utime(files.certificate, (n, n))
            assert keeper.fetch() is before
    assert [line["event"] for line in lines] == ["certificate.refused"]
    assert "hub.crt" in keeper.state.problem
    files.certificate.unlink()
    assert keeper.fetch() is before
    authority.pair(days=20).write(tmp_path)
    assert keeper.fetch() is not before
    assert keeper.state.problem == ""


def test_half_of_a_renewal_is_not_taken(tmp_path, authority):
    files = files_of(tmp_path, authority.pair(days=10))
    keeper = certificate.Keeper(files, time.time)
    before, fresh = keeper.fetch(), authority.pair(days=20)
    files.certificate.write_bytes(fresh.certificate)  # the key follows
    assert keeper.fetch() is before
    files.key.write_bytes(fresh.key)
    assert keeper.fetch() is not before


@pytest.mark.parametrize(("days", "said"), [(30, None), (3, "ends in 3.0 days"), (-1, "expired at")])
def test_the_doctor_is_told_how_the_files_are(tmp_path, authority, days, said):
    files = files_of(tmp_path, authority.pair(days=days))
    found = certificate.oddities(files, time.time())
    assert len(found) == (said is not None) and all(said in text for text in found)
    if said is None:
        assert "is not valid before" in certificate.oddities(files, time.time() - 90 * DAY_S)[0]
        files.key.unlink()
        assert "cannot be read" in certificate.oddities(files, time.time())[0]


@pytest.mark.parametrize(("days", "event"), [(30, None), (3, "certificate.ends_soon"), (-1, "certificate.expired")])
async def test_a_certificate_that_ends_soon_is_told_of(tmp_path, authority, days, event):
    keeper = certificate.Keeper(files_of(tmp_path, authority.pair(days=days)), time.time)
    with capture_logs() as lines:
        await keeper.run_once(time.time())
    assert [line["event"] for line in lines] == ([event] if event else [])


def test_new_certificates_wait_for_a_quiet_moment_and_none_are_given_twice(tmp_path, authority):
    ticks = [100.0]
    keeper = certificate.Keeper(files_of(tmp_path, authority.pair()), time.time, monotonic=lambda: ticks[0])

    def handshake(after_s):
        ticks[0] += after_s
        return keeper._fresh()

    assert [handshake(5.0), handshake(5.0)] == [None, None], "nothing is new: what gRPC has is left alone"
    authority.pair().write(tmp_path)
    assert [handshake(0.5) for _ in range(10)] == [None] * 10
    assert handshake(1.0) is keeper.fetch()
    assert handshake(5.0) is None
    authority.pair().write(tmp_path)
    assert {handshake(0.2) for _ in range(299)} == {None}
    assert handshake(0.2) is None and handshake(0.3) is keeper.fetch(), "after a minute a shorter pause must do"
    authority.pair().write(tmp_path)
    assert {handshake(0.05) for _ in range(3_000)} == {None}, "a port that is hammered at keeps the old one"
