"""Numbers of the system calls that filters name, from asm/unistd_64.h and asm-generic/unistd.h."""

from __future__ import annotations

import platform

_TEXTS = {
    "x86_64": """
        acct=163 add_key=248 adjtimex=159 bpf=321 brk=12 chroot=161 clock_adjtime=305
        clock_getres=229 clock_gettime=228 clock_nanosleep=230 clock_settime=227 clone=56 clone3=435
        close=3 connect=42 delete_module=176 epoll_create1=291 epoll_ctl=233 epoll_pwait=281
        epoll_wait=232 eventfd2=290 execve=59 execveat=322 exit=60 exit_group=231 faccessat2=439
        fadvise64=221 fallocate=285 fanotify_init=300 fcntl=72 fdatasync=75 finit_module=313
        fsconfig=431 fsmount=432 fsopen=430 fspick=433 fstat=5 fsync=74 ftruncate=77 futex=202
        getdents64=217 getegid=108 geteuid=107 getgid=104 getpid=39 getppid=110 getrandom=318
        getrusage=98 getsockopt=55 gettid=186 gettimeofday=96 getuid=102 init_module=175
        io_uring_enter=426 io_uring_register=427 io_uring_setup=425 ioctl=16 ioperm=173 iopl=172
        kcmp=312 kexec_file_load=320 kexec_load=246 keyctl=250 kill=62 lookup_dcookie=212 lseek=8
        madvise=28 membarrier=324 memfd_create=319 mkdirat=258 mmap=9 mount=165 mount_setattr=442
        move_mount=429 mprotect=10 mremap=25 munmap=11 name_to_handle_at=303 nanosleep=35
        newfstatat=262 nfsservctl=180 open_by_handle_at=304 open_tree=428 openat=257 openat2=437
        perf_event_open=298 pidfd_getfd=438 pivot_root=155 poll=7 ppoll=271 prctl=157 pread64=17
        preadv=295 preadv2=327 prlimit64=302 process_madvise=440 process_vm_readv=310
        process_vm_writev=311 pselect6=270 ptrace=101 pwrite64=18 pwritev=296 pwritev2=328
        quotactl=179 quotactl_fd=443 read=0 readlinkat=267 readv=19 reboot=169 recvfrom=45
        recvmsg=47 renameat=264 renameat2=316 request_key=249 restart_syscall=219 rseq=334
        rt_sigaction=13 rt_sigprocmask=14 rt_sigreturn=15 sched_getaffinity=204 sched_yield=24
        select=23 sendmsg=46 sendto=44 set_robust_list=273 set_tid_address=218 setdomainname=171
        sethostname=170 setns=308 settimeofday=164 shutdown=48 sigaltstack=131 socket=41
        socketpair=53 statx=332 swapoff=168 swapon=167 sysinfo=99 syslog=103 tgkill=234 time=201
        umount2=166 uname=63 unlinkat=263 unshare=272 userfaultfd=323 utimensat=280 vhangup=153
        write=1 writev=20
    """,
    "aarch64": """
        acct=89 add_key=217 adjtimex=171 bpf=280 brk=214 chroot=51 clock_adjtime=266
        clock_getres=114 clock_gettime=113 clock_nanosleep=115 clock_settime=112 clone=220
        clone3=435 close=57 connect=203 delete_module=106 epoll_create1=20 epoll_ctl=21
        epoll_pwait=22 eventfd2=19 execve=221 execveat=281 exit=93 exit_group=94 faccessat2=439
        fadvise64=223 fallocate=47 fanotify_init=262 fcntl=25 fdatasync=83 finit_module=273
        fsconfig=431 fsmount=432 fsopen=430 fspick=433 fstat=80 fsync=82 ftruncate=46 futex=98
        getdents64=61 getegid=177 geteuid=175 getgid=176 getpid=172 getppid=173 getrandom=278
        getrusage=165 getsockopt=209 gettid=178 gettimeofday=169 getuid=174 init_module=105
        io_uring_enter=426 io_uring_register=427 io_uring_setup=425 ioctl=29 kcmp=272
        kexec_file_load=294 kexec_load=104 keyctl=219 kill=129 lookup_dcookie=18 lseek=62
        madvise=233 membarrier=283 memfd_create=279 mkdirat=34 mmap=222 mount=40 mount_setattr=442
        move_mount=429 mprotect=226 mremap=216 munmap=215 name_to_handle_at=264 nanosleep=101
        newfstatat=79 nfsservctl=42 open_by_handle_at=265 open_tree=428 openat=56 openat2=437
        perf_event_open=241 pidfd_getfd=438 pivot_root=41 ppoll=73 prctl=167 pread64=67 preadv=69
        preadv2=286 prlimit64=261 process_madvise=440 process_vm_readv=270 process_vm_writev=271
        pselect6=72 ptrace=117 pwrite64=68 pwritev=70 pwritev2=287 quotactl=60 quotactl_fd=443
        read=63 readlinkat=78 readv=65 reboot=142 recvfrom=207 recvmsg=212 renameat=38 renameat2=276
        request_key=218 restart_syscall=128 rseq=293 rt_sigaction=134 rt_sigprocmask=135
        rt_sigreturn=139 sched_getaffinity=123 sched_yield=124 sendmsg=211 sendto=206
        set_robust_list=99 set_tid_address=96 setdomainname=162 sethostname=161 setns=268
        settimeofday=170 shutdown=210 sigaltstack=132 socket=198 socketpair=199 statx=291
        swapoff=225 swapon=224 sysinfo=179 syslog=116 tgkill=131 umount2=39 uname=160 unlinkat=35
        unshare=97 userfaultfd=282 utimensat=88 vhangup=58 write=64 writev=66
    """,
}

NEWEST = 462
"""mseal of Linux 6.10, the newest that was looked at; one number on every architecture."""

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""From linux/audit.h."""
MACHINE = platform.machine()


def numbers(machine: str = MACHINE) -> dict[str, int]:
    """Name to number, empty for a machine that is not known."""
    pairs = (item.split("=") for item in _TEXTS.get(machine, "").split())
    return {name: int(number) for name, number in pairs}
