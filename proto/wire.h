/*
 * wire: the messages between a client and a DMS shard, as C structures, and their MessagePack form.
 *
 * The format itself is described in PROTOCOL.md; this header is its C side. Packing and unpacking
 * never allocate on behalf of the caller and never trust a length: whatever unpacks without an
 * error is inside every bound named here. Page bytes travel in a second frame, the body, which this
 * module never touches: struct wire_page says where in it each page lies.
 *
 * Thread: none. Every function works on its arguments alone and may be called from any thread.
 */
#ifndef EDM_PROTO_WIRE_H
#define EDM_PROTO_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    WIRE_VERSION = 1,
    WIRE_PAGE_BYTES = 4096,
    WIRE_EXTENT_PAGES = 512, /* 2 MiB: the unit of placement on shards */
    WIRE_MAX_PAGES = 256,    /* pages in one PAGE_GET or PAGE_PUT */
    WIRE_MAX_RANGES = 256,   /* ranges in one PAGE_DROP */
    WIRE_MAX_HEADER_BYTES = 32 * 1024,
    WIRE_MAX_BODY_BYTES = WIRE_MAX_PAGES * WIRE_PAGE_BYTES,
    WIRE_MAX_NAME_BYTES = 128,   /* region, checkpoint and peer names, without the final 0 */
    WIRE_MAX_DETAIL_BYTES = 256, /* text beside a status */
    WIRE_MAX_LISTED = 64,        /* regions in one LIST reply */
};

/* Page numbers are keys below this bound: 2^52 of them, whatever a client uses them for. */
#define WIRE_MAX_PAGE ((uint64_t)1 << 52)

enum wire_method {
    WIRE_HELLO = 1,
    WIRE_OPEN = 2,
    WIRE_PAGE_GET = 3,
    WIRE_PAGE_PUT = 4,
    WIRE_PAGE_DROP = 5,
    WIRE_FREEZE = 6,
    WIRE_BRANCH = 7,
    WIRE_LIST = 8,
    WIRE_STAT = 9,
    WIRE_REMOVE = 10,
};

/* gRPC's canonical codes and numbers. */
enum wire_status {
    WIRE_OK = 0,
    WIRE_INVALID_ARGUMENT = 3,
    WIRE_DEADLINE_EXCEEDED = 4,
    WIRE_NOT_FOUND = 5,
    WIRE_ALREADY_EXISTS = 6,
    WIRE_PERMISSION_DENIED = 7,
    WIRE_RESOURCE_EXHAUSTED = 8,
    WIRE_FAILED_PRECONDITION = 9, /* the epoch is old (FENCED), the region is frozen, ... */
    WIRE_ABORTED = 10,
    WIRE_UNIMPLEMENTED = 12,
    WIRE_INTERNAL = 13,
    WIRE_UNAVAILABLE = 14,
    WIRE_DATA_LOSS = 15,
    WIRE_UNAUTHENTICATED = 16,
};

enum wire_encoding {
    WIRE_RAW = 0,      /* 4096 bytes as they are */
    WIRE_FILL = 1,     /* 8 bytes, repeated 512 times */
    WIRE_LZ4 = 2,      /* an LZ4 block that decodes to 4096 bytes */
    WIRE_ABSENT = 255, /* in replies: this shard holds no such page; no bytes */
};

/* One page of a PAGE_PUT, or of the reply to a PAGE_GET. The bytes of the pages follow each other
 * in the body in the order of the list, each length_bytes long, without gaps. */
struct wire_page {
    uint64_t page;         /* page number, below WIRE_MAX_PAGE */
    uint64_t sequence;     /* grows with every PUT of this region; 0 when absent */
    uint64_t checksum;     /* wire_checksum() of the encoded bytes; 0 when absent */
    uint32_t length_bytes; /* of the encoded bytes: 0 (absent) to 4096 */
    uint8_t encoding;      /* enum wire_encoding */
};

struct wire_range {
    uint64_t first;  /* page number */
    uint64_t npages; /* at least 1; first + npages at most WIRE_MAX_PAGE */
};

enum { WIRE_REGION_FROZEN = 1, WIRE_REGION_INCOMPLETE = 2 }; /* flags in struct wire_region_info */

struct wire_region_info {
    char name[WIRE_MAX_NAME_BYTES + 1];
    uint64_t region;
    uint64_t parent; /* region it was branched or frozen from, 0 for none */
    uint64_t epoch;
    uint64_t sequence; /* highest sequence number stored */
    uint64_t npages;   /* pages its page table names (shared ones included) */
    uint32_t flags;
};

/* A request. Which fields a method uses is said beside them; the others are ignored when packing
 * and zero after unpacking. About 14 KiB: keep one and use it again. */
struct wire_request {
    uint8_t method;
    uint64_t id;          /* chosen by the client, unique on its connection */
    uint32_t deadline_ms; /* the client gives up after this long; 0: never */
    uint64_t region;      /* FREEZE BRANCH (the source) STAT (0: the shard alone) REMOVE PAGE_* */
    uint64_t epoch;       /* OPEN FREEZE BRANCH REMOVE PAGE_* */
    uint32_t version_min, version_max; /* HELLO */
    uint64_t features;                 /* HELLO */
    /* HELLO: the peer's. OPEN FREEZE BRANCH: the region's. LIST: names after this one */
    char name[WIRE_MAX_NAME_BYTES + 1];
    uint64_t sequence; /* PAGE_DROP: pages stored with at most this sequence number go */
    uint32_t npages;   /* PAGE_GET, PAGE_PUT: entries in pages[] */
    struct wire_page pages[WIRE_MAX_PAGES]; /* PAGE_GET uses .page alone */
    uint32_t nranges;                       /* PAGE_DROP */
    struct wire_range ranges[WIRE_MAX_RANGES];
};

struct wire_shard_info {
    uint64_t npages;     /* page slots in use */
    uint64_t used_bytes; /* what they count against the capacity */
    uint64_t capacity_bytes;
    uint64_t nregions;
    uint64_t requests; /* answered since the start */
};

struct wire_reply {
    uint8_t method;
    uint64_t id;
    uint8_t status;                         /* enum wire_status */
    char detail[WIRE_MAX_DETAIL_BYTES + 1]; /* for people; empty when OK */
    uint32_t version;                       /* HELLO: the version chosen */
    uint64_t features;                      /* HELLO */
    uint64_t store;          /* HELLO: random, made with the data; names this shard for placement */
    uint64_t instance;       /* HELLO: random, new at each start of the server */
    uint32_t shard, nshards; /* HELLO: this shard's place in its server */
    uint32_t max_pages;      /* HELLO: pages a message may carry, at most WIRE_MAX_PAGES */
    uint64_t region;         /* OPEN FREEZE BRANCH */
    uint64_t epoch;          /* OPEN: the epoch now in force */
    uint64_t sequence;       /* OPEN: highest sequence number stored in the region */
    uint32_t npages;         /* PAGE_GET: entries in pages[] */
    struct wire_page pages[WIRE_MAX_PAGES];
    uint32_t nregions; /* LIST: entries in regions[]; STAT of a region: 1 */
    struct wire_region_info regions[WIRE_MAX_LISTED];
    struct wire_shard_info shard_info; /* STAT */
};

/* Writes the header frame of MSG into BUF (CAP bytes; WIRE_MAX_HEADER_BYTES is always enough).
 * Returns its length in bytes, -EINVAL when a field is out of bounds, -ENOSPC when CAP is too
 * small. In a reply's detail, bytes that are not printable UTF-8 become '?', so that any text may
 * be quoted or cut off there. */
ssize_t wire_pack_request(const struct wire_request *msg, void *buf, size_t cap)
    __attribute__((warn_unused_result));
ssize_t wire_pack_reply(const struct wire_reply *msg, void *buf, size_t cap)
    __attribute__((warn_unused_result));

/* Reads a header frame of LEN bytes that came with a body of BODY_BYTES bytes (0 for none). All of
 * OUT is overwritten. For pages, the lengths add up to BODY_BYTES. Returns 0, -EPROTONOSUPPORT for
 * another protocol version, -EOPNOTSUPP for a request whose method this version does not have,
 * -EBADMSG for anything else that is not a message of PROTOCOL.md, or -ENOMEM (decoding takes less
 * than 100 KiB, whatever the message). After an error OUT has the id and the method if they could
 * be read, and otherwise zeros. */
int wire_unpack_request(struct wire_request *out, const void *buf, size_t len, size_t body_bytes)
    __attribute__((warn_unused_result));
int wire_unpack_reply(struct wire_reply *out, const void *buf, size_t len, size_t body_bytes)
    __attribute__((warn_unused_result));

/* The checksum of PAGE's encoded bytes: XXH3, 64 bits, seeded with the page number, so that bytes
 * that belong to another page do not pass. */
uint64_t wire_checksum(uint64_t page, const void *bytes, size_t len_bytes);

/* Whether PAGE can be one of a PAGE_PUT: not absent, number and sequence inside their bounds, and
 * the length one that its encoding has. The checksum is not looked at. */
bool wire_page_is_valid(const struct wire_page *page);

/* Whether NAME can name a region, a checkpoint or a peer: 1 to WIRE_MAX_NAME_BYTES bytes of UTF-8,
 * no control characters and no '/'. */
bool wire_name_is_valid(const char *name);

/* "RESOURCE_EXHAUSTED" and so on; "UNKNOWN" for a number that is none of them. */
const char *wire_status_name(uint8_t status);
const char *wire_method_name(uint8_t method);

#endif
