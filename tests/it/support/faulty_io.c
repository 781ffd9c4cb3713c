/* Loaded before the C library: stands between the server and its files, and makes a disk of them that fails,
 * or a machine that loses its power.
 *
 * LEASEHOLD_TEST_IO says what happens: "<what>:<n>:<name>". A fault happens to the file of that name (to a
 * store's WAL, too), at the n-th operation of its kind:
 *
 *   write, sync, read, truncate   it fails with EIO
 *   full                          the disk is full in the middle of that write, and for some more
 *   stuck                         the same, and what was written cannot be cut off again at first
 *   torn                          half of that write is done, and the process is killed
 *
 * A power cut happens at the n-th write, truncation or sync of any file of the store and of the audit. The
 * process is killed, and of what was never synced there remains
 *
 *   power                         nothing
 *   scatter                       any part, in sectors; of a file that is only appended to, a beginning,
 *                                 which may be followed by zeros
 *   lie                           nothing, and to sync the file <name> (and its WAL) does nothing
 *
 * What a file is called is not part of this: names are as they are at the end.
 *
 * LEASEHOLD_TEST_IO_ARM names a file: nothing counts before it exists. To LEASEHOLD_TEST_IO_MARK a line is
 * added when it happens; of a power cut one for each file, with how many writes to it were not synced. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* Writes in a row for which the disk is full, and truncations that fail then. */
#define FULL_FOR 12
#define STUCK_FOR 2
/* What a disk writes whole. */
#define SECTOR 512
#define FILES_MAX 64

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

enum kind { WRITE, SYNC, READ, TRUNCATE };

static char what[16], name[128];
static long nth = -1;
static const char *mark, *arm;
static int is_power, armed;
static long passed, cut_short;
static uint64_t dice;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void read_plan(void) {
  const char *plan = getenv("LEASEHOLD_TEST_IO");
  if (!plan) return;
  if (sscanf(plan, "%15[^:]:%ld:%127s", what, &nth, name) != 3) abort();
  mark = getenv("LEASEHOLD_TEST_IO_MARK");
  arm = getenv("LEASEHOLD_TEST_IO_ARM");
  is_power = !strcmp(what, "power") || !strcmp(what, "scatter") || !strcmp(what, "lie");
  dice = (uint64_t)nth * 0x9e3779b97f4a7c15u | 1;
}

static void note(const char *format, ...) {
  char line[256];
  va_list values;
  int fd;
  if (!mark || (fd = open(mark, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600)) < 0) return;
  va_start(values, format);
  vsnprintf(line, sizeof line, format, values);
  va_end(values);
  if (REAL(write)(fd, line, strlen(line)) < 0) abort();
  close(fd);
}

static uint64_t below(uint64_t limit) {
  dice ^= dice << 13;
  dice ^= dice >> 7;
  dice ^= dice << 17;
  return (dice >> 11) % limit;
}

/* The last part of the file's path. */
static const char *base(int fd, char *path, size_t size) {
  char link[64];
  ssize_t length;
  const char *slash;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  if ((length = readlink(link, path, size - 1)) < 0) return NULL;
  path[length] = 0;
  slash = strrchr(path, '/');
  return slash ? slash + 1 : NULL;
}

static int is_named(const char *file, const char *wanted) {
  size_t length = strlen(wanted);
  return !strncmp(file, wanted, length) && (!file[length] || !strcmp(file + length, "-wal"));
}

/* Counts one operation; its number, or zero while nothing counts. */
static long count(void) {
  if (!armed && arm && access(arm, F_OK) != 0) return 0;
  armed = 1;
  return ++passed;
}

/* ---- A disk that fails ---- */

/* The number of an operation among those that the plan is about; zero for all others. */
static long number(int fd, enum kind kind) {
  char path[4096];
  const char *file;
  long at = 0;
  int about = kind == SYNC       ? !strcmp(what, "sync")
              : kind == READ     ? !strcmp(what, "read")
              : kind == TRUNCATE ? !strcmp(what, "truncate") || (!strcmp(what, "stuck") && cut_short)
                                 : !strcmp(what, "write") || !strcmp(what, "torn") ||
                                       !strcmp(what, "full") || !strcmp(what, "stuck");
  if (nth < 0 || is_power || !about) return 0;
  if (!(file = base(fd, path, sizeof path)) || !is_named(file, name)) return 0;
  pthread_mutex_lock(&lock);
  if (kind == TRUNCATE && cut_short)
    at = cut_short++ <= STUCK_FOR ? nth : 0;
  else
    at = count();
  pthread_mutex_unlock(&lock);
  return at;
}

static int fails(int fd, enum kind kind) {
  if (number(fd, kind) != nth || nth < 0) return 0;
  note("fired %s\n", what);
  errno = EIO;
  return 1;
}

/* How much of a write is done: all of it, some, or none, with errno set. */
static ssize_t extent(int fd, size_t length) {
  long at = number(fd, WRITE);
  if (!at || at < nth) return (ssize_t)length;
  if (!strcmp(what, "full") || !strcmp(what, "stuck")) {
    if (at >= nth + FULL_FOR) return (ssize_t)length;
    if (at == nth) {
      note("fired %s\n", what);
      cut_short = 1;
      if (length > 1) return (ssize_t)(length / 2);
    }
    errno = ENOSPC;
    return -1;
  }
  if (at != nth) return (ssize_t)length;
  note("fired %s\n", what);
  if (!strcmp(what, "torn")) return (ssize_t)(length / 2);
  errno = EIO;
  return -1;
}

static void die_if_torn(size_t length, ssize_t done) {
  if (!strcmp(what, "torn") && done >= 0 && (size_t)done < length) kill(getpid(), SIGKILL);
}

/* ---- A machine that loses its power ---- */

/* Something that was done to a file and not synced. */
struct op {
  enum kind kind;
  off_t at;
  /* Bytes that were written. */
  unsigned char *bytes;
  size_t length;
  /* What was in their place, or after the new end. */
  unsigned char *before;
  size_t before_length;
  off_t size_before;
};

struct file {
  dev_t device;
  ino_t inode;
  /* Our own, which does not append. */
  int fd;
  int is_log;
  char name[64];
  struct op *ops;
  size_t count, room;
  /* How many were synced and forgotten. */
  size_t forgotten;
};

static struct file files[FILES_MAX];
static size_t file_count;

/* The file, when it is one of the store or of the audit. */
static struct file *tracked(int fd) {
  char path[4096], link[64];
  const char *file;
  struct stat found;
  struct file *one;
  if (!is_power || fd <= 2 || !(file = base(fd, path, sizeof path))) return NULL;
  if (strcmp(file, "leasehold.db") && strcmp(file, "leasehold.db-wal") &&
      strncmp(file, "audit.log", strlen("audit.log")))
    return NULL;
  if (fstat(fd, &found) != 0) return NULL;
  for (size_t i = 0; i < file_count; i++)
    if (files[i].device == found.st_dev && files[i].inode == found.st_ino) return &files[i];
  if (file_count == FILES_MAX) abort();
  one = &files[file_count];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  if ((one->fd = open(link, O_RDWR | O_CLOEXEC)) < 0) return NULL;
  one->device = found.st_dev;
  one->inode = found.st_ino;
  one->is_log = (fcntl(fd, F_GETFL) & O_APPEND) != 0;
  snprintf(one->name, sizeof one->name, "%s", file);
  file_count++;
  return one;
}

static off_t size_of(struct file *file) {
  struct stat found;
  if (fstat(file->fd, &found) != 0) abort();
  return found.st_size;
}

/* Notes what is there before it is changed. */
static struct op *remember(struct file *file, enum kind kind, off_t at, size_t length) {
  off_t size = size_of(file), end = kind == WRITE ? at + (off_t)length : size;
  struct op *op;
  if (file->count == file->room) {
    file->room = file->room ? 2 * file->room : 64;
    if (!(file->ops = realloc(file->ops, file->room * sizeof *file->ops))) abort();
  }
  op = &file->ops[file->count++];
  memset(op, 0, sizeof *op);
  op->kind = kind;
  op->at = at;
  op->size_before = size;
  if (end > size) end = size;
  if (end > at) {
    op->before_length = (size_t)(end - at);
    if (!(op->before = malloc(op->before_length))) abort();
    if (REAL(pread64)(file->fd, op->before, op->before_length, at) != (ssize_t)op->before_length) abort();
  }
  return op;
}

/* Forgets those up to the one that was, counted from the start, the last before a sync. */
static void forget(struct file *file, size_t up_to) {
  size_t first = up_to > file->forgotten ? up_to - file->forgotten : 0;
  for (size_t i = 0; i < first; i++) {
    free(file->ops[i].bytes);
    free(file->ops[i].before);
  }
  memmove(file->ops, file->ops + first, (file->count - first) * sizeof *file->ops);
  file->count -= first;
  file->forgotten += first;
}

static void put(struct file *file, const unsigned char *bytes, size_t length, off_t at) {
  if (length && REAL(pwrite64)(file->fd, bytes, length, at) != (ssize_t)length) abort();
}

static void resize(struct file *file, off_t size) {
  if (REAL(ftruncate64)(file->fd, size) != 0) abort();
}

/* Of a file that is only appended to, a beginning of what was appended. */
static void keep_beginning(struct file *file) {
  size_t kept = below(file->count + 1);
  for (size_t i = 0; i <= kept && i < file->count; i++) {
    struct op *op = &file->ops[i];
    size_t length = op->length;
    if (op->kind != WRITE) {
      if (i < kept) resize(file, op->at);
      continue;
    }
    if (i == kept) length = below(length + 1);
    put(file, op->bytes, length, op->at);
    if (i == kept && below(2)) resize(file, op->at + (off_t)op->length);
  }
}

/* Any sectors of what was written. */
static void keep_some(struct file *file) {
  for (size_t i = 0; i < file->count; i++) {
    struct op *op = &file->ops[i];
    uint64_t fate = below(3);
    if (op->kind != WRITE) {
      if (fate) resize(file, op->at);
      continue;
    }
    for (size_t from = 0; from < op->length;) {
      size_t to = from + SECTOR - (size_t)((op->at + (off_t)from) % SECTOR);
      if (to > op->length) to = op->length;
      if (fate == 1 || (fate == 2 && below(2))) put(file, op->bytes + from, to - from, op->at + (off_t)from);
      from = to;
    }
  }
}

/* Nobody gets the lock any more. */
static void cut_power(void) {
  for (size_t i = 0; i < file_count; i++) {
    struct file *file = &files[i];
    for (size_t left = file->count; left-- > 0;) {
      struct op *op = &file->ops[left];
      resize(file, op->size_before);
      put(file, op->before, op->before_length, op->at);
    }
    if (!strcmp(what, "scatter") && file->count) {
      if (file->is_log)
        keep_beginning(file);
      else
        keep_some(file);
    }
    note("cut %s %zu\n", file->name, file->count);
  }
  for (;;) kill(getpid(), SIGKILL);
}

/* Takes the lock for something that is about to be done to a tracked file; or the power goes. */
static struct file *begin(int fd) {
  struct file *file;
  if (!is_power) return NULL;
  pthread_mutex_lock(&lock);
  if (!(file = tracked(fd))) {
    pthread_mutex_unlock(&lock);
    return NULL;
  }
  if (count() == nth) cut_power();
  return file;
}

static void done_writing(struct file *file, struct op *op, const void *bytes, ssize_t done) {
  if (done > 0) {
    op->length = (size_t)done;
    if (!(op->bytes = malloc(op->length))) abort();
    memcpy(op->bytes, bytes, op->length);
  } else {
    free(op->before);
    file->count--;
  }
  pthread_mutex_unlock(&lock);
}

/* Where a write without an offset goes. */
static off_t place(struct file *file, int fd) {
  return fcntl(fd, F_GETFL) & O_APPEND ? size_of(file) : lseek64(fd, 0, SEEK_CUR);
}

static int sync_with(int fd, int (*real)(int)) {
  struct file *file;
  size_t up_to;
  int result;
  if (fails(fd, SYNC)) return -1;
  if (!(file = begin(fd))) return real(fd);
  up_to = file->forgotten + file->count;
  pthread_mutex_unlock(&lock);
  if (!strcmp(what, "lie") && is_named(file->name, name)) return 0;
  result = real(fd);
  if (result == 0) {
    pthread_mutex_lock(&lock);
    forget(file, up_to);
    pthread_mutex_unlock(&lock);
  }
  return result;
}

static int truncate_with(int fd, off64_t size, int (*real)(int, off64_t)) {
  struct file *file;
  int result;
  if (fails(fd, TRUNCATE)) return -1;
  if (!(file = begin(fd))) return real(fd, size);
  remember(file, TRUNCATE, size, 0);
  result = real(fd, size);
  pthread_mutex_unlock(&lock);
  return result;
}

/* ---- What the server calls ---- */

ssize_t write(int fd, const void *bytes, size_t length) {
  struct file *file = begin(fd);
  ssize_t part, done;
  if (file) {
    struct op *op = remember(file, WRITE, place(file, fd), length);
    done = REAL(write)(fd, bytes, length);
    done_writing(file, op, bytes, done);
    return done;
  }
  if ((part = extent(fd, length)) < 0) return -1;
  done = REAL(write)(fd, bytes, (size_t)part);
  die_if_torn(length, part);
  return done;
}

/* All at once or, as it may, only the first. */
ssize_t writev(int fd, const struct iovec *parts, int count_of) {
  if (nth < 0 || fd <= 2) return REAL(writev)(fd, parts, count_of);
  for (int i = 0; i < count_of; i++) {
    char path[4096];
    const char *file = base(fd, path, sizeof path);
    if (!file || (!is_named(file, name) && !is_power)) break;
    if (parts[i].iov_len) return write(fd, parts[i].iov_base, parts[i].iov_len);
  }
  return REAL(writev)(fd, parts, count_of);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
  struct file *file = begin(fd);
  ssize_t part, done;
  if (file) {
    struct op *op = remember(file, WRITE, offset, length);
    done = REAL(pwrite64)(fd, bytes, length, offset);
    done_writing(file, op, bytes, done);
    return done;
  }
  if ((part = extent(fd, length)) < 0) return -1;
  done = REAL(pwrite64)(fd, bytes, (size_t)part, offset);
  die_if_torn(length, part);
  return done;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
  return pwrite64(fd, bytes, length, offset);
}

ssize_t read(int fd, void *bytes, size_t length) {
  return fails(fd, READ) ? -1 : REAL(read)(fd, bytes, length);
}

ssize_t pread64(int fd, void *bytes, size_t length, off64_t offset) {
  return fails(fd, READ) ? -1 : REAL(pread64)(fd, bytes, length, offset);
}

ssize_t pread(int fd, void *bytes, size_t length, off_t offset) {
  return pread64(fd, bytes, length, offset);
}

int fsync(int fd) { return sync_with(fd, REAL(fsync)); }

int fdatasync(int fd) { return sync_with(fd, REAL(fdatasync)); }

int ftruncate64(int fd, off64_t size) { return truncate_with(fd, size, REAL(ftruncate64)); }

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }
