"""Every figure links to its picture alone, which a phone can enlarge: there, the labels in a figure are small."""

from docutils import nodes


def _link(_app, doctree, _name) -> None:
    for figure in doctree.findall(nodes.figure):
        for image in figure.findall(nodes.image):
            image.setdefault("width", "100%")  # Sphinx links a picture of a given width to the picture itself


def setup(app) -> dict[str, bool]:
    app.connect("doctree-resolved", _link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
