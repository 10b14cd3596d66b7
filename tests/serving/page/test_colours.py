"""The page's colours have enough contrast, by the formula of WCAG 2.2."""

from itertools import product

import pytest

from multitask.serving.page.colours import DARK, LIGHT, TYPES, looks_of
from multitask.serving.page.view import colour_css


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_text_has_enough_contrast(colours):
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    grounds = ("ground", "panel", "track")
    pairs = list(product(("ink", "quiet"), grounds)) + list(product(("accent", "pressed"), grounds[:2]))
    pairs += [("on_accent", "accent"), ("on_accent", "pressed"), ("on_notice", "notice")]
    for on, under in pairs:
        assert contrast(colours[on], colours[under]) >= 4.5, (on, under)
    for under in grounds[:2]:  # the edges of input fields: 1.4.11
        assert contrast(colours["edge"], colours[under]) >= 3, under


def test_entities_have_enough_contrast_in_light_and_dark():
    for ground, tag, dark_ground, dark_tag in TYPES:
        assert contrast(LIGHT["ink"], ground) >= 4.5 and contrast(tag, ground) >= 4.5
        assert contrast(DARK["ink"], dark_ground) >= 4.5 and contrast(dark_tag, dark_ground) >= 4.5


def test_the_first_48_types_look_different():
    names = tuple(f"type {number}" for number in range(60))
    looks = looks_of(names)
    assert len(set(list(looks.values())[:48])) == 48
    assert looks["type 48"] == looks["type 0"]
    css = colour_css()
    for look in set(looks.values()):
        for name in look.split():
            assert f".{name} {{" in css
