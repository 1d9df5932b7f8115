"""The page: its layout, and the handlers of its buttons."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr

from bidiffsr_arch.errors import InputError
from bidiffsr_arch.upscale.formats import FORMATS
from bidiffsr_arch.web import Limits
from bidiffsr_arch.web.models import Models
from bidiffsr_arch.web.visitors import COOKIE, Visitors
from bidiffsr_arch.web.work import Cancelled, Result, upscale_images

TITLE = "BI-DiffSR"
HEAD = (
    "# BI-DiffSR\nSuper-resolution by a diffusion network with 1-bit weights. Images and results stay on the machine "
    "that serves this page, and are deleted after an hour."
)
KINDS = "fidelity: closest to the true image; perceptual: sharper; jpeg: for images with visible artifacts"
HINT = "Before: bicubic interpolation. Turn the wheel over the image to zoom, drag to move."
CSS = """
.gradio-container { max-width: 1280px !important; margin: 0 auto !important; }
#hint { margin-top: -0.5rem; font-size: 0.85rem; opacity: 0.75; }
"""


def theme() -> gr.themes.Base:
    """Gradio's theme with the browser's own fonts, so that no font is loaded."""
    return gr.themes.Soft(
        primary_hue="indigo", neutral_hue="slate", radius_size="md",
        font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"],
    )  # fmt: skip


class Page:
    """The page and its handlers.

    Attributes:
        blocks: Gradio's page.
    """

    def __init__(self, models: Models, limits: Limits, visitors: Visitors) -> None:
        self.models, self.limits, self.visitors = models, limits, visitors
        self.running: dict[str, Event] = {}  # by browser tab; set to cancel
        self.blocks = self._build()

    def _build(self) -> gr.Blocks:
        scales = self.models.scales()
        names = self.models.names(scales[0])
        with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
            gr.Markdown(HEAD)
            results = gr.State([])
            with gr.Row(equal_height=False):
                with gr.Column(scale=2, min_width=320):
                    images = gr.File(label="Images", file_count="multiple", file_types=list(FORMATS), height=180,
                                     elem_id="images")  # fmt: skip
                    scale = gr.Radio([(f"x{n}", n) for n in scales], value=scales[0], label="Scale", elem_id="scale")
                    weights = gr.Dropdown(list(self.models.weights), value=names[0], label="Weights", info=KINDS,
                                          filterable=False, elem_id="weights")  # fmt: skip
                    with gr.Row():
                        steps = gr.Number(label="Steps", precision=0, minimum=1, elem_id="steps",
                                          value=self.models.steps[names[0]])  # fmt: skip
                        seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="seed")
                    with gr.Row():
                        cancel = gr.Button("Cancel", elem_id="cancel")
                        start = gr.Button("Upscale", variant="primary", elem_id="upscale")
                with gr.Column(scale=5, min_width=480):
                    slider = gr.ImageSlider(label="Before | after", height=560, max_height=560, interactive=False,
                                            buttons=["fullscreen"], elem_id="slider")  # fmt: skip
                    gr.Markdown(HINT, elem_id="hint")
                    shown = gr.Dropdown([], label="Shown", visible=False, filterable=False, elem_id="shown")
                    messages = gr.Textbox(label="Messages", visible=False, interactive=False, elem_id="messages")
                    downloads = gr.File(label="Results in full depth", file_count="multiple", interactive=False,
                                        visible=False, elem_id="downloads")  # fmt: skip
            quick = dict(queue=False, show_progress="hidden", api_visibility="private")
            upscaling = start.click(
                self.upscale, [images, weights, steps, seed], [results, slider, shown, messages, downloads],
                concurrency_limit=1, show_progress_on=[slider], api_visibility="private",
            )  # fmt: skip
            cancel.click(self.cancel, None, messages, cancels=[upscaling], **quick)
            # Computed in the browser: a response of the server could arrive after the next click.
            scale.input(None, scale, [weights, steps], js=_look_up(self._of_scale()))
            weights.input(None, weights, [scale, steps], js=_look_up(self._of_weights()))
            shown.input(self.show, [results, shown], slider, **quick)
            blocks.unload(self.leave)
        return blocks.queue(max_size=self.limits.queue, api_open=False)

    def upscale(
        self,
        images: Sequence[str] | None,
        weights: str,
        steps: int | None,
        seed: int | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (Gradio requires this default)
    ) -> Iterator[tuple[Any, ...]]:
        """Upscale the images; yields the values that the page shows after each of them."""
        cancelled = self.running[_tab(request)] = Event()
        results: list[Result] = []
        messages: list[str] = []
        folder = self.visitors.folder(request.cookies[COOKIE])
        yield self._shown(results, messages)
        try:
            upscaler = self.models.upscaler(weights, self._steps(weights, steps), seed or 0)
            report = lambda done, total, name: progress((done, total), name, unit="tiles")  # noqa: E731
            paths = [Path(image) for image in images or ()]
            for result in upscale_images(upscaler, paths, folder, self.limits, cancelled, report):
                if isinstance(result, Result):
                    results.append(result)
                    messages += result.notes
                else:
                    messages.append(str(result))
                yield self._shown(results, messages)
        except InputError as error:
            yield self._shown(results, [*messages, str(error)])
        except Cancelled:
            yield self._shown(results, [*messages, "cancelled"])
        finally:
            if self.running.get(_tab(request)) is cancelled:  # else a newer request of the tab is running
                del self.running[_tab(request)]

    def _steps(self, weights: str, steps: int | None) -> int | None:
        """None if the visitor did not change the number of steps; networks without diffusion accept no other value."""
        return None if steps == self.models.steps.get(weights) else steps

    def _shown(self, results: list[Result], messages: list[str]) -> tuple[Any, ...]:
        """The values of results, slider, shown, messages and downloads."""
        latest = len(results) - 1
        names = [(f"{index + 1}. {result.file.name}", index) for index, result in enumerate(results)]
        return (
            results,
            self.show(results, latest) if results else None,
            gr.Dropdown(names, value=latest if results else None, visible=len(results) > 1),
            gr.Textbox("\n".join(messages), visible=bool(messages), lines=max(1, len(messages))),
            gr.File([str(result.file) for result in results] or None, visible=bool(results)),
        )

    def show(self, results: list[Result], index: int) -> tuple[str, str]:
        """The images before and after upscaling of one result."""
        return str(results[index].before), str(results[index].after)

    def _of_scale(self) -> dict[int, tuple[str, int]]:
        """The first network of each scale, and its number of steps."""
        first = {scale: self.models.names(scale)[0] for scale in self.models.scales()}
        return {scale: (name, self.models.steps[name]) for scale, name in first.items()}

    def _of_weights(self) -> dict[str, tuple[int, int]]:
        """The scale and the number of steps of each network."""
        return {name: (weights.scale, self.models.steps[name]) for name, weights in self.models.weights.items()}

    def cancel(self, request: gr.Request) -> gr.Textbox:
        """End the tab's computation after the current tile."""
        self.leave(request)
        return gr.Textbox("cancelled", visible=True, lines=1)

    def leave(self, request: gr.Request) -> None:
        """End the computation of a tab that was closed."""
        if event := self.running.get(_tab(request)):
            event.set()

    def cancel_all(self) -> None:
        """End all computations."""
        for event in list(self.running.values()):
            event.set()


def _look_up(table: Mapping[Any, Sequence[Any]]) -> str:
    """A JavaScript function that looks up its argument in a table."""
    return f"(key) => ({json.dumps(table)})[key]"


def _tab(request: gr.Request) -> str:
    """Identifies a visitor's browser tab; another visitor who sends the same session hash has another identifier."""
    return f"{request.cookies.get(COOKIE)} {request.session_hash}"
