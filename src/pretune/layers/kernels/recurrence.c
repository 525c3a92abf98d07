// The recurrence of ELMo's LSTM for one direction of one layer a call, its gradient, and a linear layer.
//
// One call is one thread; it writes only into what it is given.

#include "product.h"
#include "characters.h"
#include "attention.h"

// The recurrence -------------------------------------------------------------------------------------------------

typedef struct {
    const float *products;  // (U, 4H)
    const int64_t *index;   // (M,) or null
    const int64_t *counts;  // (steps,)
    int64_t steps, units, outputs; // H, D
    int64_t first, last;    // the rows of this call: no row feels another
    float *h, *c;           // (N, D), (N, H): the state before, and after the call the state after
    const Matrix *recurrent;  // (4H, D)
    const Matrix *projection; // (D, H), or null
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

// The gates and cells of all units for the rows of one step; `hidden` receives tiles, or rows.
static void cells(const Sequence *s, long at, long rows, const float *const *given, const Rows *x, float *z,
                  float *hidden, int tiled)
{
    long tiles = tiles_of(rows), depth = depth_of(s->recurrent);
    for (long b = 0; b < blocks_of(s->units); b++) {
        long unit = b * LANES, wanted = s->units - unit;
        for (long r = 0; r < rows; r++) {
            for (long gate = 0; gate < 4; gate++)
                __builtin_prefetch(given[r] + gate * s->units + unit);
            __builtin_prefetch(s->c + (s->first + r) * s->units + unit, 1);
        }
        for (long half = 0; half < 2; half++)
            for (long t = 0; t < tiles; t++) {
                long start = tile_start(t, rows), height = tile_start(t + 1, rows) - start;
                multiply_tile(s->recurrent, x, start, height, 2 * b + half, 0, depth,
                              z + start * 2 * PANEL + half * PANEL, 2 * PANEL);
            }
        for (long t = 0; t < tiles; t++) {
            long start = tile_start(t, rows), height = tile_start(t + 1, rows) - start;
            for (long r = start; r < start + height; r++) {
                float *zr = z + r * 2 * PANEL, *c = s->c + (s->first + r) * s->units + unit;
                long here = (at + r) * s->units + unit; // in (M, H)
                vec out;
                if (s->gates) {
                    float *gates = s->gates + (at + r) * 4 * s->units + unit;
                    out = step_kept(zr, given[r] + unit, c, s->units, wanted, s->cell_clip, gates);
                    store_some(s->cells + here, load_some(c, wanted), wanted);
                    store_some(s->hidden + here, out, wanted);
                } else
                    out = step(zr, given[r] + unit, c, s->units, wanted, s->cell_clip);
                if (tiled)
                    into_tile(hidden, out, s->units, start, height, r, unit, wanted);
                else
                    store_some(hidden + r * s->units + unit, out, wanted);
            }
        }
    }
}

// All steps of the rows first .. last. 0, or 1 where memory is wanting.
int recur(const Sequence *s)
{
    long most = s->last - s->first, wide = panels_of(s->outputs) * PANEL, at = 0;
    int tiled = s->projection && s->projection->kind != BYTES; // bytes need the whole row for its scale
    float *h = s->h + s->first * s->outputs;
    Rows x, packed;
    float *z = reserve(sizeof(float) * most * 2 * PANEL), *hidden = reserve(sizeof(float) * most * s->units);
    float *out = reserve(sizeof(float) * most * wide);
    const float **given = reserve(sizeof(float *) * most);
    int failed = reserve_rows(&x, most, s->outputs) + reserve_rows(&packed, most, s->units);
    failed = failed || !z || !hidden || !out || !given;
    for (long t = 0; t < s->steps && !failed; at += s->counts[t++]) {
        long rows = least_long(s->last, s->counts[t]) - s->first, start = at + s->first;
        if (rows <= 0)
            break;
        for (long r = 0; r < rows; r++)
            given[r] = s->products + (s->index ? s->index[start + r] : start + r) * 4 * s->units;
        pack_rows(&x, s->recurrent, h, s->outputs, rows);
        cells(s, start, rows, given, &x, z, tiled ? packed.tiles : hidden, tiled);
        if (s->projection && !tiled)
            pack_rows(&packed, s->projection, hidden, s->units, rows);
        if (s->projection)
            multiply(s->projection, &packed, rows, out);
        const float *from = s->projection ? out : hidden;
        long apart = s->projection ? wide : s->units;
        for (long r = 0; r < rows; r++)
            for (long k = 0; k < s->outputs; k += LANES) {
                vec clipped = clip(load_some(from + r * apart + k, s->outputs - k), s->projection_clip);
                store_some(s->y + (start + r) * s->outputs + k, clipped, s->outputs - k);
                store_some(h + r * s->outputs + k, clipped, s->outputs - k);
            }
    }
    free(z), free(hidden), free(out), free(given);
    release_rows(&x), release_rows(&packed);
    return failed;
}

// The gradient ---------------------------------------------------------------------------------------------------

typedef struct {
    const int64_t *counts;
    int64_t steps, units, outputs;
    int64_t first, last;                     // the rows of this call
    const float *c;                          // (N, H) before the first step
    const float *gates, *cells, *y;          // what `recur` kept, and gave
    const Matrix *recurrent, *projection;    // both transposed: (D, 4H); (H, D), or null
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

// dz of all units for the rows of one step, into the tiles `packed` too; `before` are the cells of the step before.
static void cells_back(const Gradient *g, long at, long rows, const float *before, const Rows *x, float *z,
                       float *packed)
{
    long depth = g->outputs, tiles = tiles_of(rows);
    for (long p = 0; p < panels_of(g->units); p++) {
        for (long t = 0; t < tiles && g->projection; t++) {
            long start = tile_start(t, rows), height = tile_start(t + 1, rows) - start;
            multiply_tile(g->projection, x, start, height, p, 0, depth, z + start * PANEL, PANEL);
        }
        for (long t = 0; t < tiles; t++) {
            long start = tile_start(t, rows), height = tile_start(t + 1, rows) - start;
            for (long r = start; r < start + height; r++)
                for (long unit = p * PANEL; unit < least_long(g->units, (p + 1) * PANEL); unit += LANES) {
                    vec dm = g->projection ? load(z + r * PANEL + unit - p * PANEL)
                                           : load_some(g->dp + (at + r) * depth + unit, g->units - unit);
                    vec d[4];
                    float *dc = g->dc + (g->first + r) * g->units + unit;
                    step_back(g, dm, at + r, before + r * g->units + unit, dc, unit, d);
                    for (long gate = 0; gate < 4; gate++)
                        into_tile(packed, d[gate], 4 * g->units, start, height, r, gate * g->units + unit,
                                  g->units - unit);
                }
        }
    }
}

// All steps of the rows first .. last, the last step first. 0, or 1 where memory is wanting.
int recur_back(const Gradient *g)
{
    long most = g->last - g->first, wide = panels_of(g->outputs) * PANEL, at = 0;
    Rows x, packed;
    float *z = reserve(sizeof(float) * most * PANEL), *out = reserve(sizeof(float) * most * wide);
    int failed = reserve_rows(&x, most, g->outputs) + reserve_rows(&packed, most, 4 * g->units) || !z || !out;
    for (long t = 0; t < g->steps; t++)
        at += g->counts[t];
    for (long t = g->steps - 1; t >= 0 && !failed; t--) {
        long rows = least_long(g->last, g->counts[t]) - g->first, start = at - g->counts[t] + g->first;
        long earlier = t ? at - g->counts[t] - g->counts[t - 1] + g->first : 0; // the same rows a step before
        at -= g->counts[t];
        if (rows <= 0)
            continue;
        float *dh = g->dh + g->first * g->outputs;
        for (long r = 0; r < rows; r++)
            for (long k = 0; k < g->outputs; k += LANES) {
                long here = (start + r) * g->outputs + k, wanted = g->outputs - k;
                vec sum = load_some(g->dy + here, wanted) + load_some(dh + r * g->outputs + k, wanted);
                store_some(g->dp + here, sum * inside(load_some(g->y + here, wanted), g->projection_clip), wanted);
            }
        if (g->projection)
            pack_rows(&x, g->projection, g->dp + start * g->outputs, g->outputs, rows);
        const float *before = t ? g->cells + earlier * g->units : g->c + g->first * g->units;
        cells_back(g, start, rows, before, &x, z, packed.tiles);
        multiply(g->recurrent, &packed, rows, out);
        for (long r = 0; r < rows; r++)
            memcpy(dh + r * g->outputs, out + r * wide, sizeof(float) * g->outputs);
    }
    free(z), free(out);
    release_rows(&x), release_rows(&packed);
    return failed;
}

// The linear layer -----------------------------------------------------------------------------------------------

enum { CACHED = 1 << 18 }; // bytes of weights that stay in the cache while all rows pass, so that rows are written in runs

// y (rows, columns) = x W^T + bias. 0, or 1 where memory is wanting.
int linear(const Matrix *m, const float *x, long rows, const float *bias, float *y)
{
    Rows packed;
    int failed = reserve_rows(&packed, rows, m->depth);
    if (!failed)
        pack_rows(&packed, m, x, m->depth, rows);
    long panels = panels_in(m), together = CACHED / (PANEL * bytes_of(m->kind) * depth_of(m)) + 1;
    for (long first = 0; first < panels && !failed; first += together)
        for (long t = 0; t < tiles_of(rows); t++) {
            long start = tile_start(t, rows), height = tile_start(t + 1, rows) - start;
            for (long p = first; p < least_long(panels, first + together); p++) {
                float z[TILE * PANEL];
                multiply_tile(m, &packed, start, height, p, 0, depth_of(m), z, PANEL);
                for (long v = 0; v < PANEL && p * PANEL + v < m->columns; v += LANES) {
                    long n = p * PANEL + v, wanted = m->columns - n;
                    vec added = bias ? load_some(bias + n, wanted) : splat(0.0f);
                    for (long r = 0; r < height; r++)
                        store_some(y + (start + r) * m->columns + n, load(z + r * PANEL + v) + added, wanted);
                }
            }
        }
    release_rows(&packed);
    return failed;
}
