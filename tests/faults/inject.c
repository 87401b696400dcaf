/*
 * Stands between a program and libc (LD_PRELOAD) and makes its calls on one directory fail.
 *
 *   INJECT_DIR   Only calls on files in this directory, and on itself, count; an absolute path.
 *   INJECT_LOG   Gets a line for each of them, in order: "CALL PATH", or "CALL PATH TO" for a rename,
 *                with "! " before it where the call was tampered with.
 *   INJECT       What to do, and to which calls, counted from 1: "WHAT:7" to the seventh, "WHAT:7,9" to these, "WHAT:7+"
 *                from the seventh on, "WHAT:*" to every one, but never twice in a row in a thread.
 *                WHAT is the name of an error, such as ENOSPC; "short", for a write that writes half;
 *                "kill" or "stop", which ends or halts the process before the call; "cut", see below.
 *   INJECT_CUT   With "cut:N", this file is truncated to a page at the Nth map of a file.
 *   INJECT_ONLY  Only calls of this name count: "fsync", "flock", ...; "fsyncdir" for an fsync of a directory,
 *                "mmap" for shared maps and "map" for all maps.
 *
 * For replays of what a loss of power may leave:
 *
 *   INJECT_TRACE     Gets each change of the directory that succeeded, in order: its kind, then nodes by their
 *                    inode numbers and names, separated by tabs, and for a write its bytes after the line.
 *
 * Three limits hold for the whole process:
 *
 *   INJECT_THREADS   So many threads may run at a time, without the first.
 *   INJECT_FREE      Every file system has so many bytes free.
 *   INJECT_MEMORY    The Nth allocation fails: "7" from the process's beginning. INJECT_LOG gets the number of all
 *                    of them at the end.
 */
#define _GNU_SOURCE
#include <sys/file.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PROCEED, FAIL, SHORT };

/* What may happen to a call, beside the errors that any may meet. */
enum { PLAIN = 0, INTERRUPTIBLE = 1, WRITES = 2, MAPS = 4, DIRECTORY = 8 };

static const struct {
    const char *name;
    int number;
} errors[] = {{"ENOSPC", ENOSPC}, {"EIO", EIO},       {"EINTR", EINTR},   {"EDQUOT", EDQUOT},         {"EROFS", EROFS},
              {"EINVAL", EINVAL}, {"ENOSYS", ENOSYS}, {"ENOLCK", ENOLCK}, {"EOPNOTSUPP", EOPNOTSUPP}, {"ENODEV", ENODEV}};

/* The real calls, by number: nothing of libc that may be replaced in turn. */
#define REAL(call, ...) syscall(SYS_##call, __VA_ARGS__)

/* Joins what a file is called relative to `dir`, or `dir` itself if `name` is null, to a whole path. */
static const char *whole(int dir, const char *name, char path[PATH_MAX]) {
    if (name && name[0] == '/')
        return name;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    ssize_t len = REAL(readlinkat, AT_FDCWD, dir == AT_FDCWD ? "/proc/self/cwd" : link, path, PATH_MAX - 1);
    if (len < 0)
        return "";
    if (name && len + 1 + strlen(name) < PATH_MAX) {
        path[len++] = '/';
        strcpy(path + len, name);
    } else {
        path[len] = 0;
    }
    return path;
}

static bool counts(const char *path) {
    const char *dir = getenv("INJECT_DIR");
    size_t len = dir ? strlen(dir) : 0;
    return len && !strncmp(path, dir, len) && (path[len] == '/' || path[len] == 0);
}

static void record(bool tampered, const char *call, const char *path, const char *to) {
    const char *log = getenv("INJECT_LOG");
    if (!log)
        return;
    char line[2 * PATH_MAX + 64];
    int len = snprintf(line, sizeof line, "%s%s %s%s%s\n", tampered ? "! " : "", call, path, *to ? " " : "", to);
    int fd = REAL(openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd >= 0) {
        REAL(write, fd, line, len);
        REAL(close, fd);
    }
}

/* Tells if `list`, such as "7", "7+" or "7,9,12", has the number. */
static bool is_listed(unsigned long number, const char *list) {
    for (char *end; *list; list = *end ? end + 1 : end) {
        unsigned long listed = strtoul(list, &end, 10);
        if (*end == '+' ? number >= listed : number == listed)
            return true;
    }
    return false;
}

/* Counts a call and says what is to become of it; sets errno where it is to fail. */
static int judge(const char *call, int kind, const char *path, const char *to) {
    static atomic_ulong count;
    static _Thread_local bool turn;
    const char *what = getenv("INJECT");
    bool cut = what && !strncmp(what, "cut:", 4);
    const char *only = getenv("INJECT_ONLY");
    bool chosen = only ? !strcmp(only, kind & DIRECTORY ? "fsyncdir" : call) : cut == (kind == MAPS);
    if (!counts(path) || !chosen)
        return PROCEED;
    unsigned long number = atomic_fetch_add(&count, 1) + 1;
    const char *at = what ? strchr(what, ':') : NULL;
    if (!at++) {
        record(false, call, path, to);
        return PROCEED;
    }
    int verdict = FAIL, error = 0;
    if (!strncmp(what, "short:", 6))
        verdict = kind & WRITES ? SHORT : PROCEED;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (!strncmp(what, errors[i].name, at - 1 - what) && !errors[i].name[at - 1 - what])
            error = errors[i].number;
    if (error == EINTR && !(kind & INTERRUPTIBLE))
        verdict = PROCEED;
    if (*at == '*') {
        if (verdict != PROCEED)
            turn = !turn;
        verdict = turn ? verdict : PROCEED;
    } else if (!is_listed(number, at)) {
        verdict = PROCEED;
    }
    record(verdict != PROCEED, call, path, to);
    if (verdict == FAIL && !strncmp(what, "kill:", 5))
        REAL(kill, getpid(), SIGKILL);
    if (verdict == FAIL && !strncmp(what, "stop:", 5)) {
        REAL(kill, getpid(), SIGSTOP);
        return PROCEED;
    }
    if (verdict == FAIL && cut && truncate(getenv("INJECT_CUT"), 4096))
        abort();
    errno = error;
    return verdict;
}

static int judge_fd(const char *call, int kind, int fd) {
    /* A handler of signals writes to stderr, on a stack that may not have room for a path. */
    if (fd == STDERR_FILENO)
        return PROCEED;
    char path[PATH_MAX];
    return judge(call, kind, whole(fd, NULL, path), "");
}

static int judge_at(const char *call, int kind, int dir, const char *name) {
    char path[PATH_MAX];
    return judge(call, kind, whole(dir, name, path), "");
}

/* Held from before a traced call until it is recorded, so that the order of records is that of the calls. */
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;

/* Begins a call that may change the file or directory at `path`. Returns whether it is to be recorded. */
static bool begin(const char *path) {
    if (!getenv("INJECT_TRACE") || !counts(path))
        return false;
    pthread_mutex_lock(&order);
    return true;
}

static bool begin_fd(int fd) {
    char path[PATH_MAX];
    return fd != STDERR_FILENO && getenv("INJECT_TRACE") && begin(whole(fd, NULL, path));
}

/* Ends a call that `begin` returned true for, and records it unless it failed. */
static void end(bool succeeded, const void *bytes, size_t len, const char *format, ...) {
    int error = errno;
    if (succeeded) {
        char line[2 * PATH_MAX + 64];
        va_list rest;
        va_start(rest, format);
        int used = vsnprintf(line, sizeof line, format, rest);
        va_end(rest);
        int fd = REAL(openat, AT_FDCWD, getenv("INJECT_TRACE"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        if (fd < 0 || REAL(write, fd, line, used) != used || (len && REAL(write, fd, bytes, len) != (long)len))
            abort();
        REAL(close, fd);
    }
    pthread_mutex_unlock(&order);
    errno = error;
}

static unsigned long inode(const char *path) {
    struct stat about;
    return lstat(path, &about) ? 0 : about.st_ino;
}

static unsigned long inode_fd(int fd) {
    struct stat about;
    return fstat(fd, &about) ? 0 : about.st_ino;
}

/* The inode number of the directory that holds `path`. */
static unsigned long parent(const char *path) {
    char dir[PATH_MAX];
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash)
        *slash = 0;
    return inode(dir);
}

static const char *base(const char *path) { return strrchr(path, '/') + 1; }

/* Where the next write to `fd` goes. */
static long position(int fd) {
    struct stat about;
    bool appends = REAL(fcntl, fd, F_GETFL, 0) & O_APPEND;
    return appends && !fstat(fd, &about) ? about.st_size : REAL(lseek, fd, 0, SEEK_CUR);
}

static void end_write(ssize_t written, int fd, const void *bytes, long offset) {
    end(written > 0, bytes, written > 0 ? written : 0, "write\t%lu\t%ld\t%zd\n", inode_fd(fd), offset, written);
}

/* A change that no replay knows. */
static void end_unknown(bool succeeded, const char *call) { end(succeeded, NULL, 0, "unknown\t%s\n", call); }

static size_t half(int verdict, size_t len) { return verdict == SHORT && len > 1 ? len / 2 : len; }

int openat(int dir, const char *name, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    if (judge_at("open", INTERRUPTIBLE, dir, name))
        return -1;
    char place[PATH_MAX];
    const char *path = whole(dir, name, place);
    if (!(flags & (O_CREAT | O_TRUNC)) || !begin(path))
        return REAL(openat, dir, name, flags, mode);
    bool there = inode(path);
    int fd = REAL(openat, dir, name, flags, mode);
    if (there)
        end(fd >= 0 && flags & O_TRUNC, NULL, 0, "truncate\t%lu\t0\n", inode_fd(fd));
    else
        end(fd >= 0, NULL, 0, "create\t%lu\t%s\t%lu\n", parent(path), base(path), inode_fd(fd));
    return fd;
}
int openat64(int dir, const char *name, int flags, ...) __attribute__((alias("openat")));

int open(const char *name, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return openat(AT_FDCWD, name, flags, mode);
}
int open64(const char *name, int flags, ...) __attribute__((alias("open")));

DIR *opendir(const char *name) {
    DIR *(*real)(const char *);
    *(void **)&real = dlsym(RTLD_NEXT, "opendir");
    return judge_at("opendir", PLAIN, AT_FDCWD, name) ? NULL : real(name);
}

ssize_t write(int fd, const void *bytes, size_t len) {
    int verdict = judge_fd("write", INTERRUPTIBLE | WRITES, fd);
    if (verdict == FAIL || !begin_fd(fd))
        return verdict == FAIL ? -1 : REAL(write, fd, bytes, half(verdict, len));
    long offset = position(fd);
    ssize_t written = REAL(write, fd, bytes, len);
    end_write(written, fd, bytes, offset);
    return written;
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset) {
    int verdict = judge_fd("pwrite", INTERRUPTIBLE | WRITES, fd);
    if (verdict == FAIL || !begin_fd(fd))
        return verdict == FAIL ? -1 : REAL(pwrite64, fd, bytes, half(verdict, len), offset);
    ssize_t written = REAL(pwrite64, fd, bytes, len, offset);
    end_write(written, fd, bytes, offset);
    return written;
}
ssize_t pwrite64(int, const void *, size_t, off_t) __attribute__((alias("pwrite")));

/* A short vector is one that ends after its first piece, or in it. */
ssize_t writev(int fd, const struct iovec *pieces, int count) {
    int verdict = judge_fd("writev", INTERRUPTIBLE | WRITES, fd);
    if (verdict == SHORT && count > 0)
        return REAL(write, fd, pieces->iov_base, half(SHORT, pieces->iov_len));
    if (verdict == PROCEED && count > 0 && begin_fd(fd)) {
        /* A short one. */
        long offset = position(fd);
        ssize_t written = REAL(write, fd, pieces->iov_base, pieces->iov_len);
        end_write(written, fd, pieces->iov_base, offset);
        return written;
    }
    return verdict == FAIL ? -1 : REAL(writev, fd, pieces, count);
}

ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t offset) {
    int verdict = judge_fd("pwritev", INTERRUPTIBLE | WRITES, fd);
    if (verdict == SHORT && count > 0)
        return REAL(pwrite64, fd, pieces->iov_base, half(SHORT, pieces->iov_len), offset);
    if (verdict == PROCEED && count > 0 && begin_fd(fd)) {
        ssize_t written = REAL(pwrite64, fd, pieces->iov_base, pieces->iov_len, offset);
        end_write(written, fd, pieces->iov_base, offset);
        return written;
    }
    return verdict == FAIL ? -1 : REAL(pwritev, fd, pieces, count, offset, 0L);
}
ssize_t pwritev64(int, const struct iovec *, int, off_t) __attribute__((alias("pwritev")));

ssize_t copy_file_range(int from, off_t *at, int to, off_t *to_at, size_t len, unsigned flags) {
    int verdict = judge_fd("copy_file_range", INTERRUPTIBLE | WRITES, to);
    if (verdict == PROCEED && begin_fd(to)) {
        ssize_t copied = REAL(copy_file_range, from, at, to, to_at, len, flags);
        end_unknown(copied > 0, "copy_file_range");
        return copied;
    }
    return verdict == FAIL ? -1 : REAL(copy_file_range, from, at, to, to_at, half(verdict, len), flags);
}

int fsync(int fd) {
    struct stat about;
    int kind = fstat(fd, &about) == 0 && S_ISDIR(about.st_mode) ? INTERRUPTIBLE | DIRECTORY : INTERRUPTIBLE;
    if (judge_fd("fsync", kind, fd))
        return -1;
    bool traced = begin_fd(fd);
    int result = REAL(fsync, fd);
    if (traced)
        end(result == 0, NULL, 0, "sync\t%lu\n", inode_fd(fd));
    return result;
}

int fdatasync(int fd) {
    if (judge_fd("fdatasync", INTERRUPTIBLE, fd))
        return -1;
    bool traced = begin_fd(fd);
    int result = REAL(fdatasync, fd);
    if (traced)
        end(result == 0, NULL, 0, "sync\t%lu\n", inode_fd(fd));
    return result;
}

int syncfs(int fd) {
    if (judge_fd("syncfs", INTERRUPTIBLE, fd))
        return -1;
    bool traced = begin_fd(fd);
    int result = REAL(syncfs, fd);
    if (traced)
        end(result == 0, NULL, 0, "syncfs\n");
    return result;
}

int sync_file_range(int fd, off_t offset, off_t len, unsigned flags) {
    return judge_fd("sync_file_range", PLAIN, fd) ? -1 : REAL(sync_file_range, fd, offset, len, flags);
}

int ftruncate(int fd, off_t len) {
    if (judge_fd("ftruncate", INTERRUPTIBLE, fd))
        return -1;
    bool traced = begin_fd(fd);
    int result = REAL(ftruncate, fd, len);
    if (traced)
        end(result == 0, NULL, 0, "truncate\t%lu\t%ld\n", inode_fd(fd), (long)len);
    return result;
}
int ftruncate64(int, off_t) __attribute__((alias("ftruncate")));

int fallocate(int fd, int mode, off_t offset, off_t len) {
    if (judge_fd("fallocate", INTERRUPTIBLE, fd))
        return -1;
    bool traced = begin_fd(fd);
    int result = REAL(fallocate, fd, mode, offset, len);
    if (traced)
        end_unknown(result == 0, "fallocate");
    return result;
}
int fallocate64(int, int, off_t, off_t) __attribute__((alias("fallocate")));

int posix_fallocate(int fd, off_t offset, off_t len) {
    return judge_fd("posix_fallocate", INTERRUPTIBLE, fd) || REAL(fallocate, fd, 0, offset, len) ? errno : 0;
}
int posix_fallocate64(int, off_t, off_t) __attribute__((alias("posix_fallocate")));

/* An unlock does not count: the close that follows it releases the lock, too. */
int flock(int fd, int operation) {
    return operation != LOCK_UN && judge_fd("flock", PLAIN, fd) ? -1 : REAL(flock, fd, operation);
}

int renameat2(int dir, const char *name, int to_dir, const char *to_name, unsigned flags) {
    char path[PATH_MAX], to[PATH_MAX];
    const char *old = whole(dir, name, path), *new = whole(to_dir, to_name, to);
    if (judge("rename", PLAIN, old, new))
        return -1;
    bool traced = begin(old);
    /* Of two names of one file, none changes. */
    bool same = traced && inode(old) == inode(new);
    int result = REAL(renameat2, dir, name, to_dir, to_name, flags);
    if (traced && flags)
        end_unknown(result == 0, "renameat2 with flags");
    else if (traced)
        end(result == 0 && !same, NULL, 0, "rename\t%lu\t%s\t%lu\t%s\n", parent(old), base(old), parent(new), base(new));
    return result;
}
int renameat(int dir, const char *name, int to_dir, const char *to_name) {
    return renameat2(dir, name, to_dir, to_name, 0);
}
int rename(const char *name, const char *to_name) { return renameat2(AT_FDCWD, name, AT_FDCWD, to_name, 0); }

int linkat(int dir, const char *name, int to_dir, const char *to_name, int flags) {
    char path[PATH_MAX], to[PATH_MAX];
    const char *old = whole(dir, name, path), *new = whole(to_dir, to_name, to);
    if (judge("link", PLAIN, old, new))
        return -1;
    bool traced = begin(new);
    int result = REAL(linkat, dir, name, to_dir, to_name, flags);
    if (traced)
        end(result == 0, NULL, 0, "link\t%lu\t%s\t%lu\n", parent(new), base(new), inode(new));
    return result;
}
int link(const char *name, const char *to_name) { return linkat(AT_FDCWD, name, AT_FDCWD, to_name, 0); }

int mkdirat(int dir, const char *name, mode_t mode) {
    if (judge_at("mkdir", PLAIN, dir, name))
        return -1;
    char place[PATH_MAX];
    const char *path = whole(dir, name, place);
    bool traced = begin(path);
    int result = REAL(mkdirat, dir, name, mode);
    if (traced)
        end(result == 0, NULL, 0, "mkdir\t%lu\t%s\t%lu\n", parent(path), base(path), inode(path));
    return result;
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

int unlinkat(int dir, const char *name, int flags) {
    const char *call = flags & AT_REMOVEDIR ? "rmdir" : "unlink";
    if (judge_at(call, PLAIN, dir, name))
        return -1;
    char place[PATH_MAX];
    const char *path = whole(dir, name, place);
    bool traced = begin(path);
    int result = REAL(unlinkat, dir, name, flags);
    if (traced)
        end(result == 0, NULL, 0, "remove\t%lu\t%s\n", parent(path), base(path));
    return result;
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

void *mmap(void *place, size_t len, int access, int flags, int fd, off_t offset) {
    if (fd >= 0 && getenv("INJECT_ONLY")) {
        const char *call = flags & MAP_SHARED && !strcmp(getenv("INJECT_ONLY"), "mmap") ? "mmap" : "map";
        return judge_fd(call, MAPS, fd) ? MAP_FAILED : (void *)REAL(mmap, place, len, access, flags, fd, offset);
    }
    if (fd >= 0 && flags & MAP_SHARED && access & PROT_WRITE && begin_fd(fd))
        end_unknown(true, "mmap to be written to");
    void *map = (void *)REAL(mmap, place, len, access, flags, fd, offset);
    if (fd >= 0)
        judge_fd("mmap", MAPS, fd);
    return map;
}
void *mmap64(void *, size_t, int, int, int, off_t) __attribute__((alias("mmap")));

static atomic_ulong threads;

struct work {
    void *(*run)(void *);
    void *with;
};

static void *work(void *given) {
    struct work own = *(struct work *)given;
    free(given);
    void *result = own.run(own.with);
    atomic_fetch_sub(&threads, 1);
    return result;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *with) {
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    const char *most = getenv("INJECT_THREADS");
    if (!most)
        return real(thread, how, run, with);
    struct work *given = malloc(sizeof *given);
    if (atomic_fetch_add(&threads, 1) >= strtoul(most, NULL, 10) || !given) {
        atomic_fetch_sub(&threads, 1);
        free(given);
        return EAGAIN;
    }
    *given = (struct work){run, with};
    int error = real(thread, how, work, given);
    if (error)
        atomic_fetch_sub(&threads, 1);
    return error;
}

int statvfs(const char *path, struct statvfs *about) {
    int (*real)(const char *, struct statvfs *);
    *(void **)&real = dlsym(RTLD_NEXT, "statvfs");
    int result = real(path, about);
    const char *free = getenv("INJECT_FREE");
    if (!result && free) {
        about->f_frsize = 1;
        about->f_bavail = strtoul(free, NULL, 10);
    }
    return result;
}
int statvfs64(const char *, struct statvfs64 *) __attribute__((alias("statvfs")));

/* The real functions of glibc, as dlsym itself allocates. */
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

static atomic_ulong allocations;

/* Counts an allocation, and says whether it is to fail. */
static bool no_memory(void) {
    static atomic_ulong failing;
    static atomic_bool known;
    unsigned long number = atomic_fetch_add(&allocations, 1) + 1;
    if (!atomic_load(&known)) {
        const char *which = getenv("INJECT_MEMORY");
        atomic_store(&failing, which ? strtoul(which, NULL, 10) : 0);
        atomic_store(&known, true);
    }
    bool fails = number == atomic_load(&failing);
    if (fails)
        errno = ENOMEM;
    return fails;
}

void *malloc(size_t len) { return no_memory() ? NULL : __libc_malloc(len); }
void *calloc(size_t count, size_t len) { return no_memory() ? NULL : __libc_calloc(count, len); }
void *realloc(void *old, size_t len) { return no_memory() ? NULL : __libc_realloc(old, len); }
void *memalign(size_t align, size_t len) { return no_memory() ? NULL : __libc_memalign(align, len); }
void *aligned_alloc(size_t align, size_t len) { return memalign(align, len); }
int posix_memalign(void **place, size_t align, size_t len) {
    void *memory = memalign(align, len);
    if (!memory)
        return ENOMEM;
    *place = memory;
    return 0;
}

__attribute__((destructor)) static void count_allocations(void) {
    const char *log = getenv("INJECT_MEMORY") ? getenv("INJECT_LOG") : NULL;
    char line[64];
    int len = snprintf(line, sizeof line, "allocations %lu\n", atomic_load(&allocations));
    int fd = log ? REAL(openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : -1;
    if (fd >= 0) {
        REAL(write, fd, line, len);
        REAL(close, fd);
    }
}
