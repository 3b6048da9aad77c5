"""Other people's files as arrays: bytes become 8-bit grey with bone bright, or an error that names the file.

``decode`` reads one file, ``decode_files`` many, in parallel and through a cache on disk whose entries are
written whole or not at all. ``pixels`` holds the limits that every kind of file is held to.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cache": ["decode_files"],
        "decode": ["decode", "resize"],
        "storage": ["atomic_path", "cache_root"],
    },
)
