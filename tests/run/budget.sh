#!/bin/bash
# budget.sh EDM TOOLS: programs that take memory and touch it as fast as they can stay in the budget.
. "$(dirname "$0")/lib.sh"

size=$((4 * local_mib))M
watched one "$tools/touch" --size=$size || fail "one thread, one block: $?"
must_have_paged one
watched eight "$tools/touch" --size=$size --threads=8 || fail "eight threads, a block each: $?"
must_have_paged eight
# Blocks below malloc's mmap threshold: they come from the heap and from an arena for each thread.
watched heap "$tools/touch" --size=$size --block=100K || fail "the heap: $?"
must_have_paged heap
watched arenas "$tools/touch" --size=$size --threads=8 --block=100K || fail "malloc's arenas: $?"
must_have_paged arenas
