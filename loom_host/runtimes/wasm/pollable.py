"""A `wasi:io/poll` that can be interrupted.

Wasmtime's own blocks in the kernel until a guest's sleep is over, and no epoch ends that. This
adapter is a small component in the same store: it polls what the guest waits for together with a
timer of 5 ms, in a loop, and loops check epochs. Guests call it through the two shadowed functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wasmtime import Store, WasmtimeError, wat2wasm
from wasmtime.component import Component, Linker

POLL_INTERFACE = "wasi:io/poll@0.2.12"
"""The name under which wasmtime 50.0.1 defines the interface; shadowing must hit it exactly."""

MEMORY = 4 * 65_536
"""Bytes of the adapter's own linear memory, which does not grow."""

_WAT = """
(component
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $p (sub resource)))
    (export "poll" (func (param "in" (list (borrow $p))) (result (list u32))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (alias outer 1 $pollable (type $p))
    (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))

  ;; A bump allocator; every answer ends with a reset. Each piece leaves room for one more i32.
  (core module $Memory
    (memory (export "memory") 4)
    (global (export "next") (mut i32) (i32.const 16))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (global.get 0))
      (global.set 0 (i32.and
        (i32.add (i32.add (local.get $at) (local.get 3)) (i32.const 11)) (i32.const -8)))
      (local.get $at)))
  (core instance $memory (instantiate $Memory))
  (alias core export $memory "memory" (core memory $m))
  (alias core export $memory "realloc" (core func $realloc))
  (core func $poll_core (canon lower (func $poll "poll") (memory $m) (realloc $realloc)))
  (core func $timer_core (canon lower (func $clock "subscribe-duration")))
  (core func $drop_core (canon resource.drop $pollable))

  (core module $Wait
    (import "m" "memory" (memory 4))
    (import "m" "next" (global $next (mut i32)))
    (import "h" "poll" (func $poll (param i32 i32 i32)))
    (import "h" "timer" (func $timer (param i64) (result i32)))
    (import "h" "drop" (func $drop (param i32)))
    (func (export "wait") (param $in i32) (param $n i32) (result i32)
      (local $timer i32) (local $mark i32) (local $last i32)
      (local.set $mark (global.get $next))
      (loop $again
        (global.set $next (local.get $mark))
        (local.set $timer (call $timer (i64.const 5000000)))
        (i32.store (i32.add (local.get $in) (i32.shl (local.get $n) (i32.const 2)))
          (local.get $timer))
        (call $poll (local.get $in) (i32.add (local.get $n) (i32.const 1)) (i32.const 0))
        (call $drop (local.get $timer))
        ;; The timer's index is the highest and comes last: leave it out of the answer.
        (local.set $last (i32.sub (i32.load (i32.const 4)) (i32.const 1)))
        (if (i32.eq (local.get $n) (i32.load (i32.add (i32.load (i32.const 0))
              (i32.shl (local.get $last) (i32.const 2)))))
          (then (i32.store (i32.const 4) (local.get $last))))
        (br_if $again (i32.eqz (i32.load (i32.const 4)))))
      (loop $next_borrow  ;; borrowed handles are given back before the answer
        (if (local.get $n) (then
          (local.set $n (i32.sub (local.get $n) (i32.const 1)))
          (call $drop (i32.load
            (i32.add (local.get $in) (i32.shl (local.get $n) (i32.const 2)))))
          (br $next_borrow))))
      (i32.const 0))
    (func (export "reset") (param i32) (global.set $next (i32.const 16))))
  (core instance $wait (instantiate $Wait
    (with "m" (instance $memory))
    (with "h" (instance
      (export "poll" (func $poll_core))
      (export "timer" (func $timer_core))
      (export "drop" (func $drop_core))))))
  (func (export "wait") (param "in" (list (borrow $pollable))) (result (list u32))
    (canon lift (core func $wait "wait") (memory $m) (realloc $realloc)
      (post-return (core func $wait "reset")))))
"""


def adapter_wasm() -> bytes:
    """The adapter's component binary."""
    return bytes(wat2wasm(_WAT))


def instantiate(linker: Linker, store: Store, adapter: Component) -> Any:
    """The adapter's `wait` function in this store. `linker` has WASI as wasmtime defines it."""
    return linker.instantiate(store, adapter).get_func(store, "wait")


def shadow(linker: Linker, wait_of_caller: Callable[[], Any]) -> None:
    """Replace the two blocking functions of `wasi:io/poll` in a linker.

    Args:
        wait_of_caller: the adapter's function in the store that is running in this thread.
    """

    def poll(store: Any, waited: list[Any]) -> list[int]:
        if not waited:
            raise WasmtimeError("wasi:io/poll: the list of pollables is empty")
        try:
            return list(wait_of_caller()(store, waited))
        finally:
            for pollable in waited:
                pollable.drop(store)

    def block(store: Any, pollable: Any) -> None:
        poll(store, [pollable])

    linker.allow_shadowing = True
    with linker.root() as root, root.add_instance(POLL_INTERFACE) as interface:
        interface.add_func("poll", poll)
        interface.add_func("[method]pollable.block", block)
    linker.allow_shadowing = False
