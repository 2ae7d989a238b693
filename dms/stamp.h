/*
 * stamp: a store's own count of changes, which tells what came before what. It grows by one with
 * each change and is found again from the files.
 *
 * No store gets as far as STAMP_MAX. A larger stamp in a file was not written there by a store, and
 * must not be taken for one: after the largest number there is, the count would start anew.
 */
#ifndef EDM_DMS_STAMP_H
#define EDM_DMS_STAMP_H

#include <stdint.h>

#define STAMP_MAX (UINT64_MAX / 2)

#endif
