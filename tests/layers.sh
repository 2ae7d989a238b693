#!/bin/bash
# layers.sh ROOT CC: the folders include only what lies below them, and each header compiles alone.
# Says every place where that is not so, and fails then.
#
# With --self-test ROOT CC: a tree that breaks each rule must be found out.
set -eu

# The folders whose headers a folder may include besides its own.
below() {
    case $1 in
    proto | ini) ;;
    dms | client) echo proto ini ;;
    edm.c) echo client dms proto ini ;;
    esac
}

check_includes() {
    local file=$1 folder=$2 bad=0 included target
    while read -r included; do
        target=$(realpath -m --relative-to=. "$(dirname "$file")/$included")
        if [ ! -e "$target" ]; then
            # Not beside the file: a header from the include path, which is nobody's folder.
            continue
        fi
        case " $folder $(below "$folder") " in
        *" ${target%%/*} "*) ;;
        *)
            echo "$file includes $included: $folder knows nothing of ${target%%/*}"
            bad=1
            ;;
        esac
    done < <(sed -nE 's/^[ \t]*#[ \t]*include[ \t]*"([^"]+)".*/\1/p' "$file")
    return $bad
}

# The agent runs inside the program, where none of these may.
check_agent() {
    if grep -HnE '^[ \t]*#[ \t]*include[ \t]*<(zmq|msgpack|stdio|malloc)' "$1"; then
        echo "$1: not inside the program"
        return 1
    fi
}

check_header() {
    # Included, not compiled itself: clang would ask for the use of each inline function.
    echo "#include \"$1\"" | "$cc" -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -I. -fsyntax-only \
        -x c - || {
        echo "$1 does not compile alone"
        return 1
    }
}

check_tree() {
    local bad=0 nfiles=0 file
    cd "$1"
    while read -r file; do
        nfiles=$((nfiles + 1))
        check_includes "$file" "${file%%/*}" || bad=1
        case $file in client/agent/*) check_agent "$file" || bad=1 ;; esac
        case $file in *.h) check_header "$file" || bad=1 ;; esac
    done < <(find edm.c proto ini dms client -name '*.[ch]')
    echo "$nfiles files looked at"
    [ $nfiles -gt 0 ] && [ $bad -eq 0 ]
}

# Puts a file into a sound tree; it must not pass.
must_fail() {
    local path=$1 text=$2
    printf '%s\n' "$text" >"$tree/$path"
    if (check_tree "$tree") >"$tree.out" 2>&1; then
        echo "not found out: $path with: $text"
        exit 1
    fi
    printf '' >"$tree/$path"
}

self_test() {
    tree=$(mktemp -d)
    trap 'rm -rf "$tree" "$tree.out"' EXIT
    mkdir -p "$tree"/{proto,ini,dms,client/agent}
    touch "$tree"/edm.c "$tree"/{proto,ini,dms,client}/{a.h,a.c} "$tree"/client/agent/a.c
    (check_tree "$tree") || exit 1
    must_fail proto/a.c '#include "../ini/a.h"'
    must_fail proto/a.c '#include "../client/a.h"'
    must_fail ini/a.c '#include "../proto/a.h"'
    must_fail ini/a.h '# include "../dms/a.h"'
    must_fail dms/a.c '#include "../client/a.h"'
    must_fail client/a.c '  #include "../dms/a.h"'
    must_fail client/agent/a.c '#include "../../dms/a.h"'
    must_fail client/agent/a.c '#include <zmq.h>'
    must_fail dms/a.h 'struct x { size_t n; };'
    (check_tree "$tree")
}

if [ "$1" = --self-test ]; then
    cc=$3
    self_test
else
    cc=$2
    check_tree "$1"
fi
