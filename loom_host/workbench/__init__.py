"""One plugin alone in a host, while it is written: `loom plugin run`.

    workbench -> bench (this side) -> bench_process (the other: the host, in a process of its own)
              -> watch, doorway

The host is a process of its own so that native code, which is loaded once in a host's life, is
reloaded as everything else is: by a second one beside the first.
"""
