// ELMo's convolutions over characters as sums of table rows, and their maxima over a word's windows.

// One convolution: rows of `table` (size, characters, filters) are what a character adds at each place of a window.
typedef struct {
    const float *table;
    int64_t size, characters, filters;
    const int64_t *words; // (W, length) characters
    const int64_t *live;  // (W,) those of each word that are no padding: behind them all windows are alike
    int64_t count, length;
    float *out; // (W, stride), the maxima of each word
    int64_t stride;
} Maxima;

enum { ABREAST = 4 }; // vectors of filters that are worked on together: their rows stay in the nearest cache

INLINE void maxima_of(const Maxima *m, long first, const int wide, const int64_t *word, long windows, float *out)
{
    vec most[ABREAST], sum[ABREAST];
    for (long at = 0; at < windows; at++) {
        UNROLLED for (int k = 0; k < wide; k++)
            sum[k] = splat(0);
        for (long place = 0; place < m->size; place++) {
            const float *row = m->table + (place * m->characters + word[at + place]) * m->filters + first;
            UNROLLED for (int k = 0; k < wide; k++)
                sum[k] += load(row + k * LANES);
        }
        UNROLLED for (int k = 0; k < wide; k++)
            most[k] = at ? greatest(most[k], sum[k]) : sum[k];
    }
    UNROLLED for (int k = 0; k < wide; k++)
        store(out + first + k * LANES, most[k]);
}

static void single_maxima(const Maxima *m, long filter, const int64_t *word, long windows, float *out)
{
    for (long at = 0; at < windows; at++) {
        float sum = 0;
        for (long place = 0; place < m->size; place++)
            sum += m->table[(place * m->characters + word[at + place]) * m->filters + filter];
        if (!at || sum > out[filter])
            out[filter] = sum;
    }
}

// Every maximum of one convolution. Filters outermost, so that a few columns of the table serve all words.
void maxima(const Maxima *m)
{
    for (long first = 0; first < m->filters;) {
        long left = m->filters - first, last = m->length - m->size;
        int wide = left >= ABREAST * LANES ? ABREAST : left >= LANES;
        for (long w = 0; w < m->count; w++) {
            const int64_t *word = m->words + w * m->length;
            float *out = m->out + w * m->stride;
            long windows = (m->live[w] < last ? m->live[w] : last) + 1;
            if (wide == ABREAST)
                maxima_of(m, first, ABREAST, word, windows, out);
            else if (wide)
                maxima_of(m, first, 1, word, windows, out);
            else
                single_maxima(m, first, word, windows, out);
        }
        first += wide ? wide * LANES : 1;
    }
}
