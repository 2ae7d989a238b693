/*
 * xxh3: XXH3 with the widest instructions that this processor has, where the library can choose:
 * three times as fast for a page. The sums are the same.
 *
 * Pure: any thread.
 */
#ifndef EDM_PROTO_XXH3_H
#define EDM_PROTO_XXH3_H

#ifdef EDM_XXH3_DISPATCH
#include <xxh_x86dispatch.h> /* IWYU pragma: export */
#else
#include <xxhash.h> /* IWYU pragma: export */
#endif

#endif
