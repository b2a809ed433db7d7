"""Write the README's tables from benchmarks/results: run after a benchmark, never by hand.

python benchmarks/readme_tables.py
"""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def provenance(record: dict) -> str:
    at = record["environment"]
    return f"`{at['command']}`, commit {at['commit']}, jax {at['versions']['jax']}, {at['device']} with {at['cores']} cores"


def blind() -> str:
    """Accuracy and coverage of the blind calibrations."""
    lines = [
        "| measurement | parameter | median error at 100 / 1000 photons | within 1 σ | within 2 σ |",
        "|---|---|---|--:|--:|",
    ]
    notes = []
    for path in sorted(RESULTS.glob("blind_calibration_*.json")):
        record = json.loads(path.read_text())
        for name, s in record["summary"].items():
            if isinstance(s, dict) and "within_1_sigma" in s:
                lines.append(
                    f"| {record['label']} | {name} | {s['median_error_100']:.2g} / {s['median_error_1000']:.2g} "
                    f"| {100 * s['within_1_sigma']:.0f} % | {100 * s['within_2_sigma']:.0f} % |"
                )
        extra = [f"{len(record['rows'])} draws", f"median {record['summary']['median_seconds']:.1f} s"]
        if "sign_right" in record["summary"]:
            s = record["summary"]
            extra.append(f"sign right in {100 * s['sign_right']:.0f} % of {s['sign_cases']} cases with |c_tot| > 0.02")
        if "psnr" in record["summary"]:
            p = record["summary"]["psnr"]
            extra.append(
                f"{p['reconstructed']} reconstructed: median {p['median_below_oracle_db']:.2f} dB below the true spec, "
                f"{p['median_above_nominal_db']:.1f} dB above the nominal one for large mismatch ({p['large_mismatch']} cases)"
            )
        notes.append(f"* {record['label']}: {'; '.join(extra)}. {provenance(record)}.")
    return "\n".join([*lines, "", *notes])


def speed() -> str:
    """Times against peers."""
    path = RESULTS / "speed.json"
    if not path.exists():
        return ""
    record = json.loads(path.read_text())
    lines = ["| work | contender | wall minimum | CPU median |", "|---|---|--:|--:|"]
    for shape, rows in record["psf"].items():
        for name, t in rows.items():
            lines.append(f"| PSF {shape} | {name} | {t['wall_min_ms']:.1f} ms | {t['cpu_median_ms']:.1f} ms |")
    for shape, block in record["richardson_lucy"].items():
        for name, t in block["per_iteration"].items():
            lines.append(f"| RL iteration {shape} | {name} | {t['wall_min_ms']:.1f} ms | {t['cpu_median_ms']:.1f} ms |")
    for name, t in record["calibration"].items():
        lines.append(
            f"| blind calibration, {name} | diffphys, after compilation | {t['min_s']:.1f} s (median {t['median_s']:.1f}) | – |"
        )
    return "\n".join([*lines, "", f"{provenance(record)}; psfmodels {record['environment']['versions'].get('psfmodels')}."])


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text()
    for name, table in (("blind", blind()), ("speed", speed())):
        before, rest = text.split(f"<!-- {name} -->")
        after = rest.split(f"<!-- /{name} -->")[1]
        text = f"{before}<!-- {name} -->\n{table}\n<!-- /{name} -->{after}"
    readme.write_text(text)


if __name__ == "__main__":
    main()
