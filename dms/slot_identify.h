/*
 * slot_identify: whose a slot with a damaged header was.
 *
 * The header's checksum tells what the header was if a single byte of it, or its state, is damaged:
 * one byte after the other is tried with every value. What is found must also fit the slot's size.
 * It is used to say which page is lost, not to serve it.
 *
 * Thread: any.
 */
#ifndef EDM_DMS_SLOT_IDENTIFY_H
#define EDM_DMS_SLOT_IDENTIFY_H

#include "slot_header.h"

#include <stdbool.h>
#include <stdint.h>

/* The header of slot SLOT, of SLOT_BYTES, is DAMAGED; fills in *FOUND. False: nobody knows. Takes
 * up to a millisecond. */
bool slot_identify(const struct slot_header *damaged, uint32_t slot, uint32_t slot_bytes,
                   struct slot_header *found);

#endif
