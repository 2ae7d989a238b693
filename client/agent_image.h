/*
 * agent_image: the agent's shared object, as it lies in this binary.
 *
 * Thread: any; constant data.
 */
#ifndef EDM_CLIENT_AGENT_IMAGE_H
#define EDM_CLIENT_AGENT_IMAGE_H

#include <stddef.h>

extern const char agent_image[];
size_t agent_image_bytes(void);

/* The one for runs in which the kernel does not tell of forks (agent/asking.c). */
extern const char agent_asking_image[];
size_t agent_asking_image_bytes(void);

#endif
