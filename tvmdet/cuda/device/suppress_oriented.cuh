// Suppression of oriented boxes by ProbIoU; the rule is that of the CPU's kernel
// (tvmdet/passes/suppress_oriented_kernel.py): whatever overlaps a box and scores more drops it,
// kept or not. So no box waits for another: threads share out the candidates of an image.
#pragma once
#include "keys.cuh"

// A candidate: its centre, the covariance of its extent and the root of its determinant.
struct tvmdet_oriented {
  float x, y, xx, yy, xy, own, score;
  int of_class;
};

__device__ __forceinline__ bool tvmdet_oriented_overlap(const tvmdet_oriented& a,
                                                        const tvmdet_oriented& b, float reach) {
  const float eps = 1e-7f;
  const float dx = a.x - b.x, dy = a.y - b.y;
  const float xx = a.xx + b.xx, yy = a.yy + b.yy, xy = a.xy + b.xy;
  const float both = max(xx * yy - xy * xy, 0.0f);
  const float near =
      ((yy * dx * dx + xx * dy * dy) * 0.25f - xy * dx * dy * 0.5f) / (both + eps);
  const float alike = 0.5f * logf(both / (4.0f * a.own * b.own + eps) + eps);
  return near + alike < reach && eps < reach;  // false of what is no number
}

// The kept boxes of an image, in rows; those past the count are zeros. `order` has the candidates,
// best first; a block of threads is an image.
template <int kThreads>
__device__ __forceinline__ void tvmdet_suppress_oriented(
    const float* boxes, const float* angles, const float* scores, const int* order,
    const float* thresholds, float* out_boxes, float* out_scores, int* out_classes, int* out_rows,
    int* out_counts, int* scratch, int* alive, int anchors, int classes, int candidates, int rows,
    bool multi_label, bool same_class_only) {
  const size_t image = blockIdx.x;
  tvmdet_oriented* seen = reinterpret_cast<tvmdet_oriented*>(scratch) + image * candidates;
  boxes += image * anchors * 4;
  angles += image * anchors;
  scores += image * anchors * classes;
  order += image * candidates;
  alive += image * candidates;
  for (int k = threadIdx.x; k < candidates; k += kThreads) {
    const int anchor = multi_label ? order[k] / classes : order[k];
    const float* box = boxes + anchor * 4;
    tvmdet_oriented one;
    one.score = thresholds[0];
    one.of_class = -1;  // of none that scores enough
    for (int c = 0; c < classes; ++c) {
      const float score = scores[anchor * classes + c];
      if (score > one.score && (!multi_label || c == order[k] % classes)) {
        one.score = score;
        one.of_class = c;
      }
    }
    const float width = box[2] - box[0], height = box[3] - box[1];
    const float along = width * width / 12.0f, across = height * height / 12.0f;
    const float cosine = cosf(angles[anchor]), sine = sinf(angles[anchor]);
    one.x = box[0] + width * 0.5f;
    one.y = box[1] + height * 0.5f;
    one.xx = along * cosine * cosine + across * sine * sine;
    one.yy = along * sine * sine + across * cosine * cosine;
    one.xy = (along - across) * cosine * sine;
    one.own = fabsf(width * height) / 12.0f;
    seen[k] = one;
  }
  for (int k = threadIdx.x; k < rows; k += kThreads) {
    out_scores[image * rows + k] = 0.0f;
    out_classes[image * rows + k] = 0;
    out_rows[image * rows + k] = 0;
    for (int e = 0; e < 4; ++e) out_boxes[(image * rows + k) * 4 + e] = 0.0f;
  }
  __syncthreads();
  // 1 - sqrt(1 - exp(-distance) + eps) > threshold, solved for the distance.
  const float rest = 1.0f - thresholds[1];
  const float reach = -logf(1.0f + 1e-7f - rest * rest);
  for (int k = threadIdx.x; k < candidates; k += kThreads) {
    const tvmdet_oriented one = seen[k];
    bool stays = one.of_class >= 0;
    for (int j = 0; j < k && stays; ++j) {
      if (seen[j].of_class < 0) continue;
      if (same_class_only && seen[j].of_class != one.of_class) continue;
      stays = !tvmdet_oriented_overlap(one, seen[j], reach);
    }
    alive[k] = stays;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  int kept = 0;
  for (int k = 0; k < candidates && kept < rows; ++k) {
    if (!alive[k]) continue;
    const int anchor = multi_label ? order[k] / classes : order[k];
    const size_t row = image * rows + kept++;
    for (int e = 0; e < 4; ++e) out_boxes[row * 4 + e] = boxes[anchor * 4 + e];
    out_scores[row] = seen[k].score;
    out_classes[row] = seen[k].of_class;
    out_rows[row] = anchor;
  }
  out_counts[image] = kept;
}
