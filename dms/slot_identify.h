/*
 * slot_identify: whose a slot with a damaged header was.
 *
 * The header's checksum tells what the header was if a single byte of it, or its state, is damaged:
 * one byte after the other is tried with every value. What was found so is used to say which page
 * is lost, not to serve it.
 *
 * Thread: any.
 */
#ifndef EDM_DMS_SLOT_IDENTIFY_H
#define EDM_DMS_SLOT_IDENTIFY_H

#include "segment.h"

#include <stdbool.h>
#include <stdint.h>

/* The header of slot SLOT is DAMAGED; fills in *FOUND. False: nobody knows. Takes up to a
 * millisecond. */
bool slot_identify(const struct slot_header *damaged, uint32_t slot, struct slot_header *found);

#endif
