// Running sums and scattered writes along rows.
#pragma once
#include <cstdint>

// One block of threads a row: each thread adds up a stretch, then what came before it.
template <int kThreads, typename T, typename S>
__device__ __forceinline__ void tvmdet_running_sum(const T* data, S* sums, int length,
                                                   bool exclusive) {
  __shared__ S before[kThreads];
  const size_t row = blockIdx.x;
  data += row * length;
  sums += row * length;
  const int stretch = (length + kThreads - 1) / kThreads;
  const int from = min(static_cast<int>(threadIdx.x) * stretch, length);
  const int to = min(from + stretch, length);
  S total = 0;
  for (int i = from; i < to; ++i) total += static_cast<S>(data[i]);
  before[threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.x == 0) {
    S sum = 0;
    for (int i = 0; i < kThreads; ++i) {
      const S own = before[i];
      before[i] = sum;
      sum += own;
    }
  }
  __syncthreads();
  total = before[threadIdx.x];
  for (int i = from; i < to; ++i) {
    const S own = static_cast<S>(data[i]);
    sums[i] = exclusive ? total : total + own;
    total += own;
  }
}

// A copy of a row, then every update that no later one of the same place undoes.
template <int kThreads, typename T, typename I>
__device__ __forceinline__ void tvmdet_scatter(const T* data, const I* places, const T* values,
                                               T* result, int length, int updates) {
  const size_t row = blockIdx.x;
  data += row * length;
  result += row * length;
  places += row * updates;
  values += row * updates;
  for (int i = threadIdx.x; i < length; i += kThreads) result[i] = data[i];
  __syncthreads();
  for (int i = threadIdx.x; i < updates; i += kThreads) {
    int64_t place = places[i];
    if (place < 0) place += length;
    bool last = place >= 0 && place < length;
    for (int j = i + 1; j < updates && last; ++j) {
      const int64_t other = places[j];
      last = (other < 0 ? other + length : other) != place;
    }
    if (last) result[place] = values[i];
  }
}
