/*
 * hash: the page hash of page_hash.h, for the agent: nothing of a library may run inside the
 * program.
 *
 * Thread: the agent's. It uses vector registers, so never one of the program's that is borrowed.
 */
#ifndef EDM_CLIENT_AGENT_HASH_H
#define EDM_CLIENT_AGENT_HASH_H

#include "agent_proto.h"

/* PAGE: AGENT_PAGE_BYTES bytes. */
__attribute__((visibility("hidden"))) struct agent_hash hash_page(const void *page);

#endif
