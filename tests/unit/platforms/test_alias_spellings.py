"""Which alias of pict-rs an address means, however it is spelled."""

import pytest

from fediwarden.platforms.lemmy.image_urls import alias_of, canonical, matcher, own_alias

ALIAS = "0190cb31-abcd-4000-8000-00000000000f.webp"
SPELLINGS = [
    ALIAS,
    "0190CB31-ABCD-4000-8000-00000000000F.webp",
    "0190cb31abcd4000800000000000000f.webp",
    "0190cb31%2Dabcd%2d4000-8000-00000000000f.webp",
    "%30190cb31-%61bcd-4000-8000-00000000000%66%2Ewebp",
    "urn:uuid:0190cb31-abcd-4000-8000-00000000000f.webp",
    "URN:UUID:0190cb31-abcd-4000-8000-00000000000f.webp",
    "%55rn:Uu%69d:0190cb31-abcd-4000-8000-00000000000f.webp",
    "%7B0190cb31-abcd-4000-8000-00000000000f%7D.webp",
    "{0190cb31-abcd-4000-8000-00000000000f}.webp",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_that_pictrs_reads_is_one_alias(spelling: str) -> None:
    address = f"https://lemmy.example:8536/pictrs/image/{spelling}?format=jpg"

    assert alias_of(spelling) == ALIAS
    assert own_alias(address, ["lemmy.example:8536"]) == ALIAS
    assert matcher([ALIAS], [], cut_at_ampersand=True).meets(f"![]({address})")


@pytest.mark.parametrize("alias", ["aXbYc.png", "a_b%c.png", "0190cb31-abcd-4000-8000-0000000000.webp", "0190cb31-abcd", ""])
def test_an_alias_that_is_no_uuid_stays_as_it_is(alias: str) -> None:
    assert canonical(alias) == alias


def test_an_alias_with_another_extension_is_another_one() -> None:
    other = "https://lemmy.example/pictrs/image/0190CB31abcd4000800000000000000f.png"

    assert not matcher([ALIAS], [], cut_at_ampersand=True).meets(other)


def test_a_proxied_address_of_an_unusual_spelling_is_met() -> None:
    inner = "https%3A%2F%2Flemmy.example%2Fpictrs%2Fimage%2F0190cb31%252Dabcd-4000-8000-00000000000%2566.webp"

    assert matcher([ALIAS], [], cut_at_ampersand=False).meets(f"https://far.example/api/v4/image/proxy?url={inner}")


def test_an_old_alias_that_is_no_uuid_is_met_with_encoded_signs_and_in_its_own_case_only() -> None:
    asked = matcher(["aXbY.c_1.png"], [], cut_at_ampersand=True)
    base = "https://lemmy.example/pictrs/image/"

    assert asked.meets(f"{base}a%58bY%2Ec%5f1.png")
    assert asked.meets(f"{base}aXbY.c\\_1.png")
    assert not asked.meets(f"{base}axby.c_1.png")
