"""One run of a measuring command: its stages with their wall times, its results, its record."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from diffphys.cli import options
from diffphys.cli.load import Job, load
from diffphys.cli.session import Clock, Interrupted, StopFlag, heed, progress, warn


class Run:
    """Options of a command, and what it does with them in order: load, calibrate, reconstruct, figure, finish."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self.arguments, self.clock, self.started = dict(arguments), Clock(), datetime.now(UTC)
        self.restored: dict[str, Any] | None = None
        self.told: dict[str, None] = {}  # in the order of telling

    def warn(self, lines: Sequence[str]) -> None:
        """Warnings on stderr, each once per run."""
        warn(line for line in lines if line not in self.told)
        self.told |= dict.fromkeys(lines)

    def load(self) -> Job:
        a = self.arguments
        voxel_um = options.numbers(a["voxel_um"], "--voxel-um")
        names = ("modality", "optics", "channel", "axes", "sample")
        with self.clock.stage("read"):
            job = load(a["stack"], voxel_um=voxel_um, **{n: a[n] for n in names})
            job = job.with_zernike(a.get("zernike")).with_ranges(options.ranges(a["ranges"]))
        self.warn((*job.warnings, *job.modality.sampling_warnings(job.geometry)))
        return job

    def calibrate(self, job: Job, *, point_source: bool = False) -> Any:
        from diffphys.calibrate import calibrate

        nominal = {"geometry": job.geometry, "ranges": job.ranges}
        with self.clock.stage("calibrate"):
            if point_source:
                from diffphys.calibrate.point_source import fit_psf

                calibration = fit_psf(job.y, job.modality, detector=job.detector, **nominal)
            else:
                with progress("calibrate") as update:
                    calibration = calibrate(
                        job.y, job.modality, detector=job.detector, seed=self.arguments["seed"], progress=update, **nominal
                    )
        return calibration

    def write_calibration(self, job: Job, out: Any, calibration: Any) -> None:
        from diffphys.io.results import write_calibration

        if calibration is not None:
            write_calibration(out.path("calibration.json"), calibration, job.modality)

    def reconstruct(self, job: Job, spec: Any, detector: Any, *, stop: StopFlag, **choice: Any) -> Any:
        from diffphys.io.results import reconstruction_as_dict
        from diffphys.reconstruct import reconstruct as restore

        total = choice.get("iterations")
        with self.clock.stage("reconstruct"), progress("reconstruct") as update:

            def watch(iteration: int, value: float) -> bool | None:
                update(iteration / total if total else 1 - 0.97**iteration, f"iteration {iteration}, {value:.4g}")
                return False if stop.requested else None

            found = restore(job.y, job.modality, spec, geometry=job.geometry, detector=detector, callback=watch, **choice)
        self.restored = reconstruction_as_dict(found, None if choice.get("psf") is not None else spec, detector)
        return found

    def write_image(self, job: Job, out: Any, restored: Any) -> None:
        import numpy as np

        from diffphys.io.tiff import write_image

        note = "diffphys: photons per voxel over detector.peak_photons, see run.json"
        write_image(out.path("reconstruction.ome.tif"), restored.image, job.voxel_um, description=note)
        counts = np.reshape(restored.prediction, job.y.shape)
        note_counts = "diffphys: expected counts of the model"
        write_image(out.path("prediction.ome.tif"), counts, job.voxel_um, description=note_counts)
        if restored.uncertainty is not None:
            one_sigma = note.replace("diffphys:", "diffphys: 1 sigma,")
            write_image(out.path("uncertainty.ome.tif"), restored.uncertainty, job.voxel_um, description=one_sigma)

    def keeping_finished_work(self, job: Job, out: Any, calibration: Any) -> _KeepFinished:
        return _KeepFinished(self, job, out, calibration)

    def figure(self, job: Job, out: Any, calibration: Any, restored: Any) -> None:
        from diffphys.report.figure import figure

        with self.clock.stage("figure"):
            figure(
                out.path("figure.png"),
                y=job.y,
                modality=job.modality,
                geometry=job.geometry,
                calibration=calibration,
                reconstruction=restored,
                title=self.arguments["stack"].name,
            )

    def finish(self, job: Job, out: Any) -> None:
        """Write run.json and move every result into its place."""
        from diffphys.io.provenance import run_record
        from diffphys.io.results import write_json

        a = self.arguments
        spec = a.get("spec")
        inputs = {"stack": a["stack"], "optics": a["optics"], "psf": a.get("psf")}
        inputs["spec"] = spec if spec and Path(spec).is_file() else None
        record = run_record(
            command=sys.argv, inputs=inputs, optics=job.optics, options=a, started=self.started, seconds=self.clock.seconds
        )
        write_json(out.path("run.json"), {**record, "warnings": list(self.told), "reconstruction": self.restored})
        heed()
        out.publish()


class _KeepFinished:
    """When Ctrl-C ends the block, the calibration that was finished before is published all the same."""

    def __init__(self, run: Run, job: Job, out: Any, calibration: Any) -> None:
        self.run, self.job, self.out, self.calibration = run, job, out, calibration

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is None or not issubclass(kind, KeyboardInterrupt):
            return
        if self.calibration is None:
            raise Interrupted("nothing was written")
        self.run.finish(self.job, self.out)
        kept = self.out.target / "calibration.json"
        raise Interrupted(f"the calibration is finished and kept; go on with --spec {kept}")
