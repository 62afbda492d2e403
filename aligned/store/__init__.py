"""From a spec to a folder with its trained SAE; each spec is trained once, by any number of workers."""
