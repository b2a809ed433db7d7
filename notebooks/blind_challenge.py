# %% [markdown]
# # The blind challenge, from draw to score
#
# The benchmark asks for two things at once: the image *and* the instrument's settings, from the counts alone. This notebook
# walks the whole way with a challenge of one SHG sample: the organiser draws it, a participant opens the file, calibrates,
# restores, writes a submission; the organiser checks and scores it. Everything goes through files, as it does between
# strangers.

# %%
import os
import tempfile
from importlib.resources import files
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import diffphys
from diffphys.benchmark.create import create
from diffphys.benchmark.evaluate import evaluate
from diffphys.benchmark.runner import Solver
from diffphys.benchmark.runner.verdict import NoSandbox
from diffphys.benchmark.score import baseline, contract, score_submission
from diffphys.benchmark.validate import validate
from diffphys.io.challenge import read_challenge, read_truth
from diffphys.io.submission import Entry, read_submission, write_submission

SMALL = "DIFFPHYS_NOTEBOOK_SMALL" in os.environ  # the tests run every notebook with small arrays
SHAPE = (64, 64) if SMALL else (128, 128)

folder = tempfile.TemporaryDirectory()
place = Path(folder.name)

# %% [markdown]
# ## The organiser draws
#
# Three tiers: *public* shows its truth, so that one can practise; *dev* and *hidden* are drawn from a secret key and show none.
# Here a dev challenge of one sample. Two files are written: the challenge goes out, the truth (readable by the organiser only)
# stays. With a fixed key this notebook always draws the same sample; an organiser lets `diffphys benchmark create` make one.

# %%
geometry = diffphys.shg.Geometry(shape=SHAPE, phase_offsets_rad=(0.0, 1.5))
secret = b"thirty-two bytes of one notebook"
challenge_file, truth_file = create(place, modalities=["shg"], wanted=["dev"], samples=1, geometry=geometry, secret=secret)
for path in (challenge_file, truth_file):
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB, mode {path.stat().st_mode & 0o777:o}")

# %% [markdown]
# ## What a participant sees
#
# Counts, the nominal instrument, the detector's data sheet, and the range in which each setting lies. No specimen, no true
# setting, no name of the scene. `validate` says in words what a file is and what is wrong with it: here, rightly, that this
# small trial is not the benchmark's own dev tier, which has larger frames and 24 samples.

# %%
verdict = validate(challenge_file)
print(f"a {verdict.kind}: {verdict.summary}")
for problem in verdict.problems:
    print("problem:", problem)
challenge = read_challenge(challenge_file)
sample, ranges = challenge.samples["sample_00"], challenge.held.ranges
print("counts:", sample.y.shape, "| true specimen:", sample.x_true, "| true settings:", sample.true_spec)
for name, (low, high) in ranges.items():
    print(f"  {name} is somewhere in [{low:g}, {high:g}]")

# %% [markdown]
# ## Calibrate and reconstruct
#
# Two participants. The first trusts the log book and reconstructs with the nominal settings. The second calibrates first. Both
# use the same Wiener filter and the same counts, so what sets them apart is the calibration alone.

# %%
given = {"geometry": challenge.held.geometry, "detector": sample.detector}
found = diffphys.calibrate(sample.y, "shg", ranges=ranges, **given)
for name, value in found.values.items():
    print(f"{name:30s} {value:+.3f} ± {found.sigma[name]:.3f}")

specs = {"log book": diffphys.shg.nominal(geometry), "calibrated": found.spec}
images = {who: diffphys.reconstruct(sample.y, "shg", spec, method="wiener", **given).image for who, spec in specs.items()}

# %% [markdown]
# ## Write and validate the submission
#
# One file per participant: the image and the three settings for each sample, and the fingerprint of the challenge it answers.
# Settings must lie inside the tier's ranges. `validate` lists every problem in one line each; here is what it says to a file
# that answers another challenge.

# %%
submissions = {}
for who, image in images.items():
    settings = {name: float(getattr(specs[who], name)) for name in ranges}
    submissions[who] = place / f"{who.replace(' ', '_')}.h5"
    write_submission(
        submissions[who],
        modality=challenge.modality,
        tier=challenge.tier,
        method=f"Wiener, {who}",
        challenge_sha256=challenge.sha256,
        samples={"sample_00": Entry(image, settings)},
    )
    verdict = validate(submissions[who], challenge=challenge_file)
    assert not verdict.problems, verdict.problems
    print(f"{submissions[who].name}: a valid {verdict.kind}: {verdict.summary}")

foreign = place / "foreign.h5"
identity = {"modality": "shg", "tier": "dev", "method": "Foreign", "challenge_sha256": "0" * 64}
write_submission(foreign, samples={"sample_00": Entry(images["calibrated"], found.values)}, **identity)
for problem in validate(foreign, challenge=challenge_file).problems:
    print("problem:", problem)

# %% [markdown]
# ## The organiser scores
#
# The score of a sample weighs the image (PSNR and SSIM against the true specimen), how well the answer explains the counts,
# and the error of the settings; 1 is perfect. `zeros`, an empty image, is the floor. What goes back to a participant on dev
# and hidden is one number, rounded: with more, the truth could be measured by asking often.

# %%
truth = read_truth(truth_file, geometry=geometry)
reports = {"zeros": baseline("zeros", challenge, truth=truth)}
for who, path in submissions.items():
    reports[who] = score_submission(read_submission(path, contract(challenge)), challenge, truth=truth)

print(f"{'participant':12s} {'score':>6s} {'PSNR':>9s} {'SSIM':>6s}")
for who, report in reports.items():
    print(f"{who:12s} {report.score:6.3f} {report.mean('psnr'):6.2f} dB {report.mean('ssim'):6.3f}")
for name, error in reports["calibrated"].rows[0].error.items():
    print(f"  error of {name}: {error:+.4f} (1 sigma said {found.sigma[name]:.4f})")
print("sent back:", reports["calibrated"].for_contestant())
assert reports["calibrated"].score > reports["log book"].score > reports["zeros"].score

# %% [markdown]
# What to see: the log book's image keeps a blur or ringing that the calibrated one has not, and its settings cost it the rest.

# %%
x_true = truth.samples["sample_00"].x_true
light = sample.y[0] - sample.detector.offset
panes = {"measured, first frame (its own scale)": light / light.max(), **images, "truth": x_true}
border = (0, SHAPE[1] * geometry.pixel_um[1], SHAPE[0] * geometry.pixel_um[0], 0)
figure, panels = plt.subplots(1, 4, figsize=(14, 3.8), layout="constrained", sharex=True, sharey=True)
for panel, (title, image) in zip(panels, panes.items(), strict=True):
    shown = panel.imshow(np.clip(image, 0, 1), extent=border, cmap="magma", vmin=0, vmax=1)
    panel.set(title=f"{title}, score {reports[title].score:.2f}" if title in reports else title, xlabel="x (µm)")
panels[0].set_ylabel("y (µm)")
figure.colorbar(shown, ax=panels, label="brightness (of the specimen's peak)")
plt.show()

figure, panels = plt.subplots(1, 3, figsize=(12, 2.6), layout="constrained")
for panel, (name, (low, high)) in zip(panels, ranges.items(), strict=True):
    panel.errorbar([found.values[name]], [0], xerr=[found.sigma[name]], fmt="o", capsize=4, label="calibrated ± 1 sigma")
    panel.plot([float(getattr(specs["log book"], name))], [0], "s", color="C1", label="log book")
    panel.axvline(truth.samples["sample_00"].spec[name], color="black", linestyle="--", label="truth")
    panel.set(xlim=(low, high), yticks=[], xlabel=name)
figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
plt.show()

# %% [markdown]
# ## Hand in code instead: `evaluate`
#
# On the hidden tier you hand in a program, not a file. The organiser runs it on each sample in a fresh sandbox (bubblewrap,
# or a container): no network, no truth, no files of the host, limits on time, memory and disk. What it leaves is read as a
# stranger's file. The package has an example solver of about forty lines, which does what the second participant did, with
# Richardson–Lucy. Where there is no sandbox, `evaluate` refuses and says what is missing; it never runs a stranger's code
# unprotected.

# %%
example = Path(str(files("diffphys.benchmark") / "solver" / "solve.py"))
print("".join(example.read_text().partition("    entries = {}")[1:])[:640], "...\n")
if SMALL:
    print("(not run with small arrays)")
else:
    try:
        judged = evaluate(Solver(example), challenge_file, truth=truth_file, method="Example")
        print(f"run in {judged.backend}; the participant learns: {judged.for_contestant()}")
        print(f"the organiser sees, beside the score: {judged.jobs[0].code}, {judged.jobs[0].seconds:.0f} s")
    except NoSandbox as refusal:
        print("refused:", refusal)
folder.cleanup()

# %% [markdown]
# For the real thing:
#
# ```text
# diffphys benchmark create -o DATA                                # organiser: draw all tiers
# diffphys benchmark run METHOD --data DATA -o OUT                 # a method of the package, all tiers
# diffphys benchmark validate SUBMISSION.h5 --challenge FILE.h5    # participant, before sending
# diffphys benchmark evaluate solve.py --challenge FILE.h5 --truth TRUTH.h5 --method NAME
# diffphys benchmark leaderboard
# ```
