#include "segment_parts.h"

#include <errno.h>
#include <string.h>

static enum slot_check check_header(const struct segment *segment, uint32_t slot,
                                    const struct slot_header *header)
{
    uint32_t state = atomic_load_explicit(&header->state, memory_order_acquire);

    if (state == SLOT_FREE)
        return SLOT_CHECK_EMPTY;
    if ((state != SLOT_USED && state != SLOT_DROPPED && state != SLOT_SUPERSEDED) ||
        !slot_header_is_whole(header, slot, segment->shape.slot_bytes))
        return SLOT_CHECK_BAD_HEADER;
    if (state == SLOT_DROPPED)
        return SLOT_CHECK_DROPPED;
    return state == SLOT_USED ? SLOT_CHECK_GOOD : SLOT_CHECK_SUPERSEDED;
}

/* Whether the page is to be looked at, too. */
static bool has_page(enum slot_check check)
{
    return check == SLOT_CHECK_GOOD || check == SLOT_CHECK_SUPERSEDED;
}

static bool is_page(const struct slot_header *header, const void *bytes)
{
    return header->checksum == wire_checksum(header->page, bytes, header->length_bytes);
}

enum slot_check segment_check(const struct segment *segment, uint32_t slot, bool read_page)
{
    const struct slot_header *header = &segment->headers[slot];
    enum slot_check check = check_header(segment, slot, header);

    if (has_page(check) && read_page && !is_page(header, segment_bytes(segment, slot)))
        return SLOT_CHECK_BAD_PAGE;
    return check;
}

bool segment_is_sound(const struct segment *segment, uint32_t slot)
{
    enum slot_check check = segment_check(segment, slot, false);

    return has_page(check) || check == SLOT_CHECK_DROPPED;
}

bool segment_copy(const struct segment *segment, uint32_t slot, struct slot_header *header,
                  void *bytes)
{
    memcpy(header, &segment->headers[slot], sizeof(*header));
    if (check_header(segment, slot, header) != SLOT_CHECK_GOOD)
        return false;
    memcpy(bytes, segment->shape.slot_bytes == 0 ? header->bytes : segment_bytes(segment, slot),
           header->length_bytes);
    return is_page(header, bytes);
}

int segment_read(const struct segment *segment, void *bytes, size_t len, size_t offset)
{
    return disk_read_all(segment->file.disk, segment->file.fd, bytes, len, (off_t)offset);
}

/* Checks the bytes of the slots of a group whose HEADERS are sound. */
static void check_pages(struct segment *segment, uint32_t first, const struct slot_header *headers,
                        char *buffer, uint8_t *checks)
{
    size_t slot_bytes = segment->shape.slot_bytes;
    uint32_t from = SEGMENT_GROUP_SLOTS, to = 0;

    for (uint32_t i = 0; i < SEGMENT_GROUP_SLOTS; i++) {
        if (!has_page(checks[i]))
            continue;
        from = i < from ? i : from;
        to = i + 1;
    }
    if (from >= to)
        return;
    size_t len = (to - from) * slot_bytes;
    bool is_whole =
        segment_read(segment, buffer, len, segment_slot_offset(segment->shape, first + from)) == 0;
    for (uint32_t i = from; i < to; i++) {
        char *bytes = buffer + (i - from) * slot_bytes;
        if (!has_page(checks[i]))
            continue;
        /* One that cannot be read does not take the others with it. */
        bool is_read =
            is_whole || segment_read(segment, bytes, slot_bytes,
                                     segment_slot_offset(segment->shape, first + i)) == 0;
        segment->unreadable = segment->unreadable || !is_read;
        if (!is_read || !is_page(&headers[i], slot_bytes == 0 ? (char *)headers[i].bytes : bytes))
            checks[i] = SLOT_CHECK_BAD_PAGE;
    }
}

/* Which of the headers that are ZEROS, a bit each, nothing is wrong with. */
static uint64_t find_blank(const struct segment *segment, uint32_t group, uint64_t zeros)
{
    const uint64_t sector = 0xff;
    uint64_t blank = 0;

    _Static_assert(sizeof(struct slot_header) * 8 == 512, "8 headers are a sector");
    if (segment->headers_missing || !segment_file_has_headers(&segment->file, group))
        return zeros;
    for (unsigned at = 0; segment->in_doubt && at < SEGMENT_GROUP_SLOTS; at += 8) {
        if (((zeros >> at) & sector) == sector)
            blank |= sector << at;
    }
    return blank;
}

static bool is_zero(const struct slot_header *header)
{
    static const char zeros[sizeof(*header)];

    return memcmp(header, zeros, sizeof(zeros)) == 0;
}

/* One that cannot be read does not take the others with it. Returns false if there is such a one.
 */
static bool check_headers(const struct segment *segment, uint32_t first,
                          struct slot_header *headers, uint8_t *checks)
{
    uint32_t group = first / SEGMENT_GROUP_SLOTS;
    uint64_t zeros = 0;
    size_t offset = segment_header_offset(segment->shape, first), len = sizeof(*headers);
    bool is_whole = segment_read(segment, headers, SEGMENT_GROUP_SLOTS * len, offset) == 0;
    bool all_read = true;

    for (uint32_t i = 0; i < SEGMENT_GROUP_SLOTS; i++) {
        bool is_read = is_whole || segment_read(segment, &headers[i], len, offset + i * len) == 0;
        checks[i] = SLOT_CHECK_EMPTY;
        all_read = all_read && is_read;
        if (is_read)
            checks[i] = (uint8_t)check_header(segment, first + i, &headers[i]);
        zeros |= (uint64_t)(is_read && is_zero(&headers[i])) << i;
    }
    uint64_t blank = find_blank(segment, group, zeros);
    for (uint32_t i = 0; i < SEGMENT_GROUP_SLOTS; i++) {
        if (((blank >> i) & 1) != 0)
            checks[i] = SLOT_CHECK_EMPTY;
    }
    if (segment->blank != NULL)
        segment->blank[group] = blank;
    return all_read;
}

void segment_check_group(struct segment *segment, uint32_t group, void *buffer, uint8_t *checks,
                         bool *headers_lost)
{
    struct slot_header headers[SEGMENT_GROUP_SLOTS];
    uint32_t first = group * SEGMENT_GROUP_SLOTS;

    if (!check_headers(segment, first, headers, checks))
        segment->unreadable = *headers_lost = true;
    check_pages(segment, first, headers, buffer, checks);
}
