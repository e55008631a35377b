// Tensor-core products of one warp on tiles in shared memory, for float16 and tf32 factors with
// float32 sums. Fragments lie in arrays of each lane; their layout is that of the PTX ISA ("Matrix
// multiply-accumulate instructions", mma.m16n8k16, mma.m16n8k8) and of ldmatrix.
//
// A tile of the result is 16 x 16: two of the instruction's 16 x 8 tiles side by side, 8 floats a
// lane. Row strides of shared memory are multiples of 8 halves: ldmatrix reads rows of 16 bytes.
#pragma once

#ifdef TVMDET_EMULATED
#include "mma_emulated.h"
#else
#include <cuda_fp16.h>

__device__ __forceinline__ void tvmdet_ldmatrix_in_step(unsigned* r, const void* row) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

__device__ __forceinline__ void tvmdet_ldmatrix_trans_in_step(unsigned* r, const void* row) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

__device__ __forceinline__ void tvmdet_mma_f16_in_step(float* d, const unsigned* a,
                                                       const unsigned* b) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  // Turing has the instruction for half the depth.
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b[0]));
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[2]), "r"(a[3]), "r"(b[1]));
#endif
}

__device__ __forceinline__ unsigned tvmdet_round_to_tf32(float x) {
#if __CUDA_ARCH__ >= 800
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
#else
  return __float_as_uint(x);
#endif
}

__device__ __forceinline__ void tvmdet_mma_tf32_in_step(float* d, const unsigned* a,
                                                        const unsigned* b) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();  // before sm_80 there is no tf32: the compiler does not choose it there
#endif
}
#endif  // TVMDET_EMULATED

__device__ __forceinline__ int tvmdet_lane() { return threadIdx.x & 31; }

__device__ __forceinline__ void tvmdet_fill(float* sums) {
#pragma unroll
  for (int i = 0; i < 8; ++i) sums[i] = 0.0f;
}

// Left factor: 16 x 16 halves, rows along m.
__device__ __forceinline__ void tvmdet_load_left_f16(half* fragment, const half* tile,
                                                     int stride) {
  const int lane = tvmdet_lane();
  const half* row = tile + (lane % 16) * stride + lane / 16 * 8;
  tvmdet_ldmatrix_in_step(reinterpret_cast<unsigned*>(fragment), row);
}

// Right factor: 16 x 16 halves, rows along k.
__device__ __forceinline__ void tvmdet_load_right_f16(half* fragment, const half* tile,
                                                      int stride) {
  const int lane = tvmdet_lane();
  const half* row = tile + (lane % 16) * stride + lane / 16 * 8;
  tvmdet_ldmatrix_trans_in_step(reinterpret_cast<unsigned*>(fragment), row);
}

__device__ __forceinline__ void tvmdet_multiply_f16(float* sums, const half* left,
                                                    const half* right) {
  const unsigned* a = reinterpret_cast<const unsigned*>(left);
  const unsigned* b = reinterpret_cast<const unsigned*>(right);
  tvmdet_mma_f16_in_step(sums, a, b);
  tvmdet_mma_f16_in_step(sums + 4, a, b + 2);
}

// Left factor: 16 x 8 floats, rows along m; rounded to tf32 as they are loaded.
__device__ __forceinline__ void tvmdet_load_left_tf32(float* fragment, const float* tile,
                                                      int stride) {
  const int row = tvmdet_lane() / 4, column = tvmdet_lane() % 4;
  unsigned* bits = reinterpret_cast<unsigned*>(fragment);
  bits[0] = tvmdet_round_to_tf32(tile[row * stride + column]);
  bits[1] = tvmdet_round_to_tf32(tile[(row + 8) * stride + column]);
  bits[2] = tvmdet_round_to_tf32(tile[row * stride + column + 4]);
  bits[3] = tvmdet_round_to_tf32(tile[(row + 8) * stride + column + 4]);
}

// Right factor: 8 x 16 floats, rows along k.
__device__ __forceinline__ void tvmdet_load_right_tf32(float* fragment, const float* tile,
                                                       int stride) {
  const int row = tvmdet_lane() % 4, column = tvmdet_lane() / 4;
  unsigned* bits = reinterpret_cast<unsigned*>(fragment);
  bits[0] = tvmdet_round_to_tf32(tile[row * stride + column]);
  bits[1] = tvmdet_round_to_tf32(tile[(row + 4) * stride + column]);
  bits[2] = tvmdet_round_to_tf32(tile[row * stride + column + 8]);
  bits[3] = tvmdet_round_to_tf32(tile[(row + 4) * stride + column + 8]);
}

__device__ __forceinline__ void tvmdet_multiply_tf32(float* sums, const float* left,
                                                     const float* right) {
  const unsigned* a = reinterpret_cast<const unsigned*>(left);
  const unsigned* b = reinterpret_cast<const unsigned*>(right);
  tvmdet_mma_tf32_in_step(sums, a, b);
  tvmdet_mma_tf32_in_step(sums + 4, a, b + 2);
}

// The result: 16 x 16 floats.
__device__ __forceinline__ void tvmdet_store(float* tile, int stride, const float* sums) {
  const int row = tvmdet_lane() / 4, column = tvmdet_lane() % 4 * 2;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    tile[row * stride + column + 8 * i] = sums[4 * i];
    tile[row * stride + column + 8 * i + 1] = sums[4 * i + 1];
    tile[(row + 8) * stride + column + 8 * i] = sums[4 * i + 2];
    tile[(row + 8) * stride + column + 8 * i + 1] = sums[4 * i + 3];
  }
}
