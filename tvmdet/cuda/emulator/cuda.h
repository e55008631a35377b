// Runs CUDA C++ kernels on a CPU, one thread block after the other, so that their numbers can be
// checked where there is no GPU. Found in place of NVIDIA's header of the same name.
//
// The threads of a block are coroutines of one thread of the CPU. Each runs until it waits: for its
// block (__syncthreads) or for its warp (shuffles, votes, __syncwarp, tensor-core operations). When
// every thread that has not ended waits at the same kind of barrier, they go on. Shared memory is
// static memory: blocks do not overlap. Threads run in order, so that a missing barrier shows: a
// thread that reads what a later one is to write finds what was there before, poison at first.
//
// What it does not do: anything about time, caches or memory spaces, and two warps that disagree
// about what they see without a barrier.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define TVMDET_EMULATED 1

struct uint3 {
  unsigned x, y, z;
};
struct dim3 : uint3 {
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : uint3{x_, y_, z_} {}
};

static uint3 threadIdx, blockIdx, blockDim, gridDim;

using std::max;
using std::min;

namespace emulated {

constexpr int kWarp = 32;
constexpr size_t kStackBytes = 256 << 10;

enum class State { kReady, kAtBlock, kAtWarp, kEnded };

struct Thread {
  ucontext_t context;
  uint3 index;
  State state;
  const char* barrier;  // which of the block's, by place in the source
};

struct Warp {
  uint64_t slot[kWarp];
  unsigned voted;
};

static std::vector<Thread> threads;
static std::vector<Warp> warps;
static std::vector<char> stacks;
static ucontext_t scheduler;
static size_t current;
static bool coroutines;  // off for kernels that never wait: a plain loop runs them
static const std::function<void()>* body;

inline void Fail(const char* what) {
  std::fprintf(stderr, "emulated CUDA kernel: %s\n", what);
  std::abort();
}

inline void Wait(State state) {
  if (!coroutines) Fail("a thread waits in a kernel that was taken for one without barriers");
  Thread& thread = threads[current];
  thread.state = state;
  swapcontext(&thread.context, &scheduler);
}

inline int Lane() { return static_cast<int>(current % kWarp); }
inline Warp& MyWarp() { return warps[current / kWarp]; }

inline void Entry() {
  (*body)();
  threads[current].state = State::kEnded;
  swapcontext(&threads[current].context, &scheduler);
}

// Lets every thread that can run until it waits; returns whether any has not ended.
inline bool RunOnce() {
  bool alive = false;
  for (size_t i = 0; i < threads.size(); ++i) {
    if (threads[i].state == State::kReady) {
      current = i;
      threadIdx = threads[i].index;
      swapcontext(&scheduler, &threads[i].context);
    }
    alive = alive || threads[i].state != State::kEnded;
  }
  return alive;
}

inline void Release() {
  bool released = false;
  const size_t count = threads.size();
  for (size_t warp = 0; warp < count; warp += kWarp) {
    const size_t end = std::min(warp + kWarp, count);
    bool all = true, any = false;
    for (size_t i = warp; i < end; ++i) {
      if (threads[i].state == State::kEnded) continue;
      any = true;
      all = all && threads[i].state == State::kAtWarp;
    }
    if (!any || !all) continue;
    for (size_t i = warp; i < end; ++i) {
      if (threads[i].state == State::kAtWarp) threads[i].state = State::kReady;
    }
    released = true;
  }
  if (released) return;
  for (const Thread& thread : threads) {
    if (thread.state == State::kAtWarp) Fail("the threads of a warp wait at different barriers");
  }
  for (Thread& thread : threads) {
    if (thread.state == State::kAtBlock) thread.state = State::kReady;
  }
}

inline void RunBlock() {
  const size_t count = static_cast<size_t>(blockDim.x) * blockDim.y * blockDim.z;
  if (!coroutines) {
    for (current = 0; current < count; ++current) {
      const unsigned i = static_cast<unsigned>(current);
      threadIdx = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
      (*body)();
    }
    return;
  }
  threads.resize(count);
  warps.resize((count + kWarp - 1) / kWarp);
  if (stacks.size() < count * kStackBytes) stacks.resize(count * kStackBytes);
  for (size_t i = 0; i < count; ++i) {
    Thread& thread = threads[i];
    const unsigned at = static_cast<unsigned>(i);
    thread.index = {at % blockDim.x, at / blockDim.x % blockDim.y, at / blockDim.x / blockDim.y};
    thread.state = State::kReady;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = stacks.data() + i * kStackBytes;
    thread.context.uc_stack.ss_size = kStackBytes;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, Entry, 0);
  }
  while (RunOnce()) Release();
}

inline void Launch(dim3 grid, dim3 block, bool waits, const std::function<void()>& kernel) {
  gridDim = grid;
  blockDim = block;
  coroutines = waits;
  body = &kernel;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = {x, y, z};
        RunBlock();
      }
    }
  }
}

// Calls a kernel with pointers to whatever it takes.
template <typename... P, size_t... I>
inline void CallAt(void (*kernel)(P...), void* const* p, std::index_sequence<I...>) {
  kernel(reinterpret_cast<P>(p[I])...);
}
template <typename... P>
inline void Call(void (*kernel)(P...), std::initializer_list<void*> p) {
  if (p.size() != sizeof...(P)) Fail("a kernel takes another number of arguments");
  CallAt(kernel, p.begin(), std::index_sequence_for<P...>());
}

// Every live thread of the warp gives a value and may then read those of the others.
template <typename T>
inline T Exchange(T value, int source) {
  static_assert(sizeof(T) <= sizeof(uint64_t), "a slot holds 8 bytes");
  std::memcpy(&MyWarp().slot[Lane()], &value, sizeof(T));
  Wait(State::kAtWarp);
  T result = value;
  std::memcpy(&result, &MyWarp().slot[source & (kWarp - 1)], sizeof(T));
  Wait(State::kAtWarp);
  return result;
}

}  // namespace emulated

inline void __syncthreads() { emulated::Wait(emulated::State::kAtBlock); }
inline void __syncwarp(unsigned = 0xffffffffu) { emulated::Wait(emulated::State::kAtWarp); }

inline unsigned __activemask() {
  if (!emulated::coroutines) return 0xffffffffu;
  unsigned mask = 0;
  const size_t first = emulated::current / emulated::kWarp * emulated::kWarp;
  for (size_t i = first; i < std::min(first + emulated::kWarp, emulated::threads.size()); ++i) {
    if (emulated::threads[i].state != emulated::State::kEnded) mask |= 1u << (i - first);
  }
  return mask;
}

template <typename T>
inline T __shfl_sync(unsigned, T value, int lane, int width = 32) {
  const int first = emulated::Lane() / width * width;
  return emulated::Exchange(value, first + (lane & (width - 1)));
}
template <typename T>
inline T __shfl_down_sync(unsigned, T value, unsigned delta, int width = 32) {
  const int lane = emulated::Lane(), to = lane % width + static_cast<int>(delta);
  return emulated::Exchange(value, to < width ? lane + static_cast<int>(delta) : lane);
}
template <typename T>
inline T __shfl_up_sync(unsigned, T value, unsigned delta, int width = 32) {
  const int lane = emulated::Lane(), to = lane % width - static_cast<int>(delta);
  return emulated::Exchange(value, to >= 0 ? lane - static_cast<int>(delta) : lane);
}
template <typename T>
inline T __shfl_xor_sync(unsigned, T value, int mask, int = 32) {
  return emulated::Exchange(value, emulated::Lane() ^ mask);
}

// Threads do not overlap, so that reading and writing is one step.
template <typename T, typename V>
inline T atomicAdd(T* place, V value) {
  const T before = *place;
  *place = static_cast<T>(before + value);
  return before;
}
template <typename T, typename V>
inline T atomicMax(T* place, V value) {
  const T before = *place;
  *place = std::max<T>(before, value);
  return before;
}

inline void __threadfence_block() {}
inline void __threadfence() {}
inline int __float2int_rd(float x) { return static_cast<int>(std::floor(x)); }
inline float __int_as_float(int bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline int __float_as_int(float value) {
  int bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
inline unsigned __float_as_uint(float value) { return static_cast<unsigned>(__float_as_int(value)); }
inline float __uint_as_float(unsigned bits) { return __int_as_float(static_cast<int>(bits)); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __powf(float x, float y) { return std::pow(x, y); }
inline float __tanhf(float x) { return std::tanh(x); }
inline float __cosf(float x) { return std::cos(x); }
inline float __sinf(float x) { return std::sin(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __clz(int bits) { return bits ? __builtin_clz(static_cast<unsigned>(bits)) : 32; }
template <typename T>
inline T __ldg(const T* place) {
  return *place;
}

// Half of a float, as cuda_fp16.h has it: arithmetic is that of the type itself.
using half = _Float16;
using __half = half;
struct alignas(4) half2 {
  half x, y;
};
using __half2 = half2;
#define __align__(bytes) alignas(bytes)
inline bool __hgt(half x, half y) { return x > y; }
inline bool __hlt(half x, half y) { return x < y; }
inline half __float2half(float x) { return static_cast<half>(x); }
inline half __float2half_rn(float x) { return static_cast<half>(x); }
inline float __half2float(half x) { return static_cast<float>(x); }
inline half2 make_half2(half x, half y) { return {x, y}; }
inline half2 __halves2half2(half x, half y) { return {x, y}; }
inline half2 __float22half2_rn(struct float2 x);
inline half __hmax(half x, half y) { return x > y ? x : y; }
inline half __hmin(half x, half y) { return x < y ? x : y; }
inline half hexp(half x) { return static_cast<half>(std::exp(static_cast<float>(x))); }
inline half htanh(half x) { return static_cast<half>(std::tanh(static_cast<float>(x))); }

#define TVMDET_VECTOR(T, name, bytes)                        \
  struct alignas(bytes * 2) name##2 {                        \
    T x, y;                                                  \
  };                                                         \
  struct alignas(bytes * 4 > 16 ? 16 : bytes * 4) name##4 {  \
    T x, y, z, w;                                            \
  };                                                         \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; } \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

struct float3 {
  float x, y, z;
};
struct int3 {
  int x, y, z;
};
TVMDET_VECTOR(float, float, 4)
TVMDET_VECTOR(double, double, 8)
TVMDET_VECTOR(int, int, 4)
TVMDET_VECTOR(unsigned, uint, 4)
TVMDET_VECTOR(short, short, 2)
TVMDET_VECTOR(unsigned short, ushort, 2)
TVMDET_VECTOR(signed char, char, 1)
TVMDET_VECTOR(unsigned char, uchar, 1)
TVMDET_VECTOR(int64_t, longlong, 8)
TVMDET_VECTOR(uint64_t, ulonglong, 8)
inline half2 __float22half2_rn(float2 x) { return {half(x.x), half(x.y)}; }
