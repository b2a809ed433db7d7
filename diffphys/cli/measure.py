"""`diffphys reconstruct` and `diffphys calibrate`: from a measured stack to the instrument's parameters and the image."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from diffphys.cli import options, show
from diffphys.cli.load import Job, load
from diffphys.cli.session import Clock, Interrupted, StopFlag, progress, warn

Method = Annotated[str, typer.Option("--method", help="Reconstruction: richardson_lucy, wiener, tv, ...")]
Iterations = Annotated[int | None, typer.Option("--iterations", min=1, help="Largest number of iterations.")]
PsfPath = Annotated[Path | None, typer.Option("--psf", help="Measured PSF (TIFF) instead of a calibrated model.")]
PsfVoxelUm = Annotated[str | None, typer.Option("--psf-voxel-um", metavar="Z Y X", help="Voxel size of the PSF file.")]
Option = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=NUMBER", help="Option of the method, e.g. tv_weight=0.01; repeatable."),
]
PointSource = Annotated[bool, typer.Option("--point-source", help="The image is of one point: fit the PSF model to it.")]


def reconstruct(
    stack: options.Stack,
    output: options.Output,
    modality: options.ModalityName = None,
    optics: options.OpticsPath = None,
    method: Method = "richardson_lucy",
    psf: PsfPath = None,
    spec: options.SpecText = None,
    channel: options.Channel = None,
    voxel_um: options.VoxelUm = None,
    axes: options.Axes = None,
    sample: options.SampleName = None,
    seed: options.Seed = 0,
    iterations: Iterations = None,
    option: Option = None,
    psf_voxel_um: PsfVoxelUm = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Calibrate the instrument from a measured stack, then restore the image."""
    run = _Run(dict(locals()))
    from diffphys.io.output_folder import OutputFolder

    choice = _method_options(method, option or [], iterations=iterations, seed=seed)
    if psf is not None and spec is not None:
        raise ValueError("--psf and --spec exclude each other: a measured PSF needs no spec")
    job = run.load()
    stated = _stated_spec(job, spec)
    with OutputFolder(output, overwrite=overwrite) as out:
        kernel = _measured_psf(job, psf, options.numbers(psf_voxel_um, "--psf-voxel-um"))
        calibration = run.calibrate(job) if spec is None and kernel is None else None
        with run.keeping_finished_work(job, out, calibration), StopFlag() as stop:
            run.write_calibration(job, out, calibration)
            used, detector = _instrument(job, calibration, stated)
            restored = run.reconstruct(job, used, detector, method=method, psf=kernel, stop=stop, **choice)
        _write_image(out, job, restored)
        run.figure(out, job, calibration, restored)
        run.finish(out, job)
    show.outcome(job, calibration, restored, output)
    if stop.requested:
        raise Interrupted(f"the image in {output} is the best after {restored.iterations} iterations")


def calibrate(
    stack: options.Stack,
    output: options.Output,
    modality: options.ModalityName = None,
    optics: options.OpticsPath = None,
    point_source: PointSource = False,
    channel: options.Channel = None,
    voxel_um: options.VoxelUm = None,
    axes: options.Axes = None,
    sample: options.SampleName = None,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
) -> None:
    """Find how the instrument was really set, without restoring the image."""
    run = _Run(dict(locals()))
    from diffphys.io.output_folder import OutputFolder

    job = run.load()
    with OutputFolder(output, overwrite=overwrite) as out:
        calibration = run.calibrate(job, point_source=point_source)
        run.write_calibration(job, out, calibration)
        run.figure(out, job, calibration, None)
        run.finish(out, job)
    show.outcome(job, calibration, None, output)


class _Run:
    """One run of a command: its options, its stages with their wall times, its record."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self.arguments, self.clock, self.started = dict(arguments), Clock(), datetime.now(UTC)

    def load(self) -> Job:
        a = self.arguments
        voxel_um = options.numbers(a["voxel_um"], "--voxel-um")
        names = ("modality", "optics", "channel", "axes", "sample")
        with self.clock.stage("read"):
            job = load(a["stack"], voxel_um=voxel_um, **{n: a[n] for n in names})
        warn((*job.warnings, *job.modality.sampling_warnings(job.geometry)))
        return job

    def calibrate(self, job: Job, *, point_source: bool = False) -> Any:
        import diffphys

        nominal = {"geometry": job.geometry, "ranges": job.ranges}
        with self.clock.stage("calibrate"):
            if point_source:
                from diffphys.calibrate.point_source import fit_psf

                calibration = fit_psf(job.y, job.modality, detector=job.detector, **nominal)
            else:
                with progress("calibrate") as update:
                    calibration = diffphys.calibrate(
                        job.y, job.modality, detector=job.detector, seed=self.arguments["seed"], progress=update, **nominal
                    )
        return calibration

    def write_calibration(self, job: Job, out: Any, calibration: Any) -> None:
        from diffphys.io.results import write_calibration

        if calibration is not None:
            write_calibration(out.path("calibration.json"), calibration, job.modality)

    def reconstruct(self, job: Job, spec: Any, detector: Any, *, stop: StopFlag, **choice: Any) -> Any:
        from diffphys.reconstruct import reconstruct as restore

        total = choice.get("iterations")
        with self.clock.stage("reconstruct"), progress("reconstruct") as update:

            def watch(iteration: int, value: float) -> bool | None:
                update(iteration / total if total else 1 - 0.97**iteration, f"iteration {iteration}, {value:.4g}")
                return False if stop.requested else None

            return restore(job.y, job.modality, spec, geometry=job.geometry, detector=detector, callback=watch, **choice)

    def keeping_finished_work(self, job: Job, out: Any, calibration: Any) -> _KeepFinished:
        return _KeepFinished(self, job, out, calibration)

    def figure(self, out: Any, job: Job, calibration: Any, restored: Any) -> None:
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

    def finish(self, out: Any, job: Job) -> None:
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
        write_json(out.path("run.json"), record)
        out.publish()


class _KeepFinished:
    """When Ctrl-C ends the block, the calibration that was finished before is published all the same."""

    def __init__(self, run: _Run, job: Job, out: Any, calibration: Any) -> None:
        self.run, self.job, self.out, self.calibration = run, job, out, calibration

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is None or not issubclass(kind, KeyboardInterrupt):
            return
        if self.calibration is None:
            raise Interrupted("nothing was written")
        self.run.finish(self.out, self.job)
        kept = self.out.target / "calibration.json"
        raise Interrupted(f"the calibration is finished and kept; go on with --spec {kept}")


def _method_options(method: str, stated: list[str], *, iterations: int | None, seed: int) -> dict[str, Any]:
    """Keyword options of the method; ValueError before any work for a method or an option that does not exist."""
    import inspect

    from diffphys.reconstruct import METHODS, method_name
    from diffphys.spec import expect_names

    parameters = inspect.signature(METHODS[method_name(method)]).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "callback"]
    choice: dict[str, Any] = {} if iterations is None else {"iterations": iterations}
    for part in stated:
        name, _, value = part.partition("=")
        try:
            choice[name.strip()] = float(value)
        except ValueError:
            raise ValueError(f"--option is {part!r}; expected NAME=NUMBER, names of {method}: {known}") from None
    expect_names(f"method {method}", list(choice), known, all_needed=False)
    return choice | ({"seed": seed} if "seed" in known else {})


def _stated_spec(job: Job, spec: str | None) -> Any:
    """The spec that --spec states, None without one."""
    from diffphys.io.results import parse_spec, read_spec

    if spec is None:
        return None
    return parse_spec(spec, job.modality, job.geometry) if "=" in spec else read_spec(spec, job.modality)


def _instrument(job: Job, calibration: Any, stated: Any) -> tuple[Any, Any]:
    """The spec and the detector to reconstruct with."""
    if calibration is not None:
        return calibration.spec, calibration.detector
    from diffphys.calibrate.detector import estimate

    detector, doubts = estimate(job.y, job.modality, geometry=job.geometry, detector=job.detector)
    warn(doubts)
    return job.modality.nominal(job.geometry) if stated is None else stated, detector


def _measured_psf(job: Job, path: Path | None, voxel_um: tuple[float, ...] | None) -> Any:
    """The PSF file on the image's voxels, None without one."""
    if path is None:
        return None
    if job.y.ndim != 3 or len(job.voxel_um) != 3:
        raise ValueError("--psf is for stacks (confocal_3d); frames are reconstructed with the model, see --spec")
    from diffphys.measured import load as load_psf

    measured = load_psf(path, voxel_um=job.voxel_um, shape=job.y.shape, psf_voxel_um=voxel_um)
    warn(measured.warnings)
    return measured.psf


def _write_image(out: Any, job: Job, restored: Any) -> None:
    from diffphys.io.tiff import write_image

    note = "photons per voxel (units of detector.peak_photons), see calibration.json and run.json"
    write_image(out.path("reconstruction.ome.tif"), restored.image, job.voxel_um, description=f"diffphys: {note}")
