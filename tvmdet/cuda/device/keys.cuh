// Scores as whole numbers that order them: the greatest first, ties by position.
#pragma once
#include <cstdint>

__device__ __forceinline__ unsigned tvmdet_ordered_bits(float value) {
  const unsigned bits = __float_as_uint(value == 0.0f ? 0.0f : value);  // -0 is 0
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ unsigned tvmdet_ordered_bits(int value) {
  return static_cast<unsigned>(value) ^ 0x80000000u;
}

__device__ __forceinline__ float tvmdet_value_of_bits(unsigned ordered) {
  return __uint_as_float(ordered & 0x80000000u ? ordered & 0x7fffffffu : ~ordered);
}

// No two keys of a row are equal: the position is their lower half, the first one greatest.
__device__ __forceinline__ uint64_t tvmdet_key(unsigned ordered, unsigned position) {
  return static_cast<uint64_t>(ordered) << 32 | (0xffffffffu - position);
}
__device__ __forceinline__ unsigned tvmdet_key_position(uint64_t key) {
  return 0xffffffffu - static_cast<unsigned>(key);
}

// Finds the `wanted`-th greatest of the keys that `each(visit)` visits, byte by byte from the top,
// with all threads of a block. Keys at or above the result are at most `wanted`, and exactly as
// many where there are. `histogram` has 256 + 2 entries of shared memory.
template <int kThreads, typename Each>
__device__ __forceinline__ uint64_t tvmdet_select(unsigned wanted, unsigned* histogram,
                                                  Each each) {
  const int thread = threadIdx.x;
  uint64_t prefix = 0;
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int i = thread; i < 258; i += kThreads) histogram[i] = 0;
    __syncthreads();
    each([&](uint64_t key) {
      if (shift == 56 || key >> (shift + 8) == prefix >> (shift + 8)) {
        atomicAdd(&histogram[key >> shift & 255], 1u);
      }
    });
    __syncthreads();
    if (thread == 0) {
      unsigned above = 0;
      int bin = 255;
      while (bin > 0 && above + histogram[bin] < wanted) above += histogram[bin--];
      histogram[256] = bin;
      histogram[257] = above;
    }
    __syncthreads();
    const unsigned bin = histogram[256], above = histogram[257], inside = histogram[bin];
    __syncthreads();
    prefix |= static_cast<uint64_t>(bin) << shift;
    // All of the bin is wanted, or fewer keys than wanted are left in all.
    if (above + inside <= wanted) break;
    wanted -= above;
  }
  return prefix;
}

// Sorts kCount keys of shared memory, the greatest first, with all threads of a block (bitonic).
template <int kThreads, int kCount>
__device__ __forceinline__ void tvmdet_sort(uint64_t* keys) {
  for (int size = 2; size <= kCount; size *= 2) {
    for (int stride = size / 2; stride > 0; stride /= 2) {
      __syncthreads();
      for (int i = threadIdx.x; i < kCount / 2; i += kThreads) {
        const int low = 2 * i - (i & (stride - 1)), high = low + stride;
        const bool descending = (low & size) == 0;
        const uint64_t a = keys[low], b = keys[high];
        if ((a < b) == descending) {
          keys[low] = b;
          keys[high] = a;
        }
      }
    }
  }
  __syncthreads();
}
