/*
 * write_back: stores what the pager has taken out of the program.
 *
 * The pager hands over batches whose bytes lie in the pool. The write-back thread hashes each page,
 * leaves out what is all zero, sends the rest (in fewer bytes where that is easy or pays), and
 * hands the batch back when every page that was sent has been acknowledged.
 *
 * Thread: write_back_new() starts a thread of its own, which owns the PUT sockets and the sequence
 * numbers. The functions below are called by the pager. A batch belongs to whoever has it in hand;
 * only its page[] stays the pager's all the time.
 */
#ifndef EDM_CLIENT_WRITE_BACK_H
#define EDM_CLIENT_WRITE_BACK_H

#include "page_hash.h"
#include "rpc.h"
#include "shard_set.h"
#include "agent/agent_proto.h"

struct space;

enum { BATCH_PAGES = AGENT_BATCH_PAGES };

enum page_outcome {
    OUTCOME_SKIP, /* not part of the batch after all */
    OUTCOME_ZERO, /* all zero: not stored */
    OUTCOME_STORED,
};

enum write_back_kind { WRITE_BACK_BATCH, WRITE_BACK_DROP, WRITE_BACK_STOP };

struct write_back_item {
    enum write_back_kind kind;
    struct write_back_item *next; /* write-back's own */
};

struct batch {
    struct write_back_item item;       /* first: handed over by its address */
    struct space *owner;               /* the pager's */
    const struct store_region *region; /* where to; outlives the batch's way through */
    uint32_t index;                    /* place in the pool */
    uint32_t npages;
    const char *bytes;          /* npages pages in the pool */
    uint64_t page[BATCH_PAGES]; /* page numbers; the pager's (they change when memory moves) */
    uint64_t key[BATCH_PAGES];
    bool taken[BATCH_PAGES];            /* in: it is in the pool */
    uint8_t outcome[BATCH_PAGES];       /* out: enum page_outcome */
    struct page_hash hash[BATCH_PAGES]; /* out, but for OUTCOME_SKIP */
    uint32_t unanswered, turn;          /* write-back's own */
    uint8_t status;                     /* out: WIRE_OK, or why it could not be stored */
    char detail[WIRE_MAX_DETAIL_BYTES + 1];
};

/* Keys the store may forget; freed by write-back. */
struct drop {
    struct write_back_item item;
    struct drop *next; /* the pager's, before it is handed over */
    struct store_region region;
    uint64_t sequence; /* write-back's own */
    uint32_t nranges;
    struct wire_range ranges[WIRE_MAX_RANGES];
};

struct write_back_counters {
    struct rpc_counters rpc;
    uint64_t pages_put, pages_zero;
    uint64_t pages_filled, pages_compressed; /* as 8 bytes, as LZ4 blocks */
    uint64_t bytes_saved;                    /* by the latter */
    uint64_t cpu_us;
};

struct write_back;

/* SET must outlive it. 0 or -errno. */
int write_back_new(struct write_back **out, const struct shard_set *set,
                   enum config_compress compress) __attribute__((warn_unused_result));

/* Ends the thread without waiting for what is under way. */
void write_back_destroy(struct write_back **write_back);

/* Batches that may be in its hands at once: what is done needs room on its way back. */
enum { WRITE_BACK_MOST_BATCHES = 192 };

/* Hands over. Returns false, and does nothing, when too many items are waiting to be taken up. */
bool write_back_give(struct write_back *write_back, struct write_back_item *item);

/* A batch that is done, or NULL. */
struct batch *write_back_take(struct write_back *write_back);

/* Pages of SHARD come back at RATE bytes a second (0: not known). What is sent slowly, or comes
 * back slowly, may be worth compressing. */
void write_back_note_rate(struct write_back *write_back, uint32_t shard, uint64_t rate);

/* To poll; write_back_calm() makes it unreadable again, before taking. */
int write_back_fd(const struct write_back *write_back);
void write_back_calm(struct write_back *write_back);

/* May be called from any thread at any time; a little behind. */
struct write_back_counters write_back_counters(struct write_back *write_back);

#endif
