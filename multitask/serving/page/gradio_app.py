"""The page in gradio: its parts and events, and how it is mounted. It sends no request to other hosts."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio reads it

import gradio as gr
import gradio.queueing
import gradio.utils
from fastapi import FastAPI, Query
from fastapi.responses import PlainTextResponse, Response

from multitask.serving.limits import Limits
from multitask.serving.page.colours import DARK, LIGHT
from multitask.serving.page.controller import PageController
from multitask.serving.page.path_filter import JOIN, UPLOAD, GradioPathFilter, SecurityHeaders
from multitask.serving.page.results import render_download
from multitask.serving.page.upload_folder import Uploads
from multitask.serving.page.uploads import KINDS
from multitask.serving.page.view import colour_css, render
from multitask.serving.request_checks import BodyLimit

logger = logging.getLogger(__name__)

_TITLE = "Sentence class and entities"
_HERE = Path(__file__).resolve().parent
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"
_MAX_QUEUE = 64  # events; beyond them the page reports a full queue
_CONCURRENT = 16  # events
_FORM_BYTES = 4096  # of an upload, besides the file
_HOUR = 3600  # seconds
_PROGRESS = gr.Progress()  # gradio passes a progress bar to functions with this default
_MEDIA_TYPES = {"jsonl": "application/x-ndjson", "csv": "text/csv"}
# gradio's theme variables in each of the page's colours
_PARTS = {
    "ground": "body_background_fill background_fill_secondary",
    "panel": "background_fill_primary block_background_fill block_label_background_fill "
    "input_background_fill button_secondary_background_fill",
    "ink": "body_text_color block_title_text_color button_secondary_text_color",
    "quiet": "body_text_color_subdued block_label_text_color block_info_text_color input_placeholder_color",
    "line": "border_color_primary block_border_color button_secondary_border_color",
    "edge": "input_border_color",
    "track": "color_accent_soft button_secondary_background_fill_hover",
    "accent": "border_color_accent input_border_color_focus link_text_color link_text_color_visited "
    "slider_color button_primary_background_fill",
    "pressed": "link_text_color_hover link_text_color_active button_primary_background_fill_hover",
    "on_accent": "button_primary_text_color",
}
_INTRO = "<div class='result'><p class='empty'>Type a sentence, pick an example or drop a file.</p></div>"
# on a narrow screen the result is below the input: scroll to it
_SCROLL_TO_RESULT = """() => {
  if (matchMedia("(max-width: 40rem)").matches) document.getElementById("answer").scrollIntoView();
}"""


def build(controller: PageController, examples: Sequence[str]) -> gr.Blocks:
    """The page; `examples` are sentences to try."""
    main = controller.models.main
    with gr.Blocks(
        title=_TITLE, analytics_enabled=False, delete_cache=(_HOUR, _HOUR), fill_width=True
    ) as page:
        gr.HTML(render("header.html", title=_TITLE, service=main), apply_default_css=False, elem_id="top")
        if main is None:
            gr.HTML(render("no_model.html"), apply_default_css=False)
        else:
            _add_parts(controller, examples)
    page.queue(max_size=_MAX_QUEUE, default_concurrency_limit=_CONCURRENT, api_open=False)
    return page


def mount(
    app: FastAPI, blocks: gr.Blocks, controller: PageController, uploads: str | None, limits: Limits
) -> None:
    """Add to the application: the page at "/", its downloads, and its security headers. `uploads` is gradio's
    folder, for uploaded files; None: none are taken."""
    # gradio would print a traceback for each event that fails, and import matplotlib at the first one, which
    # holds the event loop for a second; the page has no plots
    setattr(gradio.queueing, "traceback", SimpleNamespace(print_exc=_log_failure))  # noqa: B010
    setattr(gradio.utils, "MatplotlibBackendMananger", nullcontext)  # noqa: B010 - gradio's spelling

    @app.get("/results/{key}/{number}.{kind}", include_in_schema=False)
    def download(
        key: str, number: int, kind: str, threshold: Annotated[float, Query(alias="least")] = 0.0
    ) -> Response:
        result, media_type = controller.results.get(key), _MEDIA_TYPES.get(kind)
        if result is None or not 0 <= number < len(result.models) or media_type is None:
            return PlainTextResponse("This result is no longer stored: run it again.\n", 404)
        name = f"predictions.{kind}"
        headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
        return Response(render_download(result, number, name, threshold), 200, headers, media_type)

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
    taken = Uploads(uploads, limits) if uploads else None
    filtered = GradioPathFilter(mounted.app, taken, limits, blocks.fns)
    size, sizes = limits.file_bytes + _FORM_BYTES, limits.files_bytes
    upload_limits = replace(limits, body_bytes=size, bodies_bytes=sizes)
    mounted.app = BodyLimit(filtered, (JOIN, UPLOAD), upload_limits)
    app.add_middleware(SecurityHeaders)


def _log_failure() -> None:
    error = sys.exc_info()[1]
    logger.warning(
        f"an event of the page failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    )


def _add_parts(controller: PageController, examples: Sequence[str]) -> None:
    """Input on the left, the result on the right."""
    limits, names = controller.limits, controller.models.names
    with gr.Row(elem_id="desk"):
        with gr.Column(elem_id="ask", scale=4, min_width=280):
            text = gr.Textbox(
                label="Text",
                info="Enter asks, Shift + Enter begins the next text.",
                placeholder="A sentence, or several, one per line",
                max_lines=14,
                elem_id="text",
            )
            button = gr.Button("Find class and entities", variant="primary", elem_id="go")
            if examples:
                gr.HTML("<h2 class='small'>Examples</h2>", apply_default_css=False)
            buttons = [gr.Button(sentence, elem_classes="example", size="sm") for sentence in examples]
            file = gr.File(
                label=f"A file: text, CSV or JSON Lines, at most {limits.file_bytes / (1 << 20):g} MB "
                f"and {limits.file_rows:,} rows",
                file_types=KINDS,
                height=120,
                elem_id="file",
            )
            # gradio's own method leaves an empty file behind
            setattr(file, "preprocess", lambda data: data and data.path)  # noqa: B010 - mypy: it is a method
            threshold = gr.Slider(
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
            result = gr.HTML(_INTRO, apply_default_css=False, elem_id="shown")
    _add_events(controller, text, button, buttons, file, threshold, other, result)


def _add_events(controller: PageController, *parts: Any) -> None:
    text, button, buttons, file, threshold, other, result = parts
    key = gr.State("")
    options = {"api_visibility": "private", "show_progress": "minimal", "show_progress_on": result}

    def bar(progress: gr.Progress) -> Callable[[int, int, str], object]:
        return lambda done, total, model: progress((done, total), desc=f"rows by {model}", unit="rows")

    async def on_text(content, name, score, progress=_PROGRESS):
        return await controller.show(controller.predict_text(content, name, bar(progress)), score)

    async def on_example(content, name, score):
        return content, *(await on_text(content, name, score))

    async def on_file(path, name, score, progress=_PROGRESS):
        return *(await controller.show(controller.predict_file(path, name, bar(progress)), score)), None

    async def on_other(stored, name, score, progress=_PROGRESS):
        if not stored:
            return gr.skip(), stored
        return await controller.show(controller.compare(stored, name, bar(progress)), score)

    async def on_threshold(stored, score):
        return await controller.show(controller.stored(stored), score) if stored else (gr.skip(), stored)

    events = [gr.on([text.submit, button.click], on_text, [text, other, threshold], [result, key], **options)]
    events += [
        one.click(on_example, [one, other, threshold], [text, result, key], **options) for one in buttons
    ]
    full = {**options, "show_progress": "full"}
    events.append(file.upload(on_file, [file, other, threshold], [result, key, file], **full))
    for event in events:
        event.then(None, js=_SCROLL_TO_RESULT, api_visibility="private")
    other.change(on_other, [key, other, threshold], [result, key], **options)
    hidden = {**options, "show_progress": "hidden", "trigger_mode": "always_last"}
    threshold.change(on_threshold, [key, threshold], [result, key], **hidden)


def _theme() -> gr.themes.Base:
    """Gradio's own parts in the page's colours, and in fonts that the machine has."""
    values = {part: LIGHT[colour] for colour, parts in _PARTS.items() for part in parts.split()}
    values |= {f"{part}_dark": DARK[colour] for colour, parts in _PARTS.items() for part in parts.split()}
    theme = gr.themes.Base(font=_FONT, font_mono=_MONO, radius_size="md")
    return theme.set(**values, color_accent=LIGHT["accent"], block_shadow="none", block_shadow_dark="none")
