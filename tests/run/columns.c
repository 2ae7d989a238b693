/*
 * columns: a program that goes through a matrix by columns.
 *
 *     columns ROWS ROW_BYTES COLUMNS
 *
 * Fills the matrix row by row, then checks one column after the other, from its first row to its
 * last: a page is used in each row, and those between are passed over.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t value_of(size_t at)
{
    return at * 0x9E3779B97F4A7C15u + 1;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: columns ROWS ROW_BYTES COLUMNS\n");
        return 2;
    }
    size_t rows = strtoul(argv[1], NULL, 10);
    size_t width = strtoul(argv[2], NULL, 10) / sizeof(uint64_t);
    size_t columns = strtoul(argv[3], NULL, 10);
    uint64_t *matrix = malloc(rows * width * sizeof *matrix);
    if (!matrix || columns > width)
        return 2;
    for (size_t at = 0; at < rows * width; at++)
        matrix[at] = value_of(at);
    for (size_t column = 0; column < columns; column++)
        for (size_t at = column; at < rows * width; at += width)
            if (matrix[at] != value_of(at)) {
                fprintf(stderr, "columns: %zu is another\n", at);
                return 1;
            }
    free(matrix);
    return 0;
}
