#include "check_fixture.h"

#include "../../dms/data_dir.h"
#include "test.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

void check_fixture_begin(struct check_fixture *fixture, uint64_t capacity_bytes)
{
    struct data_dir *data;
    char why[256];

    memset(fixture, 0, sizeof(*fixture));
    temp_dir_make(&fixture->data);
    int err = data_dir_open(&data, &disk_real, fixture->data.path, 1, why, sizeof(why));
    assert_int_equal(err, 0);
    int len = snprintf(fixture->store.dir.path, sizeof(fixture->store.dir.path), "%s",
                       data_dir_shard(data, 0));
    assert_true(len > 0 && (size_t)len < sizeof(fixture->store.dir.path));
    data_dir_close(&data);
    fixture->store.capacity_bytes = capacity_bytes;
    assert_int_equal(fixture_open(&fixture->store), 0);
}

void check_fixture_end(struct check_fixture *fixture)
{
    fixture_close(&fixture->store);
    temp_dir_remove(&fixture->data);
    free(fixture->said);
}

enum check_result check_fixture_run(struct check_fixture *fixture, bool repair)
{
    size_t len;

    free(fixture->said);
    FILE *out = open_memstream(&fixture->said, &len);
    assert_non_null(out);
    enum check_result result = check_run(fixture->data.path, repair, out);
    fclose(out);
    return result;
}

static uint64_t sum;

static int add_file(const char *path, const struct stat *st, int kind, struct FTW *walk)
{
    char *bytes = malloc((size_t)st->st_size + 1);

    (void)walk;
    assert_non_null(bytes);
    sum += XXH3_64bits(path, strlen(path));
    if (kind == FTW_F && strcmp(path + walk->base, "lock") != 0) {
        int fd = open(path, O_RDONLY);
        assert_true(fd >= 0);
        assert_int_equal(read(fd, bytes, (size_t)st->st_size), st->st_size);
        sum += XXH3_64bits_withSeed(bytes, (size_t)st->st_size, strlen(path));
        /* The file system may need one more for itself when it writes what is dirty. */
        struct stat synced;
        assert_int_equal(fsync(fd), 0);
        assert_int_equal(fstat(fd, &synced), 0);
        sum += (uint64_t)synced.st_blocks;
        close(fd);
    }
    free(bytes);
    return 0;
}

uint64_t check_fixture_files(const struct check_fixture *fixture)
{
    sum = 0;
    assert_int_equal(nftw(fixture->data.path, add_file, 16, FTW_PHYS), 0);
    return sum;
}

uint32_t check_fixture_names(const struct check_fixture *fixture,
                             char (*names)[CHECK_FIXTURE_NAME_BYTES], uint32_t max)
{
    DIR *listing = opendir(fixture->store.dir.path);
    struct dirent *entry;
    uint32_t count = 0;

    assert_non_null(listing);
    while ((entry = readdir(listing)) != NULL) {
        if (entry->d_name[0] != '.' && count < max)
            snprintf(names[count++], CHECK_FIXTURE_NAME_BYTES, "%.60s", entry->d_name);
    }
    closedir(listing);
    return count;
}
