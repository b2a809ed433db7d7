"""The eleven primitives of the spec DAG: pure functions of (parameters, x), one file each.

| letter | file         | what it does                                             | adjoint or linearisation        |
|--------|--------------|----------------------------------------------------------|---------------------------------|
| P      | `propagate`  | angular spectrum over a distance                         | `propagate_adjoint`             |
| M      | `modulate`   | element-wise product                                     | `modulate_adjoint`              |
| Π      | `project`    | parallel line integrals                                  | `project_adjoint`               |
| F      | `encode`     | Fourier sampling, anywhere or on the grid                | `encode_adjoint`, `..grid..`    |
| C      | `convolve`   | shift-invariant blur                                     | `convolve_adjoint`              |
| Σ      | `accumulate` | sum over an axis                                         | `accumulate_adjoint`            |
| D      | `detect`     | gain and response                                        | `detect_linearised`             |
| S      | `sample`     | keep entries; `illuminate` by patterns                   | `sample_adjoint`, `illuminate_` |
| W      | `disperse`   | wavelength-dependent shift                               | `disperse_adjoint`              |
| R      | `rotate`     | rotation in a plane                                      | `rotate_adjoint`                |
| Λ      | `transform`  | pointwise function; `spectral_filter`                    | `transform_linearised`          |

Positional parameters are traced and differentiable, keyword-only options are static. Linear maps get their adjoint by
transposition (`adjoint`); `graph.compose` strings primitives together.
"""
