#include "peer_table.h"

#include "notice.h"
#include "../ini/log.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <malloc.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <zmq.h>

enum {
    /* Beyond the limit, and still told so: an eighth of the limit and a few. */
    FEW_REFUSED = 16,
    MEASURE_MS = 50,
    PEERS_PER_MS = 25, /* with many connections: measuring takes some 2 us each */
    TRIM_AFTER_MS = 1000,
    TURNS = 2,
    SLACK_BYTES = 64 << 10,
    FIRST_FDS = 256,
    LONG_FRAME = 256, /* from this length on, a frame's header has 9 bytes and not 2 */
};

/* What all connections may hold together, in bytes on the wire. Of messages that are not whole,
 * which may take thirty times as much memory: so much for each connection admitted, and at least 16
 * MiB. */
static const int64_t PARTIAL_BYTES = 16 << 10, LEAST_PARTIAL_BYTES = 16 << 20;
/* Of all that came and was not taken out. */
static const int64_t MAX_HELD_BYTES = 256 << 20;
/* Of answers that were not taken by the peer: all, and one. */
static const int64_t MAX_UNTAKEN_BYTES = 256 << 20, MAX_PEER_UNTAKEN_BYTES = 64 << 20;
/* After so many bytes of answers it is time to measure. */
static const uint64_t MEASURE_PUT_BYTES = 64 << 20;

static const char MONITOR[] = "inproc://peers";

struct peer {
    bool open, admitted, closing;
    bool measured;                                         /* for peer_table_judge() */
    uint64_t messages, messages_measured, messages_judged; /* taken: so far, and at those times */
    uint64_t taken, put;                                   /* bytes */
    uint64_t sampled;      /* bytes received when it was measured for peer_table_judge() */
    int64_t held, untaken; /* as measured last */
    int64_t partial;       /* as judged last */
};

struct peer_table {
    struct peer_table_options options;
    void *socket, *monitor;
    int fd;
    struct peer *peers; /* by descriptor */
    size_t npeers;
    uint32_t nopen, nadmitted;
    uint64_t next_ms;
    bool to_judge;
    bool was_exact;     /* when it was judged last */
    uint64_t taken;     /* messages, since all were measured */
    uint64_t put_bytes; /* the same */
    uint64_t trim_ms;   /* when to give memory back to the system; 0: not */
    struct notice refused, closed, endless, unread;
};

int peer_table_new(struct peer_table **out, void *context, void *socket,
                   const struct peer_table_options *options)
{
    struct peer_table *table = calloc(1, sizeof(*table));
    int events = ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CLOSED;
    int unlimited = 0; /* a full queue would hold ZeroMQ's thread up */
    size_t size = sizeof(table->fd);

    if (table == NULL)
        return -ENOMEM;
    table->options = *options;
    table->socket = socket;
    if (zmq_socket_monitor(socket, MONITOR, events) != 0 ||
        (table->monitor = zmq_socket(context, ZMQ_PAIR)) == NULL ||
        zmq_setsockopt(table->monitor, ZMQ_RCVHWM, &unlimited, sizeof(unlimited)) != 0 ||
        zmq_setsockopt(table->monitor, ZMQ_LINGER, &unlimited, sizeof(unlimited)) != 0 ||
        zmq_connect(table->monitor, MONITOR) != 0 ||
        zmq_getsockopt(table->monitor, ZMQ_FD, &table->fd, &size) != 0) {
        int err = -errno;
        peer_table_destroy(&table);
        return err;
    }
    *out = table;
    return 0;
}

void peer_table_destroy(struct peer_table **table)
{
    if (*table == NULL)
        return;
    zmq_socket_monitor((*table)->socket, NULL, 0);
    if ((*table)->monitor != NULL)
        zmq_close((*table)->monitor);
    free((*table)->peers);
    free(*table);
    *table = NULL;
}

int peer_table_fd(const struct peer_table *table)
{
    return table->fd;
}

uint32_t peer_table_count(const struct peer_table *table)
{
    return table->nopen;
}

static struct peer *find(const struct peer_table *table, int fd)
{
    if (fd < 0 || (size_t)fd >= table->npeers || !table->peers[fd].open)
        return NULL;
    return &table->peers[fd];
}

/* ZeroMQ sees the end of the connection, and frees what it holds for it. The peer gets a reset:
 * with all of its window used it might not hear of a proper end for long. */
static void shut_down(int fd)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    shutdown(fd, SHUT_RDWR);
}

static void forget(struct peer_table *table, int fd)
{
    struct peer *peer = find(table, fd);

    if (peer == NULL)
        return;
    table->nopen--;
    table->nadmitted -= peer->admitted;
    peer->open = false;
}

static bool admit(struct peer_table *table, struct peer *peer)
{
    uint64_t count;

    if (peer->admitted)
        return true;
    if (table->nadmitted < table->options.max_connections) {
        peer->admitted = true;
        table->nadmitted++;
        return true;
    }
    if (notice_is_due(&table->refused, &count))
        log_warn(table->options.part,
                 "%" PRIu32 " connections is the limit (--max-connections): %" PRIu64
                 " refusals to others",
                 table->options.max_connections, count);
    return false;
}

static bool make_place(struct peer_table *table, int fd)
{
    if ((size_t)fd < table->npeers)
        return true;
    size_t count = table->npeers == 0 ? FIRST_FDS : table->npeers;
    while (count <= (size_t)fd)
        count *= 2;
    struct peer *peers = realloc(table->peers, count * sizeof(*peers));
    if (peers == NULL)
        return false;
    memset(peers + table->npeers, 0, (count - table->npeers) * sizeof(*peers));
    table->peers = peers;
    table->npeers = count;
    return true;
}

static void add(struct peer_table *table, int fd)
{
    uint64_t most = table->options.max_connections;
    uint64_t count;

    if (fd < 0)
        return;
    forget(table, fd);
    if (!make_place(table, fd)) {
        shut_down(fd);
        return;
    }
    struct peer *peer = &table->peers[fd];
    *peer = (struct peer){.open = true};
    table->nopen++;
    if (table->nopen <= most + most / 8 + FEW_REFUSED)
        return;
    peer->closing = true;
    shut_down(fd);
    if (notice_is_due(&table->closed, &count))
        log_warn(table->options.part,
                 "%" PRIu32 " connections is the limit (--max-connections), and there are %" PRIu32
                 ": %" PRIu64 " closed",
                 table->options.max_connections, table->nopen, count);
}

/* One event of the monitor. False: there is none. */
static bool take_event(struct peer_table *table)
{
    char event[6], address[256];
    uint16_t what;
    int32_t fd;

    if (zmq_recv(table->monitor, event, sizeof(event), ZMQ_DONTWAIT) != sizeof(event))
        return false;
    if (zmq_recv(table->monitor, address, sizeof(address), 0) < 0)
        return false;
    memcpy(&what, event, sizeof(what));
    memcpy(&fd, event + sizeof(what), sizeof(fd));
    if (what == ZMQ_EVENT_ACCEPTED)
        add(table, fd);
    else
        forget(table, fd);
    return true;
}

void peer_table_follow(struct peer_table *table)
{
    while (take_event(table))
        ;
}

size_t peer_table_frame_bytes(size_t len)
{
    return len + (len < LONG_FRAME ? 2 : 9);
}

enum peer_standing peer_table_take(struct peer_table *table, int fd, size_t wire_bytes)
{
    struct peer *peer = find(table, fd);

    table->taken++;
    if (peer == NULL) {
        peer_table_follow(table);
        peer = find(table, fd);
    }
    if (peer == NULL)
        return PEER_ADMITTED;
    peer->taken += wire_bytes;
    peer->messages++;
    if (peer->closing)
        return PEER_CLOSING;
    return admit(table, peer) ? PEER_ADMITTED : PEER_REFUSED;
}

void peer_table_put(struct peer_table *table, int fd, size_t wire_bytes)
{
    struct peer *peer = find(table, fd);

    if (peer == NULL)
        return;
    peer->put += wire_bytes;
    table->put_bytes += wire_bytes;
}

static void cut(struct peer_table *table, size_t fd, struct notice *notice, const char *what,
                int64_t bytes)
{
    uint64_t count;

    table->peers[fd].closing = true;
    shut_down((int)fd);
    table->trim_ms = notice_now_ms() + TRIM_AFTER_MS;
    if (notice_is_due(notice, &count))
        log_warn(table->options.part,
                 "%" PRIu64 " connections closed, the last one for %s: %" PRId64 " KiB", count,
                 what, bytes >> 10);
}

/* Cuts those with most until all together are within MOST. */
static void judge_sum(struct peer_table *table, size_t offset, int64_t most, struct notice *notice,
                      const char *what)
{
    for (;;) {
        int64_t sum = 0, worst_bytes = 0;
        size_t worst = 0;
        for (size_t fd = 0; fd < table->npeers; fd++) {
            const struct peer *peer = &table->peers[fd];
            int64_t bytes = *(const int64_t *)((const char *)peer + offset);
            if (!peer->open || peer->closing || bytes <= 0)
                continue;
            sum += bytes;
            if (bytes > worst_bytes) {
                worst_bytes = bytes;
                worst = fd;
            }
        }
        if (sum <= most)
            return;
        cut(table, worst, notice, what, worst_bytes);
    }
}

/* For peer_table_judge(). */
static void sample(const struct peer_table *table, struct peer *peer, uint64_t received)
{
    /* When it was judged last, all that was whole had been taken. A message since then was not, so
     * whatever was measured before it has ended, too: greeting and heartbeats are forgotten so. */
    if (table->was_exact && peer->messages != peer->messages_judged && peer->taken < peer->sampled)
        peer->taken = peer->sampled;
    peer->sampled = received;
    peer->messages_measured = peer->messages;
    peer->measured = true;
}

static void measure(const struct peer_table *table, struct peer *peer, int fd)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof(info);
    int unread = 0, unsent = 0;

    if (ioctl(fd, SIOCINQ, &unread) != 0 || ioctl(fd, SIOCOUTQ, &unsent) != 0 ||
        getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0)
        return;
    /* What was put in and dropped, because too much waited, is not on its way. */
    if (unsent == 0)
        peer->put = info.tcpi_bytes_acked;
    peer->untaken = (int64_t)(peer->put - info.tcpi_bytes_acked);
    /* More may come between the two calls: then it is counted the next time. */
    uint64_t came = info.tcpi_bytes_received;
    uint64_t received = came > (uint64_t)unread ? came - (uint64_t)unread : 0;
    peer->held = (int64_t)(received - peer->taken);
    if (!table->to_judge)
        sample(table, peer, received);
}

/* The answers that wait are known at once; what came is known for as much as is not taken out. */
static void measure_all(struct peer_table *table)
{
    for (size_t fd = 0; fd < table->npeers; fd++) {
        struct peer *peer = &table->peers[fd];
        if (!peer->open || peer->closing)
            continue;
        measure(table, peer, (int)fd);
        if (peer->untaken > MAX_PEER_UNTAKEN_BYTES)
            cut(table, fd, &table->unread, "answers that are not read", peer->untaken);
    }
    judge_sum(table, offsetof(struct peer, untaken), MAX_UNTAKEN_BYTES, &table->unread,
              "the most of answers that are not read");
    judge_sum(table, offsetof(struct peer, held), MAX_HELD_BYTES, &table->endless,
              "the most of messages that wait");
    if (!table->to_judge)
        table->taken = 0;
    table->to_judge = true;
}

/* What was freed after a flood is spread over ZeroMQ's heap, and would stay the process's. */
static void trim(struct peer_table *table, uint64_t now)
{
    if (table->trim_ms == 0 || now < table->trim_ms)
        return;
    table->trim_ms = 0;
    malloc_trim(0);
}

int peer_table_measure(struct peer_table *table)
{
    uint64_t now = notice_now_ms();

    trim(table, now);
    if (table->nopen == 0 || !table->options.is_tcp)
        return table->trim_ms == 0 ? -1 : MEASURE_MS;
    if (now < table->next_ms && table->put_bytes < MEASURE_PUT_BYTES)
        return (int)(table->next_ms - now);
    uint64_t wait_ms = MEASURE_MS + table->nopen / PEERS_PER_MS;
    table->next_ms = now + wait_ms;
    measure_all(table);
    table->put_bytes = 0;
    return (int)wait_ms;
}

static void judge_one(struct peer_table *table, size_t fd, bool exact)
{
    struct peer *peer = &table->peers[fd];
    int64_t most = (int64_t)table->options.max_message_bytes + SLACK_BYTES;
    bool silent = peer->messages == peer->messages_measured;

    peer->measured = false;
    peer->messages_judged = peer->messages;
    peer->partial = exact || silent ? (int64_t)(peer->sampled - peer->taken) : 0;
    /* Messages of a connection that had this descriptor before were counted, too. */
    if (peer->partial < 0 && silent)
        peer->taken = peer->sampled;
    if (peer->partial > most)
        cut(table, fd, &table->endless, "a message that does not end", peer->partial);
}

void peer_table_judge(struct peer_table *table, bool all_taken)
{
    /* Every connection that has a whole message has its turn, one after the other: what is silent
     * for so long has none. */
    if (!table->to_judge || (!all_taken && table->taken < TURNS * ((uint64_t)table->nopen + 1)))
        return;
    table->to_judge = false;
    table->was_exact = all_taken;
    for (size_t fd = 0; fd < table->npeers; fd++) {
        struct peer *peer = &table->peers[fd];
        if (peer->open && peer->measured && !peer->closing)
            judge_one(table, fd, all_taken);
    }
    int64_t most = (int64_t)table->options.max_connections * PARTIAL_BYTES;
    if (most < LEAST_PARTIAL_BYTES)
        most = LEAST_PARTIAL_BYTES;
    judge_sum(table, offsetof(struct peer, partial), most, &table->endless,
              "the most of messages that do not end");
}
