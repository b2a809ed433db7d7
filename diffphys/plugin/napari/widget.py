"""The widget: pick layer, modality, optics file and method; calibrate, reconstruct, cancel. The work runs beside the viewer.

Qt is here alone; what is computed is in `job`. Whatever goes wrong is one line in the widget.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

from magicgui.widgets import ComboBox, Container, FileEdit, ProgressBar, PushButton, SpinBox, TextEdit
from napari.layers import Image
from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QFileDialog

from diffphys.cli.app import one_line
from diffphys.cli.session import use_cache
from diffphys.plugin.napari import job
from diffphys.plugin.napari.layers import KEY, voxel_um
from diffphys.types import resolve

WELCOME = "Pick a layer of raw counts and the optics file of its microscope, then calibrate or reconstruct."
TIPS = {
    "layer": "raw counts: (z, y, x) confocal, (frame, y, x) or (y, x) SHG",
    "optics file": "the nominal instrument (YAML); layers of a challenge file need none",
    "new optics file": "write a template to fill in, filled from the image's OME-XML where it has one",
    "iterations": "at most; 0: as many as the method thinks right",
    "calibrate": "find how the instrument was really set, with error bars",
    "reconstruct": "restore the image; calibrates first unless that is done",
    "cancel": "stop: a reconstruction keeps the best image so far",
}


class _Bridge(QObject):
    """Carries the progress from the worker's thread to the window's."""

    told = Signal(float, str)


class Widget(Container):
    """Calibrate and reconstruct a layer of `napari_viewer` (or of its model, without a window)."""

    def __init__(self, napari_viewer: Any) -> None:
        from diffphys.reconstruct import METHODS

        use_cache()
        self._viewer, self._bridge, self._cancelled = napari_viewer, _Bridge(), threading.Event()
        self._calibrated: tuple[Any, Any, Any] = (None, None, None)  # key of counts and optics, the counts, their calibration
        self.busy = self._closed = False
        self.layer = ComboBox(label="layer", choices=self._images, nullable=False, tooltip=TIPS["layer"])
        self.modality = ComboBox(label="modality", choices=["confocal_3d", "shg"])
        self.optics = FileEdit(label="optics file", filter="*.yaml *.yml", nullable=True, tooltip=TIPS["optics file"])
        self.method = ComboBox(label="method", choices=list(METHODS))
        self.iterations = SpinBox(label="iterations", min=0, max=100_000, value=0, tooltip=TIPS["iterations"])
        self.template, self.calibrate, self.reconstruct, self.cancel = (
            PushButton(text=name, tooltip=TIPS[name]) for name in ("new optics file", "calibrate", "reconstruct", "cancel")
        )
        self.progress = ProgressBar(label="progress", min=0, max=100, value=0)
        self.text = TextEdit(value=WELCOME)
        self.text.read_only = True
        buttons = Container(widgets=[self.calibrate, self.reconstruct, self.cancel], layout="horizontal", labels=False)
        chosen = [self.layer, self.modality, self.optics, self.template, self.method, self.iterations]
        super().__init__(widgets=[*chosen, buttons, self.progress, self.text])
        self.text.label = "result"  # a label that changes makes magicgui align them all
        self._connect()

    def _connect(self) -> None:
        events = self._viewer.layers.events
        for change in (events.inserted, events.removed, events.reordered):
            change.connect(lambda _: self.layer.reset_choices())
        self.layer.changed.connect(self._follow)
        self.template.changed.connect(lambda: self._guarded(self._new_optics))
        self.calibrate.changed.connect(lambda: self._guarded(self._start, restore=False))
        self.reconstruct.changed.connect(lambda: self._guarded(self._start, restore=True))
        self.cancel.changed.connect(self.stop)
        self._bridge.told.connect(self._show_progress)
        self.native.destroyed.connect(self._leave)
        self._set_busy(False)

    def stop(self, *_: Any) -> None:
        """Ask the running work to end with the best so far."""
        self._cancelled.set()

    def _leave(self, *_: Any) -> None:
        """The window is gone: nothing more can be shown."""
        self._closed = True
        self.stop()

    def _follow(self, layer: Any) -> None:
        """A layer that knows its modality picks it."""
        known = {} if layer is None else layer.metadata.get(KEY, {})
        self.modality.value = known.get("modality", self.modality.value)

    def _images(self, _: Any) -> list[Any]:
        return [layer for layer in self._viewer.layers if isinstance(layer, Image)]

    def _guarded(self, action: Any, **options: Any) -> None:
        """Do it; what goes wrong is one line."""
        try:
            action(**options)
        except Exception as error:
            self.text.value = _line(error)

    def _new_optics(self) -> None:
        path = self.optics.value
        if path is None or path.exists():
            named = QFileDialog.getSaveFileName(self.native, "New optics file", "optics.yaml", "*.yaml")[0]
            if not named:
                return
            path = Path(named)
        shown = self.layer.value
        source = None if shown is None or not shown.source.path else Path(shown.source.path)
        self.text.value = job.write_optics(path, self.modality.value, source)
        self.optics.value = path

    def _start(self, *, restore: bool) -> None:
        if self.busy:
            raise ValueError("the last work is still running; cancel it first")
        task, key = self._task(restore)
        self._cancelled.clear()
        self._set_busy(True)
        create_worker(_done, task, self._watch, _connect={"returned": lambda found: self._finish(task, key, *found)})

    def _task(self, restore: bool) -> tuple[job.Task, Any]:
        """What is picked now, and a key that is equal for equal counts and optics."""
        layer, modality, optics = self.layer.value, self.modality.value, self.optics.value
        if layer is None:
            raise ValueError("there is no image layer; open a measurement first")
        if optics is not None and not optics.is_file():
            raise ValueError(f"optics file {optics} does not exist; pick another, or press 'new optics file' to write it")
        key = (id(layer.data), tuple(layer.scale), modality, optics, optics and optics.stat().st_mtime_ns)
        known = self._calibrated[2] if restore and self._calibrated[0] == key else None
        how = {"method": self.method.value, "iterations": self.iterations.value, "restore": restore}
        return job.Task(_counts(layer, modality), modality, optics, calibration=known, **how), key

    def _watch(self, fraction: float, text: str) -> bool | None:
        """In the worker's thread."""
        if self._cancelled.is_set():
            return False
        try:
            self._bridge.told.emit(fraction, text)
        except RuntimeError:  # the window is gone
            return False
        return None

    def _show_progress(self, fraction: float, text: str) -> None:
        if self.busy and not self._closed:
            self.progress.value = round(100 * min(fraction, 1.0))
            self.text.value = text

    def _finish(self, task: job.Task, key: Any, outcome: job.Outcome | None, error: str) -> None:
        if self._closed:
            return
        self._set_busy(False)
        if outcome is None:
            self.text.value, self.progress.value = error, 0
            return
        self._calibrated = (key, task.counts, outcome.calibration)  # the counts stay: no other array takes their id
        self.text.value, self.progress.value = outcome.text, 100
        for data, told, _ in outcome.layers:
            self._viewer.add_image(data, **told)

    def _set_busy(self, busy: bool) -> None:
        self.busy = busy
        self.cancel.enabled = busy
        for button in (self.calibrate, self.reconstruct, self.template):
            button.enabled = not busy


def _counts(layer: Any, modality: str) -> job.Counts:
    """The layer's array and place. Frames have no spacing: only the axes of the modality's voxels count."""
    from diffphys.io.tiff import is_volume

    if layer.rgb:
        raise ValueError(f"layer {layer.name} is an RGB image; expected counts of one channel")
    axes = slice(-3 if is_volume(resolve(modality)) else -2, None)
    scale, units = layer.scale[axes], layer.units[axes]
    size = voxel_um(scale, units, name=layer.name)
    shift = (
        None if size is None else tuple(float(t * v / s) for t, v, s in zip(layer.translate[axes], size, scale, strict=True))
    )
    data = layer.data[0] if layer.multiscale else layer.data
    return job.Counts(layer.name, data, size, shift, layer.metadata.get(KEY, {}))


def _done(task: job.Task, watch: job.Watch) -> tuple[job.Outcome | None, str]:
    """In the worker's thread: the outcome, or the line that says why there is none."""
    try:
        return job.work(task, watch), ""
    except Exception as error:
        return None, _line(error)


def _line(error: Exception) -> str:
    """One line for the user; the traceback of what is not his fault goes to the log."""
    if isinstance(error, job.Stopped):
        return str(error)
    line = one_line(error)
    if line is None:
        logging.getLogger(__name__).error("unexpected error", exc_info=error)
        line = f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:200]} (the log has more)"
    return f"error: {line}"
