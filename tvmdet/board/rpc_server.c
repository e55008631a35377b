/* A TVM RPC server in C, for a board without Python: the C API of tvm_ffi and libtvm_runtime.so.
 *
 *   rpc_server [--host ADDRESS] [--port N] [--key KEY [--tracker HOST:PORT]] [--until-eof] DIR
 *
 * Prints "PORT n" and serves ADDRESS:n (127.0.0.1 and any free port unless told otherwise). Every
 * connection is a child process with a folder of its own under DIR: a kernel that dies, say of an
 * illegal instruction, ends its own connection and nothing else. A client that names another KEY is
 * refused. With --until-eof the server ends when its standard input does.
 *
 * With --tracker it announces itself to TVM's RPC tracker as a board of KEY. Who is given it by the
 * tracker may connect any number of times; once nobody has been connected for a while, the tracker is
 * told that the board is free again.
 *
 * The greeting is that of python/tvm/rpc/base.py and src/runtime/rpc/rpc_socket_impl.cc of TVM.
 * RPC lets a client run any code: bind to an address that only you can reach. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <tvm/ffi/c_api.h>

enum { RPC_MAGIC = 0xFF271, RPC_MISMATCH = RPC_MAGIC + 2, PATH_SIZE = 4096, KEY_SIZE = 512 };
enum { TRACKER_MAGIC = 0x2F271, PUT = 3, UPDATE_INFO = 5, GET_PENDING_MATCHKEYS = 7 };
enum { WATCH_MS = 20, GONE_MS = 2000 };
enum { TICK_MS = 200, ASK_MS = 2000, UNUSED_MS = 6000, FREE_MS = 3000, TRACKER_TIMEOUT_S = 5 };
enum { MOST_READ = 1 << 20, YARDSTICK_STEPS = 1 << 20, YARDSTICK_TRIES = 2 };

static char folder[PATH_SIZE];

/* What the tracker gives to one client at a time; the flag is shared with the children. */
static struct {
  const char *host, *port, *key;
  int fd, own_port, open, asked_ms, unused_ms, free_ms;
  char match[KEY_SIZE + 32];
  volatile int* used;
} tracker = {.fd = -1};

static void die(const char* what) {
  perror(what);
  exit(1);
}

static TVMFFIByteArray bytes(const char* text) {
  TVMFFIByteArray array = {text, strlen(text)};
  return array;
}

static TVMFFIObjectHandle global_function(const char* name) {
  TVMFFIByteArray key = bytes(name);
  TVMFFIObjectHandle found = NULL;
  if (TVMFFIFunctionGetGlobal(&key, &found) || !found) {
    fprintf(stderr, "rpc_server: TVM's runtime has no function %s\n", name);
    exit(1);
  }
  return found;
}

static void set_global_function(const char* name, TVMFFISafeCallType call) {
  TVMFFIByteArray key = bytes(name);
  TVMFFIObjectHandle made = NULL;
  if (TVMFFIFunctionCreate(NULL, call, NULL, &made) || TVMFFIFunctionSetGlobal(&key, made, 1)) {
    fprintf(stderr, "rpc_server: cannot set the function %s\n", name);
    exit(1);
  }
}

/* The text in an argument, which may lie in one of three places. */
static int text_of(const TVMFFIAny* argument, const char** text, size_t* size) {
  switch (argument->type_index) {
    case kTVMFFIRawStr:
      *text = argument->v_c_str;
      *size = strlen(*text);
      break;
    case kTVMFFISmallStr:
      *text = argument->v_bytes;
      *size = argument->small_str_len;
      break;
    case kTVMFFIStr: {
      const TVMFFIByteArray* array =
          (const TVMFFIByteArray*)((const char*)argument->v_obj + sizeof(TVMFFIObject));
      *text = array->data;
      *size = array->size;
      break;
    }
    default:
      TVMFFIErrorSetRaisedFromCStr("TypeError", "rpc_server: expected a file name");
      return -1;
  }
  return 0;
}

/* FOLDER/NAME for the text in an argument; a client's files stay in the folder. */
static int path_of(const TVMFFIAny* argument, char* path) {
  const char* name;
  size_t size;
  if (text_of(argument, &name, &size)) return -1;
  if (size == 0 || memchr(name, '/', size) || memchr(name, 0, size) || name[0] == '.' ||
      snprintf(path, PATH_SIZE, "%s/%.*s", folder, (int)size, name) >= PATH_SIZE) {
    TVMFFIErrorSetRaisedFromCStr("ValueError", "rpc_server: a file name may have no / and no dot first");
    return -1;
  }
  return 0;
}

static int workpath(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  char path[PATH_SIZE];
  (void)self;
  if (count != 1 || path_of(arguments, path)) return -1;
  TVMFFIByteArray text = bytes(path);
  return TVMFFIStringFromByteArray(&text, result);
}

static int load_module(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  char path[PATH_SIZE];
  TVMFFIAny file = {0};
  (void)self;
  if (count != 1 || path_of(arguments, path)) return -1;
  file.type_index = kTVMFFIRawStr;
  file.v_c_str = path;
  return TVMFFIFunctionCall(global_function("ffi.ModuleLoadFromFile"), &file, 1, result);
}

/* Whether the text in an argument names a file in the kernel's own folders. No protection: RPC lets
 * a client run any code. */
static int of_kernel(const TVMFFIAny* argument, char* path) {
  const char* name;
  size_t size;
  if (text_of(argument, &name, &size) || size >= PATH_SIZE || memchr(name, 0, size)) return 0;
  memcpy(path, name, size);
  path[size] = 0;
  return (!strncmp(path, "/proc/", 6) || !strncmp(path, "/sys/", 5)) && !strstr(path, "/../");
}

/* The bytes of a file of /proc or /sys, MOST_READ at most; none of no file. TVM's own download asks
 * a file for its size first, and those of /proc say 0. */
static int read_kernel_file(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  static char content[MOST_READ];
  char path[PATH_SIZE];
  (void)self;
  if (count != 1 || !of_kernel(arguments, path)) {
    TVMFFIErrorSetRaisedFromCStr("ValueError", "rpc_server: expected a file of /proc or /sys");
    return -1;
  }
  TVMFFIByteArray found = {content, 0};
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t got = 0;
  while (fd >= 0 && found.size < MOST_READ &&
         (got = read(fd, content + found.size, MOST_READ - found.size)) > 0)
    found.size += (size_t)got;
  if (fd >= 0) close(fd);
  return TVMFFIBytesFromByteArray(&found, result);
}

/* Seconds of a fixed piece of integer arithmetic on one thread, the better of some tries: how fast
 * the machine itself is just now. */
static int yardstick(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  double best = 0;
  (void)self, (void)arguments, (void)count;
  for (int try = 0; try < YARDSTICK_TRIES; try++) {
    struct timespec start, end;
    volatile uint64_t kept;
    volatile uint64_t seed = 88172645463325252u; /* xorshift64, Marsaglia (2003) */
    clock_gettime(CLOCK_MONOTONIC, &start);
    uint64_t value = seed; /* volatile, so that the loop stays between the clocks */
    for (int step = 0; step < YARDSTICK_STEPS; step++) {
      value ^= value << 13;
      value ^= value >> 7;
      value ^= value << 17;
    }
    kept = value;
    (void)kept;
    clock_gettime(CLOCK_MONOTONIC, &end);
    double took = (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
    if (try == 0 || took < best) best = took;
  }
  result->type_index = kTVMFFIFloat;
  result->v_float64 = best;
  return 0;
}

static int receive(int fd, void* data, size_t size) {
  for (char* at = data; size;) {
    ssize_t got = recv(fd, at, size, 0);
    if (got <= 0) return -1;
    at += got;
    size -= (size_t)got;
  }
  return 0;
}

static int answer_text(int fd, const char* text) {
  int32_t size = (int32_t)strlen(text);
  if (send(fd, &size, sizeof size, MSG_NOSIGNAL) != sizeof size) return -1;
  return send(fd, text, (size_t)size, MSG_NOSIGNAL) == size ? 0 : -1;
}

static int answer(int fd, int32_t code, const char* text) {
  if (send(fd, &code, sizeof code, MSG_NOSIGNAL) != sizeof code) return -1;
  return answer_text(fd, text);
}

/* What a client uploaded is removed; a kernel cannot have made folders of its own there. */
static void remove_folder(void) {
  DIR* opened = opendir(folder);
  struct dirent* entry;
  char path[PATH_SIZE + 300];
  while (opened && (entry = readdir(opened)))
    if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")) {
      snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
      unlink(path);
    }
  if (opened) closedir(opened);
  rmdir(folder);
}

/* The greeting: magic, length and "client:KEY" there; the same with "server:KEY" back. */
static int greet(int fd, const char* wanted, const char* key) {
  int32_t head[2];
  char theirs[KEY_SIZE + 48], mine[KEY_SIZE + 48], *end;
  if (receive(fd, head, sizeof head) || head[0] != RPC_MAGIC || head[1] < 0 ||
      (size_t)head[1] >= sizeof theirs || receive(fd, theirs, (size_t)head[1]))
    return -1;
  theirs[head[1]] = 0;
  if ((end = strchr(theirs, ' '))) *end = 0;
  snprintf(mine, sizeof mine, "client:%s", wanted);
  int fits = !*wanted || !strcmp(theirs, mine);
  snprintf(mine, sizeof mine, "server:%s", key);
  return answer(fd, fits ? RPC_MAGIC : RPC_MISMATCH, mine) || !fits ? -1 : 0;
}

/* Waits for the worker; ends it when its client is gone, which it notices only between calls. */
static void watch(pid_t worker, int fd) {
  struct pollfd client = {.fd = fd, .events = POLLRDHUP};
  for (int gone_ms = 0; waitpid(worker, NULL, WNOHANG) == 0;) {
    if (poll(&client, 1, WATCH_MS) > 0 && client.revents) {
      usleep(WATCH_MS * 1000);
      if ((gone_ms += WATCH_MS) > GONE_MS) kill(worker, SIGKILL);
    }
  }
}

/* The compiled code runs in a child of this child, so that the folder is removed however it ends. */
static void serve(int fd, const char* key) {
  TVMFFIAny socket_argument = {0}, result = {0};
  if (greet(fd, tracker.host ? tracker.match : key, key)) _exit(2);
  if (tracker.host) *tracker.used = 1;
  if (!mkdtemp(folder)) die("mkdtemp");
  signal(SIGCHLD, SIG_DFL);
  pid_t worker = fork();
  if (worker < 0) die("fork");
  if (worker > 0) {
    watch(worker, fd);
    remove_folder();
    _exit(0);
  }
  set_global_function("tvm.rpc.server.workpath", workpath);
  set_global_function("tvm.rpc.server.load_module", load_module);
  set_global_function("tvmdet.board.read", read_kernel_file);
  set_global_function("tvmdet.board.yardstick", yardstick);
  socket_argument.type_index = kTVMFFIInt;
  socket_argument.v_int64 = fd;
  _exit(TVMFFIFunctionCall(global_function("rpc.ServerLoop"), &socket_argument, 1, &result) ? 3 : 0);
}

static void leave_tracker(void) {
  if (tracker.fd >= 0) close(tracker.fd);
  tracker.fd = -1;
}

/* Sends the tracker a message and receives its answer, a text of JSON; leaves it on failure. */
static int ask_tracker(const char* message, char* said, size_t room) {
  int32_t size;
  if (answer_text(tracker.fd, message) || receive(tracker.fd, &size, sizeof size) || size < 0 ||
      (size_t)size >= room || receive(tracker.fd, said, (size_t)size)) {
    leave_tracker();
    return -1;
  }
  said[size] = 0;
  return 0;
}

/* Tells the tracker that the board is free, under a name that only the next client will know. */
static void announce(void) {
  uint64_t random;
  char message[2 * KEY_SIZE + 128], said[64];
  if (getrandom(&random, sizeof random, 0) != sizeof random) die("getrandom");
  snprintf(tracker.match, sizeof tracker.match, "%s:%016llx", tracker.key,
           (unsigned long long)random);
  *tracker.used = 0;
  tracker.unused_ms = tracker.free_ms = 0;
  snprintf(message, sizeof message, "[%d, \"%s\", [%d, \"%s\"], null]", PUT, tracker.key,
           tracker.own_port, tracker.match);
  if (tracker.fd >= 0) ask_tracker(message, said, sizeof said);
}

static void join_tracker(void) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
  struct timeval limit = {.tv_sec = TRACKER_TIMEOUT_S};
  int32_t magic = TRACKER_MAGIC;
  char message[KEY_SIZE + 128], said[64];
  if (getaddrinfo(tracker.host, tracker.port, &hints, &found)) return;
  tracker.fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  setsockopt(tracker.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(tracker.fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  int failed = connect(tracker.fd, found->ai_addr, found->ai_addrlen) ||
               send(tracker.fd, &magic, sizeof magic, MSG_NOSIGNAL) != sizeof magic ||
               receive(tracker.fd, &magic, sizeof magic) || magic != TRACKER_MAGIC;
  freeaddrinfo(found);
  if (failed) {
    leave_tracker();
    return;
  }
  snprintf(message, sizeof message, "[%d, {\"key\": \"server:%s\", \"addr\": [null, %d]}]",
           UPDATE_INFO, tracker.key, tracker.own_port);
  if (!ask_tracker(message, said, sizeof said) && !*tracker.used) announce();
}

/* Every TICK_MS: joins a tracker that was lost, and takes the board back from who has gone or, given
 * it, never came. */
static void attend_tracker(void) {
  static char pending[1 << 16];
  char message[16];
  while (waitpid(-1, NULL, WNOHANG) > 0) tracker.open--;
  int ask = (tracker.asked_ms += TICK_MS) >= ASK_MS;
  if (ask) tracker.asked_ms = 0;
  if (tracker.fd < 0 && ask) join_tracker();
  if (tracker.fd < 0) return;
  if (*tracker.used) {
    tracker.free_ms = tracker.open ? 0 : tracker.free_ms + TICK_MS;
    if (tracker.free_ms >= FREE_MS) announce();
  } else if (ask) {
    snprintf(message, sizeof message, "[%d]", GET_PENDING_MATCHKEYS);
    if (ask_tracker(message, pending, sizeof pending)) return;
    tracker.unused_ms = strstr(pending, tracker.match) ? 0 : tracker.unused_ms + ASK_MS;
    if (tracker.unused_ms >= UNUSED_MS) announce();
  }
}

/* Reads HOST:PORT. */
static int read_tracker(char* text, const char* key) {
  char* colon = strrchr(text, ':');
  if (!colon || colon == text || !colon[1] || !*key || strpbrk(key, "\"\\")) return -1;
  *colon = 0;
  tracker.host = text;
  tracker.port = colon + 1;
  tracker.key = key;
  tracker.asked_ms = ASK_MS; /* at once */
  tracker.used = mmap(NULL, sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return tracker.used == MAP_FAILED ? -1 : 0;
}

static int usage(void) {
  fprintf(stderr,
          "usage: rpc_server [--host ADDRESS] [--port N] [--key KEY [--tracker HOST:PORT]] "
          "[--until-eof] DIR\n");
  return 2;
}

int main(int argc, char** argv) {
  const char *host = "127.0.0.1", *key = "", *work = NULL;
  char* tracked = NULL;
  int port = 0, until_eof = 0, one = 1;
  for (int i = 1; i < argc; i++) {
    int more = i + 1 < argc;
    if (!strcmp(argv[i], "--until-eof")) until_eof = 1;
    else if (!strcmp(argv[i], "--host") && more) host = argv[++i];
    else if (!strcmp(argv[i], "--port") && more) port = atoi(argv[++i]);
    else if (!strcmp(argv[i], "--key") && more) key = argv[++i];
    else if (!strcmp(argv[i], "--tracker") && more) tracked = argv[++i];
    else if (argv[i][0] == '-' || work) return usage();
    else work = argv[i];
  }
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  socklen_t size = sizeof address;
  if (!work || port < 0 || port > 65535 || strlen(key) >= KEY_SIZE || strchr(key, ' ') ||
      inet_pton(AF_INET, host, &address.sin_addr) != 1 ||
      snprintf(folder, sizeof folder, "%s/conn-XXXXXX", work) >= PATH_SIZE - 1)
    return usage();
  if (tracked && read_tracker(tracked, key)) return usage();
  signal(SIGCHLD, tracked ? SIG_DFL : SIG_IGN);
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  if (listener < 0) die("socket");
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (void*)&address, size) || listen(listener, 8) ||
      getsockname(listener, (void*)&address, &size))
    die("rpc_server: cannot listen");
  tracker.own_port = ntohs(address.sin_port);
  printf("PORT %d\n", tracker.own_port);
  fflush(stdout);
  struct pollfd watched[2] = {{.fd = listener, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
  for (;;) {
    if (poll(watched, until_eof ? 2 : 1, tracked ? TICK_MS : -1) < 0) continue;
    if (until_eof && watched[1].revents) return 0;
    if (tracked) attend_tracker();
    if (!watched[0].revents) continue;
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) continue;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    pid_t child = fork();
    if (child > 0) tracker.open++;
    if (child == 0) {
      close(listener);
      leave_tracker();
      close(0);
      serve(fd, key);
    }
    close(fd);
  }
}
