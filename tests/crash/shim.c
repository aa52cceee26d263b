/*
 * A preloaded library that makes the disk under LMDB fail, lie, or only be watched.
 *
 * It looks at one file only: descriptors that were opened for writing on a path that ends in "/data.mdb". Of these it
 * counts writes and syncs; of the LMDB module it counts allocations. The n-th of one of these can fail, once or from then on:
 * with an error, with half of the bytes written, before or after the call took effect. After that the file can refuse to
 * be opened a number of times. Instead of failing, the call can be the last that the process makes (SIGKILL).
 *
 * It is steered through a file that the test shares with it (HEADRACE_FAULTS names it): 64 numbers of 64 bits, then a log
 * of what was seen. The numbers' places are those of `tests/crash/faults.py`.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { ARMED, KINDS, AT, STICKY, ERROR, SHORT, AFTER, NOSYNC, WRITES, SYNCS, ALLOCS, FIRED, LOGGED, GENERATION, SHUT, KILL };
enum { WRITE = 1, SYNC = 2, ALLOC = 4, OPEN = 8 };
enum { NUMBERS = 64, ENTRIES = 1 << 16, DESCRIPTORS = 1 << 16 };

struct entry {
    int32_t kind, descriptor, generation, failed;
};

struct shared {
    int64_t number[NUMBERS];
    struct entry log[ENTRIES];
};

static struct shared *shared;
static unsigned char data_fd[DESCRIPTORS]; /* 1: the plain descriptor, 2: the one whose writes sync themselves */
static int32_t generation_of[DESCRIPTORS];
static uintptr_t lmdb_from, lmdb_to;

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("HEADRACE_FAULTS");
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0) : -1;
    if (fd < 0)
        return;
    void *at = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (at != MAP_FAILED)
        shared = at;
}

static void record(int kind, int fd, int failed)
{
    int64_t place = __atomic_fetch_add(&shared->number[LOGGED], 1, __ATOMIC_SEQ_CST);
    if (place >= ENTRIES)
        return;
    struct entry *entry = &shared->log[place];
    entry->kind = kind;
    entry->descriptor = fd >= 0 ? data_fd[fd] : 0;
    entry->generation = fd >= 0 ? generation_of[fd] : 0;
    entry->failed = failed;
}

/* Count a call; whether it is to fail. */
static int fails(int kind, int counter)
{
    int64_t n = __atomic_add_fetch(&shared->number[counter], 1, __ATOMIC_SEQ_CST);
    if (!shared->number[ARMED] || !(shared->number[KINDS] & kind))
        return 0;
    if (shared->number[STICKY] ? n < shared->number[AT] : n != shared->number[AT])
        return 0;
    __atomic_add_fetch(&shared->number[FIRED], 1, __ATOMIC_SEQ_CST);
    return 1;
}

/* The end of a call that is to fail. */
static int failed(void)
{
    if (shared->number[KILL])
        syscall(SYS_kill, (pid_t)syscall(SYS_getpid), SIGKILL);
    errno = (int)shared->number[ERROR];
    return -1;
}

static int watched(int fd)
{
    return shared && fd >= 0 && fd < DESCRIPTORS && data_fd[fd];
}

static int find_lmdb(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size, (void)unused;
    if (!info->dlpi_name || !strstr(info->dlpi_name, "/lmdb/"))
        return 0;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD && (info->dlpi_phdr[i].p_flags & PF_X)) {
            lmdb_from = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
            lmdb_to = lmdb_from + info->dlpi_phdr[i].p_memsz;
        }
    return 1;
}

/* --- opening and closing ---------------------------------------------------------------------------------------- */

static int open_watched(int folder, const char *path, int flags, mode_t mode)
{
    size_t length = path ? strlen(path) : 0;
    int ours = shared && length >= 9 && !strcmp(path + length - 9, "/data.mdb") && (flags & O_ACCMODE) != O_RDONLY;
    int synced = (flags & O_DSYNC) != 0;
    if (!ours)
        return (int)syscall(SYS_openat, folder, path, flags, mode);
    if (!lmdb_from)
        dl_iterate_phdr(find_lmdb, NULL);
    if (shared->number[FIRED] && shared->number[SHUT] > 0) {
        shared->number[SHUT]--;
        record(OPEN, -1, 1);
        errno = EIO;
        return -1;
    }
    if (shared->number[NOSYNC])
        flags &= ~(O_SYNC | O_DSYNC);
    int fd = (int)syscall(SYS_openat, folder, path, flags, mode);
    if (fd >= 0 && fd < DESCRIPTORS) {
        data_fd[fd] = synced ? 2 : 1;
        generation_of[fd] = (int32_t)(synced ? shared->number[GENERATION] : ++shared->number[GENERATION]);
        record(OPEN, fd, 0);
    }
    return fd;
}

#define MODE(flags, mode)                                            \
    mode_t mode = 0;                                                 \
    if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) { \
        va_list rest;                                                \
        va_start(rest, flags);                                       \
        mode = va_arg(rest, mode_t);                                 \
        va_end(rest);                                                \
    }

int open(const char *path, int flags, ...)
{
    MODE(flags, mode)
    return open_watched(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    MODE(flags, mode)
    return open_watched(AT_FDCWD, path, flags, mode);
}

int close(int fd)
{
    if (fd >= 0 && fd < DESCRIPTORS)
        data_fd[fd] = 0;
    return (int)syscall(SYS_close, fd);
}

/* --- writing ---------------------------------------------------------------------------------------------------- */

static ssize_t write_plainly(int fd, const struct iovec *parts, int count, off_t at)
{
    if (at < 0)
        return syscall(SYS_writev, fd, parts, count);
    return syscall(SYS_pwritev, fd, parts, count, at, 0);
}

static ssize_t write_half(int fd, const struct iovec *parts, int count, off_t at)
{
    struct iovec half[1024];
    size_t left = 0;
    for (int i = 0; i < count; i++)
        left += parts[i].iov_len;
    left /= 2;
    int used = 0;
    while (used < count && used < 1024 && left) {
        half[used] = parts[used];
        if (half[used].iov_len > left)
            half[used].iov_len = left;
        left -= half[used].iov_len;
        used++;
    }
    return write_plainly(fd, half, used, at);
}

static ssize_t write_watched(int fd, const struct iovec *parts, int count, off_t at)
{
    int fail = fails(WRITE, WRITES);
    record(WRITE, fd, fail);
    if (!fail)
        return write_plainly(fd, parts, count, at);
    if (shared->number[SHORT]) {
        ssize_t written = write_half(fd, parts, count, at);
        return shared->number[KILL] ? failed() : written;
    }
    if (shared->number[AFTER])
        write_plainly(fd, parts, count, at);
    return failed();
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at)
{
    struct iovec part = {(void *)bytes, length};
    return watched(fd) ? write_watched(fd, &part, 1, at) : syscall(SYS_pwrite64, fd, bytes, length, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t at)
{
    return pwrite(fd, bytes, length, at);
}

ssize_t write(int fd, const void *bytes, size_t length)
{
    struct iovec part = {(void *)bytes, length};
    return watched(fd) ? write_watched(fd, &part, 1, -1) : syscall(SYS_write, fd, bytes, length);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    return watched(fd) ? write_watched(fd, parts, count, -1) : syscall(SYS_writev, fd, parts, count);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at)
{
    return watched(fd) ? write_watched(fd, parts, count, at) : syscall(SYS_pwritev, fd, parts, count, at, 0);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at)
{
    return pwritev(fd, parts, count, at);
}

/* --- syncing ---------------------------------------------------------------------------------------------------- */

static int sync_watched(int fd, long call)
{
    int fail = fails(SYNC, SYNCS);
    record(SYNC, fd, fail);
    if (!fail)
        return shared->number[NOSYNC] ? 0 : (int)syscall(call, fd);
    if (shared->number[AFTER])
        syscall(call, fd);
    return failed();
}

int fdatasync(int fd)
{
    return watched(fd) ? sync_watched(fd, SYS_fdatasync) : (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    return watched(fd) ? sync_watched(fd, SYS_fsync) : (int)syscall(SYS_fsync, fd);
}

int msync(void *from, size_t length, int flags)
{
    if (!shared || !lmdb_from)
        return (int)syscall(SYS_msync, from, length, flags);
    int fail = fails(SYNC, SYNCS);
    record(SYNC, -1, fail);
    if (!fail)
        return shared->number[NOSYNC] ? 0 : (int)syscall(SYS_msync, from, length, flags);
    return failed();
}

/* --- allocating ------------------------------------------------------------------------------------------------- */

static int no_memory_for(uintptr_t caller)
{
    if (!shared || caller < lmdb_from || caller >= lmdb_to || !fails(ALLOC, ALLOCS))
        return 0;
    record(ALLOC, -1, 1);
    errno = ENOMEM;
    return 1;
}

#define CALLER ((uintptr_t)__builtin_return_address(0))

void *malloc(size_t size)
{
    return no_memory_for(CALLER) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return no_memory_for(CALLER) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    return no_memory_for(CALLER) ? NULL : __libc_realloc(old, size);
}
