"""``cxr``: the command line, a module for each group of commands; ``main`` puts them together."""
