// Has calls on the files below a folder fail, from one of them on.
// Built and loaded before the C library by tests/faults.py.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static char folder[4096], kind;
static int error_number;
static atomic_long left;

// Kinds: 'w' writes, 'r' reads, 'l' locks; the first `after` calls succeed.
void fail_calls(const char *where, char what, int number, long after) {
  snprintf(folder, sizeof folder, "%s", where);
  left = after;
  error_number = number;
  kind = what;
}

static int fails(char what, int file) {
  char link[64], path[4096];
  if (what != kind) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t size = readlink(link, path, sizeof path);
  if (size < (ssize_t)strlen(folder)) return 0;
  if (strncmp(path, folder, strlen(folder)) || left-- > 0) return 0;
  errno = error_number;
  return 1;
}

#define REAL(name, ...) \
  static __typeof__(name) *real; \
  if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name); \
  return real(__VA_ARGS__)

#define CALL(kind, type, name, arguments, ...) \
  type name arguments { \
    if (fails(kind, file)) return -1; \
    REAL(name, __VA_ARGS__); \
  }

CALL('w', ssize_t, write, (int file, const void *at, size_t n), file, at, n)
CALL('w', ssize_t, pwrite, (int file, const void *at, size_t n, off_t from),
     file, at, n, from)
CALL('w', ssize_t, pwrite64, (int file, const void *at, size_t n, off64_t from),
     file, at, n, from)
CALL('w', int, fsync, (int file), file)
CALL('w', int, fdatasync, (int file), file)
CALL('r', ssize_t, read, (int file, void *at, size_t n), file, at, n)
CALL('r', ssize_t, pread, (int file, void *at, size_t n, off_t from),
     file, at, n, from)
CALL('r', ssize_t, pread64, (int file, void *at, size_t n, off64_t from),
     file, at, n, from)
CALL('l', int, flock, (int file, int what), file, what)

static int locks(int command) {
  return command == F_SETLK || command == F_SETLKW ||
         command == F_OFD_SETLK || command == F_OFD_SETLKW;
}

#define FCNTL(name) \
  int name(int file, int command, ...) { \
    va_list rest; \
    va_start(rest, command); \
    void *value = va_arg(rest, void *); \
    va_end(rest); \
    if (locks(command) && fails('l', file)) return -1; \
    REAL(name, file, command, value); \
  }

FCNTL(fcntl)
FCNTL(fcntl64)
