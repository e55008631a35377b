// The k best entries of a row, in order.
#pragma once
#include "keys.cuh"

// For k up to kCapacity, a power of two: one block of threads a row selects the k-th best entry,
// collects what is at least as good, and sorts that.
template <int kThreads, int kCapacity, typename T, typename I>
__device__ __forceinline__ void tvmdet_top_k_of_row(const T* data, T* values, I* positions,
                                                    int length, int k, bool largest) {
  data += static_cast<size_t>(blockIdx.x) * length;
  values += static_cast<size_t>(blockIdx.x) * k;
  positions += static_cast<size_t>(blockIdx.x) * k;
  __shared__ unsigned histogram[258];
  __shared__ uint64_t kept[kCapacity];
  __shared__ int count;
  const int thread = threadIdx.x;
  auto key_at = [&](int i) {
    const unsigned ordered = tvmdet_ordered_bits(data[i]);
    return tvmdet_key(largest ? ordered : ~ordered, i);
  };
  const uint64_t least = tvmdet_select<kThreads>(k, histogram, [&](auto visit) {
    for (int i = thread; i < length; i += kThreads) visit(key_at(i));
  });
  if (thread == 0) count = 0;
  for (int i = thread; i < kCapacity; i += kThreads) kept[i] = 0;
  __syncthreads();
  for (int i = thread; i < length; i += kThreads) {
    const uint64_t key = key_at(i);
    if (key >= least) kept[atomicAdd(&count, 1)] = key;
  }
  __syncthreads();
  tvmdet_sort<kThreads, kCapacity>(kept);
  for (int i = thread; i < k; i += kThreads) {
    const unsigned from = tvmdet_key_position(kept[i]);
    values[i] = data[from];
    positions[i] = static_cast<I>(from);
  }
}

// For any k and type: each thread counts the entries that come before its own.
template <typename T, typename I>
__device__ __forceinline__ void tvmdet_rank_in_row(const T* data, T* values, I* positions,
                                                   int length, int k, bool largest) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  data += static_cast<size_t>(blockIdx.y) * length;
  values += static_cast<size_t>(blockIdx.y) * k;
  positions += static_cast<size_t>(blockIdx.y) * k;
  if (i >= length) return;
  const T own = data[i];
  int before = 0;
  for (int j = 0; j < length && before < k; ++j) {
    const T other = data[j];
    const bool better = largest ? other > own : other < own;
    before += better || (other == own && j < i);
  }
  if (before < k) {
    values[before] = own;
    positions[before] = static_cast<I>(i);
  }
}
