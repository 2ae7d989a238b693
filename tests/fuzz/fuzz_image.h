/*
 * fuzz_image: the files of a small valid store, in memory, to be damaged and written out.
 */
#ifndef EDM_TESTS_FUZZ_IMAGE_H
#define EDM_TESTS_FUZZ_IMAGE_H

#include <stdint.h>
#include <stddef.h>

/* Segments of some size classes; of each those slots are looked at that have pages, and a few. */
enum { IMAGE_MAX_FILES = 8, IMAGE_CAPACITY_BYTES = 1 << 20, IMAGE_SLOTS = 64 };

struct image_file {
    char name[32];
    uint8_t *bytes; /* CAP of them, those after LEN zero */
    size_t len, cap;
    int missing; /* not to be written */
};

struct image {
    struct image_file files[IMAGE_MAX_FILES]; /* segments first, then shard and manifest */
    uint32_t nfiles, nsegments;
    struct image_file *shard, *manifest;
};

/* The image as it was made: the same each time, whatever was done to what it gave before. */
struct image *image_take(void);

/* Makes the files of fuzz_dir() those of the image. */
void image_write(const struct image *image);

/* Makes the checksums of a slot header, a segment's header, a record of the manifest, the shard
 * file right again. */
void image_seal_slot(struct image_file *segment, uint32_t slot);
void image_seal_segment(struct image_file *segment);
void image_seal_record(struct image_file *manifest, size_t record);
void image_seal_shard(struct image_file *shard);

#endif
