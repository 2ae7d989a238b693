/*
 * beacon: a descriptor that is closed as soon as this process is being killed.
 *
 * The kernel closes the descriptors of a process that is killed when the last of its threads ends,
 * and that is after its memory has been given back, which takes long where there is much, and
 * after each thread had its turn on a processor, which takes long where many want one. So the
 * descriptor is in the hands of a thread that has a descriptor table of its own, no memory of its
 * own to give back, and priority.
 *
 * Thread: one (in edm, the main thread). A child that is forked later has no copy.
 */
#ifndef EDM_CLIENT_BEACON_H
#define EDM_CLIENT_BEACON_H

struct beacon;

/* Takes DESCRIPTOR. When there can be no such thread it stays open in this process until that ends;
 * *OUT is NULL then. */
void beacon_light(struct beacon **out, int descriptor);

/* Closes it, and ends the thread. */
void beacon_put_out(struct beacon **beacon);

/* This thread, or this process if it has one only, goes before others when it wants to run, if that
 * is allowed; or it goes on as others do. */
void beacon_hurry(void);
void beacon_take_turns(void);

#endif
