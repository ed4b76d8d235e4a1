"""What the kernel can hold a process to, one layer a file. Pure standard library, Linux only.

A process applies the layers to itself, single-threaded, before it runs what it must contain:

    descriptors  nothing open but what is named
    cgroups      memory and processes, in a group of its own (v1 or v2)
    rlimits      open files, file size, writable memory, processes
    identity     a user of its own, no new privileges, unreadable, ends with its parent
    landlock     no file but what is named, no TCP, no signals to others
    seccomp      no system call but what is listed

Each tells by itself whether it holds: `report.apply` collects that.
"""
