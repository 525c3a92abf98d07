// Vectors of floats as wide as the processor's, and the functions of the gates on them.
//
// NaN stays NaN through all of them.

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__SSE__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define WIDE
enum { LANES = 16, TILE = 14 };
#elif defined(__AVX__)
enum { LANES = 8, TILE = 6 };
#elif defined(__aarch64__)
enum { LANES = 4, TILE = 12 };
#else
enum { LANES = 4, TILE = 4 };
#endif

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
typedef int8_t small __attribute__((vector_size(LANES)));
#define INLINE static inline __attribute__((always_inline))
#define UNROLLED _Pragma("GCC unroll 16")
#define ROUNDS 12582912.0f // 1.5 * 2^23: added to a number, it moves the whole part into the lowest bits

INLINE vec load(const float *x)
{
    vec v;
    memcpy(&v, x, sizeof v);
    return v;
}

INLINE void store(float *x, vec v) { memcpy(x, &v, sizeof v); }

INLINE vec splat(float x) { return x - (vec){0}; }

INLINE vec load_bytes(const char *x)
{
    small v;
    memcpy(&v, x, sizeof v);
    return __builtin_convertvector(__builtin_convertvector(v, ints), vec);
}

// Numbers of 16 bits (IEEE binary16).
INLINE vec load_halves(const char *x)
{
#if defined(WIDE)
    return (vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)x));
#elif defined(__AVX__) && defined(__F16C__)
    return (vec)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)x));
#else
    halves v;
    memcpy(&v, x, sizeof v);
    ints bits = __builtin_convertvector(v, ints), odd = (bits & 0x7c00) == 0x7c00; // infinite or NaN
    vec size = (vec)((bits & 0x7fff) << 13) * 0x1p112f;
    return (vec)((ints)size | (odd & 0x7f800000) | (bits & 0x8000) << 16);
#endif
}

// The lesser of both; x where x is NaN.
INLINE vec least(vec bound, vec x)
{
#if defined(WIDE)
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
#if defined(WIDE)
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
    vec shifted = t + splat(ROUNDS);
    vec f = t - (shifted - splat(ROUNDS));
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
