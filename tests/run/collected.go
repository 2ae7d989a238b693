// collected: a Go program, whose memory is the garbage collector's.
//
//	collected DEPTH ROUNDS [CHILDREN]
//
// Keeps a tree of 2^DEPTH nodes; in each round goroutines build smaller ones, check them and let go
// of them, and the tree that was kept is checked. Then CHILDREN copies of the program are run one
// after the other, with no rounds and no children. Says how many nodes there are, and on standard
// error how often memory was collected. Exits with 3 when a node is not as it should be.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
)

type node struct {
	left, right *node
	value       uint64
	rest        [5]uint64
}

func mix(x uint64) uint64 {
	x *= 0x9e3779b97f4a7c15
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	return x ^ x>>33
}

func build(seed uint64, depth int) *node {
	n := &node{value: mix(seed)}
	n.rest[4] = ^n.value
	if depth > 0 {
		n.left = build(2*seed, depth-1)
		n.right = build(2*seed+1, depth-1)
	}
	return n
}

func check(n *node, seed uint64) int {
	if n == nil {
		return 0
	}
	if n.value != mix(seed) || n.rest[4] != ^n.value || n.rest[0] != 0 {
		fmt.Println("wrong at", seed)
		os.Exit(3)
	}
	return 1 + check(n.left, 2*seed) + check(n.right, 2*seed+1)
}

func round(number uint64, depth int) {
	var all sync.WaitGroup
	for i := uint64(0); i < 4; i++ {
		all.Add(1)
		go func(seed uint64) {
			defer all.Done()
			check(build(seed, depth), seed)
		}(number<<40 + i<<38 + 1)
	}
	all.Wait()
}

func number(at int) int {
	if len(os.Args) <= at {
		return 0
	}
	value, err := strconv.Atoi(os.Args[at])
	if err != nil {
		fmt.Println(err)
		os.Exit(4)
	}
	return value
}

func main() {
	depth := number(1)
	kept := build(1, depth)
	for i := 0; i < number(2); i++ {
		round(uint64(i), depth-2)
		check(kept, 1)
	}
	for i := 0; i < number(3); i++ {
		out, err := exec.Command(os.Args[0], strconv.Itoa(depth)).Output()
		if err != nil {
			fmt.Println("child:", err)
			os.Exit(4)
		}
		fmt.Print(string(out))
	}
	fmt.Println(check(kept, 1))
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	fmt.Fprintln(os.Stderr, memory.NumGC)
}
