/* Preloaded into a load: lets the n-th call on files under a folder fail as a faulty disk does.

   FAULT_FOLDER  files under it are meant       FAULT_CALLS  "write", "sync", "read"
   FAULT_AT      number of the call, from 1     FAULT_ERRNO  what it fails with
   FAULT_FOR     how many calls fail from there FAULT_COUNT  file that gets the number of calls */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
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

/* 1 and errno set when this call is one that has to fail */
static int fails(int fd, const char *kind) {
    const char *folder = getenv("FAULT_FOLDER"), *meant = getenv("FAULT_CALLS");
    char link[64], path[4096];
    if (!folder || !meant || strcmp(meant, kind) != 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    if (strncmp(path, folder, strlen(folder)) != 0) return 0;
    long at = setting("FAULT_AT"), now = atomic_fetch_add(&calls, 1) + 1;
    if (at == 0 || now < at || now >= at + setting("FAULT_FOR")) return 0;
    errno = (int)setting("FAULT_ERRNO");
    return 1;
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

WRAP(ssize_t, write, "write", (int fd, const void *b, size_t n), (fd, b, n))
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
