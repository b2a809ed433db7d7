"""diffphys inside the viewer napari: reader, writer, and a widget that calibrates and reconstructs.

`napari.yaml` names them to napari. `job` is the work without any window; `widget` alone knows Qt.
"""
