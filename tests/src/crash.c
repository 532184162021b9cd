// Kills a program at one of the moments at which it changes something outside of itself: files, requests
// to a store over HTTP, statements to PostgreSQL. What is tested is the program as it is shipped.
//
//   TEST_CRASH_PROGRAM  only a program of this name; wrappers before it are left alone
//   TEST_CRASH_LOG      each moment is appended: its number and what was about to be done
//   TEST_CRASH_AT       the number of the moment, from 1: it dies before that is done
//
// What was done right before the death may have had no answer yet, so there is no need to kill after a
// moment as well. Nothing is counted that the death of a program cannot undo: SIGKILL loses no write that
// the system has taken, so syncs are no moments.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { LONGEST = 400, DESCRIPTORS = 65536 };

static int active, log_fd = -1;
static long die_at, moment;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
// What a statement that was prepared does, until it is carried out.
static char prepared[DESCRIPTORS][LONGEST];

__attribute__((constructor)) static void begin(void) {
  const char *program = getenv("TEST_CRASH_PROGRAM"), *log = getenv("TEST_CRASH_LOG");
  const char *at = getenv("TEST_CRASH_AT");
  if (!program || strcmp(program, program_invocation_short_name) != 0) return;
  active = 1;
  if (log) log_fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (at) die_at = strtol(at, NULL, 10);
}

// Counts a moment. At the one that is asked for, the program dies, and no other thread gets past.
static void reached(const char *what) {
  char line[LONGEST + 40];
  pthread_mutex_lock(&turn);
  long number = ++moment;
  int length = snprintf(line, sizeof line, "%ld %.*s\n", number, LONGEST, what);
  if (log_fd >= 0 && write(log_fd, line, length) < 0) active = 0;
  if (number == die_at) {
    syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    for (;;) pause();
  }
  pthread_mutex_unlock(&turn);
}

static void reached_file(const char *what, const char *path) {
  char text[LONGEST];
  // The system's own files are not what a program changes.
  if (!active || !strncmp(path, "/dev/", 5) || !strncmp(path, "/proc/", 6)) return;
  snprintf(text, sizeof text, "%s %s", what, path);
  reached(text);
}

// Files.

int open64(const char *path, int flags, ...) {
  mode_t mode = 0;
  if (flags & (O_CREAT | __O_TMPFILE)) {
    va_list more;
    va_start(more, flags);
    mode = va_arg(more, mode_t);
    va_end(more);
  }
  if (flags & O_CREAT) reached_file("create", path);
  return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open(const char *path, int flags, ...) {
  mode_t mode = 0;
  if (flags & (O_CREAT | __O_TMPFILE)) {
    va_list more;
    va_start(more, flags);
    mode = va_arg(more, mode_t);
    va_end(more);
  }
  return open64(path, flags, mode);
}

int rename(const char *from, const char *to) {
  reached_file("rename to", to);
  return syscall(SYS_rename, from, to);
}

int link(const char *from, const char *to) {
  reached_file("link", to);
  return syscall(SYS_link, from, to);
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
  reached_file("link", to);
  return syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
}

int unlink(const char *path) {
  reached_file("remove", path);
  return syscall(SYS_unlink, path);
}

int unlinkat(int dir, const char *path, int flags) {
  reached_file("remove", path);
  return syscall(SYS_unlinkat, dir, path, flags);
}

int mkdir(const char *path, mode_t mode) {
  if (syscall(SYS_access, path, F_OK) != 0) reached_file("make", path);
  return syscall(SYS_mkdir, path, mode);
}

int rmdir(const char *path) {
  reached_file("remove", path);
  return syscall(SYS_rmdir, path);
}

// Requests and statements.

// What a request that changes something is, in one line; 0 for any other bytes.
static int is_request(const char *bytes, size_t length, char *text) {
  static const char *const verbs[] = {"PUT ", "POST ", "DELETE "};
  for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
    size_t verb = strlen(verbs[i]);
    if (length > verb && !memcmp(bytes, verbs[i], verb)) {
      size_t end = 0;
      while (end < length && end < LONGEST - 1 && bytes[end] != '\r') end++;
      memcpy(text, bytes, end);
      text[end] = 0;
      return 1;
    }
  }
  return 0;
}

// Whether a statement only asks or sets something in its session.
static int only_asks(const char *sql) {
  static const char *const asking[] = {"SELECT", "SHOW", "SET ", "COPY", "WITH", "VALUES", "LOCK", "START",
                                       "BEGIN", "ROLLBACK", "FETCH", "DECLARE", "EXPLAIN", "DO "};
  static const char *const acting[] = {"pg_terminate_backend", "setval", "lo_", "pg_advisory_lock"};
  for (size_t i = 0; i < sizeof acting / sizeof *acting; i++)
    if (strstr(sql, acting[i])) return 0;
  while (*sql == ' ' || *sql == '\n') sql++;
  for (size_t i = 0; i < sizeof asking / sizeof *asking; i++)
    if (!strncasecmp(sql, asking[i], strlen(asking[i]))) return 1;
  return *sql == 0;
}

static void copy_line(char *to, const char *from, size_t length) {
  size_t at = 0;
  for (; at < length && at < LONGEST - 5 && from[at]; at++) to[at] = from[at] < ' ' ? ' ' : from[at];
  to[at] = 0;
}

// The statement that these bytes carry out; 0 if none that changes something.
static int is_statement(int fd, const char *bytes, size_t length, char *text) {
  char sql[LONGEST];
  if (length < 6 || fd >= DESCRIPTORS) return 0;
  if (bytes[0] == 'Q') {
    copy_line(sql, bytes + 5, length - 5);
  } else if (bytes[0] == 'P') {
    size_t name = strnlen(bytes + 5, length - 5) + 1;
    if (5 + name >= length) return 0;
    copy_line(prepared[fd], bytes + 5 + name, length - 5 - name);
    return 0;
  } else if (bytes[0] == 'B') {
    strcpy(sql, prepared[fd]);
  } else {
    return 0;
  }
  if (only_asks(sql)) return 0;
  snprintf(text, LONGEST, "SQL %.*s", LONGEST - 5, sql);
  return 1;
}

static void about_to_send(int fd, const char *bytes, size_t length) {
  char text[LONGEST];
  if (!active || fd < 0 || !bytes) return;
  if (is_request(bytes, length, text) || is_statement(fd, bytes, length, text))
    reached(text);
}

ssize_t send(int fd, const void *bytes, size_t length, int flags) {
  about_to_send(fd, bytes, length);
  return syscall(SYS_sendto, fd, bytes, length, flags, NULL, 0);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
  if (message->msg_iovlen) about_to_send(fd, message->msg_iov[0].iov_base, message->msg_iov[0].iov_len);
  return syscall(SYS_sendmsg, fd, message, flags);
}

ssize_t writev(int fd, const struct iovec *pieces, int count) {
  if (count) about_to_send(fd, pieces[0].iov_base, pieces[0].iov_len);
  return syscall(SYS_writev, fd, pieces, count);
}
