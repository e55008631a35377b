// RoiAlign on channels-last pictures: He et al., "Mask R-CNN" (2017), section 3, in the arithmetic of
// ONNX's reference. One thread computes one channel of one bin; the threads of a warp read
// neighbouring channels.
#pragma once

__device__ __forceinline__ float tvmdet_roi_align(const float* data, const float* roi, int batch,
                                                  int height, int width, int channels, int rows,
                                                  int columns, int row, int column, int channel,
                                                  float scale, int ratio, float offset,
                                                  float smallest) {
  // Written so that NaN is outside.
  if (!(roi[0] >= 0.0f && roi[0] < static_cast<float>(batch))) return 0.0f;
  const float* image =
      data + static_cast<size_t>(roi[0]) * height * width * channels + channel;
  const float x1 = roi[1] * scale - offset, y1 = roi[2] * scale - offset;
  const float bin_w = max(roi[3] * scale - offset - x1, smallest) / columns;
  const float bin_h = max(roi[4] * scale - offset - y1, smallest) / rows;
  const float most = 4096.0f;  // samples on a side: a grid that depends on the region has to end
  const int across = ratio > 0 ? ratio : static_cast<int>(max(min(ceilf(bin_w), most), 0.0f));
  const int down = ratio > 0 ? ratio : static_cast<int>(max(min(ceilf(bin_h), most), 0.0f));
  float total = 0.0f;
  for (int i = 0; i < down; ++i) {
    float y = y1 + row * bin_h + (i + 0.5f) * bin_h / down;
    if (!(y >= -1.0f && y <= static_cast<float>(height))) continue;
    y = min(max(y, 0.0f), static_cast<float>(height - 1));
    const int top = min(static_cast<int>(y), max(height - 2, 0));
    const int bottom = min(top + 1, height - 1);
    const float low = y - top;
    for (int j = 0; j < across; ++j) {
      float x = x1 + column * bin_w + (j + 0.5f) * bin_w / across;
      if (!(x >= -1.0f && x <= static_cast<float>(width))) continue;
      x = min(max(x, 0.0f), static_cast<float>(width - 1));
      const int left = min(static_cast<int>(x), max(width - 2, 0));
      const int right = min(left + 1, width - 1);
      const float far = x - left;
      const float* upper = image + static_cast<size_t>(top) * width * channels;
      const float* lower = image + static_cast<size_t>(bottom) * width * channels;
      total += (1.0f - low) * ((1.0f - far) * upper[left * channels] + far * upper[right * channels]) +
               low * ((1.0f - far) * lower[left * channels] + far * lower[right * channels]);
    }
  }
  return total / max(across * down, 1);
}

// One thread for each number of the result [regions, rows, columns, channels].
__device__ __forceinline__ void tvmdet_roi_align_all(const float* data, const float* rois,
                                                     float* result, int regions, int batch,
                                                     int height, int width, int channels, int rows,
                                                     int columns, float scale, int ratio,
                                                     float offset, float smallest) {
  const size_t at = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= static_cast<size_t>(regions) * rows * columns * channels) return;
  const int channel = at % channels, bin = at / channels % (rows * columns);
  const int region = at / channels / (rows * columns);
  result[at] = tvmdet_roi_align(data, rois + region * 5, batch, height, width, channels, rows,
                                columns, bin / columns, bin % columns, channel, scale, ratio,
                                offset, smallest);
}
