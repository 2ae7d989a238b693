// How many requests a second a shard serves, and the same over ZeroMQ alone.
//
//   requests edm ENDPOINT REGION EPOCH SEQUENCE get|put NPAGES SECONDS
//   requests raw HEADER_BYTES get|put NPAGES SECONDS
//
// The first puts pages into the region, or puts all REGION_PAGES there and then asks for them; one
// connection, AT_ONCE requests under way. The second does the same with a server that looks at
// nothing and answers with as many bytes: HEADER_BYTES, and the pages where they are asked for.
// Both check every page that they get.
// Prints requests a second and what an answer's header was. Exit status 3: an answer was wrong.
#include <err.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
#include <xxhash.h>
#include <zmq.h>

#include "clock.h"
#include "pages.h"

#define REGION_PAGES 16384u
#define AT_ONCE 8u
#define MAX_NPAGES 64u
#define MAX_HEADER_BYTES 8192u
#define VERSION 1
#define PAGE_GET 3
#define PAGE_PUT 4
#define RAW 0
#define PATIENCE_MS 20000
#define LEAST_DONE 10u // however long they take

static struct {
    uint64_t region, epoch, sequence;
    bool put;
    unsigned npages;
    double seconds;
} want;

static uint64_t *pages; // the region's, as they were put last
static uint64_t *sums;

// ---- MessagePack, as much as is needed ----

static uint8_t *pack_number(uint8_t *at, uint64_t number)
{
    *at++ = 0xcf;
    for (int shift = 56; shift >= 0; shift -= 8)
        *at++ = (uint8_t)(number >> shift);
    return at;
}

static uint8_t *pack_array(uint8_t *at, unsigned count)
{
    *at++ = 0xdc;
    *at++ = (uint8_t)(count >> 8);
    *at++ = (uint8_t)count;
    return at;
}

static const uint8_t *skip_number(const uint8_t *at, uint64_t *number)
{
    static const uint8_t lengths[] = {1, 2, 4, 8};
    *number = *at;
    if (*at < 0x80)
        return at + 1;
    if (*at < 0xcc || *at > 0xcf)
        errx(3, "a number was expected in an answer");
    uint8_t length = lengths[*at++ - 0xcc];
    for (*number = 0; length > 0; length--)
        *number = *number << 8 | *at++;
    return at;
}

static size_t pack_request(uint8_t *header, uint64_t id, unsigned first)
{
    uint8_t *at = pack_array(header, 5);
    at = pack_number(at, VERSION);
    at = pack_number(at, want.put ? PAGE_PUT : PAGE_GET);
    at = pack_number(at, id);
    at = pack_number(at, 0);
    at = pack_array(at, 3);
    at = pack_number(at, want.region);
    at = pack_number(at, want.epoch);
    if (!want.put) {
        at = pack_array(at, 1);
        at = pack_array(at, 2);
        at = pack_number(at, first);
        at = pack_number(at, want.npages);
        return (size_t)(at - header);
    }
    at = pack_array(at, want.npages);
    want.sequence++;
    for (unsigned page = first; page < first + want.npages; page++) {
        at = pack_array(at, 5);
        at = pack_number(at, page);
        at = pack_number(at, want.sequence);
        at = pack_number(at, RAW);
        at = pack_number(at, PAGE_BYTES);
        at = pack_number(at, sums[page]);
    }
    return (size_t)(at - header);
}

// ---- one side ----

static unsigned first_of(uint64_t id)
{
    return (unsigned)(id * 7919 % (REGION_PAGES / want.npages)) * want.npages;
}

static void ask(void *socket, uint64_t id)
{
    uint8_t header[MAX_HEADER_BYTES];
    size_t len = pack_request(header, id, first_of(id));
    if (zmq_send(socket, header, len, want.put ? ZMQ_SNDMORE : 0) < 0)
        errx(1, "send: %s", zmq_strerror(errno));
    if (want.put &&
        zmq_send(socket, pages + first_of(id) * PAGE_WORDS, want.npages * PAGE_BYTES, 0) < 0)
        errx(1, "send: %s", zmq_strerror(errno));
}

static bool more(void *socket)
{
    int value = 0;
    size_t len = sizeof(value);
    return zmq_getsockopt(socket, ZMQ_RCVMORE, &value, &len) == 0 && value;
}

// Takes an answer and checks it. The raw one does not say what it answers: they come in order, and
// this is to `expected`. Returns the length of the header.
static size_t answered(void *socket, uint64_t expected, bool by_dms)
{
    zmq_msg_t header, body;
    zmq_msg_init(&header);
    zmq_msg_init(&body);
    if (zmq_msg_recv(&header, socket, 0) < 0)
        errx(1, "no answer: %s", zmq_strerror(errno));
    bool has_body = more(socket);
    if (has_body && zmq_msg_recv(&body, socket, 0) < 0)
        errx(1, "no answer: %s", zmq_strerror(errno));
    size_t len = zmq_msg_size(&header);
    if (zmq_msg_size(&body) != (want.put ? 0 : want.npages * PAGE_BYTES))
        errx(3, "an answer of %zu bytes", zmq_msg_size(&body));
    if (by_dms) {
        const uint8_t *at = zmq_msg_data(&header);
        uint64_t version, method, id, status;
        at = skip_number(skip_number(skip_number(skip_number(at + 1, &version), &method), &id),
                         &status);
        if (status != 0)
            errx(3, "status %llu", (unsigned long long)status);
        expected = id;
    }
    const uint64_t *words = zmq_msg_data(&body);
    for (unsigned i = 0; !want.put && i < want.npages; i++)
        if (!page_is(words + i * PAGE_WORDS, first_of(expected) + i, 0))
            errx(3, "page %u is not as it was put", first_of(expected) + i);
    zmq_msg_close(&header);
    zmq_msg_close(&body);
    return len;
}

// Puts every page of the region there.
static void put_all(void *socket)
{
    bool put = want.put;
    unsigned npages = want.npages;
    want.put = true;
    want.npages = MAX_NPAGES;
    // first_of() comes to each batch once in so many requests.
    for (uint64_t id = 1; id <= REGION_PAGES / MAX_NPAGES; id++) {
        ask(socket, id);
        answered(socket, id, true);
    }
    want.put = put;
    want.npages = npages;
}

static void measure(void *context, const char *endpoint, bool by_dms)
{
    void *socket = zmq_socket(context, ZMQ_DEALER);
    int patience = PATIENCE_MS;
    zmq_setsockopt(socket, ZMQ_RCVTIMEO, &patience, sizeof(patience));
    if (zmq_connect(socket, endpoint) != 0)
        errx(1, "%s: %s", endpoint, zmq_strerror(errno));
    if (by_dms && !want.put)
        put_all(socket);
    uint64_t id = 0, answers = 0, done = 0, begun = 0, now = clock_ns();
    uint64_t warm = now + (uint64_t)(want.seconds * 1e9 / 4);
    uint64_t end = warm + (uint64_t)(want.seconds * 1e9);
    size_t header_bytes = 0;
    while (id < AT_ONCE)
        ask(socket, ++id);
    while (now < end || done < LEAST_DONE) {
        header_bytes = answered(socket, ++answers, by_dms);
        ask(socket, ++id);
        now = clock_ns();
        if (begun == 0 && now >= warm)
            begun = now;
        else if (begun)
            done++;
    }
    while (answers < id)
        answered(socket, ++answers, by_dms);
    printf(
        "{\"what\":\"requests\",\"requests_per_s\":%.1f,\"header_bytes\":%zu,\"sequence\":%llu}\n",
        (double)done * 1e9 / (double)(now - begun), header_bytes,
        (unsigned long long)want.sequence);
    int linger = 0;
    zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof(linger));
    zmq_close(socket);
}

// ---- the other ----

static void keep(void *bytes, void *hint)
{
    (void)bytes;
    (void)hint;
}

static void serve_raw(int ready, size_t header_bytes)
{
    static uint8_t header[MAX_HEADER_BYTES];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    void *context = zmq_ctx_new();
    void *socket = zmq_socket(context, ZMQ_ROUTER);
    char endpoint[128];
    size_t len = sizeof(endpoint);
    if (zmq_bind(socket, "tcp://127.0.0.1:*") != 0 ||
        zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, endpoint, &len) != 0 ||
        write(ready, endpoint, sizeof(endpoint)) != sizeof(endpoint))
        errx(1, "no raw server");
    for (uint64_t id = 1;; id++) {
        zmq_msg_t peer, frame;
        zmq_msg_init(&peer);
        if (zmq_msg_recv(&peer, socket, 0) < 0)
            errx(1, "raw server: %s", zmq_strerror(errno));
        while (more(socket)) {
            zmq_msg_init(&frame);
            zmq_msg_recv(&frame, socket, 0);
            zmq_msg_close(&frame);
        }
        zmq_msg_send(&peer, socket, ZMQ_SNDMORE);
        zmq_send(socket, header, header_bytes, want.put ? 0 : ZMQ_SNDMORE);
        if (want.put)
            continue;
        // Nothing is copied.
        zmq_msg_init_data(&frame, pages + first_of(id) * PAGE_WORDS, want.npages * PAGE_BYTES, keep,
                          NULL);
        zmq_msg_send(&frame, socket, 0);
    }
}

static void make_pages(void)
{
    pages = malloc((size_t)REGION_PAGES * PAGE_BYTES);
    sums = malloc((size_t)REGION_PAGES * sizeof(*sums));
    if (pages == NULL || sums == NULL)
        err(1, "malloc");
    for (unsigned page = 0; page < REGION_PAGES; page++) {
        page_fill(pages + page * PAGE_WORDS, page, 0);
        sums[page] = XXH3_64bits_withSeed(pages + page * PAGE_WORDS, PAGE_BYTES, page);
    }
}

static void read_end(char **argv)
{
    want.put = strcmp(argv[0], "put") == 0;
    want.npages = (unsigned)strtoul(argv[1], NULL, 10);
    want.seconds = strtod(argv[2], NULL);
    if (want.npages < 1 || want.npages > MAX_NPAGES)
        errx(2, "1 to %u pages", MAX_NPAGES);
    make_pages();
}

int main(int argc, char **argv)
{
    if (argc == 9 && strcmp(argv[1], "edm") == 0) {
        want.region = strtoull(argv[3], NULL, 10);
        want.epoch = strtoull(argv[4], NULL, 10);
        want.sequence = strtoull(argv[5], NULL, 10);
        read_end(argv + 6);
        measure(zmq_ctx_new(), argv[2], true);
        return 0;
    }
    if (argc == 6 && strcmp(argv[1], "raw") == 0) {
        size_t header_bytes = strtoul(argv[2], NULL, 10);
        if (header_bytes > MAX_HEADER_BYTES)
            errx(2, "at most %u bytes", MAX_HEADER_BYTES);
        read_end(argv + 3);
        int ends[2];
        char endpoint[128];
        if (pipe(ends) != 0)
            err(1, "pipe");
        pid_t child = fork();
        if (child < 0)
            err(1, "fork");
        if (child == 0)
            serve_raw(ends[1], header_bytes);
        if (read(ends[0], endpoint, sizeof(endpoint)) != sizeof(endpoint))
            errx(1, "no raw server");
        measure(zmq_ctx_new(), endpoint, false);
        kill(child, SIGKILL);
        return 0;
    }
    errx(2, "usage: requests edm ENDPOINT REGION EPOCH SEQUENCE get|put NPAGES SECONDS\n"
            "       requests raw HEADER_BYTES get|put NPAGES SECONDS");
}
