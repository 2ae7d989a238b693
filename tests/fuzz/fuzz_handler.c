/*
 * fuzz_handler: sequences of requests to the handler of a shard with a real store behind it.
 *
 * An input is a list of steps (enum step): requests put together from small choices, such requests
 * with bytes changed after packing, any bytes as a header, restarts. All go the way a message goes
 * in the shard: unpacked, answered, the reply packed. What must be so:
 *
 * - every reply is one of the protocol's, and what it says of a body is so;
 * - what is served has the checksum it says;
 * - a refused request changes nothing; an acknowledged page is there;
 * - a restart, as kill -9 would leave the files, changes nothing, nor does what the store does by
 *   itself, moving pages for one;
 * - when all regions are removed, no slot is in use.
 *
 * corpus-handler/moves-* move pages. They were put together by hand, as others can be: region 0 is
 * opened (in hex 01 01 00 00 00 00 00); 256 pages from the eighth on are stored (03 00 00 00 01 00
 * 02 ff); all but one in eight are dropped (04 00 00 00 c6 01 ff); all work is done (fe); the pages
 * are read (02 00 00 00 01 00 00 ff). A step 1d before that makes it a store with rounds.
 */
#include "fuzz_dir.h"
#include "fuzz_input.h"
#include "fuzz_random.h"
#include "fuzz_store.h"

#include "../../dms/handler.h"
#include "../../ini/log.h"

#include <inttypes.h>

enum {
    CAPACITY_BYTES = 2 << 20 /* 512 pages, eight groups of slots: soon full */,
    NAMES = 8,
    MAX_STEPS = 100,
    FIRST_PAGE = 3,
    FAR_APART = 300, /* pages: their leaves in the page table are others */
    ALL_WORK = 15
};

struct world {
    struct fuzz_input input;
    struct store *store;
    enum store_durability durability;
    struct sync_job *job; /* of the round of syncing under way; NULL: there is none */
    struct handler handler;
    struct handler_body body;   /* of the reply under way */
    size_t last_len, last_body; /* of the message delivered last */
};

static uint64_t moved; /* pages, by all inputs so far */
static struct wire_request request, unpacked;
static struct wire_reply reply, reply_unpacked;
static uint8_t header[WIRE_MAX_HEADER_BYTES], reply_header[WIRE_MAX_HEADER_BYTES];
static uint8_t body[WIRE_MAX_BODY_BYTES];

static void open_world(struct world *world, bool fresh)
{
    struct store_report report;

    world->store = fuzz_store_open(CAPACITY_BYTES, world->durability, &report);
    fuzz_require(world->store != NULL);
    fuzz_require(report.damaged_headers + report.damaged_pages + report.damaged_records +
                     report.damaged_files + report.recovered ==
                 0);
    fuzz_require(!fresh || report.pages + report.regions == 0);
    world->handler = (struct handler){.store = world->store,
                                      .instance = 1,
                                      .nshards = 1,
                                      .first_page = FIRST_PAGE,
                                      .part = "Fuzz"};
}

static size_t body_bytes(const struct world *world)
{
    size_t bytes = 0;

    for (unsigned i = 0; i < world->body.nparts; i++)
        bytes += world->body.parts[i].iov_len;
    return bytes;
}

/* The body is what the pages of the reply say. */
static void check_pages(const struct world *world)
{
    static uint8_t whole[WIRE_MAX_BODY_BYTES];
    const uint8_t *at = whole;
    size_t len = 0;

    fuzz_require(body_bytes(world) <= sizeof(whole));
    for (unsigned i = 0; i < world->body.nparts; i++) {
        memcpy(whole + len, world->body.parts[i].iov_base, world->body.parts[i].iov_len);
        len += world->body.parts[i].iov_len;
    }
    for (uint32_t i = 0; i < reply.npages; i++) {
        const struct wire_page *page = &reply.pages[i];
        if (page->encoding == WIRE_ABSENT)
            continue;
        fuzz_require(wire_checksum(page->page, at, page->length_bytes) == page->checksum);
        at += page->length_bytes;
    }
    fuzz_require((size_t)(at - whole) == len);
}

static void check_reply(const struct world *world)
{
    bool ok = reply.status == WIRE_OK;
    size_t len = ok ? body_bytes(world) : 0;
    ssize_t packed = wire_pack_reply(&reply, reply_header, sizeof(reply_header));

    fuzz_require(packed > 0);
    fuzz_require(wire_unpack_reply(&reply_unpacked, reply_header, (size_t)packed, len) == 0);
    /* The files are whole and nothing fails here. */
    fuzz_require(reply.status != WIRE_DATA_LOSS && reply.status != WIRE_INTERNAL);
    if (ok && reply.method == WIRE_PAGE_GET)
        check_pages(world);
}

/* Of the region a request is about: what only a request that is granted may change. */
struct mark {
    uint64_t epoch, sequence, npages, nregions;
};

static struct mark take_mark(const struct world *world)
{
    const struct region *region = store_find(world->store, unpacked.region);
    struct wire_shard_info info = {0};
    struct mark mark = {0};

    store_stat(world->store, &info);
    mark.nregions = info.nregions;
    if (region != NULL) {
        mark.epoch = region->epoch;
        mark.sequence = region->sequence;
        mark.npages = page_tree_count(region->pages);
    }
    return mark;
}

/* What was acknowledged is there. */
static void check_stored(const struct world *world)
{
    const struct region *region = store_find(world->store, unpacked.region);

    fuzz_require(region != NULL);
    for (uint32_t i = 0; i < unpacked.npages; i++) {
        struct wire_page page = {.page = unpacked.pages[i].page};
        fuzz_require(fuzz_store_get(world->store, region, &page) == 0);
        fuzz_require(page.encoding != WIRE_ABSENT && page.sequence >= unpacked.pages[i].sequence);
    }
}

/* As a shard takes a message up. */
static void deliver(struct world *world, size_t len, size_t body_len, uint64_t connection)
{
    /* Of just their sizes, for the address sanitizer. */
    uint8_t *exact = malloc(len + 1), *exact_body = malloc(body_len + 1);

    world->last_len = len;
    world->last_body = body_len;
    fuzz_require(exact != NULL && exact_body != NULL);
    memcpy(exact, header, len);
    memcpy(exact_body, body, body_len);
    exact = realloc(exact, len + (len == 0));
    exact_body = realloc(exact_body, body_len + (body_len == 0));
    fuzz_require(exact != NULL && exact_body != NULL);
    int err = wire_unpack_request(&unpacked, exact, len, body_len);
    struct mark before = take_mark(world);
    handler_answer(&world->handler, &unpacked, err, exact_body, connection, &reply, &world->body);
    struct mark after = take_mark(world);
    check_reply(world);
    if (reply.status != WIRE_OK)
        fuzz_require(memcmp(&before, &after, sizeof(before)) == 0);
    else if (unpacked.method == WIRE_PAGE_PUT)
        check_stored(world);
    free(exact);
    free(exact_body);
}

static void choose_name(struct world *world, char *name)
{
    uint8_t choice = fuzz_byte(&world->input);
    size_t got;

    memset(name, 0, WIRE_MAX_NAME_BYTES + 1);
    if (choice < 0xf0) {
        snprintf(name, WIRE_MAX_NAME_BYTES, "r%u", (unsigned)choice % NAMES);
        return;
    }
    const uint8_t *bytes = fuzz_bytes(&world->input, choice & 15, &got);
    memcpy(name, bytes, got);
}

static const struct region *region_named(const struct world *world, unsigned number)
{
    const struct region *region = store_after(world->store, "");

    for (; region != NULL; region = store_after(world->store, region->name)) {
        if (region->name[0] == 'r' && region->name[1] == '0' + (int)number)
            return region;
    }
    return NULL;
}

static void choose_region(struct world *world)
{
    uint8_t choice = fuzz_byte(&world->input), epoch = fuzz_byte(&world->input);
    const struct region *region = region_named(world, choice % NAMES);

    request.region = choice >= 0xf8 || region == NULL ? fuzz_number(&world->input, 2) : region->id;
    request.epoch = region == NULL ? 1 : region->epoch;
    if (epoch >= 0xf0)
        request.epoch = fuzz_number(&world->input, 8);
    else if (epoch >= 0xd0)
        request.epoch += epoch % 3 - 1U;
    /* Sequences go on from the region's, mostly. */
    request.sequence = region == NULL ? 0 : region->sequence;
}

static uint64_t choose_page(struct world *world)
{
    static const uint64_t bases[] = {
        0, 8, 300, 500, 512 * 512 - 4, (uint64_t)1 << 35, WIRE_MAX_PAGE - 300};
    uint8_t choice = fuzz_byte(&world->input);

    if (choice >= 0xfe)
        return fuzz_number(&world->input, 7);
    return bases[choice % 7] + choice / 7;
}

static uint32_t choose_count(struct world *world)
{
    uint8_t choice = fuzz_byte(&world->input);

    return choice >= 0xf0 ? 16U * (choice - 0xefU) : choice % 16U + 1;
}

/* From one page of a request to the next. */
static uint32_t distance_of(uint8_t choice)
{
    return choice < 0xe0 ? 1 : FAR_APART;
}

/* Bytes for a page of the request: what they are does not matter, that they differ does. */
static void make_page(struct wire_page *page, uint8_t choice, uint8_t *bytes)
{
    page->encoding = choice >= 0xf0 ? WIRE_LZ4 : choice >= 0xe0 ? WIRE_FILL : WIRE_RAW;
    page->length_bytes = WIRE_PAGE_BYTES;
    if (page->encoding == WIRE_FILL)
        page->length_bytes = 8;
    if (page->encoding == WIRE_LZ4)
        page->length_bytes = (choice & 15U) * 273U + (choice == 0xf0);
    memset(bytes, (int)(page->page ^ page->sequence << 1 ^ choice), page->length_bytes);
    page->checksum = wire_checksum(page->page, bytes, page->length_bytes);
}

/* From page FIRST on, for a PUT with bytes and with sequences from SEQUENCE on that grow by STEP.
 * Returns the length of the body. */
static size_t make_pages(uint64_t first, uint8_t choice, uint64_t sequence, unsigned step)
{
    size_t len = 0;

    for (uint32_t i = 0; i < request.npages; i++) {
        struct wire_page *page = &request.pages[i];
        *page = (struct wire_page){.page = first + i * (uint64_t)distance_of(choice),
                                   .sequence = sequence + i * (uint64_t)step};
        if (request.method != WIRE_PAGE_PUT)
            continue;
        make_page(page, choice, body + len);
        len += page->length_bytes;
    }
    return len;
}

static size_t choose_pages(struct world *world)
{
    uint64_t first = choose_page(world);
    uint8_t choice = fuzz_byte(&world->input), how = fuzz_byte(&world->input);

    request.npages = choose_count(world);
    uint64_t sequence = how >= 0xf0   ? fuzz_number(&world->input, 8)
                        : how >= 0xc0 ? how % 16U
                                      : request.sequence + how % 3;
    size_t len = make_pages(first, choice, sequence, how % 2);
    if (how == 0xef)
        request.pages[0].checksum ^= 1;
    return len;
}

/* All of COUNT pages from FIRST on but one in every FEW. */
static void make_ranges(uint64_t first, uint32_t count, uint32_t few, uint32_t distance)
{
    uint32_t step = few * distance;

    request.nranges = (count + few - 1) / few;
    for (uint32_t i = 0; i < request.nranges; i++)
        request.ranges[i] = (struct wire_range){first + i * (uint64_t)step + 1, step - 1};
}

static void choose_ranges(struct world *world)
{
    uint8_t how = fuzz_byte(&world->input);

    if (how >= 0xc0 && how < 0xe0) {
        uint64_t first = choose_page(world);
        uint32_t count = choose_count(world);
        make_ranges(first, count, how % 16U + 2, how < 0xd0 ? 1 : FAR_APART);
        return;
    }
    request.nranges = how % 16U + 1;
    for (uint32_t i = 0; i < request.nranges; i++) {
        request.ranges[i].first = choose_page(world);
        request.ranges[i].npages =
            how >= 0xf0 ? fuzz_number(&world->input, 6) : choose_count(world);
    }
    if (how % 32 >= 24)
        request.sequence = fuzz_number(&world->input, 1);
}

/* A request of METHOD. Returns the length of its body. */
static size_t choose_request(struct world *world, uint8_t method)
{
    size_t len = 0;

    memset(&request, 0, sizeof(request));
    request.method = method;
    request.id = fuzz_byte(&world->input);
    choose_region(world);
    switch (method) {
    case WIRE_HELLO:
        request.version_min = fuzz_byte(&world->input) % 4;
        request.version_max = fuzz_byte(&world->input) % 4;
        choose_name(world, request.name);
        break;
    case WIRE_OPEN:
        if (request.id % 2 != 0)
            request.epoch = 0;
        choose_name(world, request.name);
        break;
    case WIRE_FREEZE:
    case WIRE_BRANCH:
    case WIRE_LIST:
        choose_name(world, request.name);
        break;
    case WIRE_PAGE_GET:
    case WIRE_PAGE_PUT:
        len = choose_pages(world);
        break;
    case WIRE_PAGE_DROP:
        choose_ranges(world);
        break;
    default:
        break;
    }
    return len;
}

enum step {
    STEP_MORE = 10, /* a PUT, or make_sparse() */
    STEP_BENT = 11,
    STEP_RAW = 12,
    STEP_RESTART = 13,
    STEP_WORK = 14,
    STEP_AGAIN = 15
};

/* What was packed, bytes of it changed. */
static void bend(struct world *world, size_t len)
{
    for (unsigned n = fuzz_byte(&world->input) % 4U + 1; n > 0; n--) {
        size_t at = fuzz_number(&world->input, 2) % len;
        header[at] = fuzz_byte(&world->input);
    }
}

/* The next half of a round, so that there are requests while it is under way; or a whole one where
 * nothing is ever asked for meanwhile. */
static void sync_store(struct world *world, bool full)
{
    struct sync_job *job = world->job;

    world->job = NULL;
    if (job != NULL)
        fuzz_require(store_end_sync(world->store, sync_job_run(job)) == 0);
    else if (world->durability == STORE_ALWAYS)
        fuzz_require(store_commit(world->store, full) == 0);
    else if (world->durability == STORE_INTERVAL)
        fuzz_require(store_begin_sync(world->store, full, &world->job) == 0);
}

/* A few steps of it, or all that there is to do; and where there are rounds, half of one. */
static void work(struct world *world, unsigned choice)
{
    uint64_t before = fuzz_store_digest(world->store);

    for (unsigned i = 0; i <= choice || choice == ALL_WORK; i++) {
        if (!store_work(world->store))
            break;
    }
    sync_store(world, choice % 2 != 0);
    fuzz_require(fuzz_store_digest(world->store) == before);
}

/* Also while a round is under way. */
static void restart(struct world *world)
{
    uint64_t before = fuzz_store_digest(world->store);

    moved += store_moved(world->store);
    store_close(&world->store);
    world->job = NULL;
    open_world(world, false);
    fuzz_require(fuzz_store_digest(world->store) == before);
}

static void send_raw(struct world *world, uint8_t choice)
{
    size_t got, body_len = choice / 16U * WIRE_PAGE_BYTES;
    const uint8_t *bytes = fuzz_bytes(&world->input, fuzz_byte(&world->input), &got);

    memcpy(header, bytes, got);
    memset(body, choice, body_len);
    deliver(world, got, body_len, choice);
}

static void pack_and_send(struct world *world, size_t body_len, bool bent, uint64_t connection)
{
    ssize_t len = wire_pack_request(&request, header, sizeof(header));

    if (len < 0)
        return;
    if (bent)
        bend(world, (size_t)len);
    deliver(world, (size_t)len, body_len, connection);
}

static void send_request(struct world *world, uint8_t method, bool bent, uint64_t connection)
{
    pack_and_send(world, choose_request(world, method), bent, connection);
}

/* Many pages are stored and most of them dropped, so that moving is worth it. It may begin. */
static void make_sparse(struct world *world, uint8_t choice)
{
    memset(&request, 0, sizeof(request));
    choose_region(world);
    uint64_t first = choose_page(world);
    uint8_t kind = fuzz_byte(&world->input);
    uint32_t few = fuzz_byte(&world->input) % 16U + 2;

    request.method = WIRE_PAGE_PUT;
    request.sequence++;
    request.npages = WIRE_MAX_PAGES;
    size_t len = make_pages(first, kind, request.sequence, 0);
    pack_and_send(world, len, false, 0);
    request.method = WIRE_PAGE_DROP;
    make_ranges(first, WIRE_MAX_PAGES, few, distance_of(kind));
    pack_and_send(world, 0, false, 0);
    if (choice >= 0x80)
        work(world, choice / 16);
}

static void take_step(struct world *world)
{
    uint8_t choice = fuzz_byte(&world->input);
    enum step step = (enum step)(choice % 16);
    uint8_t method = (uint8_t)(step + 1);

    if (step == STEP_RESTART) {
        world->durability = (enum store_durability)(choice / 16 % (STORE_ALWAYS + 1));
        restart(world);
    } else if (step == STEP_WORK) {
        work(world, choice / 16);
    } else if (step == STEP_RAW) {
        send_raw(world, choice);
    } else if (step == STEP_MORE && choice / 16 % 4 >= 2) {
        make_sparse(world, choice);
    } else if (step == STEP_AGAIN) {
        deliver(world, world->last_len, world->last_body, choice);
    } else {
        if (step == STEP_BENT)
            method = choice / 16 % 10 + 1;
        else if (step == STEP_MORE)
            method = WIRE_PAGE_PUT;
        send_request(world, method, step == STEP_BENT, choice / 128);
    }
}

/* Nothing may be left behind. */
static void remove_all(struct world *world)
{
    const struct region *region;
    struct wire_shard_info info = {0};

    while ((region = store_after(world->store, "")) != NULL)
        fuzz_require(store_remove(world->store, region->id, region->epoch) == 0);
    while (store_work(world->store))
        ;
    fuzz_require(store_settle(world->store) == 0);
    store_stat(world->store, &info);
    fuzz_require(info.npages == 0 && info.nregions == 0);
    moved += store_moved(world->store);
}

const char *fuzz_summary(void)
{
    static char text[64];

    snprintf(text, sizeof(text), ", %" PRIu64 " pages moved", moved);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world world = {.input = {data, size}};

    if (size == 0)
        return 0;
    fuzz_require(log_open("/dev/null", LOG_LEVEL_DEBUG) == 0);
    fuzz_dir();
    fuzz_dir_clear();
    fuzz_random_restart();
    open_world(&world, true);
    for (unsigned step = 0; step < MAX_STEPS && world.input.left > 0; step++)
        take_step(&world);
    restart(&world);
    /* Few inputs work for long enough by themselves. */
    work(&world, ALL_WORK);
    restart(&world);
    remove_all(&world);
    store_close(&world.store);
    log_close();
    return 0;
}
