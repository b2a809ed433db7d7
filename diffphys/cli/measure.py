"""`diffphys reconstruct` and `diffphys calibrate`: from a measured stack to the instrument's parameters and the image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from diffphys.cli import options, show, volume
from diffphys.cli.load import Job
from diffphys.cli.run import Run
from diffphys.cli.session import Interrupted, StopFlag

Method = Annotated[str, typer.Option("--method", help="Reconstruction: richardson_lucy, wiener, tv, ...")]
Iterations = Annotated[int | None, typer.Option("--iterations", min=1, help="Largest number of iterations.")]
PsfPath = Annotated[Path | None, typer.Option("--psf", help="Measured PSF (TIFF) instead of a calibrated model.")]
PsfVoxelUm = Annotated[str | None, typer.Option("--psf-voxel-um", metavar="Z Y X", help="Voxel size of the PSF file.")]
Option = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=NUMBER", help="Option of the method, e.g. tv_weight=0.01; repeatable."),
]
PointSource = Annotated[bool, typer.Option("--point-source", help="The image is of one point: fit the PSF model to it.")]
Shared = Annotated[bool, typer.Option("--shared", help="Folder: one spec for all its stacks.")]
Together = Annotated[int, typer.Option("--together", min=1, help="Folder: stacks at a time; more need more memory.")]
Memory = Annotated[
    str | None, typer.Option("--memory", help="Volumes (.zarr): what a machine (slurm: a job) may use, e.g. 6GiB.")
]
TileSize = Annotated[str | None, typer.Option("--tile", metavar="Z Y X", help="Volumes: tile instead of the plan's.")]
Cluster = Annotated[str, typer.Option("--cluster", help="Volumes: none, local, ssh:HOST,HOST,... or slurm:partition=NAME,...")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Volumes: processes of the cluster.")]

Zernike = Annotated[
    str | None,
    typer.Option(
        "--zernike",
        metavar="MODES",
        help="Further parameters: Noll indices of Zernike modes (5,6: astigmatism, 7,8: coma); confocal also slant, polarised.",
    ),
]


def reconstruct(
    stack: options.Stack,
    output: options.Output,
    modality: options.ModalityName = None,
    optics: options.OpticsPath = None,
    method: Method = "richardson_lucy",
    psf: PsfPath = None,
    spec: options.SpecText = None,
    zernike: Zernike = None,
    ranges: options.Ranges = None,
    channel: options.Channel = None,
    voxel_um: options.VoxelUm = None,
    axes: options.Axes = None,
    sample: options.SampleName = None,
    seed: options.Seed = 0,
    iterations: Iterations = None,
    option: Option = None,
    psf_voxel_um: PsfVoxelUm = None,
    memory: Memory = None,
    tile: TileSize = None,
    cluster: Cluster = "none",
    workers: Workers = 1,
    overwrite: options.Overwrite = False,
) -> None:
    """Calibrate the instrument from a measured stack, then restore the image. OME-Zarr volumes are restored in tiles."""
    run = Run(dict(locals()))
    from diffphys.io.output_folder import OutputFolder

    choice = _method_options(method, option or [], iterations=iterations, seed=seed)
    if volume.is_volume(stack):
        volume.reconstruct(run.arguments, choice)
        return
    volume.expect_whole(run.arguments)
    if psf is not None and spec is not None:
        raise ValueError("--psf and --spec exclude each other: a measured PSF needs no spec")
    job = run.load()
    stated = _stated_spec(job, spec)
    with OutputFolder(output, overwrite=overwrite) as out:
        kernel = _measured_psf(run, job, psf, options.numbers(psf_voxel_um, "--psf-voxel-um"))
        calibration = run.calibrate(job) if spec is None and kernel is None else None
        with run.keeping_finished_work(job, out, calibration), StopFlag() as stop:
            run.write_calibration(job, out, calibration)
            used, detector, doubts = job.instrument(calibration, stated)
            run.warn(doubts)
            restored = run.reconstruct(job, used, detector, method=method, psf=kernel, stop=stop, **choice)
        run.write_image(job, out, restored)
        run.figure(job, out, calibration, restored)
        run.finish(job, out)
    run.warn(show.outcome(job, calibration, restored, output))
    if stop.requested:
        raise Interrupted(f"the image in {output} is the best after {restored.iterations} iterations")


def calibrate(
    stack: options.Stack,
    output: options.Output,
    modality: options.ModalityName = None,
    optics: options.OpticsPath = None,
    point_source: PointSource = False,
    zernike: Zernike = None,
    ranges: options.Ranges = None,
    channel: options.Channel = None,
    voxel_um: options.VoxelUm = None,
    axes: options.Axes = None,
    sample: options.SampleName = None,
    shared: Shared = False,
    together: Together = 16,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
) -> None:
    """Find how the instrument was really set, without restoring the image; of a stack, or of every stack of a folder."""
    arguments = dict(locals())
    if volume.is_volume(stack):
        raise ValueError(f"{stack.name} is a volume; `diffphys reconstruct {stack.name}` calibrates on a bright part of it")
    if stack.is_dir():
        from diffphys.cli.folder import calibrate_folder

        if point_source or sample is not None:
            raise ValueError("--point-source and --sample are for one file; leave them out for a folder")
        return calibrate_folder(arguments, shared=shared, width=together)
    if shared:
        raise ValueError(f"--shared finds one spec for a folder of stacks; {stack} is no folder")
    run = Run(arguments)
    from diffphys.io.output_folder import OutputFolder

    job = run.load()
    with OutputFolder(output, overwrite=overwrite) as out:
        calibration = run.calibrate(job, point_source=point_source)
        run.write_calibration(job, out, calibration)
        run.figure(job, out, calibration, None)
        run.finish(job, out)
    run.warn(show.outcome(job, calibration, None, output))


def _method_options(method: str, stated: list[str], *, iterations: int | None, seed: int) -> dict[str, Any]:
    """Keyword options of the method; ValueError before any work for a method or an option that does not exist."""
    import inspect

    from diffphys.reconstruct import METHODS, method_name
    from diffphys.spec import expect_names

    parameters = list(inspect.signature(METHODS[method_name(method)]).parameters.values())
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "callback"]
    whole = {p.name for p in parameters if isinstance(p.default, int)}
    choice: dict[str, Any] = {} if iterations is None else {"iterations": iterations}
    for part in stated:
        name, _, value = part.partition("=")
        try:
            choice[name.strip()] = float(value)
        except ValueError:
            raise ValueError(f"--option is {part!r}; expected NAME=NUMBER, names of {method}: {known}") from None
    expect_names(f"method {method}", list(choice), known, all_needed=False)
    choice = {n: int(v) if n in whole and v == int(v) else v for n, v in choice.items()}
    return choice | ({"seed": seed} if "seed" in known else {})


def _stated_spec(job: Job, spec: str | None) -> Any:
    """The spec that --spec states, None without one."""
    from diffphys.io.results import parse_spec, read_spec

    if spec is None:
        return None
    return parse_spec(spec, job.modality, job.geometry) if "=" in spec else read_spec(spec, job.modality)


def _measured_psf(run: Run, job: Job, path: Path | None, voxel_um: tuple[float, ...] | None) -> Any:
    """The PSF file on the image's voxels, None without one."""
    if path is None:
        return None
    if job.y.ndim != 3 or len(job.voxel_um) != 3:
        raise ValueError("--psf is for stacks (confocal_3d); frames are reconstructed with the model, see --spec")
    from diffphys.measured import load as load_psf

    measured = load_psf(path, voxel_um=job.voxel_um, shape=job.y.shape, psf_voxel_um=voxel_um)
    run.warn(measured.warnings)
    return measured.psf
