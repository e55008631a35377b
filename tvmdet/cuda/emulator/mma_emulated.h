// What the tensor-core instructions do, element by element, after the fragment layouts of the PTX
// ISA: written from its text, not from the code that calls them.
#pragma once
#include <cuda.h>

namespace emulated {

// A value of each of the 32 lanes, seen by all of them.
template <typename T>
struct OfWarp {
  T lane[kWarp];
};

template <typename T>
inline OfWarp<T> Gather(T mine) {
  OfWarp<T> all;
  std::memcpy(&MyWarp().slot[Lane()], &mine, sizeof(T));
  Wait(State::kAtWarp);
  for (int i = 0; i < kWarp; ++i) std::memcpy(&all.lane[i], &MyWarp().slot[i], sizeof(T));
  Wait(State::kAtWarp);
  return all;
}

inline float HalfOf(unsigned bits, int which) {
  const uint16_t half_bits = static_cast<uint16_t>(which ? bits >> 16 : bits);
  half value;
  std::memcpy(&value, &half_bits, 2);
  return static_cast<float>(value);
}

// ldmatrix .x4: lanes 8j to 8j+7 hold the addresses of the rows of matrix j, of 8 x 8 b16; lane l
// gets in register j the elements (l / 4, 2 * (l % 4) + {0, 1}), of the transpose with .trans.
inline void LoadMatrix(unsigned* r, const void* row, bool transposed) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) Fail("ldmatrix of a row that is not aligned");
  const OfWarp<const uint16_t*> rows = Gather(static_cast<const uint16_t*>(row));
  const int major = Lane() / 4, minor = Lane() % 4 * 2;
  for (int j = 0; j < 4; ++j) {
    unsigned value = 0;
    for (int i = 0; i < 2; ++i) {
      const uint16_t element = transposed ? rows.lane[8 * j + minor + i][major]
                                          : rows.lane[8 * j + major][minor + i];
      value |= static_cast<unsigned>(element) << (16 * i);
    }
    r[j] = value;
  }
  Wait(State::kAtWarp);
}

// mma.m16n8k16 on f16. A: register pairs (row g, k 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8)
// for g = lane / 4 and t = lane % 4; B: (k 2t, column g), (2t + 8, g); C: (g, 2t), (g + 8, 2t).
inline void MultiplyHalves(float* d, const unsigned* a, const unsigned* b) {
  OfWarp<unsigned> as[4], bs[2];
  for (int i = 0; i < 4; ++i) as[i] = Gather(a[i]);
  for (int i = 0; i < 2; ++i) bs[i] = Gather(b[i]);
  const int g = Lane() / 4, t = Lane() % 4;
  for (int i = 0; i < 4; ++i) {
    const int row = g + (i / 2) * 8, column = 2 * t + i % 2;
    float sum = d[i];
    for (int k = 0; k < 16; ++k) {
      const int from_a = row % 8 * 4 + k % 8 / 2, from_b = column * 4 + k % 8 / 2;
      sum += HalfOf(as[row / 8 + k / 8 * 2].lane[from_a], k % 2) *
             HalfOf(bs[k / 8].lane[from_b], k % 2);
    }
    d[i] = sum;
  }
}

// mma.m16n8k8 on tf32. A: (row g, k t), (g + 8, t), (g, t + 4), (g + 8, t + 4); B: (k t, column g),
// (t + 4, g); C as above.
inline void MultiplyTf32(float* d, const unsigned* a, const unsigned* b) {
  OfWarp<unsigned> as[4], bs[2];
  for (int i = 0; i < 4; ++i) as[i] = Gather(a[i]);
  for (int i = 0; i < 2; ++i) bs[i] = Gather(b[i]);
  const int g = Lane() / 4, t = Lane() % 4;
  for (int i = 0; i < 4; ++i) {
    const int row = g + (i / 2) * 8, column = 2 * t + i % 2;
    float sum = d[i];
    for (int k = 0; k < 8; ++k) {
      const unsigned left = as[row / 8 + k / 4 * 2].lane[row % 8 * 4 + k % 4];
      const unsigned right = bs[k / 4].lane[column * 4 + k % 4];
      sum += __uint_as_float(left & 0xffffe000u) * __uint_as_float(right & 0xffffe000u);
    }
    d[i] = sum;
  }
}

}  // namespace emulated

inline void tvmdet_ldmatrix_in_step(unsigned* r, const void* row) {
  emulated::LoadMatrix(r, row, false);
}
inline void tvmdet_ldmatrix_trans_in_step(unsigned* r, const void* row) {
  emulated::LoadMatrix(r, row, true);
}
inline void tvmdet_mma_f16_in_step(float* d, const unsigned* a, const unsigned* b) {
  emulated::MultiplyHalves(d, a, b);
}
inline void tvmdet_mma_tf32_in_step(float* d, const unsigned* a, const unsigned* b) {
  emulated::MultiplyTf32(d, a, b);
}
// Nearest, ties away from zero, 10 bits of mantissa left: cvt.rna.tf32.f32.
inline unsigned tvmdet_round_to_tf32(float x) { return (__float_as_uint(x) + 0x1000u) & 0xffffe000u; }
