"""Without the script that would start kernels in the browser: the book never does, and the theme loads it twice."""


def _without(_app, _page, _template, context, _doctree) -> None:
    scripts = context.get("script_files", [])
    scripts[:] = [s for s in scripts if "thebe" not in f"{getattr(s, 'filename', s)} {getattr(s, 'attributes', '')}"]


def setup(app) -> dict[str, bool]:
    app.connect("html-page-context", _without, priority=1000)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
