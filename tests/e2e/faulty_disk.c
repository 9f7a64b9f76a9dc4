/* Preloaded into a process: lets the n-th call on files under a folder fail as a faulty disk does.

   FAULT_FOLDER  files under it are meant       FAULT_CALLS  some of write, sync, open, name, read
   FAULT_AT      number of the call, from 1     FAULT_ERRNO  what it fails with
   FAULT_FOR     how many calls fail from there FAULT_COUNT  file that gets the number of calls
   FAULT_SHORT   1: a write that fails writes half before, as the last one on a full disk does */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#define open hidden_open
#define open64 hidden_open64
#include <fcntl.h>
#undef open
#undef open64
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long calls;

static long setting(const char *name) {
    const char *value = getenv(name);
    return value ? atol(value) : 0;
}

/* what a process that runs several operations calls between them */
long faulty_disk_restart(void) { return atomic_exchange(&calls, 0); }

/* 1 and errno set when this call is one that has to fail */
static int fails_at(const char *path, const char *kind) {
    const char *folder = getenv("FAULT_FOLDER"), *meant = getenv("FAULT_CALLS");
    if (!folder || !meant || !strstr(meant, kind)) return 0;
    if (strncmp(path, folder, strlen(folder)) != 0) return 0;
    long at = setting("FAULT_AT"), now = atomic_fetch_add(&calls, 1) + 1;
    if (at == 0 || now < at || now >= at + setting("FAULT_FOR")) return 0;
    errno = (int)setting("FAULT_ERRNO");
    return 1;
}

static int fails(int fd, const char *kind) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return fails_at(path, kind);
}

__attribute__((destructor)) static void report(void) {
    const char *place = getenv("FAULT_COUNT");
    FILE *file = place ? fopen(place, "w") : NULL;
    if (!file) return;
    fprintf(file, "%ld", (long)calls);
    fclose(file);
}

#define WRAP(result, name, kind, parameters, arguments)                   \
    result name parameters {                                              \
        static result (*real) parameters;                                 \
        if (!real) real = (result (*) parameters)dlsym(RTLD_NEXT, #name); \
        if (fails(fd, kind)) return -1;                                   \
        return real arguments;                                            \
    }

ssize_t write(int fd, const void *b, size_t n) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    if (!fails(fd, "write")) return real(fd, b, n);
    return setting("FAULT_SHORT") && n > 1 ? real(fd, b, n / 2) : -1;
}

WRAP(ssize_t, pwrite, "write", (int fd, const void *b, size_t n, off_t o), (fd, b, n, o))
WRAP(ssize_t, pwrite64, "write", (int fd, const void *b, size_t n, off64_t o), (fd, b, n, o))
WRAP(ssize_t, writev, "write", (int fd, const struct iovec *v, int n), (fd, v, n))
WRAP(ssize_t, sendfile, "write", (int fd, int from, off_t *o, size_t n), (fd, from, o, n))
WRAP(ssize_t, sendfile64, "write", (int fd, int from, off64_t *o, size_t n), (fd, from, o, n))
WRAP(int, ftruncate, "write", (int fd, off_t n), (fd, n))
WRAP(int, ftruncate64, "write", (int fd, off64_t n), (fd, n))
WRAP(int, fsync, "sync", (int fd), (fd))
WRAP(int, fdatasync, "sync", (int fd), (fd))
WRAP(ssize_t, read, "read", (int fd, void *b, size_t n), (fd, b, n))
WRAP(ssize_t, pread, "read", (int fd, void *b, size_t n, off_t o), (fd, b, n, o))
WRAP(ssize_t, pread64, "read", (int fd, void *b, size_t n, off64_t o), (fd, b, n, o))

#define WRAP_OPEN(name, parameters, arguments)                                        \
    int name parameters {                                                             \
        static int(*real) parameters;                                                 \
        if (!real) real = (int(*) parameters)dlsym(RTLD_NEXT, #name);                 \
        if ((flags & O_ACCMODE) != O_RDONLY && fails_at(path, "open")) return -1;     \
        return real arguments;                                                        \
    }
#define WRAP_NAME(name, parameters, arguments)                                        \
    int name parameters {                                                             \
        static int(*real) parameters;                                                 \
        if (!real) real = (int(*) parameters)dlsym(RTLD_NEXT, #name);                 \
        if (fails_at(path, "name")) return -1;                                        \
        return real arguments;                                                        \
    }

WRAP_OPEN(open, (const char *path, int flags, mode_t mode), (path, flags, mode))
WRAP_OPEN(open64, (const char *path, int flags, mode_t mode), (path, flags, mode))
WRAP_NAME(rename, (const char *path, const char *to), (path, to))
WRAP_NAME(mkdir, (const char *path, mode_t mode), (path, mode))
