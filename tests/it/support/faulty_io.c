/* Loaded before the C library: makes the n-th write to a file fail, be cut in the middle, or find the disk
 * full, or the n-th request to sync it fail. LEASEHOLD_TEST_IO says which: "<what>:<n>:<part of the path>",
 * where <what> is sync, write, full or torn. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

/* Writes in a row for which the disk is full. */
#define FULL_FOR 12

static char what[16], file[128];
static long nth = -1;
static atomic_long passed;

__attribute__((constructor)) static void read_plan(void) {
  const char *plan = getenv("LEASEHOLD_TEST_IO");
  if (plan && sscanf(plan, "%15[^:]:%ld:%127s", what, &nth, file) != 3) abort();
}

/* The number of this operation among those that the plan is about; zero for all others. */
static long number(int fd, int syncs) {
  char link[64], path[4096];
  ssize_t length;
  if (nth < 0 || (strcmp(what, "sync") == 0) != syncs) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return strstr(path, file) ? atomic_fetch_add(&passed, 1) + 1 : 0;
}

/* Whether a write is to fail, with errno set. */
static int fails(long at) {
  if (at == 0) return 0;
  if (strcmp(what, "full") == 0 && at >= nth && at < nth + FULL_FOR) {
    errno = ENOSPC;
    return 1;
  }
  if (strcmp(what, "write") == 0 && at == nth) {
    errno = EIO;
    return 1;
  }
  return 0;
}

static int tears(long at) { return at != 0 && at == nth && strcmp(what, "torn") == 0; }

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *bytes, size_t length) {
  long at = number(fd, 0);
  if (fails(at)) return -1;
  if (tears(at)) {
    REAL(write)(fd, bytes, length / 2);
    kill(getpid(), SIGKILL);
  }
  return REAL(write)(fd, bytes, length);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
  long at = number(fd, 0);
  if (fails(at)) return -1;
  if (tears(at)) {
    REAL(pwrite)(fd, bytes, length / 2, offset);
    kill(getpid(), SIGKILL);
  }
  return REAL(pwrite)(fd, bytes, length, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
  long at = number(fd, 0);
  if (fails(at)) return -1;
  if (tears(at)) {
    REAL(pwrite64)(fd, bytes, length / 2, offset);
    kill(getpid(), SIGKILL);
  }
  return REAL(pwrite64)(fd, bytes, length, offset);
}

int fsync(int fd) {
  if (number(fd, 1) == nth && nth > 0) {
    errno = EIO;
    return -1;
  }
  return REAL(fsync)(fd);
}

int fdatasync(int fd) {
  if (number(fd, 1) == nth && nth > 0) {
    errno = EIO;
    return -1;
  }
  return REAL(fdatasync)(fd);
}
