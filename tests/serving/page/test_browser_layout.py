"""The page in a real Chromium: comparison, keyboard, contrast, screen sizes, other hosts."""

import csv
import io
import json
from urllib.request import urlopen

import pytest
from page_browser import (
    LONG,
    MAIN,
    OTHER,
    ask,
    download,
    drop,
    marks,
    opened,
    predicted,
    readable,
    serve,
    shows,
    stop,
)

pytest_plugins = ["page_browser"]
pytestmark = pytest.mark.browser


def test_two_models_are_shown_side_by_side_with_their_differences(tab, predictors):
    ask(tab, LONG[0])
    tab.get_by_label("Compare with").click()
    tab.get_by_role("option", name=OTHER).click()
    tab.locator(".pane").nth(1).wait_for()
    first, second = (predicted(predictors[name], LONG[0]) for name in (MAIN, OTHER))
    assert [marks(tab, MAIN), marks(tab, OTHER)] == [first, second] and first != second
    assert tab.locator("mark .only").count() == len(set(first) ^ set(second))
    assert "The models differ" in tab.locator(".lead").inner_text()
    left, right = (tab.locator(".pane").nth(number).bounding_box() for number in (0, 1))
    assert left["y"] == right["y"] and left["x"] + left["width"] < right["x"]
    readable(tab)
    drop(tab, "two.txt", "\n".join(LONG))
    tab.locator(".rows li").nth(2).wait_for()
    assert tab.locator(".rows .cell").count() == 6
    assert json.loads(download(tab, "JSONL", 1).splitlines()[0])["text"] == LONG[0]
    rows = list(csv.DictReader(io.StringIO(download(tab, "CSV", 1).decode())))
    assert [row["text"] for row in rows] == LONG


def test_the_keyboard_reaches_every_control(tab, predictors):
    def tab_to(what: str) -> None:
        for _ in range(40):
            tab.keyboard.press("Tab")
            if tab.evaluate("what => document.activeElement.matches(what)", what):
                outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline == "solid", what
                return
        raise AssertionError(f"{what} is not reached")

    tab.locator("#text textarea").wait_for()
    tab_to("#text textarea")
    tab.keyboard.type("anna and paris")
    tab_to("#go")
    tab.keyboard.press("Enter")
    shows(tab, "anna and paris")
    tab_to(".example")
    example = tab.evaluate("document.activeElement.textContent").strip()
    tab.keyboard.press("Enter")
    shows(tab, example)
    assert tab.get_by_label("Text", exact=False).first.input_value() == example
    assert marks(tab) == predicted(predictors[MAIN], example)
    tab_to("#file button")
    tab_to("#least input[type=range]")
    tab.keyboard.press("End")
    tab.wait_for_function("!document.querySelector('mark')")
    tab_to("#other input")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Enter")
    tab.locator("header.top").nth(1).wait_for()  # the second model's result takes the focus away
    tab_to(".files a")
    tab_to("summary")
    tab.keyboard.press("Enter")
    assert tab.locator("details[open]").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_is_readable_in_both_colour_schemes_and_widths(chromium, served, scheme, width):
    pages = opened(chromium, served.address, color_scheme=scheme)
    tab = next(pages)
    tab.set_viewport_size({"width": width, "height": 740})
    tab.locator("#text textarea").wait_for()
    readable(tab)
    ask(tab, "anna and paris " + "x" * 120)
    tab.locator("summary").first.click()
    readable(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    drop(tab, "a.jsonl", '{"text": "anna won"}\n{"nope": 1}\n')
    tab.locator(".rows .notice").wait_for()
    readable(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    dark = tab.evaluate("luminance(ground(document.querySelector('.gradio-container'))) < 0.1")
    assert dark == (scheme == "dark")
    next(pages, None)


def test_on_a_phone_the_page_scrolls_to_the_result(tab):
    top = "document.querySelector('#answer').getBoundingClientRect().top"
    ask(tab, LONG[0])
    assert tab.evaluate("scrollY") == 0
    tab.set_viewport_size({"width": 360, "height": 500})
    assert tab.evaluate(top) > 500
    tab.locator(".example").first.click()
    tab.wait_for_function(f"{top} < 250")
    tab.evaluate("scrollTo(0, 0)")
    drop(tab, "a.txt", "anna won\n")
    tab.wait_for_function(f"{top} < 250")


def test_an_empty_or_long_text_gives_one_line(tab):
    tab.locator("#go").click()
    tab.get_by_role("alert").get_by_text("There is no text yet").wait_for()
    tab.get_by_label("Text", exact=False).first.fill("x" * 10_001)
    tab.locator("#go").click()
    tab.get_by_role("alert").get_by_text("at most 10,000 are read").wait_for()


def test_the_page_and_the_documentation_can_not_reach_other_hosts(chromium, served):
    pages = opened(chromium, served.address, refused=True)
    tab = next(pages)
    tab.locator("h1").wait_for()
    assert tab.title() == "Sentence class and entities"
    assert tab.evaluate("document.documentElement.lang") == "en"
    tab.get_by_role("link", name="HTTP API").click()
    tab.get_by_text("/predict").first.wait_for()
    tab.evaluate("document.addEventListener('securitypolicyviolation', (one) => { window.refused = one })")
    tab.evaluate("fetch('https://example.org/').catch(() => null)")
    assert tab.evaluate("window.refused.blockedURI") == "https://example.org/"
    next(pages, None)


def test_without_a_model_the_page_explains_how_to_train_one(chromium, tmp_path):
    server, address = serve(tmp_path)
    try:
        pages = opened(chromium, address)
        tab = next(pages)
        tab.get_by_text("There is no trained model yet").wait_for()
        assert "python task_4.py" in tab.locator("pre").inner_text()
        assert tab.get_by_role("link", name="HTTP API").get_attribute("href") == "docs"
        assert tab.locator("textarea, input, button").count() == 0
        readable(tab)
        with urlopen(address) as page:
            assert "default-src 'self'" in page.headers["content-security-policy"]
        next(pages, None)
    finally:
        stop(server)
