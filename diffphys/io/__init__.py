"""The doors: the only room that knows file formats (TIFF, HDF5, YAML, JSON). Nothing here is loaded by `import diffphys`."""
