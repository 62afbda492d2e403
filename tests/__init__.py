import aligned  # noqa: F401  # before torch, so that threads that wait sleep in the tests too
