"""What both modalities share: quadrature, radial grids, stratified media, the Debye integral, pinhole, Bessel, sampling."""
