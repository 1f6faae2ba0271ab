/* Loaded before the C library into a node: makes its disk fail, be full or be slow, and its wall
 * clock jump, as the control file says at this moment. The monotonic clock and everything that is
 * not a regular file stay as they are. Without STORM_CONTROL it changes nothing.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* Written by `NodeProcess`, read here: 64-bit numbers in the byte order of the machine. */
struct control {
    volatile int64_t sync_errno;      /* 0: a sync succeeds */
    volatile int64_t sync_delay_us;   /* a sync takes this much longer */
    volatile int64_t write_errno;     /* 0: a write succeeds */
    volatile int64_t clock_offset_s;  /* added to the wall clock */
};

static struct control no_faults;
static struct control *control = &no_faults;

__attribute__((constructor)) static void begin(void) {
    /* The program that started the node may be killed; no node must outlive it. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const char *path = getenv("STORM_CONTROL");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *page = mmap(NULL, sizeof(struct control), PROT_READ, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED) control = page;
    close(fd);
}

#define REAL(name) ({ static typeof(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name); real; })

/* Standard streams are no data of the node: its log must not fail. */
static int is_file(int fd) {
    struct stat about;
    return fd > 2 && fstat(fd, &about) == 0 && S_ISREG(about.st_mode);
}

static int fails(int fd, int64_t with) {
    if (with == 0 || !is_file(fd)) return 0;
    errno = (int)with;
    return 1;
}

static int sync_fails(int fd) {
    int64_t delay = control->sync_delay_us;
    if (delay > 0 && is_file(fd)) {
        struct timespec wait = {delay / 1000000, delay % 1000000 * 1000};
        nanosleep(&wait, NULL);
    }
    return fails(fd, control->sync_errno);
}

int fsync(int fd) { return sync_fails(fd) ? -1 : REAL(fsync)(fd); }

int fdatasync(int fd) { return sync_fails(fd) ? -1 : REAL(fdatasync)(fd); }

int sync_file_range(int fd, off64_t from, off64_t length, unsigned flags) {
    return sync_fails(fd) ? -1 : REAL(sync_file_range)(fd, from, length, flags);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    return fails(fd, control->write_errno) ? -1 : REAL(write)(fd, bytes, length);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    return fails(fd, control->write_errno) ? -1 : REAL(writev)(fd, parts, count);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
    return fails(fd, control->write_errno) ? -1 : REAL(pwrite64)(fd, bytes, length, at);
}

int ftruncate64(int fd, off64_t length) {
    return fails(fd, control->write_errno) ? -1 : REAL(ftruncate64)(fd, length);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int done = REAL(clock_gettime)(clock, now);
    if (done == 0 && clock == CLOCK_REALTIME) now->tv_sec += control->clock_offset_s;
    return done;
}
