"""SPAKE2 against the published vectors, against itself, and against shares that are none."""

import itertools
import random

import pytest

from p2p.trust import ecc, pake
from p2p.trust.pake import BadShare, Password, Run

# RFC 9382, appendix B: identities of A and B, then w, x, y, pA, pB, K, Ke, the confirmations of A and of B
VECTORS = [(b"server", b"client", """
2ee57912099d31560b3a44b1184b9b4866e904c49d12ac5042c97dca461b1a5f
43dd0fd7215bdcb482879fca3220c6a968e66d70b1356cac18bb26c84a78d729
dcb60106f276b02606d8ef0a328c02e4b629f84f89786af5befb0bc75b6e66be
04a56fa807caaa53a4d28dbb9853b9815c61a411118a6fe516a8798434751470f9010153ac33d0d5f2047ffdb1a3e42c9b4e6be662766e1eeb4116988ede5f912c
0406557e482bd03097ad0cbaa5df82115460d951e3451962f1eaf4367a420676d09857ccbc522686c83d1852abfa8ed6e4a1155cf8f1543ceca528afb591a1e0b7
0412af7e89717850671913e6b469ace67bd90a4df8ce45c2af19010175e37eed69f75897996d539356e2fa6a406d528501f907e04d97515fbe83db277b715d3325
0e0672dc86f8e45565d338b0540abe69
58ad4aa88e0b60d5061eb6b5dd93e80d9c4f00d127c65b3b35b1b5281fee38f0
d3e2e547f1ae04f2dbdbf0fc4b79f8ecff2dff314b5d32fe9fcef2fb26dc459b"""), (b"", b"client", """
0548d8729f730589e579b0475a582c1608138ddf7054b73b5381c7e883e2efae
403abbe3b1b4b9ba17e3032849759d723939a27a27b9d921c500edde18ed654b
903023b6598908936ea7c929bd761af6039577a9c3f9581064187c3049d87065
04a897b769e681c62ac1c2357319a3d363f610839c4477720d24cbe32f5fd85f44fb92ba966578c1b712be6962498834078262caa5b441ecfa9d4a9485720e918a
04e0f816fd1c35e22065d5556215c097e799390d16661c386e0ecc84593974a61b881a8c82327687d0501862970c64565560cb5671f696048050ca66ca5f8cc7fc
048f83ec9f6e4f87cc6f9dc740bdc2769725f923364f01c84148c049a39a735ebda82eac03e00112fd6a5710682767cff5361f7e819e53d8d3c3a2922e0d837aa6
642f05c473c2cd79909f9a841e2f30a7
47d29e6666af1b7dd450d571233085d7a9866e4d49d2645e2df975489521232b
3313c5cefc361d27fb16847a91c2a73b766ffa90a4839122a9b70a2f6bd1d6df"""), (b"server", b"", """
626e0cdc7b14c9db3e52a0b1b3a768c98e37852d5db30febe0497b14eae8c254
07adb3db6bc623d3399726bfdbfd3d15a58ea776ab8a308b00392621291f9633
b6a4fc8dbb629d4ba51d6f91ed1532cf87adec98f25dd153a75accafafedec16
04f88fb71c99bfffaea370966b7eb99cd4be0ff1a7d335caac4211c4afd855e2e15a873b298503ad8ba1d9cbb9a392d2ba309b48bfd7879aefd0f2cea6009763b0
040c269d6be017dccb15182ac6bfcd9e2a14de019dd587eaf4bdfd353f031101e7cca177f8eb362a6e83e7d5e729c0732e1b528879c086f39ba0f31a9661bd34db
0445ee233b8ecb51ebd6e7da3f307e88a1616bae2166121221fdc0dadb986afaf3ec8a988dc9c626fa3b99f58a7ca7c9b844bb3e8dd9554aafc5b53813504c1cbe
005184ff460da2ce59062c87733c299c
bc9f9bbe99f26d0b2260e6456e05a86196a3307ec6663a18bf6ac825736533b2
c2370e1bf813b086dff0d834e74425a06e6390f48f5411900276dcccc5a297ec"""), (b"", b"", """
7bf46c454b4c1b25799527d896508afd5fc62ef4ec59db1efb49113063d70cca
8cef65df64bb2d0f83540c53632de911b5b24b3eab6cc74a97609fd659e95473
d7a66f64074a84652d8d623a92e20c9675c61cb5b4f6a0063e4648a2fdc02d53
04a65b367a3f613cf9f0654b1b28a1e3a8a40387956c8ba6063e8658563890f46ca1ef6a676598889fc28de2950ab8120b79a5ef1ea4c9f44bc98f585634b46d66
04589f13218822710d98d8b2123a079041052d9941b9cf88c6617ddb2fcc0494662eea8ba6b64692dc318250030c6af045cb738bc81ba35b043c3dcb46adf6f58d
041a3c03d51b452537ca2a1fea6110353c6d5ed483c4f0f86f4492ca3f378d40a994b4477f93c64d928edbbcd3e85a7c709b7ea73ee97986ce3d1438e135543772
fc6374762ba5cf11f4b2caa08b2cd1b9
dfb4db8d48ae5a675963ea5e6c19d98d4ea028d8e898dad96ea19a80ade95dca
d0f0609d1613138d354f7e95f19fb556bf52d751947241e8c7118df5ef0ae175""")]


@pytest.mark.parametrize("of_a, of_b, values", VECTORS)
def test_shares_keys_and_confirmations_are_those_of_rfc_9382(of_a, of_b, values):
    w, x, y, *rest = values.split()
    share_a, share_b, common, key, confirm_a, confirm_b = map(bytes.fromhex, rest)
    password = Password(int(w, 16))
    a = Run(password, True, int(x, 16), (of_a, of_b))
    b = Run(password, False, int(y, 16), (of_a, of_b))
    assert (a.share, b.share) == (share_a, share_b)
    assert a.finish(share_b) == (key, confirm_a, confirm_b)
    assert b.finish(share_a) == (key, confirm_b, confirm_a)
    # K stands in the key through the transcript alone: looked at by itself
    mask = password.masks[1]
    assert pake.encode(ecc.multiply(int(x, 16), ecc.add(pake.decode(share_b), (mask[0], ecc.P - mask[1])))) == common


def runs(one, other, of_a=(b"a", b"b"), of_b=(b"a", b"b"), contexts=(b"", b"")):
    """What both sides come to where each has its own idea of code, identities and context."""
    dice = random.Random(1)
    a, b = (Run(Password(w), is_a, pake.fresh_scalar(bytes(dice.randrange(256) for _ in range(48))), ids, context)
            for w, is_a, ids, context in ((one, True, of_a, contexts[0]), (other, False, of_b, contexts[1])))
    return a.finish(b.share), b.finish(a.share)


def test_both_agree_if_code_identities_and_context_are_the_same_and_only_then():
    a, b = runs(5, 5)
    assert a.key == b.key and a.is_confirmed_by(b.confirmation) and b.is_confirmed_by(a.confirmation)
    for different in (runs(5, 6), runs(5, 5, of_b=(b"a", b"c")), runs(5, 5, of_a=(b"x", b"b")), runs(5, 5, of_a=(b"ab", b""))):
        assert different[0].key != different[1].key
        assert not different[0].is_confirmed_by(different[1].confirmation)
        assert not different[1].is_confirmed_by(different[0].confirmation)
    a, b = runs(5, 5, contexts=(b"", b"elsewhere"))
    assert not a.is_confirmed_by(b.confirmation) and not b.is_confirmed_by(a.confirmation)


def test_a_confirmation_is_good_for_its_direction_and_in_full_only():
    a, b = runs(5, 5)
    assert not a.is_confirmed_by(a.confirmation) and not b.is_confirmed_by(b.confirmation)
    for bad in (b"", b.confirmation[:31], b.confirmation + b"\0", bytes(32), bytes([b.confirmation[0] ^ 1]) + b.confirmation[1:]):
        assert not a.is_confirmed_by(bad)


def test_a_share_that_comes_back_to_its_sender_makes_no_key_that_anybody_else_has():
    run = Run(Password(5), True, 7, (b"a", b"b"))
    keys, other = run.finish(run.share), Run(Password(5), False, 9, (b"a", b"b"))
    assert keys.key != other.finish(run.share).key
    assert not keys.is_confirmed_by(keys.confirmation)


def test_hostile_shares_are_refused_before_anything_is_computed_with_them():
    good = Run(Password(5), True, 7, (b"", b"")).share
    beside = good[:-1] + bytes([good[-1] ^ 1])
    x, y = pake.decode(good)
    twist = b"\x04" + (1).to_bytes(32, "big") + (1).to_bytes(32, "big")
    above = b"\x04" + (x + ecc.P if x + ecc.P < 1 << 256 else 2 ** 256 - 1).to_bytes(32, "big") + good[33:]
    compressed = bytes([2 + (y & 1)]) + good[1:33]
    for bad in (b"", b"\0", good[:-1], good + b"\0", b"\x05" + good[1:], b"\0" + bytes(64), b"\x04" + bytes(64), b"\x04" + b"\xff" * 64,
                beside, twist, above, compressed, b"\x06" + good[1:], good[1:] + b"\x04"):
        for is_a in (True, False):
            with pytest.raises(BadShare):
                Run(Password(5), is_a, 9, (b"", b"")).finish(bad)


def test_a_share_that_is_the_mask_itself_would_leave_infinity_and_is_refused():
    password = Password(5)
    for is_a in (True, False):
        with pytest.raises(BadShare, match="nothing to agree on"):
            Run(password, is_a, 9, (b"", b"")).finish(pake.encode(password.masks[is_a]))
    with pytest.raises(BadShare):
        pake.encode(ecc.INFINITY)


def test_the_constants_are_points_with_the_spelling_of_the_rfc_and_differ():
    spelled = ("02886e2f97ace46e55ba9dd7242579f2993b64e16ef3dcab95afd497333d8fa12f",
               "03d8bbd6c639c62937b04d997f38c3770719c629d7014d49a24b4f98baa1292b49")
    for point, text in zip((pake.M, pake.N), spelled):
        assert ecc.is_on_curve(point) and f"{2 + (point[1] & 1):02x}{point[0]:064x}" == text


def test_who_took_part_with_a_wrong_guess_cannot_try_others_against_what_it_saw():
    """The one in the middle answers an honest A and sees all that A says. Of all codes, tried afterwards with all that it knows,
    even the right one fits only if it was the guess with which it answered. A listener knows less: no scalar at all."""
    right, ids = 5, (b"a", b"b")
    honest = Run(Password(right), True, 7, ids)
    codes = [Password(w) for w in range(1, 17)]
    for guess in codes:
        middle = Run(guess, False, 9, ids)
        said = honest.finish(middle.share).confirmation
        fitting = []
        for code in codes:
            afterwards = Run(code, False, 9, ids)
            afterwards.share = middle.share          # what was sent is sent
            fitting += [code.w] * afterwards.finish(honest.share).is_confirmed_by(said)
        assert fitting == ([right] if guess.w == right else [])


def test_scalars_are_those_from_1_to_the_order_and_a_code_has_one():
    assert pake.fresh_scalar(bytes(48)) == 1
    assert pake.fresh_scalar((ecc.N - 2).to_bytes(48, "big")) == ecc.N - 1
    assert pake.fresh_scalar((ecc.N - 1).to_bytes(48, "big")) == 1
    for size in (0, 32, 47, 49):
        with pytest.raises(AssertionError):
            pake.fresh_scalar(bytes(size))
    scalars = {Password.of(code).w for code in ("aaaaaaaa", "aaaaaaab", "baaaaaaa", "aaaaaaaa")}
    assert len(scalars) == 3
    # for ever the same, or nodes of two versions could not join each other
    assert Password.of("abcdefgh").w == 0x335D816315CC6A925EA86693EE813DB9C9F88706F3214C205BF2E587A51AE58D


def test_any_bytes_of_any_length_are_a_share_or_a_declared_refusal():
    dice = random.Random(3)
    for size in itertools.chain(range(0, 131, 5), (64, 65, 66)):
        data = bytes(dice.randrange(256) for _ in range(size))
        with pytest.raises(BadShare):
            Run(Password(5), True, 9, (b"", b"")).finish(data)
