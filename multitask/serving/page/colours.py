"""The page's colours in light and in dark mode, and those of entity types.

Text has a contrast of at least 4.5 : 1 to what it stands on (WCAG 2.2, 1.4.3)."""

LIGHT = {
    "ground": "#f5f6f8",
    "panel": "#ffffff",
    "ink": "#1b1f24",
    "quiet": "#545d68",
    "line": "#d0d7de",
    "edge": "#7a838d",  # of what can be typed into: 3 : 1 to both grounds (1.4.11)
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
# Ground and tag of a type, in light and in dark: hues of equal lightness in OKLCH (Ottosson 2020), in an
# order in which those that follow each other differ.
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
LINES = ("solid", "dashed", "dotted", "double")  # under an entity: types that share a colour have another one


def looks_of(types: tuple[str, ...]) -> dict[str, str]:
    """Each type's CSS classes. They repeat after 48 types: the name stands beside each entity too."""
    return {
        name: f"type-{number % len(TYPES)} line-{number // len(TYPES) % len(LINES)}"
        for number, name in enumerate(types)
    }


def variables() -> str:
    """All of them as CSS: dark ones where gradio has set its class `dark`."""
    light = {**LIGHT, **{f"type-{i}": four[0] for i, four in enumerate(TYPES)}}
    light |= {f"tag-{i}": four[1] for i, four in enumerate(TYPES)}
    dark = {**DARK, **{f"type-{i}": four[2] for i, four in enumerate(TYPES)}}
    dark |= {f"tag-{i}": four[3] for i, four in enumerate(TYPES)}
    rules = [_rule(":root", light), _rule(":root .dark", dark)]
    rules += [
        f".type-{i} {{ --type: var(--page-type-{i}); --tag: var(--page-tag-{i}) }}" for i in range(len(TYPES))
    ]
    rules += [f".line-{i} {{ --under: {line} }}" for i, line in enumerate(LINES)]
    return "\n".join(rules)


def _rule(selector: str, colours: dict[str, str]) -> str:
    values = "; ".join(f"--page-{name.replace('_', '-')}: {value}" for name, value in colours.items())
    return f"{selector} {{ {values} }}"
