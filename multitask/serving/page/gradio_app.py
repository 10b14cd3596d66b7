"""The page over a trained model, made in gradio, which asks no other host for anything."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio reads it

import gradio as gr
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response
from gradio.utils import get_upload_folder

from multitask.serving.api import BodyLimit
from multitask.serving.limits import Limits
from multitask.serving.page.colours import DARK, LIGHT
from multitask.serving.page.controller import PageController
from multitask.serving.page.path_filter import JOIN, UPLOAD, GradioPathFilter, SecurityHeaders
from multitask.serving.page.results import render_download
from multitask.serving.page.uploads import KINDS
from multitask.serving.page.view import colour_css, header

_TITLE = "Sentence class and entities"
_HERE = Path(__file__).resolve().parent
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"
_WAITING = 64  # questions; past them the page says that the queue is full
_AT_ONCE = 16
_AROUND = 4096  # bytes of a form around a file
_HOUR = 3600  # seconds
_PROGRESS = gr.Progress()  # gradio finds its events by this default
_INTRO = "<div class='result'><p class='empty'>Type a sentence, pick an example or drop a file.</p></div>"
# where the answer stands below the fold, the one who asked is taken to it
_TO_ANSWER = """() => {
  if (matchMedia("(max-width: 40rem)").matches) document.getElementById("answer").scrollIntoView();
}"""
_NO_MODEL = """<section class="pane no-model"><h2>There is no trained model yet</h2>
<p>Train one, which takes seconds, and start this page again:</p>
<pre tabindex="0"><code>python task_4.py
python task_6.py</code></pre>
<p>A model in another folder is named with <code>--model DIR</code>. The README says how to train on your own
sentences.</p></section>"""


def build(controller: PageController, examples: Sequence[str]) -> gr.Blocks:
    """The page of a controller's models, with sentences to try."""
    models = controller.models
    with gr.Blocks(
        title=_TITLE, analytics_enabled=False, delete_cache=(_HOUR, _HOUR), fill_width=True
    ) as page:
        gr.HTML(header(_TITLE, models.main), apply_default_css=False, elem_id="top")
        if models.main is None:
            gr.HTML(_NO_MODEL, apply_default_css=False)
        else:
            _desk(controller, examples)
    page.queue(max_size=_WAITING, default_concurrency_limit=_AT_ONCE, api_open=False)
    return page


def mount(app: FastAPI, blocks: gr.Blocks, controller: PageController, limits: Limits) -> FastAPI:
    """The application with the page at "/", its downloads, and what keeps a browser to this server."""

    @app.get("/results/{key}/{number}.{kind}", include_in_schema=False)
    def download(key: str, number: int, kind: str, least: float = 0.0) -> Response:
        result = controller.results.get(key)
        if result is None or not 0 <= number < len(result.models) or kind not in ("jsonl", "csv"):
            return PlainTextResponse("This result is no longer kept: ask again.\n", 404)
        name = f"predictions.{kind}"
        headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
        kinds = {"jsonl": "application/x-ndjson", "csv": "text/csv"}
        return Response(render_download(result, number, name, least), headers=headers, media_type=kinds[kind])

    gr.mount_gradio_app(
        app,
        blocks,
        "/",
        theme=_theme(),
        css=colour_css(),
        css_paths=_HERE / "page.css",
        favicon_path=str(_HERE / "favicon.svg"),
        max_file_size=limits.file_bytes,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
    )
    mounted: Any = app.routes[-1]  # starlette's Mount
    gradios = GradioPathFilter(mounted.app, get_upload_folder())
    mounted.app = BodyLimit(gradios, (JOIN, UPLOAD), replace(limits, body_bytes=limits.file_bytes + _AROUND))
    app.add_middleware(SecurityHeaders)
    return app


def _desk(asking: PageController, examples: Sequence[str]) -> None:
    """What can be asked on the left, the answer on the right."""
    limits, names = asking.limits, list(asking.models.names)
    with gr.Row(elem_id="desk"):
        with gr.Column(elem_id="ask", scale=4, min_width=280):
            box = gr.Textbox(
                label="Text",
                info="Enter asks, Shift + Enter begins a new line.",
                placeholder="A sentence, or several",
                max_lines=14,
                elem_id="text",
            )
            button = gr.Button("Find class and entities", variant="primary", elem_id="go")
            if examples:
                gr.HTML("<h2 class='small'>Examples</h2>", apply_default_css=False)
            tries = [gr.Button(sentence, elem_classes="example", size="sm") for sentence in examples]
            drop = gr.File(
                label=f"A file: text, CSV or JSON Lines, at most {limits.file_bytes / (1 << 20):g} MB "
                f"and {limits.file_rows:,} rows",
                file_types=KINDS,
                height=120,
                elem_id="file",
            )
            # gradio's own leaves an empty file behind each time
            setattr(drop, "preprocess", lambda sent: sent and sent.path)  # noqa: B010 - a method for mypy
            least = gr.Slider(
                0, 1, 0, step=0.01, label="Hide entities with a score below", elem_id="least", buttons=[]
            )
            other = gr.Dropdown(
                [("no other model", ""), *((name, name) for name in names)],
                value="",
                label="Compare with",
                elem_id="other",
                visible=bool(names),
            )
        with gr.Column(elem_id="answer", scale=7, min_width=280):
            shown = gr.HTML(_INTRO, apply_default_css=False, elem_id="shown")
    _events(asking, box, button, tries, drop, least, other, shown)


def _events(asking: PageController, *parts: Any) -> None:
    box, button, tries, drop, least, other, shown = parts
    key = gr.State("")
    how = {"api_visibility": "private", "show_progress": "minimal", "show_progress_on": shown}
    told = [box, other, least]

    def bar(progress: gr.Progress) -> Callable[[int, int, str], object]:
        return lambda done, total, model: progress((done, total), desc=f"rows by {model}", unit="rows")

    async def file(path, name, lower, progress=_PROGRESS):
        return *(await asking.file(path, name, lower, bar(progress))), None

    async def compared(kept, name, lower, progress=_PROGRESS):
        if not kept:
            return gr.skip(), kept
        return await asking.compared(kept, name, lower, bar(progress))

    async def above(kept, lower):
        return await asking.above(kept, lower) if kept else (gr.skip(), kept)

    async def example(sentence, name, lower):
        return sentence, *(await asking.text(sentence, name, lower))

    asked = [gr.on([box.submit, button.click], asking.text, told, [shown, key], **how)]
    asked += [one.click(example, [one, other, least], [box, shown, key], **how) for one in tries]
    dropped = {**how, "show_progress": "full"}
    asked.append(drop.upload(file, [drop, other, least], [shown, key, drop], **dropped))
    for each in asked:
        each.then(None, js=_TO_ANSWER, api_visibility="private")
    other.change(compared, [key, other, least], [shown, key], **how)
    least.change(
        above, [key, least], [shown, key], **{**how, "show_progress": "hidden"}, trigger_mode="always_last"
    )


def _theme() -> gr.themes.Base:
    """Gradio's own parts in the page's colours and in fonts that the machine has."""
    colours = {
        "body_background_fill": "ground",
        "body_text_color": "ink",
        "body_text_color_subdued": "quiet",
        "background_fill_primary": "panel",
        "background_fill_secondary": "ground",
        "border_color_primary": "line",
        "border_color_accent": "accent",
        "color_accent_soft": "track",
        "block_background_fill": "panel",
        "block_border_color": "line",
        "block_label_background_fill": "panel",
        "block_label_text_color": "quiet",
        "block_title_text_color": "ink",
        "block_info_text_color": "quiet",
        "input_background_fill": "panel",
        "input_border_color": "edge",
        "input_border_color_focus": "accent",
        "input_placeholder_color": "quiet",
        "link_text_color": "accent",
        "link_text_color_hover": "pressed",
        "link_text_color_visited": "accent",
        "link_text_color_active": "pressed",
        "slider_color": "accent",
        "button_primary_background_fill": "accent",
        "button_primary_background_fill_hover": "pressed",
        "button_primary_text_color": "on_accent",
        "button_secondary_background_fill": "panel",
        "button_secondary_background_fill_hover": "track",
        "button_secondary_border_color": "line",
        "button_secondary_text_color": "ink",
    }
    values = {name: LIGHT[colour] for name, colour in colours.items()}
    values |= {f"{name}_dark": DARK[colour] for name, colour in colours.items()}
    theme = gr.themes.Base(font=_FONT, font_mono=_MONO, radius_size="md")
    return theme.set(**values, color_accent=LIGHT["accent"], block_shadow="none", block_shadow_dark="none")
