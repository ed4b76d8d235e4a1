"""A test plugin whose import fails."""

raise ImportError("libsulky.so.1: cannot open shared object file")
