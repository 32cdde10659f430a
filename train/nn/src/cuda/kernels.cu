// The GPU's elementwise and reducing kernels; convolutions are cuDNN's. Compiled by NVRTC when a run first needs them.
//
// Activations are NHWC in `Value`: float, or the upper half of one (bfloat16). Parameters, statistics and their
// gradients are float, sums across images double. Sums go through fixed parts in a fixed order, so that a run repeats.
// Every kernel takes its pointers first, then its numbers.

// The host refuses tensors of 2^31 values and more; 32-bit divisions are what elementwise kernels would wait for.
typedef unsigned int Index;

struct Half {
    unsigned short bits;
};

__device__ inline float get(float v) { return v; }
__device__ inline float get(Half v) { return __uint_as_float((unsigned int)v.bits << 16); }
__device__ inline void set(float *to, float v) { *to = v; }
__device__ inline void set(Half *to, float v) {
    // To the nearest, ties to even; a NaN stays one.
    unsigned int bits = __float_as_uint(v);
    if (v != v) {
        to->bits = 0x7fc0;
    } else {
        to->bits = (unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
}

#define EACH(i, total)                                                                                             \
    for (Index i = (Index)blockIdx.x * blockDim.x + threadIdx.x; i < (total); i += (Index)gridDim.x * blockDim.x)

// Neighbouring values that one thread moves at once: 16 bytes, where channels divide by their number. Activations are
// allocations of their own, so they are aligned.
template <typename Value, int N> struct alignas(N * sizeof(Value)) Pack {
    Value v[N];
};
template <typename Value> struct Wide {
    static const int N = 16 / (int)sizeof(Value);
};
#define BY_PACKS(channels, call)                                                                                   \
    if ((channels) % Wide<Value>::N == 0) {                                                                        \
        const int N = Wide<Value>::N;                                                                              \
        call;                                                                                                      \
    } else {                                                                                                       \
        const int N = 1;                                                                                           \
        call;                                                                                                      \
    }

// Pixels that a thread of a reduction loads before it adds them, so that loads overlap.
#define AHEAD 4

// Channels and rows of threads in a block of a reduction.
#define WIDE 32
#define DEEP 8

// Threads of a block that squares gradients.
#define SQUARES 128

// Adds the rows of a block for each of its channels; the first row has the sum.
__device__ inline float column_sum(float (*cells)[WIDE], float value) {
    cells[threadIdx.y][threadIdx.x] = value;
    __syncthreads();
    for (int half = DEEP / 2; half > 0; half /= 2) {
        if (threadIdx.y < half) cells[threadIdx.y][threadIdx.x] += cells[threadIdx.y + half][threadIdx.x];
        __syncthreads();
    }
    float sum = cells[0][threadIdx.x];
    __syncthreads();
    return sum;
}

template <typename Value> __device__ void cast_in(Value *to, const float *from, Index total) {
    EACH(i, total) set(to + i, from[i]);
}

template <typename Value> __device__ void cast_out(float *to, const Value *from, Index total, int accumulate) {
    EACH(i, total) to[i] = accumulate ? to[i] + get(from[i]) : get(from[i]);
}

// Images into a frame of `rows` x `columns`, normalised; the frame gets what black becomes.
template <typename Value>
__device__ void frame(Value *to, const float *from, const float *numbers, Index total, int h, int w, int c, int top,
                      int left, int rows, int columns) {
    const float *scale = numbers + 2 * c, *shift = numbers + 3 * c;
    EACH(i, total) {
        int k = (int)(i % c);
        Index pixel = i / c;
        int x = (int)(pixel % columns) - left, y = (int)(pixel / columns % rows) - top;
        Index image = pixel / ((Index)columns * rows);
        int inside = x >= 0 && x < w && y >= 0 && y < h;
        float v = inside ? from[((image * h + y) * w + x) * c + k] : 0.0f;
        set(to + i, fmaf(v, scale[k], shift[k]));
    }
}

// The gradient of `frame` with respect to the images.
template <typename Value>
__device__ void unframe(float *to, const Value *from, const float *numbers, Index total, int h, int w, int c, int top,
                        int left, int rows, int columns) {
    const float *scale = numbers + 2 * c;
    EACH(i, total) {
        int k = (int)(i % c);
        Index pixel = i / c;
        int x = (int)(pixel % w) + left, y = (int)(pixel / w % h) + top;
        Index image = pixel / ((Index)w * h);
        to[i] = get(from[((image * rows + y) * columns + x) * c + k]) * scale[k];
    }
}

template <int N, typename Value>
__device__ void affine_by(Value *y, const Value *x, const float *numbers, Index total, int c, int relu) {
    typedef Pack<Value, N> Values;
    const float *scale = numbers + 2 * c, *shift = numbers + 3 * c;
    EACH(i, total / N) {
        int k = (int)(i * N % c);
        Values in = ((const Values *)x)[i], out;
        for (int j = 0; j < N; j++) {
            float v = fmaf(get(in.v[j]), scale[k + j], shift[k + j]);
            set(out.v + j, relu && v < 0.0f ? 0.0f : v);
        }
        ((Values *)y)[i] = out;
    }
}

// y = x * scale + shift a channel, then a ReLU where asked.
template <typename Value>
__device__ void affine(Value *y, const Value *x, const float *numbers, Index total, int c, int relu) {
    BY_PACKS(c, affine_by<N>(y, x, numbers, total, c, relu))
}

// Sums and squares of each channel over parts of `each` pixels: partial [part][2 c].
template <typename Value> __device__ void moments(float *partial, const Value *x, Index pixels, int each, int c) {
    __shared__ float cells[DEEP][WIDE];
    int k = blockIdx.y * WIDE + threadIdx.x;
    Index first = (Index)blockIdx.x * each, last = first + each < pixels ? first + each : pixels;
    float sum = 0.0f, square = 0.0f;
    for (Index p = first + threadIdx.y; k < c && p < last; p += AHEAD * DEEP) {
        float v[AHEAD];
        for (int u = 0; u < AHEAD; u++) v[u] = p + u * DEEP < last ? get(x[(p + u * DEEP) * c + k]) : 0.0f;
        for (int u = 0; u < AHEAD; u++) {
            sum += v[u];
            square = fmaf(v[u], v[u], square);
        }
    }
    sum = column_sum(cells, sum);
    square = column_sum(cells, square);
    if (threadIdx.y == 0 && k < c) {
        partial[(Index)blockIdx.x * 2 * c + k] = sum;
        partial[(Index)blockIdx.x * 2 * c + c + k] = square;
    }
}

// Zeroes dz where the ReLU after a map was shut (its output z is not positive), and sums dz and dz (x - mean) inverse.
template <typename Value>
__device__ void map_sums(float *partial, Value *dz, const Value *x, const Value *z, const float *numbers, Index pixels,
                         int each, int c, int relu) {
    __shared__ float cells[DEEP][WIDE];
    int k = blockIdx.y * WIDE + threadIdx.x;
    Index first = (Index)blockIdx.x * each, last = first + each < pixels ? first + each : pixels;
    float mean = k < c ? numbers[k] : 0.0f, inverse = k < c ? numbers[c + k] : 0.0f;
    float one = 0.0f, two = 0.0f;
    for (Index p = first + threadIdx.y; k < c && p < last; p += AHEAD * DEEP) {
        float d[AHEAD], v[AHEAD];
        int shut[AHEAD];
        for (int u = 0; u < AHEAD; u++) {
            Index i = (p + u * DEEP) * c + k;
            int inside = p + u * DEEP < last;
            d[u] = inside ? get(dz[i]) : 0.0f;
            v[u] = inside ? get(x[i]) : 0.0f;
            shut[u] = inside && relu && !(get(z[i]) > 0.0f);
        }
        for (int u = 0; u < AHEAD; u++) {
            if (shut[u]) {
                d[u] = 0.0f;
                set(dz + (p + u * DEEP) * c + k, 0.0f);
            }
            one += d[u];
            two = fmaf(d[u], (v[u] - mean) * inverse, two);
        }
    }
    one = column_sum(cells, one);
    two = column_sum(cells, two);
    if (threadIdx.y == 0 && k < c) {
        partial[(Index)blockIdx.x * 2 * c + k] = one;
        partial[(Index)blockIdx.x * 2 * c + c + k] = two;
    }
}

template <int N, typename Value>
__device__ void map_gradient_by(Value *dx, const Value *dz, const Value *x, const float *k, Index total, int c,
                                int accumulate) {
    typedef Pack<Value, N> Values;
    EACH(i, total / N) {
        int first = (int)(i * N % c);
        Values out = accumulate ? ((const Values *)dx)[i] : Values();
        Values d = ((const Values *)dz)[i], in = ((const Values *)x)[i];
        for (int n = 0; n < N; n++) {
            int j = first + n;
            float v = fmaf(k[j], get(d.v[n]), fmaf(k[c + j], get(in.v[n]), k[2 * c + j]));
            set(out.v + n, accumulate ? get(out.v[n]) + v : v);
        }
        ((Values *)dx)[i] = out;
    }
}

// dx = k0 dz + k1 x + k2 a channel, or dx += ...
template <typename Value>
__device__ void map_gradient(Value *dx, const Value *dz, const Value *x, const float *k, Index total, int c,
                             int accumulate) {
    BY_PACKS(c, map_gradient_by<N>(dx, dz, x, k, total, c, accumulate))
}

template <int N, typename Value>
__device__ void finish_by(Value *y, const float *bias, const Value *other, Index total, int c, int has_bias,
                          int has_other, int relu) {
    typedef Pack<Value, N> Values;
    EACH(i, total / N) {
        int k = has_bias ? (int)(i * N % c) : 0;
        Values out = ((const Values *)y)[i], more = has_other ? ((const Values *)other)[i] : Values();
        for (int j = 0; j < N; j++) {
            float v = get(out.v[j]);
            if (has_bias) v += bias[k + j];
            if (has_other) v += get(more.v[j]);
            set(out.v + j, relu && v < 0.0f ? 0.0f : v);
        }
        ((Values *)y)[i] = out;
    }
}

// y += bias a channel where there is one, += other where there is one, then a ReLU where asked.
template <typename Value>
__device__ void finish(Value *y, const float *bias, const Value *other, Index total, int c, int has_bias,
                       int has_other, int relu) {
    BY_PACKS(c, finish_by<N>(y, bias, other, total, c, has_bias, has_other, relu))
}

template <int N, typename Value> __device__ void mask_by(Value *dy, const Value *y, Index total) {
    typedef Pack<Value, N> Values;
    EACH(i, total / N) {
        Values d = ((const Values *)dy)[i], out = ((const Values *)y)[i];
        for (int j = 0; j < N; j++) {
            if (!(get(out.v[j]) > 0.0f)) set(d.v + j, 0.0f);
        }
        ((Values *)dy)[i] = d;
    }
}

template <typename Value> __device__ void mask(Value *dy, const Value *y, Index total) {
    BY_PACKS(total, mask_by<N>(dy, y, total))
}

template <int N, typename Value> __device__ void add_to_by(Value *to, const Value *from, Index total) {
    typedef Pack<Value, N> Values;
    EACH(i, total / N) {
        Values sum = ((const Values *)to)[i], more = ((const Values *)from)[i];
        for (int j = 0; j < N; j++) set(sum.v + j, get(sum.v[j]) + get(more.v[j]));
        ((Values *)to)[i] = sum;
    }
}

template <typename Value> __device__ void add_to(Value *to, const Value *from, Index total) {
    BY_PACKS(total, add_to_by<N>(to, from, total))
}

// Mean (over the whole window) or maximum of the pixels under each window.
template <typename Value>
__device__ void pool(Value *y, const Value *x, Index total, int h, int w, int c, int out_h, int out_w, int kh, int kw,
                     int sy, int sx, int top, int left, int average) {
    EACH(i, total) {
        int k = (int)(i % c);
        Index pixel = i / c;
        int ox = (int)(pixel % out_w), oy = (int)(pixel / out_w % out_h);
        const Value *image = x + pixel / ((Index)out_w * out_h) * h * w * c;
        float sum = 0.0f, best = -__int_as_float(0x7f800000);
        for (int ky = 0; ky < kh; ky++) {
            for (int kx = 0; kx < kw; kx++) {
                int iy = oy * sy + ky - top, ix = ox * sx + kx - left;
                if (iy < 0 || iy >= h || ix < 0 || ix >= w) continue;
                float v = get(image[((Index)iy * w + ix) * c + k]);
                sum += v;
                best = v > best ? v : best;
            }
        }
        set(y + i, average ? sum / (float)(kh * kw) : best);
    }
}

// The gradient of `pool`, gathered by each input pixel; a maximum's goes to the first largest pixel of its window.
template <typename Value>
__device__ void pool_gradient(Value *dx, const Value *dy, const Value *x, const Value *y, Index total, int h, int w,
                              int c, int out_h, int out_w, int kh, int kw, int sy, int sx, int top, int left,
                              int average, int accumulate) {
    EACH(i, total) {
        int k = (int)(i % c);
        Index pixel = i / c;
        int ix = (int)(pixel % w), iy = (int)(pixel / w % h);
        Index image = pixel / ((Index)w * h);
        float own = get(x[i]), sum = 0.0f;
        for (int oy = 0; oy < out_h; oy++) {
            int ky = iy + top - oy * sy;
            if (ky < 0 || ky >= kh) continue;
            for (int ox = 0; ox < out_w; ox++) {
                int kx = ix + left - ox * sx;
                if (kx < 0 || kx >= kw) continue;
                Index at = ((image * out_h + oy) * out_w + ox) * c + k;
                if (average) {
                    sum += get(dy[at]) / (float)(kh * kw);
                    continue;
                }
                float best = get(y[at]);
                int first = own == best;
                for (int before = 0; first && before < ky * kw + kx; before++) {
                    int by = oy * sy + before / kw - top, bx = ox * sx + before % kw - left;
                    if (by < 0 || by >= h || bx < 0 || bx >= w) continue;
                    if (get(x[((image * h + by) * w + bx) * c + k]) == best) first = 0;
                }
                if (first) sum += get(dy[at]);
            }
        }
        set(dx + i, accumulate ? get(dx[i]) + sum : sum);
    }
}

#define BOTH(name, parameters, arguments)                                                                          \
    extern "C" __global__ void name##_f32 parameters(float) { name<float> arguments; }                             \
    extern "C" __global__ void name##_bf16 parameters(Half) { name<Half> arguments; }

#define P(V) (V * to, const float *from, Index total)
BOTH(cast_in, P, (to, from, total))
#undef P
#define P(V) (float *to, const V *from, Index total, int accumulate)
BOTH(cast_out, P, (to, from, total, accumulate))
#undef P
#define P(V)                                                                                                       \
    (V * to, const float *from, const float *numbers, Index total, int h, int w, int c, int top, int left, int rows, \
     int columns)
BOTH(frame, P, (to, from, numbers, total, h, w, c, top, left, rows, columns))
#undef P
#define P(V)                                                                                                       \
    (float *to, const V *from, const float *numbers, Index total, int h, int w, int c, int top, int left, int rows, \
     int columns)
BOTH(unframe, P, (to, from, numbers, total, h, w, c, top, left, rows, columns))
#undef P
#define P(V) (V * y, const V *x, const float *numbers, Index total, int c, int relu)
BOTH(affine, P, (y, x, numbers, total, c, relu))
#undef P
#define P(V) (float *partial, const V *x, Index pixels, int each, int c)
BOTH(moments, P, (partial, x, pixels, each, c))
#undef P
#define P(V)                                                                                                       \
    (float *partial, V *dz, const V *x, const V *z, const float *numbers, Index pixels, int each, int c, int relu)
BOTH(map_sums, P, (partial, dz, x, z, numbers, pixels, each, c, relu))
#undef P
#define P(V) (V * dx, const V *dz, const V *x, const float *k, Index total, int c, int accumulate)
BOTH(map_gradient, P, (dx, dz, x, k, total, c, accumulate))
#undef P
#define P(V) (V * y, const float *bias, const V *other, Index total, int c, int has_bias, int has_other, int relu)
BOTH(finish, P, (y, bias, other, total, c, has_bias, has_other, relu))
#undef P
#define P(V) (V * dy, const V *y, Index total)
BOTH(mask, P, (dy, y, total))
#undef P
#define P(V) (V * to, const V *from, Index total)
BOTH(add_to, P, (to, from, total))
#undef P
#define P(V)                                                                                                       \
    (V * y, const V *x, Index total, int h, int w, int c, int out_h, int out_w, int kh, int kw, int sy, int sx,    \
     int top, int left, int average)
BOTH(pool, P, (y, x, total, h, w, c, out_h, out_w, kh, kw, sy, sx, top, left, average))
#undef P
#define P(V)                                                                                                       \
    (V * dx, const V *dy, const V *x, const V *y, Index total, int h, int w, int c, int out_h, int out_w, int kh,  \
     int kw, int sy, int sx, int top, int left, int average, int accumulate)
BOTH(pool_gradient, P,
     (dx, dy, x, y, total, h, w, c, out_h, out_w, kh, kw, sy, sx, top, left, average, accumulate))
#undef P

extern "C" {

// Adds parts in their order: sums [n] from partial [parts][n].
__global__ void add_parts(double *sums, const float *partial, Index n, int parts) {
    EACH(i, n) {
        double sum = 0.0;
        for (int p = 0; p < parts; p++) sum += (double)partial[p * n + i];
        sums[i] = sum;
    }
}

// A parameter's gradient from sums.
__global__ void add_sums(float *to, const double *sums, Index n) { EACH(i, n) to[i] += (float)sums[i]; }

// Mean, inverse deviation, scale and shift of a batch norm from its input's sums; running statistics [2 c] follow.
__global__ void norm_learned(float *numbers, float *running, const double *sums, const float *gamma, const float *beta,
                             Index c, double count, double momentum, double eps) {
    EACH(k, c) {
        double mean = sums[k] / count, variance = sums[c + k] / count - mean * mean;
        variance = variance > 0.0 ? variance : 0.0;
        double unbiased = variance * count / (count > 2.0 ? count - 1.0 : 1.0);
        running[k] = (float)(running[k] * (1.0 - momentum) + mean * momentum);
        running[c + k] = (float)(running[c + k] * (1.0 - momentum) + unbiased * momentum);
        double inverse = 1.0 / sqrt(variance + eps);
        numbers[k] = (float)mean;
        numbers[c + k] = (float)inverse;
        numbers[2 * c + k] = (float)(gamma[k] * inverse);
        numbers[3 * c + k] = (float)(beta[k] - gamma[k] * inverse * mean);
    }
}

// The same from running statistics [2 c].
__global__ void norm_fixed(float *numbers, const float *running, const float *gamma, const float *beta, Index c,
                           double eps) {
    EACH(k, c) {
        double mean = running[k], variance = running[c + k] > 0.0f ? running[c + k] : 0.0;
        double inverse = 1.0 / sqrt(variance + eps);
        numbers[k] = (float)mean;
        numbers[c + k] = (float)inverse;
        numbers[2 * c + k] = (float)(gamma[k] * inverse);
        numbers[3 * c + k] = (float)(beta[k] - gamma[k] * inverse * mean);
    }
}

// A map that is given: x itself in the place of the normalised value.
__global__ void map_given(float *numbers, const float *scale, const float *shift, Index c) {
    EACH(k, c) {
        numbers[k] = 0.0f;
        numbers[c + k] = 1.0f;
        numbers[2 * c + k] = scale[k];
        numbers[3 * c + k] = shift[k];
    }
}

// What `map_gradient` multiplies with: through the statistics of a mini-batch where they were learned.
__global__ void map_factors(float *k, const double *sums, const float *numbers, Index c, double count, int learned) {
    EACH(i, c) {
        double scale = numbers[2 * c + i], inverse = numbers[c + i], mean = numbers[i];
        double slope = learned ? -scale * inverse * sums[c + i] / count : 0.0;
        k[i] = (float)scale;
        k[c + i] = (float)slope;
        k[2 * c + i] = learned ? (float)(-scale * sums[i] / count - slope * mean) : 0.0f;
    }
}

// Images of a batch out of a resident set: plan [n][4] is an image, its shift down and right, and whether it is mirrored.
__global__ void augment(float *to, const unsigned char *set, const int *plan, Index total, int h, int w, int c) {
    EACH(i, total) {
        int k = (int)(i % c);
        Index pixel = i / c;
        int x = (int)(pixel % w), y = (int)(pixel / w % h);
        const int *own = plan + pixel / ((Index)w * h) * 4;
        int sy = y + own[1], sx = (own[3] ? w - 1 - x : x) + own[2];
        int inside = sy >= 0 && sy < h && sx >= 0 && sx < w;
        to[i] = inside ? (float)set[(((unsigned long long)own[0] * h + sy) * w + sx) * c + k] / 255.0f : 0.0f;
    }
}

// For image i: log-sum-exp over j != i of log N(z_i; mu_j, sigma_j^2), then its gradient in z: out [m][1 + d].
// One block an image; `logs` [m] is scratch in shared memory.
__global__ void density(float *out, const float *z, const float *mu, const float *log_sigma, int m, int d) {
    extern __shared__ double logs[];
    int i = blockIdx.x;
    for (int j = threadIdx.x; j < m; j += blockDim.x) {
        double sum = -0.5 * d * 1.8378770664093454836;
        for (int k = 0; k < d; k++) {
            double l = log_sigma[j * d + k], u = ((double)z[i * d + k] - (double)mu[j * d + k]) * exp(-l);
            sum -= 0.5 * u * u + l;
        }
        logs[j] = sum;
    }
    __syncthreads();
    // Every thread takes the maximum and the sum in the same order.
    double top = 0.0, sum = 0.0;
    int any = 0;
    for (int j = 0; j < m; j++) {
        if (j != i && (!any || logs[j] > top)) {
            top = logs[j];
            any = 1;
        }
    }
    for (int j = 0; j < m; j++) {
        if (j != i) sum += exp(logs[j] - top);
    }
    if (threadIdx.x == 0) out[i * (1 + d)] = (float)(top + log(sum));
    for (int k = threadIdx.x; k < d; k += blockDim.x) {
        double g = 0.0;
        for (int j = 0; j < m; j++) {
            if (j == i) continue;
            double weight = exp(logs[j] - top) / sum;
            g -= weight * ((double)z[i * d + k] - (double)mu[j * d + k]) * exp(-2.0 * (double)log_sigma[j * d + k]);
        }
        out[i * (1 + d) + 1 + k] = (float)g;
    }
}

// Sum of squares over parts of `each` values, a block of SQUARES threads each.
__global__ void square_parts(double *partial, const float *x, Index n, Index each) {
    __shared__ double cells[SQUARES];
    Index first = blockIdx.x * each, last = first + each < n ? first + each : n;
    double sum = 0.0;
    for (Index i = first + threadIdx.x; i < last; i += SQUARES) sum += (double)x[i] * (double)x[i];
    cells[threadIdx.x] = sum;
    __syncthreads();
    for (int half = SQUARES / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) cells[threadIdx.x] += cells[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) partial[blockIdx.x] = cells[0];
}

// total += the parts, in their order.
__global__ void add_squares(double *total, const double *partial, Index parts) {
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        double sum = 0.0;
        for (Index p = 0; p < parts; p++) sum += partial[p];
        *total += sum;
    }
}

// x *= min(1, limit / norm), norm squared being `square`.
__global__ void clip(float *x, const double *square, Index n, double limit) {
    double norm = sqrt(*square);
    if (!(norm > limit)) return;
    float scale = (float)(limit / norm);
    EACH(i, n) x[i] *= scale;
}

// A moment: to = keep to + take g, or of g^2, g being the gradient with its weight decay.
__global__ void moment(float *to, const float *gradient, const float *weights, const float *decays, Index n, float keep,
                       float take, float decay, int square) {
    EACH(i, n) {
        float g = gradient[i] + decay * decays[i] * weights[i];
        to[i] = keep * to[i] + take * (square ? g * g : g);
    }
}

__global__ void nesterov(float *w, const float *gradient, const float *momentum, const float *decays, Index n,
                         float rate, float keep, float decay) {
    EACH(i, n) w[i] -= rate * (gradient[i] + decay * decays[i] * w[i] + keep * momentum[i]);
}

__global__ void adam(float *w, const float *first, const float *second, const float *decays, Index n, float rate,
                     float correction, float shrink) {
    EACH(i, n) w[i] -= rate * first[i] / (sqrtf(second[i] * correction) + 1e-8f) + shrink * decays[i] * w[i];
}

__global__ void average(float *to, const float *from, Index n, float keep) {
    EACH(i, n) to[i] = keep * to[i] + (1.0f - keep) * from[i];
}

}
