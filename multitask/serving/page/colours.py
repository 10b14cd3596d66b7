"""The page's colours in light and dark mode, and those of entity types.

Text has a contrast of at least 4.5 : 1 to its background (WCAG 2.2, 1.4.3)."""

LIGHT = {
    "ground": "#f5f6f8",
    "panel": "#ffffff",
    "ink": "#1b1f24",
    "quiet": "#545d68",
    "line": "#d0d7de",
    "edge": "#7a838d",  # of input fields: 3 : 1 to ground and panel (1.4.11)
    "track": "#e6eaef",
    "accent": "#17559b",
    "pressed": "#064180",
    "on_accent": "#ffffff",
    "notice": "#fdf0d5",
    "on_notice": "#5c3200",
}
DARK = {
    "ground": "#13161a",
    "panel": "#1b2026",
    "ink": "#e6e8eb",
    "quiet": "#a6aeb8",
    "line": "#39414a",
    "edge": "#7d8791",
    "track": "#2b323a",
    "accent": "#85bcf5",
    "pressed": "#b1d6fb",
    "on_accent": "#0c1a29",
    "notice": "#3d2e12",
    "on_notice": "#fbe3b4",
}
# Background and tag of each type, in light and then in dark mode: hues of equal lightness in OKLCH
# (Ottosson 2020), in an order in which consecutive ones differ clearly.
TYPES = (
    ("#cbeaff", "#004985", "#1a3f63", "#c4e5ff"),
    ("#ffd9d4", "#7c2524", "#5f2c29", "#ffd3cd"),
    ("#d0f1d0", "#095717", "#214723", "#c9edc9"),
    ("#f2ddff", "#5b3177", "#49315a", "#eed7ff"),
    ("#fce2be", "#6c3a00", "#543601", "#f9dcb6"),
    ("#bcf2f2", "#005a5c", "#004949", "#b3eeee"),
    ("#ffd8ef", "#722756", "#582c46", "#ffd2ea"),
    ("#e8eac0", "#4d4c00", "#404005", "#e3e5b8"),
    ("#dbe4ff", "#373e87", "#323964", "#d5dfff"),
    ("#ffdcc6", "#782e00", "#5c3015", "#ffd7be"),
    ("#c3f3e1", "#005b3d", "#004937", "#baefdb"),
    ("#bef0ff", "#005474", "#004558", "#b5ebfd"),
)
LINES = ("solid", "dashed", "dotted", "double")  # under an entity: tells apart types of the same colour


def looks_of(types: tuple[str, ...]) -> dict[str, str]:
    """The CSS classes of each type. They repeat after 48 types; the page also shows the names."""
    return {
        name: f"type-{number % len(TYPES)} line-{number // len(TYPES) % len(LINES)}"
        for number, name in enumerate(types)
    }
