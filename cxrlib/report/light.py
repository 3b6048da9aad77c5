"""Imported before notebooks are read, in the processes of ``cxr report`` alone.

jsonschema, which nbformat imports, would take a second for ``rfc3987_syntax``, a grammar of addresses that no
notebook needs and that it can do without.
"""

import sys

sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
