/* A plugin for QEMU's user-mode emulation: how often each piece of a kernel's code is executed.
 *
 *   qemu-aarch64 -plugin count_blocks.so,out=FILE,match=TEXT[,l1=BYTES,l2=BYTES] PROGRAM
 *
 * Looks at code of mapped files whose path holds TEXT and at no other. FILE is shared memory that
 * another process reads, and clears, while the program waits for it (tvmdet/board/block_counts.py):
 * a head, the places of the kernels' entries, and a record for each translated block, with the
 * block's instructions and the number of its executions. QEMU ends a block at every branch, so that
 * each instruction of it is executed as often as the block is.
 *
 * With l1 and l2, the loads and stores of the same code go through two caches with lines of 64
 * bytes, of which the least recently used leaves. Both are fully associative: a set would depend on
 * where the system has put the arrays, and no two runs would count the same.
 *
 * Exact for one thread: additions are not atomic.
 *
 * Declares by itself what it needs of QEMU's plugin interface, which Debian packs no header of.
 * This is version 1 of the interface, that of QEMU 6 to 8; version 2 has no
 * qemu_plugin_register_vcpu_tb_exec_inline. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { INLINE_ADD_U64 = 0, CB_NO_REGS = 0, MEM_RW = 3 };
void qemu_plugin_register_vcpu_tb_trans_cb(
    qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb*));
void qemu_plugin_register_vcpu_syscall_cb(
    qemu_plugin_id_t, void (*)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t,
                               uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb*, int, void*, uint64_t);
void qemu_plugin_register_vcpu_tb_exec_cb(
    struct qemu_plugin_tb*, void (*)(unsigned, void*), int, void*);
void qemu_plugin_register_vcpu_mem_cb(
    struct qemu_plugin_insn*, void (*)(unsigned, qemu_plugin_meminfo_t, uint64_t, void*), int, int,
    void*);
unsigned qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb*);
struct qemu_plugin_insn* qemu_plugin_tb_get_insn(const struct qemu_plugin_tb*, size_t);
const void* qemu_plugin_insn_data(const struct qemu_plugin_insn*);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn*);
void* qemu_plugin_insn_haddr(const struct qemu_plugin_insn*);

EXPORT int qemu_plugin_version = 1;

enum { MAGIC = 0x6b6c6274, ENTRIES = 8192, SHARED = 64 << 20, RANGES = 512, LINE_BITS = 6 };

/* The head of FILE. The reader writes entries (offsets in the matched file, ascending) and
 * generation, whose change empties the caches. misses: by owner, of both caches. */
struct head {
  uint64_t magic, used, lost, generation, entry_count;
  uint64_t entries[ENTRIES];
  uint64_t misses[ENTRIES + 1][2];
};

/* size: of the record with what follows it, the sizes of its instructions and their bytes.
 * place: offset in the matched file. owner: 1 + the entry that was called last when the block was
 * translated, which is when it is first executed: a kernel's own parts are called by it alone. */
struct record {
  uint64_t size, place, executed, owner, instructions, code_bytes;
};

static struct head* head;
static char* records;
static const char* match = "";
static uint64_t current;
static struct { uint64_t low, high, offset; int matches; } range[RANGES];
static int range_count, stale = 1;

static void read_ranges(void) {
  FILE* maps = fopen("/proc/self/maps", "r");
  char line[4608];
  range_count = 0;
  stale = 0;
  while (maps && range_count < RANGES && fgets(line, sizeof line, maps)) {
    unsigned long low, high, offset;
    if (sscanf(line, "%lx-%lx %*s %lx", &low, &high, &offset) != 3) continue;
    range[range_count].low = low;
    range[range_count].high = high;
    range[range_count].offset = offset;
    range[range_count++].matches = strstr(line, match) != NULL;
  }
  if (maps) fclose(maps);
}

/* The offset of an address in a matched file, or -1. */
static int64_t place_of(uint64_t address) {
  for (int pass = 0; pass < 2; pass++) {
    if (pass || stale) read_ranges();
    for (int i = 0; i < range_count; i++)
      if (address >= range[i].low && address < range[i].high)
        return range[i].matches ? (int64_t)(address - range[i].low + range[i].offset) : -1;
  }
  return -1;
}

/* A fully associative cache: a ring of lines from the most to the least recently used, and a hash
 * table of chains to find one. */
struct way {
  uint64_t line;
  uint32_t newer, older, chain;
};
struct cache {
  uint32_t lines, filled, newest, mask, *table;
  struct way* ways;
};
enum { NONE = UINT32_MAX };
static struct cache l1, l2;

static uint32_t slot_of(const struct cache* c, uint64_t line) {
  return (uint32_t)(line * 0x9E3779B97F4A7C15ull >> 32) & c->mask;
}

static void empty_cache(struct cache* c) {
  c->filled = 0;
  memset(c->table, 0xff, (c->mask + 1ul) * sizeof *c->table);
}

static int make_cache(struct cache* c, uint64_t bytes) {
  c->lines = (uint32_t)(bytes >> LINE_BITS);
  for (c->mask = 1; c->mask < 2 * c->lines; c->mask *= 2) continue;
  c->mask--;
  c->ways = calloc(c->lines, sizeof *c->ways);
  c->table = calloc(c->mask + 1ul, sizeof *c->table);
  if (c->lines < 2 || !c->ways || !c->table) return -1;
  empty_cache(c);
  return 0;
}

static void insert_newest(struct cache* c, uint32_t at) {
  struct way* w = c->ways + at;
  if (c->filled == 1) {
    w->newer = w->older = at;
  } else {
    uint32_t first = c->newest, last = c->ways[first].newer;
    w->older = first;
    w->newer = last;
    c->ways[first].newer = at;
    c->ways[last].older = at;
  }
  c->newest = at;
}

/* Whether a line is there; it is, and is the newest, afterwards. */
static int touch(struct cache* c, uint64_t line) {
  uint32_t slot = slot_of(c, line), at = c->table[slot];
  while (at != NONE && c->ways[at].line != line) at = c->ways[at].chain;
  if (at == c->newest && at != NONE && c->filled) return 1;
  if (at != NONE) {
    struct way* w = c->ways + at;
    c->ways[w->newer].older = w->older;
    c->ways[w->older].newer = w->newer;
    insert_newest(c, at);
    return 1;
  }
  if (c->filled < c->lines) {
    at = c->filled++;
  } else { /* the oldest leaves */
    at = c->ways[c->newest].newer;
    struct way* w = c->ways + at;
    uint32_t* link = c->table + slot_of(c, w->line);
    while (*link != at) link = &c->ways[*link].chain;
    *link = w->chain;
    c->ways[w->newer].older = w->older;
    c->ways[w->older].newer = w->newer;
  }
  c->ways[at].line = line;
  c->ways[at].chain = c->table[slot];
  c->table[slot] = at;
  insert_newest(c, at);
  return 0;
}

static void on_access(unsigned cpu, qemu_plugin_meminfo_t info, uint64_t address, void* data) {
  static uint64_t generation;
  (void)cpu, (void)data;
  if (head->generation != generation) {
    generation = head->generation;
    empty_cache(&l1);
    empty_cache(&l2);
  }
  uint64_t last = (address + (1ull << qemu_plugin_mem_size_shift(info)) - 1) >> LINE_BITS;
  for (uint64_t line = address >> LINE_BITS; line <= last; line++) {
    if (touch(&l1, line)) continue;
    head->misses[current][0]++;
    if (!touch(&l2, line)) head->misses[current][1]++;
  }
}

static void on_entry(unsigned cpu, void* owner) {
  (void)cpu;
  current = (uint64_t)(uintptr_t)owner;
}

/* 1 + the index of an entry, or 0. */
static uint64_t entry_at(uint64_t place) {
  uint64_t low = 0, high = head->entry_count;
  while (low < high) {
    uint64_t middle = (low + high) / 2;
    if (head->entries[middle] < place) low = middle + 1;
    else high = middle;
  }
  return low < head->entry_count && head->entries[low] == place ? low + 1 : 0;
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb* block) {
  size_t count = qemu_plugin_tb_n_insns(block), code = 0;
  (void)id;
  if (!count) return;
  /* The host's address: what /proc/self/maps shows, wherever the guest's memory begins. */
  int64_t place =
      place_of((uint64_t)(uintptr_t)qemu_plugin_insn_haddr(qemu_plugin_tb_get_insn(block, 0)));
  if (place < 0) return;
  for (size_t i = 0; i < count; i++)
    code += qemu_plugin_insn_size(qemu_plugin_tb_get_insn(block, i));
  size_t size = (sizeof(struct record) + count + code + 7) & ~7ul;
  if (sizeof *head + head->used + size > SHARED) {
    head->lost++;
    return;
  }
  struct record* made = (struct record*)(records + head->used);
  unsigned char *sizes = (unsigned char*)(made + 1), *bytes = sizes + count;
  uint64_t entry = entry_at((uint64_t)place);
  if (entry) {
    current = entry; /* the call-back below runs before the block, and after this */
    qemu_plugin_register_vcpu_tb_exec_cb(block, on_entry, CB_NO_REGS, (void*)(uintptr_t)entry);
  }
  *made = (struct record){size, (uint64_t)place, 0, current, count, code};
  for (size_t i = 0; i < count; i++) {
    struct qemu_plugin_insn* instruction = qemu_plugin_tb_get_insn(block, i);
    sizes[i] = (unsigned char)qemu_plugin_insn_size(instruction);
    memcpy(bytes, qemu_plugin_insn_data(instruction), sizes[i]);
    bytes += sizes[i];
    if (l1.lines)
      qemu_plugin_register_vcpu_mem_cb(instruction, on_access, CB_NO_REGS, MEM_RW, NULL);
  }
  head->used += size;
  qemu_plugin_register_vcpu_tb_exec_inline(block, INLINE_ADD_U64, &made->executed, 1);
}

/* mmap, mremap and munmap, by their numbers on aarch64 and on x86-64. */
static void on_syscall(qemu_plugin_id_t id, unsigned cpu, int64_t number, uint64_t a1, uint64_t a2,
                       uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7,
                       uint64_t a8) {
  (void)id, (void)cpu, (void)a1, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7;
  (void)a8;
  if (number == 222 || number == 216 || number == 215 || number == 9 || number == 25 ||
      number == 11)
    stale = 1;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void* info, int argc, char** argv) {
  const char* out = NULL;
  uint64_t l1_bytes = 0, l2_bytes = 0;
  (void)info;
  for (int i = 0; i < argc; i++) {
    if (!strncmp(argv[i], "out=", 4)) out = argv[i] + 4;
    else if (!strncmp(argv[i], "match=", 6)) match = strdup(argv[i] + 6);
    else if (!strncmp(argv[i], "l1=", 3)) l1_bytes = strtoull(argv[i] + 3, NULL, 10);
    else if (!strncmp(argv[i], "l2=", 3)) l2_bytes = strtoull(argv[i] + 3, NULL, 10);
  }
  if (l1_bytes && (make_cache(&l1, l1_bytes) || make_cache(&l2, l2_bytes))) {
    fprintf(stderr, "count_blocks: no caches of %lu and %lu bytes\n", l1_bytes, l2_bytes);
    return -1;
  }
  int fd = out ? open(out, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
  void* shared = MAP_FAILED;
  if (fd >= 0 && !ftruncate(fd, SHARED))
    shared = mmap(NULL, SHARED, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (shared == MAP_FAILED) {
    fprintf(stderr, "count_blocks: cannot write out=%s\n", out ? out : "");
    return -1;
  }
  close(fd);
  head = shared;
  records = (char*)(head + 1);
  head->magic = MAGIC;
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
  qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
  return 0;
}
