/* The client's side of the benches of live queries, compiled when they run: cheap enough to leave the server its core.

   live_client receive RECORDS_FD CAPACITY ws|stream NEEDLE FD...
       Takes over connected sockets (inherited descriptors, subscribed by whoever started it) until its standard input
       ends. Every row that the benches write carries a marker, `@` and 16 digits: the CLOCK_MONOTONIC nanosecond of
       its writing. Each marker that arrives is recorded with the time of the `recv` that completed it; occurrences of
       NEEDLE (at most 17 bytes: acknowledgements of subscriptions) are counted. On WebSockets (`ws`) pings are
       answered, which takes walking the frame headers; anything else (`stream`: server-sent events) is only searched.
       RECORDS_FD is shared memory: `struct totals`, then CAPACITY records.

   live_client write PORT CONNECTIONS RATE REQUESTS_FILE
       Sends the HTTP requests of a file (each behind its length, 32 bits, little-endian) over keep-alive connections,
       the i-th at i/RATE seconds, on whichever connection is free; its marker becomes the time at which it was due, so
       that waiting for a connection counts. Writes pairs (marker, nanosecond of the answer), 64 bits each, to standard
       output. An answer that is not 2xx ends it with the answer's beginning. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { MARKER = 17, TAIL = MARKER - 1, CHUNK = 1 << 18, EVENTS = 256 };

static _Noreturn void fail(const char *what) {
    fprintf(stderr, "live_client: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void watch(int epoll, int fd, uint64_t key) {
    struct epoll_event event = {.events = EPOLLIN, .data = {.u64 = key}};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
}

static void send_all(int fd, const unsigned char *bytes, size_t length) {
    while (length) {
        ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) fail("send");
        if (sent > 0) bytes += sent, length -= (size_t)sent;
    }
}

/* ---- receive ---- */

struct record { uint64_t marker, arrival, socket; };

struct totals { volatile uint64_t records, needles, ended, bytes; };

struct receiver {
    int fd;
    unsigned char tail[TAIL]; /* the end of what was searched: a marker may lie across two reads */
    size_t tail_length;
    unsigned char header[10]; /* of the frame that is coming in */
    size_t header_length;
    uint64_t left; /* bytes of its payload still to come */
    unsigned char control[125];
    size_t control_length;
};

static struct totals *totals;
static struct record *records;
static uint64_t capacity;
static const char *needle;
static size_t needle_length;

static void search(struct receiver *from, uint64_t number, const unsigned char *text, size_t length, uint64_t arrival) {
    const unsigned char *fresh = text + from->tail_length, *end = text + length;
    for (const unsigned char *at = text; (at = memchr(at, '@', (size_t)(end - at))); at++) {
        if (end - at < MARKER) break;
        uint64_t marker = 0;
        int digits = 1;
        while (digits < MARKER && at[digits] >= '0' && at[digits] <= '9') marker = marker * 10 + at[digits++] - '0';
        if (digits < MARKER || at + MARKER <= fresh) continue;
        uint64_t place = totals->records;
        if (place >= capacity) errno = ENOSPC, fail("records");
        records[place] = (struct record){marker, arrival, number};
        __atomic_store_n(&totals->records, place + 1, __ATOMIC_RELEASE);
    }
    for (const unsigned char *at = text; needle_length && (at = memmem(at, (size_t)(end - at), needle, needle_length));
         at += needle_length)
        if (at + needle_length > fresh) totals->needles++;
}

static void control_frame(struct receiver *from) {
    unsigned char opcode = from->header[0] & 15;
    if (opcode == 8) {
        totals->ended++;
        int code = from->control_length < 2 ? 1005 : from->control[0] << 8 | from->control[1];
        int reason = from->control_length < 2 ? 0 : (int)from->control_length - 2;
        if (code != 1001) /* going away: the bench stops it */
            fprintf(stderr, "live_client: the server closes: %d %.*s\n", code, reason, (char *)from->control + 2);
    } else if (opcode == 9) { /* ping: the same bytes back, masked with zero */
        unsigned char pong[6 + 125] = {0x8a, (unsigned char)(0x80 | from->control_length)};
        memcpy(pong + 6, from->control, from->control_length);
        send_all(from->fd, pong, 6 + from->control_length);
    }
}

static void walk_frames(struct receiver *from, const unsigned char *at, size_t length) {
    while (length) {
        if (!from->left) {
            from->header[from->header_length++] = *at++, length--;
            if (from->header_length < 2) continue;
            unsigned char size = from->header[1] & 127;
            size_t whole = size == 126 ? 4 : size == 127 ? 10 : 2;
            if (from->header_length < whole) continue;
            from->left = size;
            if (size > 125)
                for (from->left = 0, size = 2; size < whole; size++) from->left = from->left << 8 | from->header[size];
            from->header_length = 0, from->control_length = 0;
            if (!from->left && from->header[0] & 8) control_frame(from);
            continue;
        }
        size_t part = length < from->left ? length : (size_t)from->left;
        if (from->header[0] & 8) {
            if (from->control_length + part > sizeof from->control) errno = EPROTO, fail("control frame");
            memcpy(from->control + from->control_length, at, part), from->control_length += part;
        }
        at += part, length -= part, from->left -= part;
        if (!from->left && from->header[0] & 8) control_frame(from);
    }
}

static void receive(int count, char **descriptors, int frames) {
    static unsigned char buffer[TAIL + CHUNK];
    struct receiver *receivers = calloc((size_t)count, sizeof *receivers);
    int epoll = epoll_create1(0);
    if (!receivers || epoll < 0) fail("start");
    for (int i = 0; i < count; i++) {
        receivers[i].fd = atoi(descriptors[i]);
        fcntl(receivers[i].fd, F_SETFL, O_NONBLOCK);
        watch(epoll, receivers[i].fd, (uint64_t)i);
    }
    watch(epoll, 0, (uint64_t)count);
    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        if (ready < 0 && errno != EINTR) fail("epoll_wait");
        for (int i = 0; i < ready; i++) {
            if (events[i].data.u64 == (uint64_t)count) exit(0);
            struct receiver *from = &receivers[events[i].data.u64];
            ssize_t got = recv(from->fd, buffer + TAIL, CHUNK, 0);
            uint64_t arrival = now();
            if (got < 0 && errno == EAGAIN) continue;
            if (got <= 0) { /* ended or reset: the bench sees the count */
                totals->ended++;
                epoll_ctl(epoll, EPOLL_CTL_DEL, from->fd, NULL);
                continue;
            }
            totals->bytes += (uint64_t)got;
            unsigned char *text = buffer + TAIL - from->tail_length;
            size_t length = from->tail_length + (size_t)got;
            memcpy(text, from->tail, from->tail_length);
            search(from, events[i].data.u64, text, length, arrival);
            if (frames) walk_frames(from, buffer + TAIL, (size_t)got);
            from->tail_length = length < TAIL ? length : TAIL;
            memcpy(from->tail, text + length - from->tail_length, from->tail_length);
        }
    }
}

/* ---- write ---- */

struct writer {
    int fd;
    int busy;
    uint64_t marker;
    char answer[16384];
    size_t length;
};

static size_t answer_size(struct writer *of) { /* of head and body; 0: the head is not whole yet */
    of->answer[of->length] = 0;
    char *end = strstr(of->answer, "\r\n\r\n");
    if (!end) return 0;
    if (strncmp(of->answer, "HTTP/1.1 2", 10)) {
        fprintf(stderr, "live_client: %.600s\n", of->answer);
        exit(1);
    }
    char *field = strcasestr(of->answer, "\r\ncontent-length:");
    if (!field || field > end) errno = EPROTO, fail("an answer without Content-Length");
    return (size_t)(end + 4 - of->answer) + strtoul(field + 17, NULL, 10);
}

static void dispatch(struct writer *to, unsigned char *request, uint32_t length, uint64_t due) {
    char digits[MARKER + 1];
    snprintf(digits, sizeof digits, "@%016llu", (unsigned long long)due);
    unsigned char *marker = memmem(request, length, "@0000000000000000", MARKER);
    if (!marker) errno = EINVAL, fail("a request without marker");
    memcpy(marker, digits, MARKER);
    to->busy = 1, to->marker = due, to->length = 0;
    send_all(to->fd, request, length);
}

static void write_requests(int port, int connections, double rate, const char *path) {
    int file = open(path, O_RDONLY), epoll = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct stat status;
    if (file < 0 || fstat(file, &status) < 0 || timer < 0) fail(path);
    unsigned char *next = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    if (next == MAP_FAILED) fail("mmap");
    unsigned char *end = next + status.st_size;
    struct writer *writers = calloc((size_t)connections, sizeof *writers);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0, on = 1; i < connections; i++) {
        writers[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(writers[i].fd, (struct sockaddr *)&address, sizeof address) < 0) fail("connect");
        setsockopt(writers[i].fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(epoll, writers[i].fd, (uint64_t)i);
    }
    watch(epoll, timer, (uint64_t)connections);
    uint64_t start = now() + 10000000u, sent = 0, answered = 0;
    while (next < end || answered < sent) {
        uint64_t due = start + (uint64_t)((double)sent * 1e9 / rate);
        for (int i = 0; i < connections && next < end && due <= now(); i++) {
            if (writers[i].busy) continue;
            uint32_t length;
            memcpy(&length, next, sizeof length);
            dispatch(&writers[i], next + sizeof length, length, due);
            next += sizeof length + length, sent++;
            due = start + (uint64_t)((double)sent * 1e9 / rate);
        }
        if (next < end && due > now()) {
            struct itimerspec at = {.it_value = {(time_t)(due / 1000000000u), (long)(due % 1000000000u)}};
            timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
        }
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll, events, EVENTS, 60000);
        if (ready < 0 && errno != EINTR) fail("epoll_wait");
        if (ready == 0) errno = ETIMEDOUT, fail("answers");
        for (int i = 0; i < ready; i++) {
            if (events[i].data.u64 == (uint64_t)connections) {
                uint64_t expirations;
                if (read(timer, &expirations, sizeof expirations) < 0 && errno != EAGAIN) fail("timer");
                continue;
            }
            struct writer *from = &writers[events[i].data.u64];
            ssize_t got = recv(from->fd, from->answer + from->length, sizeof from->answer - 1 - from->length, 0);
            if (got <= 0) fail("the server ended a connection");
            from->length += (size_t)got;
            size_t whole = answer_size(from);
            if (!whole || from->length < whole) continue;
            uint64_t pair[2] = {from->marker, now()};
            if (fwrite(pair, sizeof pair, 1, stdout) != 1) fail("stdout");
            from->busy = 0, answered++;
        }
    }
}

int main(int count, char **arguments) {
    if (count > 6 && !strcmp(arguments[1], "receive")) {
        capacity = strtoull(arguments[3], NULL, 10);
        size_t size = sizeof *totals + capacity * sizeof *records;
        totals = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(arguments[2]), 0);
        if (totals == MAP_FAILED) fail("records");
        records = (struct record *)(totals + 1);
        needle = arguments[5], needle_length = strlen(needle);
        if (needle_length > MARKER) errno = EINVAL, fail("needle");
        receive(count - 6, arguments + 6, !strcmp(arguments[4], "ws"));
    } else if (count == 6 && !strcmp(arguments[1], "write")) {
        write_requests(atoi(arguments[2]), atoi(arguments[3]), atof(arguments[4]), arguments[5]);
    } else {
        fprintf(stderr, "usage: see the head of live_client.c\n");
        return 2;
    }
    return 0;
}
