"""From a spec to a folder, once, by any number of workers."""
