// Raw TCP over loopback, blocking: what the floor is made of. All of it ends the process with a
// message when it fails.
#ifndef BENCH_TCP_H
#define BENCH_TCP_H

#include <stddef.h>

// Runs serve(fd, arg) in a child process that goes when we do, and returns a connection to it.
int tcp_serve(void (*serve)(int fd, void *arg), void *arg);

// All of it, or the end of the process; read returns 0 at the end of the connection.
int tcp_read(int fd, void *bytes, size_t len_bytes);
void tcp_write(int fd, const void *bytes, size_t len_bytes);

// MB (1e6 bytes) a second that one connection carries when it does nothing else.
double tcp_stream(size_t len_bytes);

// Round trips of 32 bytes there and a page back, for so long; their times go to samples (ns).
// Returns how many.
size_t tcp_round_trips(double seconds, unsigned *samples, size_t nsamples);

#endif
