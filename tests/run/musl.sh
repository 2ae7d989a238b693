#!/bin/bash
# musl.sh EDM TOOLS: programs with musl instead of glibc, loaded dynamically and not; and the word that its
# threads share with the kernel stays in memory.
. "$(dirname "$0")/lib.sh"

for kind in dynamic static; do
    program=$tools/tidword-$kind
    [ -x "$program" ] || skip "no musl-gcc here"
    "$program" >out || fail "$kind: natively: $?"
    "$edm" --mode=client --local=32M --stats="$dir/$kind.json" --log-file="$dir/$kind.log" -- \
        "$program" >out 2>err || fail "$kind: ended with $?: $(cat out err)"
    grep "^tidword: out 0 times, what is beside it [1-9]" out || fail "$kind: it said: $(cat out)"
    [ "$(figure "$kind" pages_put)" -gt 1000 ] || fail "$kind: few pages went out"
    [ "$(figure "$kind" images)" -eq 2 ] || fail "$kind: its child has not reported"
done
