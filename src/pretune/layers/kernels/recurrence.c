// The recurrence of ELMo's LSTM for one direction of one layer a call, and the matrix product under it.
//
// One call is one thread; it writes only into what it is given. Matrices are packed once into panels of two
// vectors of columns, so that a tile of rows stays in registers while a panel streams past. The gates of LANES
// units stand side by side in two panels (i, f) and (g, o), so that the pointwise part finds them in the cache.

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__SSE__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
enum { LANES = 16, TILE = 14 };
#elif defined(__AVX__)
enum { LANES = 8, TILE = 6 };
#elif defined(__aarch64__)
enum { LANES = 4, TILE = 12 };
#else
enum { LANES = 4, TILE = 4 };
#endif
enum { PANEL = 2 * LANES, BLOCK = 256 }; // columns of a panel; terms of a sum that are added up before they join the rest

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
#define INLINE static inline __attribute__((always_inline))
#define UNROLLED _Pragma("GCC unroll 16")

INLINE vec load(const float *x)
{
    vec v;
    memcpy(&v, x, sizeof v);
    return v;
}

INLINE void store(float *x, vec v) { memcpy(x, &v, sizeof v); }

INLINE vec splat(float x) { return x - (vec){0}; }

// The lesser of both; x where x is NaN.
INLINE vec least(vec bound, vec x)
{
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
    return (vec)_mm512_min_ps((__m512)bound, (__m512)x);
#elif defined(__AVX__)
    return (vec)_mm256_min_ps((__m256)bound, (__m256)x);
#else
    ints less = bound < x;
    return (vec)((less & (ints)bound) | (~less & (ints)x));
#endif
}

// The greater of both; x where x is NaN.
INLINE vec greatest(vec bound, vec x)
{
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
    return (vec)_mm512_max_ps((__m512)bound, (__m512)x);
#elif defined(__AVX__)
    return (vec)_mm256_max_ps((__m256)bound, (__m256)x);
#else
    ints more = bound > x;
    return (vec)((more & (ints)bound) | (~more & (ints)x));
#endif
}

INLINE vec clip(vec x, float bound) { return greatest(splat(-bound), least(splat(bound), x)); }

// 2^n, returned, and 2^n (2^f - 1) in `rest`, where n + f = t and f is in [-1/2, 1/2].
INLINE vec power(vec t, vec *rest)
{
    t = greatest(splat(-126.0f), least(splat(40.0f), t));
    vec shifted = t + splat(12582912.0f); // 1.5 * 2^23: the whole part moves into the lowest bits
    vec f = t - (shifted - splat(12582912.0f));
    vec scale = (vec)(((ints)shifted << 23) + 0x3f800000);
    vec p = splat(1.546972489e-4f);
    p = p * f + splat(1.339086681e-3f);
    p = p * f + splat(9.618030861e-3f);
    p = p * f + splat(5.550356954e-2f);
    p = p * f + splat(2.402265072e-1f);
    p = p * f + splat(6.931471825e-1f);
    *rest = scale * (p * f);
    return scale;
}

// e^-x, at most e^27.7, so that products of three stay finite.
INLINE vec decay(vec x)
{
    vec rest, scale = power(x * splat(-1.442695041f), &rest);
    return scale + rest;
}

// e^-2x - 1, precise near 0.
INLINE vec decay_twice(vec x)
{
    vec rest, scale = power(x * splat(-2.885390082f), &rest);
    return rest + (scale - splat(1.0f));
}

INLINE vec sigmoid(vec x) { return splat(1.0f) / (splat(1.0f) + decay(x)); }

INLINE vec tangent(vec x)
{
    vec e = decay_twice(x);
    return -e / (e + splat(2.0f));
}

// `wanted` numbers of a row that may end before the vector does.
INLINE vec load_some(const float *x, long wanted)
{
    if (wanted >= LANES)
        return load(x);
    float some[LANES] = {0};
    for (long l = 0; l < wanted; l++)
        some[l] = x[l];
    return load(some);
}

INLINE void store_some(float *x, vec v, long wanted)
{
    if (wanted >= LANES) {
        store(x, v);
        return;
    }
    float some[LANES];
    store(some, v);
    for (long l = 0; l < wanted; l++)
        x[l] = some[l];
}

// Sizes ------------------------------------------------------------------------------------------------------

static long least_long(long a, long b) { return a < b ? a : b; }
static long panels_of(long columns) { return (columns + PANEL - 1) / PANEL; }
static long blocks_of(long units) { return (units + LANES - 1) / LANES; }
static long tiles_of(long rows) { return (rows + TILE - 1) / TILE; }
static long tile_start(long tile, long rows) { return rows * tile / tiles_of(rows); } // tiles of like height

// Memory for one call, aligned to a cache line.
static void *reserve(size_t bytes)
{
    return aligned_alloc(64, bytes / 64 * 64 + 64);
}

// The tile: rows × PANEL outputs ---------------------------------------------------------------------------------

// z[r] (+)= sum_k a[k][r] w[k], for `rows` rows (known when compiled) of a packed tile and one panel.
INLINE void tile(const int rows, const float *a, const float *w, long depth, float *z, long stride, int more)
{
    const int chains = rows < 2 ? 4 : rows < 4 ? 2 : 1; // independent sums that hide the latency
    vec sum[4][TILE][2];
    UNROLLED for (int c = 0; c < chains; c++)
        UNROLLED for (int r = 0; r < rows; r++)
            UNROLLED for (int v = 0; v < 2; v++)
                sum[c][r][v] = splat(0.0f);
    long k = 0;
    for (; k + chains <= depth; k += chains)
        UNROLLED for (int c = 0; c < chains; c++) {
            if (chains == 1) { // the processor's own prefetching stops at each page
                __builtin_prefetch(w + 64 * PANEL, 0, 2);
                __builtin_prefetch(w + 64 * PANEL + LANES, 0, 2);
            }
            vec left = load(w), right = load(w + LANES);
            UNROLLED for (int r = 0; r < rows; r++) {
                vec x = splat(a[r]);
                sum[c][r][0] += x * left;
                sum[c][r][1] += x * right;
            }
            a += rows;
            w += PANEL;
        }
    if (chains > 1)
        for (; k < depth; k++, a += rows, w += PANEL)
            UNROLLED for (int r = 0; r < rows; r++)
                UNROLLED for (int v = 0; v < 2; v++)
                    sum[0][r][v] += splat(a[r]) * load(w + v * LANES);
    UNROLLED for (int r = 0; r < rows; r++)
        UNROLLED for (int v = 0; v < 2; v++) {
            vec total = sum[0][r][v];
            UNROLLED for (int c = 1; c < chains; c++)
                total += sum[c][r][v];
            store(z + r * stride + v * LANES, more ? total + load(z + r * stride + v * LANES) : total);
        }
}

static void multiply_tile(long rows, const float *a, const float *w, long depth, float *z, long stride, int more)
{
#define CASE(n)                                                                                                \
    case n:                                                                                                    \
        if (n <= TILE)                                                                                         \
            tile(n <= TILE ? n : 1, a, w, depth, z, stride, more);                                             \
        break;
    switch (rows) {
        CASE(1)
        CASE(2)
        CASE(3)
        CASE(4)
        CASE(5)
        CASE(6)
        CASE(7)
        CASE(8)
        CASE(9)
        CASE(10)
        CASE(11)
        CASE(12)
        CASE(13)
        CASE(14)
    }
#undef CASE
}

// z (rows, panels * PANEL) = A W^T, A packed in tiles, W in panels block by block of the depth.
static void multiply(long rows, long depth, long panels, const float *a, const float *w, float *z)
{
    long stride = panels * PANEL, tiles = tiles_of(rows);
    for (long k = 0; k < depth; k += BLOCK) {
        long here = least_long(BLOCK, depth - k);
        for (long p = 0; p < panels; p++, w += here * PANEL)
            for (long t = 0; t < tiles; t++) {
                long start = tile_start(t, rows), height = tile_start(t + 1, rows) - start;
                multiply_tile(height, a + start * depth + k * height, w, here, z + start * stride + p * PANEL,
                              stride, k > 0);
            }
    }
}

// Packing --------------------------------------------------------------------------------------------------------

// The row of a matrix of 4 × `units` gates that column `column` of its panels holds, or -1.
static long gate_row(long column, long units)
{
    long block = column / (4 * LANES), gate = column / LANES % 4, unit = block * LANES + column % LANES;
    return unit < units ? gate * units + unit : -1;
}

// Panels of W (columns, depth), whose element (n, k) is at n * over + k * along. Gates stand side by side.
void pack(const float *matrix, long columns, long depth, long over, long along, long gates, float *packed)
{
    long panels = gates ? 2 * blocks_of(columns / 4) : panels_of(columns), block = gates ? depth : BLOCK;
    for (long start = 0; start < depth; start += block)
        for (long p = 0; p < panels; p++) {
            long here = least_long(block, depth - start), whole = !gates && (p + 1) * PANEL <= columns;
            const float *from[PANEL];
            for (long l = 0; l < PANEL; l++) {
                long n = gates ? gate_row(p * PANEL + l, columns / 4) : p * PANEL + l;
                from[l] = n < 0 || n >= columns ? 0 : matrix + n * over + start * along;
            }
            for (long k = 0; k < here; k++)
                if (whole && over == 1)
                    memcpy(packed + k * PANEL, from[0] + k * along, sizeof(float) * PANEL);
                else
                    for (long l = 0; l < PANEL; l++)
                        packed[k * PANEL + l] = from[l] ? from[l][k * along] : 0.0f;
            packed += here * PANEL;
        }
}

// Numbers that `pack` writes.
long packed_size(long columns, long depth, long gates)
{
    return (gates ? 2 * blocks_of(columns / 4) : panels_of(columns)) * PANEL * depth;
}

// Rows of x (rows, depth), `stride` apart, as tiles: a[k][r] of each tile.
static void pack_rows(const float *x, long stride, long rows, long depth, float *a)
{
    for (long t = 0; t < tiles_of(rows); t++) {
        long start = tile_start(t, rows), height = tile_start(t + 1, rows) - start;
        for (long r = 0; r < height; r++)
            for (long k = 0; k < depth; k++)
                a[start * depth + k * height + r] = x[(start + r) * stride + k];
    }
}

// The recurrence -------------------------------------------------------------------------------------------------

typedef struct {
    const float *products;  // (U, 4H)
    const int64_t *index;   // (M,) or null
    const int64_t *counts;  // (steps,)
    int64_t steps, units, outputs; // H, D
    float *h, *c;           // (N, D), (N, H): the state before, and after the call the state after
    const float *recurrent; // packed (4H, D)
    const float *projection; // packed (D, H) or null
    float cell_clip, projection_clip; // infinite for none
    float *y;               // (M, D)
    float *gates, *cells, *hidden; // (M, 4H), (M, H), (M, H): what the gradient needs, or null
} Sequence;

// One block of units of one row: c in place, the output before the projection returned.
INLINE vec step(const float *z, const float *given, float *c, long units, long wanted, float bound)
{
    vec one = splat(1.0f), two = splat(2.0f);
    vec i = one + decay(load(z) + load_some(given, wanted));
    vec f = one + decay(load(z + LANES) + load_some(given + units, wanted));
    vec g = decay_twice(load(z + 2 * LANES) + load_some(given + 2 * units, wanted));
    vec o = one + decay(load(z + 3 * LANES) + load_some(given + 3 * units, wanted));
    vec ig = i * (g + two); // sigmoid(f) c + sigmoid(i) tanh(g) = c / f - g / ig, by one division
    vec cell = clip((load_some(c, wanted) * ig - g * f) / (f * ig), bound);
    store_some(c, cell, wanted);
    vec e = decay_twice(cell);
    return -e / ((e + two) * o); // sigmoid(o) tanh(c)
}

// The same, keeping the gates.
INLINE vec step_kept(const float *z, const float *given, float *c, long units, long wanted, float bound, float *gates)
{
    vec i = sigmoid(load(z) + load_some(given, wanted));
    vec f = sigmoid(load(z + LANES) + load_some(given + units, wanted));
    vec g = tangent(load(z + 2 * LANES) + load_some(given + 2 * units, wanted));
    vec o = sigmoid(load(z + 3 * LANES) + load_some(given + 3 * units, wanted));
    vec cell = clip(load_some(c, wanted) * f + i * g, bound);
    store_some(gates, i, wanted);
    store_some(gates + units, f, wanted);
    store_some(gates + 2 * units, g, wanted);
    store_some(gates + 3 * units, o, wanted);
    store_some(c, cell, wanted);
    return o * tangent(cell);
}

// Writes one vector of row r - start into the tile that starts at row `start` of a matrix of depth `depth`.
INLINE void into_tile(float *a, vec v, long depth, long start, long height, long r, long k, long wanted)
{
    float some[LANES];
    store(some, v);
    float *to = a + start * depth + k * height + r - start;
    if (wanted >= LANES)
        UNROLLED for (long l = 0; l < LANES; l++)
            to[l * height] = some[l];
    else
        for (long l = 0; l < wanted; l++)
            to[l * height] = some[l];
}

// The gates and cells of all units for the rows of one step; `hidden` receives tiles (or rows, unprojected).
static void cells(const Sequence *s, long at, long rows, const float *const *given, const float *a, float *z, float *hidden)
{
    long depth = s->outputs, tiles = tiles_of(rows);
    for (long b = 0; b < blocks_of(s->units); b++) {
        long unit = b * LANES, wanted = s->units - unit;
        for (long r = 0; r < rows; r++) {
            for (long gate = 0; gate < 4; gate++)
                __builtin_prefetch(given[r] + gate * s->units + unit);
            __builtin_prefetch(s->c + r * s->units + unit, 1);
        }
        for (long half = 0; half < 2; half++)
            for (long t = 0; t < tiles; t++) {
                long start = tile_start(t, rows), height = tile_start(t + 1, rows) - start;
                for (long k = 0; k < depth; k += BLOCK)
                    multiply_tile(height, a + start * depth + k * height,
                                  s->recurrent + ((2 * b + half) * depth + k) * PANEL, least_long(BLOCK, depth - k),
                                  z + start * 2 * PANEL + half * PANEL, 2 * PANEL, k > 0);
            }
        for (long t = 0; t < tiles; t++) {
            long start = tile_start(t, rows), height = tile_start(t + 1, rows) - start;
            for (long r = start; r < start + height; r++) {
                float *zr = z + r * 2 * PANEL, *c = s->c + r * s->units + unit;
                long here = (at + r) * s->units + unit; // in (M, H)
                vec out;
                if (s->gates) {
                    float *gates = s->gates + (at + r) * 4 * s->units + unit;
                    out = step_kept(zr, given[r] + unit, c, s->units, wanted, s->cell_clip, gates);
                    store_some(s->cells + here, load_some(c, wanted), wanted);
                    store_some(s->hidden + here, out, wanted);
                } else
                    out = step(zr, given[r] + unit, c, s->units, wanted, s->cell_clip);
                if (s->projection)
                    into_tile(hidden, out, s->units, start, height, r, unit, wanted);
                else
                    store_some(hidden + r * s->units + unit, out, wanted);
            }
        }
    }
}

// All steps. 0, or 1 where memory is wanting.
int recur(const Sequence *s)
{
    long most = s->steps ? s->counts[0] : 0, wide = panels_of(s->outputs) * PANEL;
    float *a = reserve(sizeof(float) * most * s->outputs), *z = reserve(sizeof(float) * most * 2 * PANEL);
    float *hidden = reserve(sizeof(float) * most * s->units), *out = reserve(sizeof(float) * most * wide);
    const float **given = reserve(sizeof(float *) * most);
    int failed = !a || !z || !hidden || !out || !given;
    long at = 0;
    for (long t = 0; t < s->steps && !failed; t++) {
        long rows = s->counts[t];
        for (long r = 0; r < rows; r++)
            given[r] = s->products + (s->index ? s->index[at + r] : at + r) * 4 * s->units;
        pack_rows(t ? s->y + (at - s->counts[t - 1]) * s->outputs : s->h, s->outputs, rows, s->outputs, a);
        cells(s, at, rows, given, a, z, hidden);
        if (s->projection)
            multiply(rows, s->units, panels_of(s->outputs), hidden, s->projection, out);
        const float *from = s->projection ? out : hidden;
        long apart = s->projection ? wide : s->units;
        for (long r = 0; r < rows; r++)
            for (long k = 0; k < s->outputs; k += LANES) {
                vec clipped = clip(load_some(from + r * apart + k, s->outputs - k), s->projection_clip);
                store_some(s->y + (at + r) * s->outputs + k, clipped, s->outputs - k);
                store_some(s->h + r * s->outputs + k, clipped, s->outputs - k);
            }
        at += rows;
    }
    free(a), free(z), free(hidden), free(out), free(given);
    return failed;
}

// The gradient ---------------------------------------------------------------------------------------------------

typedef struct {
    const int64_t *counts;
    int64_t steps, units, outputs;
    const float *c;                          // (N, H) before the first step
    const float *gates, *cells, *y;          // what `recur` kept, and gave
    const float *recurrent, *projection;     // packed (D, 4H), that is transposed; packed (H, D) or null
    float cell_clip, projection_clip;
    const float *dy;                         // (M, D)
    float *dh, *dc;                          // (N, D), (N, H): of the state after; in the end of the state before
    float *dz, *dp;                          // (M, 4H), (M, D): of the gates' sums, of the projection's
} Gradient;

INLINE vec inside(vec x, float bound) // 1 where the clip let x through, else 0
{
    vec size = greatest(x, -x);
    return bound == INFINITY ? splat(1.0f) : (vec)((size < splat(bound)) & (ints)splat(1.0f));
}

// One block of units of one row: dz into its row and its tile, dc in place.
INLINE void step_back(const Gradient *g, vec dm, long row, const float *before, float *dc, long unit, vec d[4])
{
    long wanted = g->units - unit;
    const float *gates = g->gates + row * 4 * g->units + unit;
    vec one = splat(1.0f), i = load_some(gates, wanted), f = load_some(gates + g->units, wanted);
    vec new = load_some(gates + 2 * g->units, wanted), o = load_some(gates + 3 * g->units, wanted);
    vec cell = load_some(g->cells + row * g->units + unit, wanted), squashed = tangent(cell);
    vec dcell = load_some(dc, wanted) + dm * o * (one - squashed * squashed);
    dcell *= inside(cell, g->cell_clip);
    d[0] = dcell * new * i * (one - i);
    d[1] = dcell * load_some(before, wanted) * f * (one - f);
    d[2] = dcell * i * (one - new * new);
    d[3] = dm * squashed * o * (one - o);
    store_some(dc, dcell * f, wanted);
    for (long gate = 0; gate < 4; gate++)
        store_some(g->dz + (row * 4 + gate) * g->units + unit, d[gate], wanted);
}

// dz of all units for the rows of one step, into `tiles` too; `before` are the cells of the step before.
static void cells_back(const Gradient *g, long at, long rows, const float *before, const float *a, float *z,
                       float *packed)
{
    long depth = g->outputs, tiles = tiles_of(rows), panels = panels_of(g->units);
    for (long p = 0; p < panels; p++) {
        for (long t = 0; t < tiles && g->projection; t++) {
            long start = tile_start(t, rows), height = tile_start(t + 1, rows) - start;
            for (long k = 0; k < depth; k += BLOCK) {
                long here = least_long(BLOCK, depth - k);
                multiply_tile(height, a + start * depth + k * height,
                              g->projection + k * panels * PANEL + p * here * PANEL, here, z + start * PANEL, PANEL,
                              k > 0);
            }
        }
        for (long t = 0; t < tiles; t++) {
            long start = tile_start(t, rows), height = tile_start(t + 1, rows) - start;
            for (long r = start; r < start + height; r++)
                for (long unit = p * PANEL; unit < least_long(g->units, (p + 1) * PANEL); unit += LANES) {
                    vec dm = g->projection ? load(z + r * PANEL + unit - p * PANEL)
                                           : load_some(g->dp + (at + r) * depth + unit, g->units - unit);
                    vec d[4];
                    step_back(g, dm, at + r, before + r * g->units + unit, g->dc + r * g->units + unit, unit, d);
                    for (long gate = 0; gate < 4; gate++)
                        into_tile(packed, d[gate], 4 * g->units, start, height, r, gate * g->units + unit,
                                  g->units - unit);
                }
        }
    }
}

// All steps, the last first. 0, or 1 where memory is wanting.
int recur_back(const Gradient *g)
{
    long most = g->steps ? g->counts[0] : 0, wide = panels_of(g->outputs) * PANEL, at = 0;
    float *a = reserve(sizeof(float) * most * g->outputs), *z = reserve(sizeof(float) * most * PANEL);
    float *packed = reserve(sizeof(float) * most * 4 * g->units), *out = reserve(sizeof(float) * most * wide);
    int failed = !a || !z || !packed || !out;
    for (long t = 0; t < g->steps; t++)
        at += g->counts[t];
    for (long t = g->steps - 1; t >= 0 && !failed; t--) {
        long rows = g->counts[t];
        at -= rows;
        for (long r = 0; r < rows; r++)
            for (long k = 0; k < g->outputs; k += LANES) {
                long here = (at + r) * g->outputs + k, wanted = g->outputs - k;
                vec sum = load_some(g->dy + here, wanted) + load_some(g->dh + r * g->outputs + k, wanted);
                store_some(g->dp + here, sum * inside(load_some(g->y + here, wanted), g->projection_clip), wanted);
            }
        if (g->projection)
            pack_rows(g->dp + at * g->outputs, g->outputs, rows, g->outputs, a);
        cells_back(g, at, rows, t ? g->cells + (at - g->counts[t - 1]) * g->units : g->c, a, z, packed);
        multiply(rows, 4 * g->units, panels_of(g->outputs), packed, g->recurrent, out);
        for (long r = 0; r < rows; r++)
            memcpy(g->dh + r * g->outputs, out + r * wide, sizeof(float) * g->outputs);
    }
    free(a), free(z), free(packed), free(out);
    return failed;
}
