// Greedy suppression of overlapping boxes: Neubeck and Van Gool, "Efficient Non-Maximum
// Suppression" (ICPR 2006).
//
// One block of threads takes candidates in the order of their scores, as many at a time as it has
// threads. What a kept box of an earlier round overlaps is dropped by all threads at once; then each
// box of the round that is still there, in order, drops what it overlaps among those after it. No
// matrix of overlaps is stored, and the work ends with the last row wanted.
#pragma once
#include "keys.cuh"

struct tvmdet_box {
  float x1, y1, x2, y2;
  int of_class;
};

// Keeps boxes until `rows` are kept, `most` are looked at or none are left; returns how many.
//   each(visit): visits the keys of all candidates, shared out to the threads.
//   box_of(key): the box of a candidate.
//   overlaps(a, b): whether a box drops another.
//   keep(row, key): stores a kept candidate; called by one thread.
template <int kThreads, typename Each, typename BoxOf, typename Overlaps, typename Keep>
__device__ __forceinline__ int tvmdet_suppress(int rows, int most, tvmdet_box* kept, Each each,
                                               BoxOf box_of, Overlaps overlaps, Keep keep) {
  __shared__ unsigned histogram[258];
  __shared__ uint64_t keys[kThreads];
  __shared__ tvmdet_box boxes[kThreads];
  __shared__ int alive[kThreads];
  __shared__ int count;
  const int thread = threadIdx.x;
  int done = 0, taken = 0;
  uint64_t limit = ~0ull;  // candidates from here on were looked at
  while (done < rows && taken < most) {
    const int wanted = most - taken < kThreads ? most - taken : kThreads;
    const uint64_t least = tvmdet_select<kThreads>(wanted, histogram, [&](auto visit) {
      each([&](uint64_t key) {
        if (key < limit) visit(key);
      });
    });
    if (thread == 0) count = 0;
    keys[thread] = 0;
    __syncthreads();
    each([&](uint64_t key) {
      if (key < limit && key >= least && key != 0) keys[atomicAdd(&count, 1)] = key;
    });
    __syncthreads();
    tvmdet_sort<kThreads, kThreads>(keys);
    const int found = count;
    if (found == 0) break;
    limit = keys[found - 1];
    taken += found;
    alive[thread] = thread < found;
    if (thread < found) {
      boxes[thread] = box_of(keys[thread]);
      for (int i = 0; i < done && alive[thread]; ++i) {
        if (overlaps(kept[i], boxes[thread])) alive[thread] = 0;
      }
    }
    __syncthreads();
    for (int i = 0; i < found && done < rows; ++i) {
      if (!alive[i]) continue;
      if (thread == 0) {
        kept[done] = boxes[i];
        keep(done, keys[i]);
      }
      ++done;
      if (thread > i && thread < found && alive[thread] && overlaps(boxes[i], boxes[thread])) {
        alive[thread] = 0;
      }
      __syncthreads();
    }
    __syncthreads();
  }
  return done;
}

// Candidates of an image: every class of a box above the threshold, or its best class. Each block
// of kThreads boxes has a stretch of `keys` of its own, and its length in `lengths`.
template <int kThreads>
__device__ __forceinline__ void tvmdet_collect(const float* scores, const float* thresholds,
                                               uint64_t* keys, int* lengths, int anchors,
                                               int classes, bool multi_label) {
  __shared__ int count;
  const int anchor = blockIdx.x * kThreads + threadIdx.x;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  const size_t image = blockIdx.y;
  scores += image * anchors * classes;
  keys += (image * gridDim.x + blockIdx.x) * kThreads * (multi_label ? classes : 1);
  if (anchor < anchors) {
    float best = thresholds[0];
    int best_class = -1;
    for (int c = 0; c < classes; ++c) {
      const float score = scores[anchor * classes + c];
      if (multi_label) {
        if (score > thresholds[0]) {
          keys[atomicAdd(&count, 1)] = tvmdet_key(tvmdet_ordered_bits(score), anchor * classes + c);
        }
      } else if (score > best) {
        best = score;
        best_class = c;
      }
    }
    if (best_class >= 0) {
      keys[atomicAdd(&count, 1)] =
          tvmdet_key(tvmdet_ordered_bits(best), anchor * classes + best_class);
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) lengths[image * gridDim.x + blockIdx.x] = count;
}

// The kept boxes of an image, in rows; those past the count are zeros.
template <int kThreads>
__device__ __forceinline__ void tvmdet_suppress_image(
    const float* boxes, const uint64_t* keys, const int* lengths, const float* thresholds,
    float* out_boxes, float* out_scores, int* out_classes, int* out_rows, int* out_counts,
    int* scratch, int anchors, int classes, int rows, int blocks, int stretch, int most,
    bool same_class_only) {
  const size_t image = blockIdx.x;
  tvmdet_box* kept = reinterpret_cast<tvmdet_box*>(scratch) + image * rows;
  boxes += image * anchors * 4;
  keys += image * blocks * stretch;
  lengths += image * blocks;
  out_boxes += image * rows * 4;
  out_scores += image * rows;
  out_classes += image * rows;
  out_rows += image * rows;
  for (int i = threadIdx.x; i < rows; i += kThreads) {
    out_scores[i] = 0.0f;
    out_classes[i] = 0;
    out_rows[i] = 0;
    for (int e = 0; e < 4; ++e) out_boxes[i * 4 + e] = 0.0f;
  }
  __syncthreads();
  const float iou = thresholds[1];
  const int count = tvmdet_suppress<kThreads>(
      rows, most, kept,
      [&](auto visit) {
        for (int b = 0; b < blocks; ++b) {
          for (int i = threadIdx.x; i < lengths[b]; i += kThreads) {
            visit(keys[static_cast<size_t>(b) * stretch + i]);
          }
        }
      },
      [&](uint64_t key) {
        const int at = tvmdet_key_position(key), anchor = at / classes;
        const float* box = boxes + anchor * 4;
        return tvmdet_box{box[0], box[1], box[2], box[3], at % classes};
      },
      [&](const tvmdet_box& a, const tvmdet_box& b) {
        if (same_class_only && a.of_class != b.of_class) return false;
        const float wide = max(min(b.x2, a.x2) - max(b.x1, a.x1), 0.0f);
        const float high = max(min(b.y2, a.y2) - max(b.y1, a.y1), 0.0f);
        const float overlap = wide * high;
        const float of_a = max(a.x2 - a.x1, 0.0f) * max(a.y2 - a.y1, 0.0f);
        const float of_b = max(b.x2 - b.x1, 0.0f) * max(b.y2 - b.y1, 0.0f);
        return !(overlap <= iou * (of_b + of_a - overlap));
      },
      [&](int row, uint64_t key) {
        const int at = tvmdet_key_position(key), anchor = at / classes;
        for (int e = 0; e < 4; ++e) out_boxes[row * 4 + e] = boxes[anchor * 4 + e];
        out_scores[row] = tvmdet_value_of_bits(static_cast<unsigned>(key >> 32));
        out_classes[row] = at % classes;
        out_rows[row] = anchor;
      });
  if (threadIdx.x == 0) out_counts[image] = count;
}

// ONNX's NonMaxSuppression for one image and class: the kept candidates, best first, and how many.
template <int kThreads>
__device__ __forceinline__ void tvmdet_onnx_suppress_class(
    const float* boxes, const float* scores, const bool* real, int* kept_rows, int* counts,
    int* scratch, int classes, int candidates, int rows, float iou, float least_score,
    bool centered) {
  const size_t group = blockIdx.x;
  tvmdet_box* kept = reinterpret_cast<tvmdet_box*>(scratch) + group * rows;
  boxes += group / classes * candidates * 4;
  scores += group * candidates;
  kept_rows += group * rows;
  const int count = tvmdet_suppress<kThreads>(
      rows, candidates, kept,
      [&](auto visit) {
        for (int i = threadIdx.x; i < candidates; i += kThreads) {
          if (real[i] && scores[i] > least_score) {
            visit(tvmdet_key(tvmdet_ordered_bits(scores[i]), i));
          }
        }
      },
      [&](uint64_t key) {
        const float* b = boxes + tvmdet_key_position(key) * 4;
        if (centered) {
          return tvmdet_box{b[0] - b[2] / 2, b[1] - b[3] / 2, b[0] + b[2] / 2, b[1] + b[3] / 2, 0};
        }
        return tvmdet_box{min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]), 0};
      },
      [&](const tvmdet_box& a, const tvmdet_box& b) {
        const float of_a = (a.x2 - a.x1) * (a.y2 - a.y1), of_b = (b.x2 - b.x1) * (b.y2 - b.y1);
        const float wide = min(b.x2, a.x2) - max(b.x1, a.x1);
        const float high = min(b.y2, a.y2) - max(b.y1, a.y1);
        const float whole = of_b + of_a - wide * high;
        return wide > 0.0f && high > 0.0f && of_a > 0.0f && of_b > 0.0f && whole > 0.0f &&
               wide * high > 0.0f && wide * high / whole > iou;
      },
      [&](int row, uint64_t key) { kept_rows[row] = tvmdet_key_position(key); });
  if (threadIdx.x == 0) counts[group] = count;
}

// The rows of all images and classes, one after the other; those past the last are zeros.
template <int kThreads>
__device__ __forceinline__ void tvmdet_onnx_join(const int* kept_rows, const int* counts,
                                                 int64_t* selected, bool* valid, int groups,
                                                 int classes, int stride, int rows) {
  for (int i = threadIdx.x; i < rows; i += kThreads) {
    int group = 0, before = 0;
    while (group < groups && before + counts[group] <= i) before += counts[group++];
    const bool is_row = group < groups;
    valid[i] = is_row;
    selected[i * 3] = is_row ? group / classes : 0;
    selected[i * 3 + 1] = is_row ? group % classes : 0;
    selected[i * 3 + 2] = is_row ? kept_rows[static_cast<size_t>(group) * stride + i - before] : 0;
  }
}
