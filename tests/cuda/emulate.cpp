// The GPU's kernels on the CPU, block by block with a thread for each of a block's, against f64 from the definitions.
// KERNELS is train/nn/src/cuda/kernels.cu with its shared memory made static (see tests/cuda_kernels.rs).
#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <thread>
#include <vector>

struct Dim {
    unsigned x, y, z;
};
static thread_local Dim threadIdx, blockIdx;
static Dim blockDim, gridDim;
static std::barrier<> *all_threads;
#define __device__
#define __global__
static void __syncthreads() { all_threads->arrive_and_wait(); }
static unsigned __float_as_uint(float v) {
    unsigned u;
    memcpy(&u, &v, 4);
    return u;
}
static float __uint_as_float(unsigned u) {
    float v;
    memcpy(&v, &u, 4);
    return v;
}
static float __int_as_float(int i) { return __uint_as_float((unsigned)i); }
static double logs[4096];

#include KERNELS

static void launch(Dim grid, Dim block, const std::function<void()> &kernel) {
    blockDim = block, gridDim = grid;
    std::barrier<> barrier(block.x * block.y);
    all_threads = &barrier;
    std::vector<std::thread> threads;
    for (unsigned ty = 0; ty < block.y; ty++) {
        for (unsigned tx = 0; tx < block.x; tx++) {
            threads.emplace_back([=, &kernel, &barrier] {
                threadIdx = {tx, ty, 0};
                for (unsigned by = 0; by < grid.y; by++) {
                    for (unsigned bx = 0; bx < grid.x; bx++) {
                        blockIdx = {bx, by, 0};
                        kernel();
                        // Static shared memory belongs to one block at a time.
                        barrier.arrive_and_wait();
                    }
                }
            });
        }
    }
    for (auto &t : threads) t.join();
}

// An elementwise launch smaller than the data, so that threads take several values.
#define SPREAD(call) launch({2, 1, 1}, {3, 1, 1}, [&] { call; })

static std::mt19937 generator(7);
static int failures = 0;
typedef std::vector<float> Floats;
typedef std::vector<double> Doubles;

static Floats noise(size_t n) {
    std::normal_distribution<float> normal;
    Floats v(n);
    for (float &x : v) x = normal(generator);
    return v;
}

static void close(const char *what, const Floats &got, const Doubles &exact, double tolerance) {
    double top = 1e-3, worst = 0;
    for (double e : exact) top = std::max(top, std::fabs(e));
    for (size_t i = 0; i < exact.size(); i++) {
        double apart = std::fabs(got[i] - exact[i]);
        if (!(apart <= worst)) worst = apart;
    }
    bool good = got.size() == exact.size() && worst <= tolerance * top;
    printf("%s %s %.1e\n", good ? "ok" : "FAILED", what, worst / top);
    failures += !good;
}

static float bf16(float v) {
    Half h;
    set(&h, v);
    return get(h);
}

static void conversions() {
    Floats got, exact32 = {1.0f, -2.5f, 1.0f + 1.0f / 256, 1.0f + 3.0f / 256, 3.0e38f, 1e-40f, 0.0f};
    Doubles exact = {1.0, -2.5, 1.0, 1.0 + 4.0 / 256, 3.0e38, 1e-40, 0.0};
    for (float v : exact32) got.push_back(bf16(v));
    for (size_t i = 0; i < exact.size(); i++) close("bf16 rounds to nearest, ties to even", {got[i]}, {exact[i]}, 4e-3);
    bool special = std::isnan(bf16(NAN)) && std::isinf(bf16(INFINITY)) && bf16(1.0f + 1.0f / 256) == 1.0f;
    printf("%s bf16 keeps what is not finite\n", special ? "ok" : "FAILED");
    failures += !special;
}

static void frames() {
    const int n = 2, h = 3, w = 4, c = 3, top = 2, left = 1, rows = h + 2 * top, columns = w + 2 * left;
    Floats x = noise(n * h * w * c), numbers = noise(4 * c), y(n * rows * columns * c), dx(n * h * w * c);
    SPREAD((frame<float>(y.data(), x.data(), numbers.data(), y.size(), h, w, c, top, left, rows, columns)));
    Doubles exact(y.size()), back(dx.size());
    Floats dy = noise(y.size());
    for (int i = 0; i < n; i++)
        for (int r = 0; r < rows; r++)
            for (int q = 0; q < columns; q++)
                for (int k = 0; k < c; k++) {
                    int yy = r - top, xx = q - left;
                    bool in = yy >= 0 && yy < h && xx >= 0 && xx < w;
                    size_t at = ((size_t)(i * rows + r) * columns + q) * c + k;
                    exact[at] = numbers[3 * c + k];
                    if (in) {
                        size_t from = ((size_t)(i * h + yy) * w + xx) * c + k;
                        exact[at] += (double)x[from] * numbers[2 * c + k];
                        back[from] = (double)dy[at] * numbers[2 * c + k];
                    }
                }
    close("frame", y, exact, 1e-6);
    SPREAD((unframe<float>(dx.data(), dy.data(), numbers.data(), dx.size(), h, w, c, top, left, rows, columns)));
    close("unframe", dx, back, 1e-6);
}

// A batch norm with its ReLU, forward and backward, by central differences of the f64 definition.
static void norms(int pixels, int c, bool relu, int each) {
    Floats x = noise(pixels * c), gamma = noise(c), beta = noise(c), t = noise(pixels * c), running(2 * c, 0.5f);
    auto forward = [&](const Doubles &x, const Doubles &gamma, const Doubles &beta, Doubles *z) {
        double loss = 0;
        for (int k = 0; k < c; k++) {
            double mean = 0, variance = 0;
            for (int p = 0; p < pixels; p++) mean += x[p * c + k] / pixels;
            for (int p = 0; p < pixels; p++) variance += std::pow(x[p * c + k] - mean, 2) / pixels;
            for (int p = 0; p < pixels; p++) {
                double v = gamma[k] * (x[p * c + k] - mean) / std::sqrt(variance + 1e-5) + beta[k];
                if (relu && v < 0) v = 0;
                if (z) (*z)[p * c + k] = v;
                loss += v * t[p * c + k];
            }
        }
        return loss;
    };
    auto wide = [](const Floats &v) { return Doubles(v.begin(), v.end()); };
    Doubles z64(x.size());
    forward(wide(x), wide(gamma), wide(beta), &z64);
    const int parts = (pixels + each - 1) / each;
    Floats partial(parts * 2 * c), numbers(4 * c), z(x.size()), dz = t, k(3 * c), dx(x.size());
    Doubles sums(2 * c);
    Dim grid = {(unsigned)parts, (unsigned)((c + WIDE - 1) / WIDE), 1}, block = {WIDE, DEEP, 1};
    launch(grid, block, [&] { moments<float>(partial.data(), x.data(), pixels, each, c); });
    SPREAD((add_parts(sums.data(), partial.data(), 2 * c, parts)));
    SPREAD((norm_learned(numbers.data(), running.data(), sums.data(), gamma.data(), beta.data(), c, pixels, 0.1, 1e-5)));
    SPREAD((affine<float>(z.data(), x.data(), numbers.data(), z.size(), c, relu)));
    close("norm, forward", z, z64, 1e-5);
    Doubles follow(2 * c);
    for (int j = 0; j < c; j++) {
        double mean = 0, variance = 0;
        for (int p = 0; p < pixels; p++) mean += (double)x[p * c + j] / pixels;
        for (int p = 0; p < pixels; p++) variance += std::pow(x[p * c + j] - mean, 2) / (pixels - 1);
        follow[j] = 0.45 + 0.1 * mean, follow[c + j] = 0.45 + 0.1 * variance;
    }
    close("running statistics", running, follow, 1e-5);
    launch(grid, block, [&] {
        map_sums<float>(partial.data(), dz.data(), x.data(), z.data(), numbers.data(), pixels, each, c, relu);
    });
    SPREAD((add_parts(sums.data(), partial.data(), 2 * c, parts)));
    SPREAD((map_factors(k.data(), sums.data(), numbers.data(), c, pixels, 1)));
    SPREAD((map_gradient<float>(dx.data(), dz.data(), x.data(), k.data(), dx.size(), c, 0)));
    Floats dgamma(c), dbeta(c);
    SPREAD((add_sums(dbeta.data(), sums.data(), c)));
    SPREAD((add_sums(dgamma.data(), sums.data() + c, c)));
    auto slope = [&](int which, size_t i) {
        Doubles a = wide(x), b = wide(gamma), d = wide(beta);
        double h = 1e-6, &v = which == 0 ? a[i] : which == 1 ? b[i] : d[i], at = v;
        v = at + h;
        double up = forward(a, b, d, nullptr);
        v = at - h;
        return (up - forward(a, b, d, nullptr)) / (2 * h);
    };
    Doubles ex, eg, eb;
    for (size_t i = 0; i < x.size(); i++) ex.push_back(slope(0, i));
    for (int i = 0; i < c; i++) eg.push_back(slope(1, i)), eb.push_back(slope(2, i));
    close("norm, gradient of the input", dx, ex, 1e-4);
    close("norm, gradient of the scale", dgamma, eg, 1e-4);
    close("norm, gradient of the shift", dbeta, eb, 1e-4);
    Floats fixed(4 * c), y(x.size());
    SPREAD((norm_fixed(fixed.data(), running.data(), gamma.data(), beta.data(), c, 1e-5)));
    SPREAD((affine<float>(y.data(), x.data(), fixed.data(), y.size(), c, 0)));
    Doubles ey(x.size());
    for (size_t i = 0; i < x.size(); i++) {
        int j = i % c;
        ey[i] = gamma[j] * ((double)x[i] - running[j]) / std::sqrt(running[c + j] + 1e-5) + beta[j];
    }
    close("norm, fixed", y, ey, 1e-5);
    SPREAD((map_factors(k.data(), sums.data(), fixed.data(), c, pixels, 0)));
    Floats before = dx;
    SPREAD((map_gradient<float>(dx.data(), dz.data(), x.data(), k.data(), dx.size(), c, 1)));
    for (size_t i = 0; i < x.size(); i++)
        ey[i] = before[i] + (double)dz[i] * gamma[i % c] / std::sqrt(running[c + i % c] + 1e-5);
    close("norm, fixed, gradient added", dx, ey, 1e-5);
}

static void pools(bool average) {
    const int n = 2, h = 5, w = 6, c = 3, kh = 3, kw = 2, sy = 2, sx = 1, top = 1, left = 1;
    const int oh = (h + 2 * top - kh) / sy + 1, ow = (w + 2 * left - kw) / sx + 1;
    Floats x = noise(n * h * w * c), y(n * oh * ow * c), dy = noise(y.size()), dx = noise(x.size()), before = dx;
    x[0] = x[c] = 9.0f;  // A tie at the top: the first one gets the gradient.
    SPREAD((pool<float>(y.data(), x.data(), y.size(), h, w, c, oh, ow, kh, kw, sy, sx, top, left, average)));
    SPREAD((pool_gradient<float>(dx.data(), dy.data(), x.data(), y.data(), dx.size(), h, w, c, oh, ow, kh, kw, sy, sx,
                                 top, left, average, 1)));
    Doubles ey, ex(before.begin(), before.end());
    for (int i = 0; i < n; i++)
        for (int oy = 0; oy < oh; oy++)
            for (int ox = 0; ox < ow; ox++)
                for (int k = 0; k < c; k++) {
                    double sum = 0, best = -1e300;
                    size_t where = 0, out = ey.size();
                    for (int pass = 0; pass < 2; pass++)
                        for (int r = 0; r < kh; r++)
                            for (int q = 0; q < kw; q++) {
                                int yy = oy * sy + r - top, xx = ox * sx + q - left;
                                if (yy < 0 || yy >= h || xx < 0 || xx >= w) continue;
                                size_t at = ((size_t)(i * h + yy) * w + xx) * c + k;
                                if (pass == 1) {
                                    if (average) ex[at] += (double)dy[out] / (kh * kw);
                                } else {
                                    sum += x[at];
                                    if (x[at] > best) best = x[at], where = at;
                                }
                            }
                    if (!average) ex[where] += dy[out];
                    ey.push_back(average ? sum / (kh * kw) : best);
                }
    close(average ? "average pool" : "maximum pool", y, ey, 1e-6);
    close(average ? "average pool, gradient" : "maximum pool, gradient", dx, ex, 1e-6);
}

static void halves(const Floats &y, const Floats &other, const Floats &bias, int c);

static void elements(int c) {
    const int pixels = 7, n = pixels * c;
    Floats y = noise(n), bias = noise(c), other = noise(n), got = y;
    SPREAD((finish<float>(got.data(), bias.data(), other.data(), n, c, 1, 1, 1)));
    Doubles exact(n);
    for (int i = 0; i < n; i++) exact[i] = std::max(0.0, (double)y[i] + bias[i % c] + other[i]);
    close("bias, summand and ReLU", got, exact, 1e-6);
    Floats d = other;
    SPREAD((mask<float>(d.data(), got.data(), n)));
    for (int i = 0; i < n; i++) exact[i] = exact[i] > 0 ? other[i] : 0;
    close("mask", d, exact, 0);
    Floats sum = y;
    SPREAD((add_to<float>(sum.data(), other.data(), n)));
    Doubles added(n);
    for (int i = 0; i < n; i++) added[i] = (double)y[i] + other[i];
    close("sum", sum, added, 1e-6);
    std::vector<Half> half(n);
    SPREAD((cast_in<Half>(half.data(), y.data(), n)));
    got = bias, got.resize(n, 1.0f), d = got;
    SPREAD((cast_out<Half>(got.data(), half.data(), n, 1)));
    for (int i = 0; i < n; i++) exact[i] = (double)d[i] + y[i];
    close("casts, added", got, exact, 5e-3);
    halves(y, other, bias, c);
}

// The same kernels over bf16, whose values are few enough in a pack to differ.
static void halves(const Floats &y, const Floats &other, const Floats &bias, int c) {
    const int n = (int)y.size();
    std::vector<Half> a(n), b(n), z(n);
    auto wide = [&](const std::vector<Half> &v) {
        Floats out;
        for (Half h : v) out.push_back(get(h));
        return out;
    };
    SPREAD((cast_in<Half>(a.data(), y.data(), n)));
    SPREAD((cast_in<Half>(b.data(), other.data(), n)));
    Floats ya = wide(a), yb = wide(b), numbers = noise(4 * c), k = noise(3 * c);
    SPREAD((affine<Half>(z.data(), a.data(), numbers.data(), n, c, 1)));
    Doubles exact(n);
    for (int i = 0; i < n; i++) exact[i] = std::max(0.0, (double)ya[i] * numbers[2 * c + i % c] + numbers[3 * c + i % c]);
    close("affine, bf16", wide(z), exact, 5e-3);
    std::vector<Half> dx = z;
    Floats before = wide(dx);
    SPREAD((map_gradient<Half>(dx.data(), b.data(), a.data(), k.data(), n, c, 1)));
    for (int i = 0; i < n; i++)
        exact[i] = before[i] + (double)k[i % c] * yb[i] + (double)k[c + i % c] * ya[i] + k[2 * c + i % c];
    close("map's gradient, added, bf16", wide(dx), exact, 5e-3);
    std::vector<Half> got = a;
    SPREAD((finish<Half>(got.data(), bias.data(), b.data(), n, c, 1, 1, 1)));
    for (int i = 0; i < n; i++) exact[i] = std::max(0.0, (double)ya[i] + bias[i % c] + yb[i]);
    close("bias, summand and ReLU, bf16", wide(got), exact, 5e-3);
    std::vector<Half> masked = b, sum = a;
    SPREAD((mask<Half>(masked.data(), got.data(), n)));
    Floats open = wide(got);
    for (int i = 0; i < n; i++) exact[i] = open[i] > 0 ? yb[i] : 0;
    close("mask, bf16", wide(masked), exact, 0);
    SPREAD((add_to<Half>(sum.data(), b.data(), n)));
    for (int i = 0; i < n; i++) exact[i] = (double)ya[i] + yb[i];
    close("sum, bf16", wide(sum), exact, 5e-3);
}

static void augmented() {
    std::vector<unsigned char> images(3 * 4 * 5 * 2);
    for (auto &p : images) p = generator() & 255;
    int plan[8] = {2, 1, -2, 1, 0, 0, 3, 0};
    Floats out(2 * 4 * 5 * 2);
    SPREAD((augment(out.data(), images.data(), plan, out.size(), 4, 5, 2)));
    Doubles picked(out.size());
    for (int i = 0; i < 2; i++)
        for (int r = 0; r < 4; r++)
            for (int q = 0; q < 5; q++)
                for (int k = 0; k < 2; k++) {
                    int *own = plan + 4 * i, yy = r + own[1], xx = (own[3] ? 4 - q : q) + own[2];
                    if (yy >= 0 && yy < 4 && xx >= 0 && xx < 5)
                        picked[((i * 4 + r) * 5 + q) * 2 + k] = images[((own[0] * 4 + yy) * 5 + xx) * 2 + k] / 255.0;
                }
    close("augment", out, picked, 1e-6);
}

static void densities() {
    const int m = 9, d = 4;
    Floats z = noise(m * d), mu = noise(m * d), log_sigma = noise(m * d), out(m * (1 + d));
    for (float &l : log_sigma) l = 0.3f * l - 4.0f;
    auto value = [&](const Doubles &z, int i) {
        Doubles terms;
        for (int j = 0; j < m; j++) {
            if (j == i) continue;
            double sum = 0;
            for (int k = 0; k < d; k++) {
                double s = std::exp((double)log_sigma[j * d + k]), u = (z[i * d + k] - mu[j * d + k]) / s;
                sum += -0.5 * u * u - std::log(s * std::sqrt(2 * M_PI));
            }
            terms.push_back(sum);
        }
        double top = *std::max_element(terms.begin(), terms.end()), sum = 0;
        for (double t : terms) sum += std::exp(t - top);
        return top + std::log(sum);
    };
    launch({(unsigned)m, 1, 1}, {5, 1, 1}, [&] { density(out.data(), z.data(), mu.data(), log_sigma.data(), m, d); });
    Doubles z64(z.begin(), z.end()), values, slopes;
    Floats got, got_slopes;
    for (int i = 0; i < m; i++) {
        values.push_back(value(z64, i));
        got.push_back(out[i * (1 + d)]);
        for (int k = 0; k < d; k++) {
            Doubles up = z64, down = z64;
            up[i * d + k] += 1e-6, down[i * d + k] -= 1e-6;
            slopes.push_back((value(up, i) - value(down, i)) / 2e-6);
            got_slopes.push_back(out[i * (1 + d) + 1 + k]);
        }
    }
    close("mini-batch density", got, values, 1e-6);
    close("mini-batch density, gradient", got_slopes, slopes, 1e-5);
}

static void optimisers() {
    const int n = 11;
    Floats w = noise(n), g = noise(n), m = noise(n), v = noise(n), decays(n), a = w, b = m, second = v;
    for (int i = 0; i < n; i++) decays[i] = i % 2, v[i] = second[i] = std::fabs(v[i]);
    SPREAD((moment(b.data(), g.data(), w.data(), decays.data(), n, 0.9f, 1.0f, 0.05f, 0)));
    SPREAD((moment(second.data(), g.data(), w.data(), decays.data(), n, 0.999f, 0.001f, 0.05f, 1)));
    SPREAD((nesterov(a.data(), g.data(), b.data(), decays.data(), n, 0.1f, 0.9f, 0.05f)));
    Doubles em(n), ev(n), ew(n), ea(n), es(n);
    double square = 0;
    for (int i = 0; i < n; i++) {
        double grad = g[i] + (i % 2 ? 0.05 * w[i] : 0.0);
        em[i] = 0.9 * m[i] + grad, ev[i] = 0.999 * v[i] + 0.001 * grad * grad;
        ew[i] = w[i] - 0.1 * (grad + 0.9 * em[i]);
        ea[i] = w[i] - 0.01 * em[i] / (std::sqrt(ev[i] * 1.5) + 1e-8) - (i % 2 ? 0.02 * w[i] : 0.0);
        es[i] = 0.75 * w[i] + 0.25 * g[i];
        square += (double)g[i] * g[i];
    }
    close("moment", b, em, 1e-6);
    close("second moment", second, ev, 1e-6);
    close("Nesterov", a, ew, 1e-6);
    a = w;
    SPREAD((adam(a.data(), b.data(), second.data(), decays.data(), n, 0.01f, 1.5f, 0.02f)));
    close("Adam", a, ea, 1e-6);
    a = w;
    SPREAD((average(a.data(), g.data(), n, 0.75f)));
    close("average", a, es, 1e-6);
    Doubles parts(4), total(1);
    launch({4, 1, 1}, {SQUARES, 1, 1}, [&] { square_parts(parts.data(), g.data(), n, 3); });
    SPREAD((add_squares(total.data(), parts.data(), 4)));
    close("squares", {(float)total[0]}, {square}, 1e-6);
    a = g;
    SPREAD((clip(a.data(), total.data(), n, 0.5)));
    for (int i = 0; i < n; i++) ew[i] = g[i] * 0.5 / std::sqrt(square);
    close("clip", a, ew, 1e-6);
}

int main() {
    conversions();
    frames();
    norms(23, 3, true, 5);
    norms(40, 35, false, 5);
    // Channels that go by packs, and parts longer than what a block's threads load at once.
    norms(75, 8, true, 70);
    pools(true);
    pools(false);
    elements(3);
    elements(16);
    augmented();
    densities();
    optimisers();
    return failures != 0;
}
