"""Push messages as the standards have them: the example of RFC 8291, and signatures as RFC 8292 wants them."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hub.core.notices.notice import TEXT_CHARS_MAX, TITLE_CHARS_MAX, Kind, Notice
from hub.notify import sealing, vapid, webpush
from kit import errors
from tests.support.receiver import Browser, unpadded, vapid_claims

# RFC 8291, section 5 and appendix A.
TEXT = b"When I grow up, I want to be a watermelon"
AUTH = "BTBZMqHH6r4Tts7J_aSIgg"
RECEIVER = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
SENDER_SECRET = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
SALT = "DGv6ra1nlYgDCS1FRnbzlw"
SEALED = (
    "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl"
    "7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
)


def test_the_example_of_the_standard_comes_out():
    own = ec.derive_private_key(int.from_bytes(unpadded(SENDER_SECRET), "big"), ec.SECP256R1())
    made = sealing.sealed(TEXT, unpadded(RECEIVER), unpadded(AUTH), own, unpadded(SALT))
    assert vapid.encode(made) == SEALED


def test_only_the_browser_can_open_it_and_no_two_are_alike():
    browser, other = Browser("https://h.example/1"), Browser("https://h.example/2")
    first, second = (sealing.seal(b'{"a":1}', browser.public_key, browser.auth) for _ in range(2))
    assert browser.open(first) == browser.open(second) == {"a": 1}
    assert first != second
    with pytest.raises(Exception):  # noqa: B017  # InvalidTag, or a key that leads nowhere
        other.open(first)


@pytest.mark.parametrize("key", [b"\x04" + b"\1" * 64, b"\x02" + b"\1" * 64, b"\0" * 65])
def test_a_key_that_is_no_point_is_refused(key):
    with pytest.raises(errors.Invalid) as caught:
        sealing.seal(b"x", key, b"\0" * 16)
    assert caught.value.violations[0].field == "public_key"


@pytest.mark.parametrize("text", ["x" * TEXT_CHARS_MAX, '"\\\n' * (TEXT_CHARS_MAX // 3), "\U0001f600" * TEXT_CHARS_MAX])
def test_the_largest_notice_has_room_in_one_record(text):
    made = Notice(
        id="n" * 20,
        kind=Kind.URGENT,
        title="\U0001f600" * TITLE_CHARS_MAX,
        text=text,
        at=0.0,
        path="/tasks/" + "x" * 20,
    )
    browser = Browser("https://h.example/1")
    opened = browser.open(sealing.seal(webpush.payload(made), browser.public_key, browser.auth))
    assert opened["id"] == made.id and opened["title"] == made.title
    assert len(opened["text"]) > 300


def test_the_key_is_made_once_and_for_its_owner_only(tmp_path):
    first, again = vapid.load(tmp_path), vapid.load(tmp_path)
    assert sealing.point(first.public_key()) == sealing.point(again.public_key())
    assert (tmp_path / vapid.FILE).stat().st_mode & 0o777 == 0o600


OTHER = ec.generate_private_key(ec.SECP384R1()).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)


@pytest.mark.parametrize("content", [b"", b"not a key", OTHER, b"\0" * 10_000])
def test_a_file_that_holds_something_else_is_not_overwritten(tmp_path, content):
    (tmp_path / vapid.FILE).write_bytes(content)
    with pytest.raises(errors.Invalid, match=vapid.FILE):
        vapid.load(tmp_path)
    assert (tmp_path / vapid.FILE).read_bytes() == content


def test_a_signature_says_for_whom_until_when_and_who_can_be_asked():
    signer = vapid.Vapid(ec.generate_private_key(ec.SECP256R1()), "mailto:ops@example.com", lambda: 1_000.0)
    for _ in range(20):  # halves of a signature may begin with zeros
        claims = vapid_claims(signer.authorization("https://push.example"), signer.public_key)
        assert claims == {
            "aud": "https://push.example",
            "exp": 1_000 + vapid.GOOD_FOR_S,
            "sub": "mailto:ops@example.com",
        }
