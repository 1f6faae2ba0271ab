/* The kernel functions of a chaos run for which Rust has no safe call.
 *
 *   tool cut MOUNT                 shuts a filesystem down at once, without flushing its journal
 *   tool switch CONTROL SEED N     a switch between namespaces /run/netns/n1 … nN and this one
 *
 * The switch has one TAP device in each namespace (eth0) and one here (chaos0). It forwards packets
 * between them as the control file says at this moment: loss, delay, jitter, duplicates, bandwidth,
 * a closed port. It prints "ready" when the devices exist, and ends with its parent. It queues at
 * most QUEUED_MAX packets and drops the rest.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define PORTS_MAX 8
#define PACKET_MAX 16384
#define QUEUED_MAX 16384
/* A link with limited bandwidth queues packets for this long, then drops, as a router does. */
#define QUEUE_US 400000

/* One direction of one link, as `Network::set` writes it. With 0 everywhere nothing happens. */
struct link {
    volatile int64_t loss_ppm, delay_us, jitter_us, duplicate_ppm, bytes_per_second, closed_port;
};

struct packet {
    int64_t due;
    uint64_t order;
    int to, length;
    unsigned char bytes[];
};

static struct packet *queued[QUEUED_MAX];
static int queued_count;
static uint64_t rng_state;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static uint64_t random_below(uint64_t below) {
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return rng_state % below;
}

static int is_before(const struct packet *a, const struct packet *b) {
    return a->due != b->due ? a->due < b->due : a->order < b->order;
}

/* Puts a packet into the queue, a binary heap by due time. */
static void enqueue(struct packet *packet) {
    if (queued_count == QUEUED_MAX) {
        free(packet);
        return;
    }
    int at = queued_count++;
    while (at > 0 && is_before(packet, queued[(at - 1) / 2])) {
        queued[at] = queued[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    queued[at] = packet;
}

/* Takes the packet that is due first. */
static struct packet *dequeue(void) {
    struct packet *first = queued[0], *last = queued[--queued_count];
    int at = 0;
    for (;;) {
        int child = 2 * at + 1;
        if (child >= queued_count) break;
        if (child + 1 < queued_count && is_before(queued[child + 1], queued[child])) child++;
        if (!is_before(queued[child], last)) break;
        queued[at] = queued[child];
        at = child;
    }
    queued[at] = last;
    return first;
}

/* Whether this is TCP over IPv4 from or to a port. */
static int is_of_port(const unsigned char *bytes, int length, int64_t port) {
    if (length < 38 || bytes[12] != 0x08 || bytes[13] != 0x00 || bytes[23] != 6) return 0;
    int head = 14 + (bytes[14] & 15) * 4;
    if (length < head + 4) return 0;
    int source = bytes[head] << 8 | bytes[head + 1];
    int destination = bytes[head + 2] << 8 | bytes[head + 3];
    return source == port || destination == port;
}

static void transmit(struct link *link, int64_t *free_at, int to, const unsigned char *bytes,
                     int length) {
    static uint64_t order;
    if (link->closed_port && is_of_port(bytes, length, link->closed_port)) return;
    if (link->loss_ppm && (int64_t)random_below(1000000) < link->loss_ppm) return;
    int copies = 1;
    if (link->duplicate_ppm && (int64_t)random_below(1000000) < link->duplicate_ppm) copies = 2;
    while (copies-- > 0) {
        /* Each copy has its own jitter, so that a duplicate may arrive before its original. */
        int64_t now = now_us(), due = now + link->delay_us;
        if (link->jitter_us > 0) due += (int64_t)random_below((uint64_t)link->jitter_us);
        if (link->bytes_per_second > 0) {
            if (*free_at < now) *free_at = now;
            if (*free_at - now > QUEUE_US) return;
            *free_at += length * 1000000LL / link->bytes_per_second;
            due += *free_at - now;
        }
        struct packet *packet = malloc(sizeof *packet + (size_t)length);
        if (!packet) return;
        *packet = (struct packet){.due = due, .order = order++, .to = to, .length = length};
        memcpy(packet->bytes, bytes, (size_t)length);
        enqueue(packet);
    }
}

static int tap(const char *name) {
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) fail("/dev/net/tun");
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    if (ioctl(fd, TUNSETIFF, &request) != 0) fail("making a TAP device");
    return fd;
}

/* A TAP device in the namespace of a node. It stays there when this process comes back. */
static int tap_in(int number) {
    char path[64];
    snprintf(path, sizeof path, "/run/netns/n%d", number);
    int here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int there = open(path, O_RDONLY | O_CLOEXEC);
    if (here < 0 || there < 0 || setns(there, CLONE_NEWNET) != 0) fail(path);
    int fd = tap("eth0");
    if (setns(here, CLONE_NEWNET) != 0) fail("coming back");
    close(here);
    close(there);
    return fd;
}

static void forward(int ports, const int *fds, struct link *links) {
    static unsigned char bytes[PACKET_MAX], addresses[PORTS_MAX][6];
    static int is_known[PORTS_MAX];
    static int64_t free_at[PORTS_MAX * PORTS_MAX];
    struct pollfd polled[PORTS_MAX];
    for (int port = 0; port < ports; port++) {
        polled[port] = (struct pollfd){.fd = fds[port], .events = POLLIN};
    }
    for (;;) {
        int64_t wait = queued_count ? queued[0]->due - now_us() : 1000000;
        if (wait < 0) wait = 0;
        struct timespec timeout = {wait / 1000000, wait % 1000000 * 1000};
        ppoll(polled, (nfds_t)ports, &timeout, NULL);
        for (int from = 0; from < ports; from++) {
            for (int burst = 0; burst < 64; burst++) {
                ssize_t length = read(fds[from], bytes, sizeof bytes);
                if (length < 14) break;
                /* The source address is learned, as every switch does. */
                memcpy(addresses[from], bytes + 6, 6);
                is_known[from] = 1;
                for (int to = 0; to < ports; to++) {
                    int is_for_all = bytes[0] & 1;
                    if (to == from) continue;
                    /* A broadcast goes to all ports, and so does an address not yet learned. */
                    int is_other = is_known[to] && memcmp(addresses[to], bytes, 6) != 0;
                    if (!is_for_all && is_other) continue;
                    int at = from * PORTS_MAX + to;
                    transmit(&links[at], &free_at[at], to, bytes, (int)length);
                }
            }
        }
        while (queued_count && queued[0]->due <= now_us()) {
            struct packet *packet = dequeue();
            /* A device whose buffer is full has lost the packet, as a real link would. */
            ssize_t written = write(fds[packet->to], packet->bytes, (size_t)packet->length);
            if (written < 0 && errno == EBADF) fail("a device");
            free(packet);
        }
    }
}

static int cut(const char *mount) {
    int fd = open(mount, O_RDONLY | O_CLOEXEC);
    /* The ioctl by which filesystems test a power cut; with 2 nothing is flushed. */
    uint32_t how = 2;
    if (fd < 0 || ioctl(fd, _IOR('X', 125, uint32_t), &how) != 0) fail(mount);
    return 0;
}

int main(int count, char **arguments) {
    if (count == 3 && strcmp(arguments[1], "cut") == 0) return cut(arguments[2]);
    if (count != 5 || strcmp(arguments[1], "switch") != 0) {
        fprintf(stderr, "usage: tool cut MOUNT | tool switch CONTROL SEED N\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    rng_state = strtoull(arguments[3], NULL, 10) | 1;
    int nodes = atoi(arguments[4]), fds[PORTS_MAX];
    if (nodes < 1 || nodes >= PORTS_MAX) return 2;
    for (int node = 0; node < nodes; node++) fds[node] = tap_in(node + 1);
    fds[nodes] = tap("chaos0");
    int control = open(arguments[2], O_RDONLY | O_CLOEXEC);
    void *links = control < 0 ? MAP_FAILED
        : mmap(NULL, sizeof(struct link) * PORTS_MAX * PORTS_MAX, PROT_READ, MAP_SHARED, control, 0);
    if (links == MAP_FAILED) fail(arguments[2]);
    printf("ready\n");
    fflush(stdout);
    forward(nodes + 1, fds, links);
}
