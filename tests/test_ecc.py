"""P-256 against the published vectors, against OpenSSL, and against itself."""

import base64
import hashlib
import os
import random
import shutil
import subprocess

import pytest

from p2p.trust import ecc, x509
from p2p.trust.ecc import BadKey, PrivateKey, PublicKey

# RFC 6979, appendix A.2.5: the key, and (message, k, r, s) for SHA-256
X = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
SAMPLE = (0xA6E3C57DD01ABE90086538398355DD4C3B17AA873382B0F24D6129493D8AAD60,
          0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716,
          0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8)
TEST = (0xD16B6AE827F17175E040871A1C7EC3500192C4C92677336EC2537ACAEE0008E0,
        0xF1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367,
        0x019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083)


@pytest.mark.parametrize("message, k, r, s", [(b"sample", *SAMPLE), (b"test", *TEST)])
def test_signatures_are_those_of_rfc_6979(message, k, r, s):
    assert next(ecc._nonces(X, hashlib.sha256(message).digest())) == k
    key = PrivateKey(X)
    assert key.sign(message) == r.to_bytes(32, "big") + s.to_bytes(32, "big")
    assert key.public.verify(message, key.sign(message))


def test_a_signature_is_good_for_its_message_and_key_alone():
    key, other = PrivateKey(X), PrivateKey(X + 1)
    good = key.sign(b"message")
    assert not other.public.verify(b"message", good)
    assert not key.public.verify(b"massage", good)
    for at in range(64):
        assert not key.public.verify(b"message", good[:at] + bytes([good[at] ^ 1]) + good[at + 1:])
    n = ecc.N.to_bytes(32, "big")
    for bad in (b"", good[:63], good + b"\0", good[:32] + b"\0" + good[32:],
                bytes(64), n + good[32:], good[:32] + n, bytes(32) + good[32:]):
        assert not key.public.verify(b"message", bad)


def test_multiples_agree_with_repeated_addition_and_with_the_order():
    point = None
    for scalar in range(1, 40):
        point = ecc.add(point, ecc.G)
        assert ecc.multiply(scalar) == point == ecc.multiply(scalar, ecc.G)
        assert ecc.is_on_curve(point)
    assert ecc.multiply(ecc.N) is ecc.INFINITY
    assert ecc.add(ecc.multiply(5), ecc.multiply(ecc.N - 5)) is ecc.INFINITY
    dice = random.Random(7)
    for _ in range(5):
        one, two = dice.randrange(1, ecc.N), dice.randrange(1, ecc.N)
        assert ecc.multiply(one, ecc.multiply(two)) == ecc.multiply(two, ecc.multiply(one)) == ecc.multiply(one * two)


def test_keys_come_back_from_their_bytes_and_nothing_else_does():
    key = PrivateKey.generate(os.urandom)
    assert PrivateKey.from_pem(key.to_pem()).d == key.d
    spki = key.public.spki
    assert PublicKey.from_spki(spki).node_id == hashlib.sha256(spki).digest() and len(spki) == 91
    for bad in (b"", spki[:-1], spki + b"\0", spki[:-1] + bytes([spki[-1] ^ 1]), spki[:27] + bytes(64), bytes(91)):
        with pytest.raises(BadKey):
            PublicKey.from_spki(bad)
    halves = key.to_pem().splitlines()
    for bad in ("", "nonsense", halves[0], key.to_pem().replace(halves[1][10], "?", 1)):
        with pytest.raises(BadKey):
            PrivateKey.from_pem(bad)


def test_a_private_key_whose_halves_differ_is_refused():
    one, two = PrivateKey(5), PrivateKey(6)
    mixed = PrivateKey(5)
    mixed._public = two.public
    with pytest.raises(BadKey, match="halves"):
        PrivateKey.from_pem(mixed.to_pem())
    assert PrivateKey.from_pem(one.to_pem()).d == 5


def test_a_key_has_one_spelling_and_so_one_id():
    """A coordinate below 2**256 - P fits into 32 bytes with P added as well."""
    x = next(x for x in range(100) if pow((x ** 3 - 3 * x + ecc.B) % ecc.P, (ecc.P - 1) // 2, ecc.P) == 1)
    y = pow((x ** 3 - 3 * x + ecc.B) % ecc.P, (ecc.P + 1) // 4, ecc.P)
    assert ecc.is_on_curve((x, y)) and PublicKey.from_spki(PublicKey((x, y)).spki).point == (x, y)
    assert not ecc.is_on_curve((x + ecc.P, y)) and not ecc.is_on_curve((x, y + ecc.P)) and not ecc.is_on_curve((x, y - ecc.P))
    with pytest.raises(BadKey):
        PublicKey.from_spki(PublicKey((x + ecc.P, y)).spki)


def test_private_keys_are_those_from_1_to_the_order():
    def generate(number):
        return PrivateKey.generate(lambda size: number.to_bytes(size, "big")).d
    assert (generate(0), generate(ecc.N - 2), generate(ecc.N - 1)) == (1, ecc.N - 1, 1)
    pem = PrivateKey(5).to_pem()
    der = base64.b64decode("".join(pem.splitlines()[1:-1]))
    five = (5).to_bytes(32, "big")
    assert der.count(five) == 1 and PrivateKey.from_pem(ecc.pem("PRIVATE KEY", der)).d == 5
    for number in (0, ecc.N, ecc.N + 5):
        with pytest.raises(BadKey, match="not a P-256"):
            PrivateKey.from_pem(ecc.pem("PRIVATE KEY", der.replace(five, number.to_bytes(32, "big"))))


def test_the_nonce_of_a_digest_above_the_order_is_that_of_its_remainder():
    above = 2 ** 256 - 1
    assert next(ecc._nonces(X, above.to_bytes(32, "big"))) == next(ecc._nonces(X, (above - ecc.N).to_bytes(32, "big")))


def test_hkdf_is_that_of_rfc_5869():
    okm = ecc.hkdf_sha256(bytes.fromhex("0b" * 22), bytes.fromhex("f0f1f2f3f4f5f6f7f8f9"), 42, bytes.fromhex("000102030405060708090a0b0c"))
    assert okm.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    okm = ecc.hkdf_sha256(bytes.fromhex("0b" * 22), b"", 42)
    assert okm.hex() == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"


def test_derived_keys_are_the_same_everywhere_and_differ_by_secret_and_label():
    assert ecc.derive_private_key(b"s", "a").d == ecc.derive_private_key(b"s", "a").d
    assert len({ecc.derive_private_key(secret, label).d for secret in (b"s", b"t") for label in "ab"}) == 4


def test_node_ids_are_52_characters_that_come_back():
    node_id = PrivateKey(X).public.node_id
    text = ecc.node_id_text(node_id)
    assert len(text) == 52 and ecc.parse_node_id(text) == node_id
    assert ecc.parse_node_id(text.upper()) == node_id
    for bad in ("", text[:-1], text + "a", "!" * 52, text[:-1] + "b"):
        with pytest.raises(BadKey):
            ecc.parse_node_id(bad)


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_openssl_reads_our_keys_and_each_believes_the_others_signatures(tmp_path):
    key = PrivateKey.generate(os.urandom)
    (tmp_path / "key.pem").write_text(key.to_pem())
    (tmp_path / "data").write_bytes(b"hello")
    subprocess.run(["openssl", "pkey", "-in", "key.pem", "-pubout", "-outform", "DER", "-out", "spki"], cwd=tmp_path, check=True)
    assert (tmp_path / "spki").read_bytes() == key.public.spki
    subprocess.run(["openssl", "dgst", "-sha256", "-sign", "key.pem", "-out", "sig", "data"], cwd=tmp_path, check=True)
    der = (tmp_path / "sig").read_bytes()
    size = der[3]
    r, s = int.from_bytes(der[4:4 + size], "big"), int.from_bytes(der[6 + size:], "big")
    assert key.public.verify(b"hello", r.to_bytes(32, "big") + s.to_bytes(32, "big"))

    own = key.sign(b"hello")
    (tmp_path / "own").write_bytes(x509._sequence(*(x509._integer(int.from_bytes(half, "big")) for half in (own[:32], own[32:]))))
    (tmp_path / "public.pem").write_text(ecc.pem("PUBLIC KEY", key.public.spki))
    subprocess.run(["openssl", "dgst", "-sha256", "-verify", "public.pem", "-signature", "own", "data"], cwd=tmp_path, check=True)
