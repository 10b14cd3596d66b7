"""stand-in"""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
import gradio as gr


def build(models, neighbours, examples, limits):
    with gr.Blocks() as b:
        gr.Textbox()
    return b


def mount(app, blocks, limits):
    return gr.mount_gradio_app(app, blocks, "/", ssr_mode=False)
