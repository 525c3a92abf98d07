// The matrix product: weights packed once into panels, rows packed into tiles at each call.
//
// A tile of rows stays in registers while a panel of two vectors of columns streams past. Sums are added up
// BLOCK terms at a time, for the cache and for exactness.

#include "vectors.h"

enum { PANEL = 2 * LANES, BLOCK = 256 };
enum { FLOATS, HALVES, BYTES }; // how weights are stored

#if defined(WIDE) && defined(__AVX512VNNI__)
enum { QUADS = 1 }; // bytes are multiplied as whole numbers, four terms an instruction; else as floats
#else
enum { QUADS = 0 };
#endif

typedef struct {
    int64_t kind, columns, depth;
    int64_t gates; // columns are 4 gates of units: those of LANES units stand in two panels, (i, f) and (g, o)
    char *data;    // BYTES: scales of the columns and their sums, then panels; else panels
} Matrix;

typedef struct {
    float *tiles;  // of each tile of rows in turn a[k][row]; BYTES as whole numbers, QUADS with 4 k together
    float *scales; // (rows,), for BYTES
} Rows;

static long least_long(long a, long b) { return a < b ? a : b; }
static long panels_of(long columns) { return (columns + PANEL - 1) / PANEL; }
static long blocks_of(long units) { return (units + LANES - 1) / LANES; }
static long tiles_of(long rows) { return (rows + TILE - 1) / TILE; }
static long tile_start(long tile, long rows) { return rows * tile / tiles_of(rows); } // tiles of like height
static long panels_in(const Matrix *m) { return m->gates ? 2 * blocks_of(m->columns / 4) : panels_of(m->columns); }
static long bytes_of(long kind) { return kind == FLOATS ? 4 : kind == HALVES ? 2 : 1; }
static long depth_of(const Matrix *m) { return m->kind == BYTES ? (m->depth + 3) / 4 * 4 : m->depth; }
static long block_of(const Matrix *m) { return m->gates || m->kind == BYTES ? depth_of(m) : BLOCK; }
static float *scales_of(const Matrix *m) { return (float *)m->data; }
static int32_t *sums_of(const Matrix *m) { return (int32_t *)m->data + panels_in(m) * PANEL; }

// Where the weights of panel p from term k on begin.
static char *panel_at(const Matrix *m, long p, long k)
{
    long depth = depth_of(m), block = block_of(m), start = k / block * block, here = least_long(block, depth - start);
    char *panels = m->data + (m->kind == BYTES ? panels_in(m) * PANEL * 8 : 0);
    return panels + (start * panels_in(m) + p * here + k - start) * PANEL * bytes_of(m->kind);
}

// Memory for one call, aligned to a cache line.
static void *reserve(size_t bytes) { return aligned_alloc(64, bytes / 64 * 64 + 64); }

static int reserve_rows(Rows *x, long rows, long depth)
{
    x->tiles = reserve(sizeof(float) * rows * ((depth + 3) / 4 * 4));
    x->scales = reserve(sizeof(float) * rows);
    return !x->tiles || !x->scales;
}

static void release_rows(Rows *x) { free(x->tiles), free(x->scales); }

// Packing --------------------------------------------------------------------------------------------------------

long packed_bytes(const Matrix *m)
{
    return panels_in(m) * PANEL * (depth_of(m) * bytes_of(m->kind) + (m->kind == BYTES ? 8 : 0));
}

// The row of the given matrix that a column of the panels holds, or -1.
static long source_of(const Matrix *m, long column)
{
    if (!m->gates)
        return column < m->columns ? column : -1;
    long units = m->columns / 4, block = column / (4 * LANES), gate = column / LANES % 4;
    long unit = block * LANES + column % LANES;
    return unit < units ? gate * units + unit : -1;
}

// Column `column` of the panels as whole numbers up to 127, `from` a row of the matrix.
static void pack_bytes(const Matrix *m, long column, const float *from, long along)
{
    float most = 0.0f, odd = 0.0f;
    for (long k = 0; from && k < m->depth; k++) {
        float size = fabsf(from[k * along]);
        most = size > most ? size : most;
        odd += size * 0.0f; // NaN, and so the scale, where a weight is not finite
    }
    float inverse = most > 0.0f ? 127.0f / most : 0.0f;
    int32_t sum = 0;
    int8_t *panel = (int8_t *)panel_at(m, column / PANEL, 0);
    for (long k = 0; k < depth_of(m); k++) {
        int8_t q = from && k < m->depth && odd == 0.0f ? (int8_t)lrintf(from[k * along] * inverse) : 0;
        long at = QUADS ? (k / 4 * PANEL + column % PANEL) * 4 + k % 4 : k * PANEL + column % PANEL;
        panel[at] = q;
        sum += q;
    }
    scales_of(m)[column] = most / 127.0f + odd;
    sums_of(m)[column] = -128 * sum;
}

// The matrix (columns, depth), whose element (n, k) is at n * over + k * along, into m's panels. `source` holds
// floats, or the 16 bits of HALVES.
void pack(const Matrix *m, const void *source, long over, long along)
{
    long size = bytes_of(m->kind), panels = panels_in(m);
    if (m->kind == BYTES) {
        for (long column = 0; column < panels * PANEL; column++) {
            long n = source_of(m, column);
            pack_bytes(m, column, n < 0 ? 0 : (const float *)source + n * over, along);
        }
        return;
    }
    for (long start = 0; start < m->depth; start += block_of(m))
        for (long p = 0; p < panels; p++) {
            long here = least_long(block_of(m), m->depth - start);
            const char *from[PANEL];
            for (long l = 0; l < PANEL; l++) {
                long n = source_of(m, p * PANEL + l);
                from[l] = n < 0 ? 0 : (const char *)source + (n * over + start * along) * size;
            }
            int straight = over == 1 && !m->gates && from[PANEL - 1];
            char *to = panel_at(m, p, start);
            for (long k = 0; k < here; k++)
                if (straight)
                    memcpy(to + k * PANEL * size, from[0] + k * along * size, PANEL * size);
                else
                    for (long l = 0; l < PANEL; l++) {
                        uint32_t none = 0;
                        const char *one = from[l] ? from[l] + k * along * size : (const char *)&none;
                        if (size == 4)
                            memcpy(to + (k * PANEL + l) * 4, one, 4);
                        else
                            memcpy(to + (k * PANEL + l) * 2, one, 2);
                    }
        }
}

// One row of x as whole numbers up to 127, in its tile; its scale.
static float pack_row_bytes(const float *x, long depth, long height, float *tile)
{
    vec most = splat(0.0f), odd = splat(0.0f);
    for (long k = 0; k < depth; k += LANES) {
        vec v = load_some(x + k, depth - k);
        most = greatest(most, greatest(v, -v));
        odd += v * splat(0.0f);
    }
    float highest = 0.0f, bad = 0.0f;
    for (long l = 0; l < LANES; l++) {
        highest = most[l] > highest ? most[l] : highest;
        bad += odd[l];
    }
    vec inverse = splat(highest > 0.0f && bad == 0.0f ? 127.0f / highest : 0.0f);
    for (long k = 0; k < depth; k += LANES) {
        vec shifted = load_some(x + k, depth - k) * inverse + splat(ROUNDS); // its lowest bits are the number
        if (QUADS) {
            small bytes = __builtin_convertvector((ints)shifted + 128, small);
            int32_t quads[LANES / 4];
            memcpy(quads, &bytes, sizeof quads);
            for (long q = 0; q < LANES / 4 && k + 4 * q < depth; q++)
                memcpy(tile + (k / 4 + q) * height, quads + q, 4);
        } else {
            vec whole = shifted - splat(ROUNDS);
            for (long l = 0; l < least_long(LANES, depth - k); l++)
                tile[(k + l) * height] = whole[l];
        }
    }
    for (long k = depth; !QUADS && k < (depth + 3) / 4 * 4; k++)
        tile[k * height] = 0.0f;
    return highest / 127.0f + bad;
}

static float *tile_at(const Rows *x, const Matrix *m, long start)
{
    return x->tiles + start * (m->kind == BYTES && QUADS ? depth_of(m) / 4 : depth_of(m));
}

// Rows of x (rows, depth), `stride` apart, as the tiles that m is multiplied with.
static void pack_rows(Rows *to, const Matrix *m, const float *x, long stride, long rows)
{
    for (long t = 0; t < tiles_of(rows); t++) {
        long start = tile_start(t, rows), height = tile_start(t + 1, rows) - start;
        float *tile = tile_at(to, m, start);
        for (long r = 0; r < height; r++) {
            const float *row = x + (start + r) * stride;
            if (m->kind == BYTES)
                to->scales[start + r] = pack_row_bytes(row, m->depth, height, tile + r);
            else
                for (long k = 0; k < m->depth; k++)
                    tile[k * height + r] = row[k];
        }
    }
}

// The tile: rows × PANEL outputs ---------------------------------------------------------------------------------

INLINE vec load_weights(const int kind, const char *w)
{
    return kind == FLOATS ? load((const float *)w) : kind == HALVES ? load_halves(w) : load_bytes(w);
}

// z[r] (+)= sum_k a[k][r] w[k], for `rows` rows (known when compiled) of a tile and one panel.
INLINE void tile(const int kind, const int rows, const float *a, const char *w, long depth, float *z, long stride,
                 int more)
{
    const int chains = rows < 2 ? 4 : rows < 4 ? 2 : 1; // independent sums that hide the latency
    const long size = kind == FLOATS ? 4 : kind == HALVES ? 2 : 1;
    vec sum[4][TILE][2];
    UNROLLED for (int c = 0; c < chains; c++)
        UNROLLED for (int r = 0; r < rows; r++)
            UNROLLED for (int v = 0; v < 2; v++)
                sum[c][r][v] = splat(0.0f);
    long k = 0;
    for (; k + chains <= depth; k += chains)
        UNROLLED for (int c = 0; c < chains; c++) {
            if (chains == 1) { // the processor's own prefetching stops at each page
                __builtin_prefetch(w + 8192, 0, 2);
                if (PANEL * size > 64)
                    __builtin_prefetch(w + 8192 + 64, 0, 2);
            }
            vec left = load_weights(kind, w), right = load_weights(kind, w + LANES * size);
            UNROLLED for (int r = 0; r < rows; r++) {
                vec x = splat(a[r]);
                sum[c][r][0] += x * left;
                sum[c][r][1] += x * right;
            }
            a += rows;
            w += PANEL * size;
        }
    if (chains > 1)
        for (; k < depth; k++, a += rows, w += PANEL * size)
            UNROLLED for (int r = 0; r < rows; r++)
                UNROLLED for (int v = 0; v < 2; v++)
                    sum[0][r][v] += splat(a[r]) * load_weights(kind, w + v * LANES * size);
    UNROLLED for (int r = 0; r < rows; r++)
        UNROLLED for (int v = 0; v < 2; v++) {
            vec total = sum[0][r][v];
            UNROLLED for (int c = 1; c < chains; c++)
                total += sum[c][r][v];
            store(z + r * stride + v * LANES, more ? total + load(z + r * stride + v * LANES) : total);
        }
}

// The same for bytes, by whole numbers: a holds four unsigned ones (q + 128) a row and step.
INLINE void tile_quads(const int rows, const float *a, const char *w, long depth, const int32_t *sums,
                       const float *row_scales, const float *scales, float *z, long stride)
{
#if defined(WIDE) && defined(__AVX512VNNI__)
    __m512i sum[TILE][2];
    UNROLLED for (int r = 0; r < rows; r++)
        UNROLLED for (int v = 0; v < 2; v++)
            sum[r][v] = _mm512_loadu_si512(sums + v * LANES);
    for (long k = 0; k < depth; k += 4) {
        __builtin_prefetch(w + 8192, 0, 2);
        __builtin_prefetch(w + 8192 + 64, 0, 2);
        __m512i left = _mm512_loadu_si512(w), right = _mm512_loadu_si512(w + 4 * LANES);
        UNROLLED for (int r = 0; r < rows; r++) {
            __m512i x = _mm512_set1_epi32(((const int32_t *)a)[r]);
            sum[r][0] = _mm512_dpbusd_epi32(sum[r][0], x, left);
            sum[r][1] = _mm512_dpbusd_epi32(sum[r][1], x, right);
        }
        a += rows;
        w += 4 * PANEL;
    }
    UNROLLED for (int r = 0; r < rows; r++)
        UNROLLED for (int v = 0; v < 2; v++)
            store(z + r * stride + v * LANES, (vec)_mm512_cvtepi32_ps(sum[r][v]) * splat(row_scales[r]) *
                                                  load(scales + v * LANES));
#else
    (void)rows, (void)a, (void)w, (void)depth, (void)sums, (void)row_scales, (void)scales, (void)z, (void)stride;
#endif
}

// Rows start .. start + height of x times panel p, terms from .. until, into z.
static void multiply_tile(const Matrix *m, const Rows *x, long start, long height, long p, long from, long until,
                          float *z, long stride)
{
    const float *a = tile_at(x, m, start), *scales = scales_of(m) + p * PANEL, *row_scales = x->scales + start;
    for (long k = from; k < until; k += QUADS && m->kind == BYTES ? until : BLOCK) {
        const char *w = panel_at(m, p, k);
        const int32_t *sums = sums_of(m) + p * PANEL;
        const float *here = a + k * height;
        long depth = least_long(BLOCK, until - k);
        int more = k > 0;
#define KINDS(n)                                                                                               \
    case n:                                                                                                    \
        if (n > TILE)                                                                                          \
            break;                                                                                             \
        if (m->kind == FLOATS)                                                                                 \
            tile(FLOATS, n > TILE ? 1 : n, here, w, depth, z, stride, more);                                   \
        else if (m->kind == HALVES)                                                                            \
            tile(HALVES, n > TILE ? 1 : n, here, w, depth, z, stride, more);                                   \
        else if (QUADS)                                                                                        \
            tile_quads(n > TILE ? 1 : n, here, w, until, sums, row_scales, scales, z, stride);                 \
        else                                                                                                   \
            tile(BYTES, n > TILE ? 1 : n, here, w, depth, z, stride, more);                                    \
        break;
        switch (height) {
            KINDS(1)
            KINDS(2)
            KINDS(3)
            KINDS(4)
            KINDS(5)
            KINDS(6)
            KINDS(7)
            KINDS(8)
            KINDS(9)
            KINDS(10)
            KINDS(11)
            KINDS(12)
            KINDS(13)
            KINDS(14)
        }
#undef KINDS
    }
    if (m->kind == BYTES && !QUADS && until == depth_of(m))
        for (long r = 0; r < height; r++)
            for (long v = 0; v < PANEL; v += LANES)
                store(z + r * stride + v, load(z + r * stride + v) * splat(row_scales[r]) * load(scales + v));
}

// z (rows, all panels) = x W^T.
static void multiply(const Matrix *m, const Rows *x, long rows, float *z)
{
    long panels = panels_in(m), depth = depth_of(m), block = block_of(m);
    for (long k = 0; k < depth; k += block)
        for (long p = 0; p < panels; p++)
            for (long t = 0; t < tiles_of(rows); t++) {
                long start = tile_start(t, rows), height = tile_start(t + 1, rows) - start;
                multiply_tile(m, x, start, height, p, k, least_long(depth, k + block),
                              z + start * panels * PANEL + p * PANEL, panels * PANEL);
            }
}
