/*
 * size_class: how large the slots are. Encoded pages are 1 to 4096 bytes long; each goes into the
 * smallest slot that holds it. Slots are multiples of 64 bytes, so that 64 of them are whole blocks
 * of the file system, in steps of 64, 128 and 256 bytes: from 512 bytes on a slot is at most an
 * eighth larger than needed. What is not longer than a same-filled page's 8 bytes is kept in the
 * slot's header.
 *
 * Pure: no state, any thread.
 */
#ifndef EDM_DMS_SIZE_CLASS_H
#define EDM_DMS_SIZE_CLASS_H

#include <stdint.h>

enum {
    SIZE_CLASSES = 33,
    SIZE_CLASS_HEADER_BYTES = 64, /* every slot's, beside it */
    SIZE_CLASS_INLINE_BYTES = 8,  /* held by the header of a slot of 0 bytes */
};

/* The class for LENGTH_BYTES (0 to 4096), from 0, slots without bytes, up. */
uint32_t size_class_of(uint32_t length_bytes);

/* Bytes of a slot of that class: 0, 64, 128 ... 4096. */
uint32_t size_class_bytes(uint32_t size_class);

/* The class whose slots have SLOT_BYTES, or SIZE_CLASSES when there is none. */
uint32_t size_class_find(uint32_t slot_bytes);

/* What a page of that class counts against the capacity: its slot, or its header if that is all
 * there is. */
uint32_t size_class_charge(uint32_t size_class);

#endif
