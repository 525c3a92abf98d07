// What a Transformer does beside its large products: attention inside rows of any lengths, and GELU.

// Floats of a vector.
int64_t lanes(void) { return LANES; }

typedef struct {
    const float *qkv;      // (M, 3D): of each token q, k and v, in each of them one head after the other
    const int64_t *groups; // (count, 2): how many rows stand next, and how many tokens each has
    int64_t count;
    int64_t heads, size;  // D = heads * size, size in whole vectors
    int64_t first, last;  // heads of this call
    int64_t causal;       // no token sees a later one
    float *y;             // (M, D)
} Attention;

#if defined(__AVX__) && !defined(WIDE)
enum { QUERIES = 6 };
#else
enum { QUERIES = 12 }; // as many as the registers hold: keys and values are read again for each lot of them
#endif
enum { ACROSS = 2 };

// out[r][c] = sum over k of a[r][k] b[k][c], for some rows and vectors of columns.
INLINE void corner(const float *a, long a_row, const float *b, long b_row, long depth, float *out, long out_row,
                   const int rows, const int wide)
{
    vec sum[QUERIES][ACROSS];
    UNROLLED for (int r = 0; r < rows; r++)
        UNROLLED for (int c = 0; c < wide; c++)
            sum[r][c] = splat(0);
    for (long k = 0; k < depth; k++) {
        vec beside[ACROSS];
        UNROLLED for (int c = 0; c < wide; c++)
            beside[c] = load(b + k * b_row + c * LANES);
        UNROLLED for (int r = 0; r < rows; r++)
            UNROLLED for (int c = 0; c < wide; c++)
                sum[r][c] += splat(a[r * a_row + k]) * beside[c];
    }
    UNROLLED for (int r = 0; r < rows; r++)
        UNROLLED for (int c = 0; c < wide; c++)
            store(out + r * out_row + c * LANES, sum[r][c]);
}

INLINE void strip(const float *a, long a_row, const float *b, long b_row, long depth, float *out, long out_row,
                  const int rows, long columns)
{
    long at = 0;
    for (; at + ACROSS * LANES <= columns; at += ACROSS * LANES)
        corner(a, a_row, b + at, b_row, depth, out + at, out_row, rows, ACROSS);
    for (; at < columns; at += LANES)
        corner(a, a_row, b + at, b_row, depth, out + at, out_row, rows, 1);
}

// How many of the queries that are left are worked on together.
static long lot(long left)
{
    return left >= QUERIES ? QUERIES : QUERIES > 8 && left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

// A lot of rows; columns in whole vectors.
static void product(const float *a, long a_row, const float *b, long b_row, long depth, float *out, long out_row,
                    long rows, long columns)
{
    if (rows == QUERIES)
        strip(a, a_row, b, b_row, depth, out, out_row, QUERIES, columns);
    else if (QUERIES > 8 && rows == 8)
        strip(a, a_row, b, b_row, depth, out, out_row, QUERIES > 8 ? 8 : 1, columns);
    else if (rows == 4)
        strip(a, a_row, b, b_row, depth, out, out_row, 4, columns);
    else if (rows == 2)
        strip(a, a_row, b, b_row, depth, out, out_row, 2, columns);
    else
        strip(a, a_row, b, b_row, depth, out, out_row, 1, columns);
}

INLINE float total(vec v)
{
    float sums[LANES];
    store(sums, v);
    UNROLLED for (int half = LANES / 2; half; half /= 2)
        UNROLLED for (int l = 0; l < half; l++)
            sums[l] += sums[l + half];
    return sums[0];
}

// Scores of the first `own` tokens become e^(score - the largest), those behind them 0; the sum of all.
static float exponentials(float *scores, long own, long columns, float scale)
{
    float most = scores[0];
    long at = 0;
    if (own >= LANES) {
        vec large = load(scores);
        for (at = LANES; at + LANES <= own; at += LANES)
            large = greatest(large, load(scores + at));
        for (int l = 0; l < LANES; l++)
            most = large[l] > most ? large[l] : most;
    }
    for (; at < own; at++)
        most = scores[at] > most ? scores[at] : most;
    for (at = 0; at < columns; at += LANES)
        store(scores + at, decay((splat(most) - load(scores + at)) * splat(scale)));
    for (at = own; at < columns; at++)
        scores[at] = 0;
    vec sums = splat(0);
    for (at = 0; at < columns; at += LANES)
        sums += load(scores + at);
    return total(sums);
}

// One head of one row of `tokens`; `turned` takes its keys as (size, stride), `scores` is (QUERIES, stride).
static void attend_row(const Attention *a, const float *q, float *y, long tokens, float *turned, float *scores,
                       long stride)
{
    long D = a->heads * a->size, row = 3 * D;
    const float *k = q + D, *v = k + D;
    float scale = 1 / sqrtf(a->size);
    for (long t = 0; t < tokens; t++)
        for (long x = 0; x < a->size; x++)
            turned[x * stride + t] = k[t * row + x];
    for (long i = 0, rows; i < tokens; i += rows) {
        rows = lot(tokens - i);
        long seen = a->causal ? i + rows : tokens;
        long columns = (seen + LANES - 1) / LANES * LANES;
        float sums[QUERIES];
        product(q + i * row, row, turned, stride, a->size, scores, stride, rows, columns);
        for (long r = 0; r < rows; r++)
            sums[r] = exponentials(scores + r * stride, a->causal ? i + r + 1 : tokens, columns, scale);
        product(scores, stride, v, row, seen, y + i * D, D, rows, a->size);
        for (long r = 0; r < rows; r++)
            for (long x = 0; x < a->size; x += LANES)
                store(y + (i + r) * D + x, load(y + (i + r) * D + x) / splat(sums[r]));
    }
}

// softmax(q k' / sqrt(size)) v. 1 where there is no memory.
int attend(const Attention *a)
{
    long longest = 0, D = a->heads * a->size;
    for (long g = 0; g < a->count; g++)
        longest = a->groups[2 * g + 1] > longest ? a->groups[2 * g + 1] : longest;
    long stride = (longest + LANES - 1) / LANES * LANES + LANES; // one more, or its lines would share places in the cache
    float *turned = reserve(sizeof(float) * (a->size + QUERIES) * stride);
    if (!turned)
        return 1;
    memset(turned, 0, sizeof(float) * (a->size + QUERIES) * stride);
    float *scores = turned + a->size * stride;
    const float *qkv = a->qkv;
    float *y = a->y;
    for (long g = 0; g < a->count; g++) {
        long rows = a->groups[2 * g], tokens = a->groups[2 * g + 1];
        for (long n = 0; n < rows; n++, qkv += tokens * 3 * D, y += tokens * D)
            for (long h = a->first; h < a->last; h++)
                attend_row(a, qkv + h * a->size, y + h * a->size, tokens, turned, scores, stride);
    }
    free(turned);
    return 0;
}

// twice GELU(v), approximated by tanh or by the error function (7.1.26 of Abramowitz & Stegun: within 1.5e-7).
INLINE vec twice_gelu(vec v, const int tanh)
{
    if (tanh) // of half of this
        return splat(2) * v * sigmoid(v * (splat(1.5957691216f) + splat(0.0713548162726f) * v * v));
    vec size = greatest(v, -v), t = splat(1) / (splat(1) + splat(0.231641888f) * size);
    vec p = splat(1.061405429f);
    p = p * t + splat(-1.453152027f);
    p = p * t + splat(1.421413741f);
    p = p * t + splat(-0.284496736f);
    p = p * t + splat(0.254829592f);
    return v + size * (splat(1) - p * t * decay(splat(0.5f) * v * v));
}

INLINE void gelu_rows(float *x, const float *bias, long rows, long columns, const int tanh)
{
    for (long r = 0; r < rows; r++)
        for (long c = 0; c < columns; c += LANES) {
            float *at = x + r * columns + c;
            vec v = load_some(at, columns - c) + load_some(bias + c, columns - c);
            store_some(at, splat(0.5f) * twice_gelu(v, tanh), columns - c);
        }
}

// x = GELU(x + bias); x (rows, columns).
void gelu(float *x, const float *bias, int64_t rows, int64_t columns, int64_t tanh)
{
    if (tanh)
        gelu_rows(x, bias, rows, columns, 1);
    else
        gelu_rows(x, bias, rows, columns, 0);
}

// y = layer norm of x + y + bias; x, y (rows, columns).
void norm(float *y, const float *bias, const float *x, const float *gain, const float *shift, double eps,
          int64_t rows, int64_t columns)
{
    long whole = columns / LANES * LANES;
    for (; rows--; x += columns, y += columns) {
        vec sums = splat(0), squares = splat(0);
        float sum = 0, square = 0;
        for (long c = 0; c < whole; c += LANES) {
            vec v = load(x + c) + load(y + c) + load(bias + c);
            store(y + c, v);
            sums += v;
        }
        for (long c = whole; c < columns; c++)
            sum += y[c] += x[c] + bias[c];
        float mean = (total(sums) + sum) / columns;
        for (long c = 0; c < whole; c += LANES) {
            vec v = load(y + c) - splat(mean);
            squares += v * v;
        }
        for (long c = whole; c < columns; c++)
            square += (y[c] - mean) * (y[c] - mean);
        float scale = 1 / sqrt((total(squares) + square) / columns + eps);
        for (long c = 0; c < whole; c += LANES)
            store(y + c, (load(y + c) - splat(mean)) * splat(scale) * load(gain + c) + load(shift + c));
        for (long c = whole; c < columns; c++)
            y[c] = (y[c] - mean) * scale * gain[c] + shift[c];
    }
}

#if defined(__AVX__) && !defined(WIDE)
enum { TOGETHER = 4 }; // rows that share a reading of two columns of weights
#else
enum { TOGETHER = 8 };
#endif

INLINE void dots(const float *w, const float *x, long depth, const float *bias, float *y, long y_row, const int rows,
                 const int wide)
{
    vec sums[TOGETHER][2];
    UNROLLED for (int r = 0; r < rows; r++)
        UNROLLED for (int c = 0; c < wide; c++)
            sums[r][c] = splat(0);
    long k = 0;
    for (; k + LANES <= depth; k += LANES) {
        vec here[2];
        UNROLLED for (int c = 0; c < wide; c++) {
            here[c] = load(w + c * depth + k);
            __builtin_prefetch(w + (wide + c) * depth + k); // the next columns: without, half as fast
        }
        UNROLLED for (int r = 0; r < rows; r++) {
            vec of = load(x + r * depth + k);
            UNROLLED for (int c = 0; c < wide; c++)
                sums[r][c] += here[c] * of;
        }
    }
    if (k < depth)
        UNROLLED for (int r = 0; r < rows; r++)
            UNROLLED for (int c = 0; c < wide; c++)
                sums[r][c] += load_some(w + c * depth + k, depth - k) * load_some(x + r * depth + k, depth - k);
    UNROLLED for (int r = 0; r < rows; r++)
        UNROLLED for (int c = 0; c < wide; c++)
            y[r * y_row + c] = (bias ? bias[c] : 0) + total(sums[r][c]);
}

INLINE void all_dots(const float *w, const float *x, long rows, long depth, const float *bias, float *y, long y_row,
                     const int wide)
{
    for (; rows >= TOGETHER; rows -= TOGETHER, x += TOGETHER * depth, y += TOGETHER * y_row)
        dots(w, x, depth, bias, y, y_row, TOGETHER, wide);
    for (; rows >= 4; rows -= 4, x += 4 * depth, y += 4 * y_row)
        dots(w, x, depth, bias, y, y_row, 4, wide);
    for (; rows; rows--, x += depth, y += y_row)
        dots(w, x, depth, bias, y, y_row, 1, wide);
}

// y = x w' + bias of few rows, as fast as w (columns, depth) is read: columns first to last of y (rows, columns).
void few(const float *w, const float *bias, const float *x, float *y, int64_t rows, int64_t columns, int64_t depth,
         int64_t first, int64_t last)
{
    long n = first;
    for (; n + 2 <= last; n += 2)
        all_dots(w + n * depth, x, rows, depth, bias ? bias + n : 0, y + n, columns, 2);
    for (; n < last; n++)
        all_dots(w + n * depth, x, rows, depth, bias ? bias + n : 0, y + n, columns, 1);
}
