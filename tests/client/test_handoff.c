/* handoff: its ring alone, and between two threads. */
#include "../../client/handoff.h"
#include "test.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>

enum { ITEMS = 1000000, CAPACITY = 64 };

static bool is_readable(const struct handoff *handoff)
{
    struct pollfd fd = {handoff_fd(handoff), POLLIN, 0};
    return poll(&fd, 1, 0) == 1;
}

static void test_ring(void **state)
{
    (void)state;
    static int items[CAPACITY + 1];
    struct handoff *handoff;
    assert_int_equal(handoff_new(&handoff, CAPACITY), 0);
    assert_null(handoff_take(handoff));
    assert_false(is_readable(handoff));
    /* Several rounds, so that the ring's end is passed at different places. */
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < CAPACITY; i++)
            assert_true(handoff_give(handoff, &items[i]));
        assert_false(handoff_give(handoff, &items[CAPACITY]));
        assert_true(is_readable(handoff));
        handoff_calm(handoff);
        assert_false(is_readable(handoff));
        for (int i = 0; i < CAPACITY; i++)
            assert_ptr_equal(handoff_take(handoff), &items[i]);
        assert_null(handoff_take(handoff));
        assert_true(handoff_give(handoff, &items[7]));
        assert_ptr_equal(handoff_take(handoff), &items[7]);
        handoff_calm(handoff);
    }
    handoff_destroy(&handoff);
    assert_null(handoff);
    handoff_destroy(&handoff);
}

struct numbered {
    uint64_t number; /* plain: the handoff itself must order what is written before it is given */
};

static struct numbered numbers[ITEMS];

static void *give_all(void *arg)
{
    struct handoff *handoff = arg;
    for (uint64_t i = 0; i < ITEMS; i++) {
        numbers[i].number = i * i + 1;
        while (!handoff_give(handoff, &numbers[i]))
            sched_yield();
    }
    return NULL;
}

static void test_two_threads(void **state)
{
    (void)state;
    struct handoff *handoff;
    pthread_t thread;
    assert_int_equal(handoff_new(&handoff, CAPACITY), 0);
    assert_int_equal(pthread_create(&thread, NULL, give_all, handoff), 0);
    for (uint64_t i = 0; i < ITEMS;) {
        struct pollfd fd = {handoff_fd(handoff), POLLIN, 0};
        /* Calm, take all, sleep: if something were given unseen this would never wake. */
        assert_int_equal(poll(&fd, 1, 20000), 1);
        handoff_calm(handoff);
        for (struct numbered *item; (item = handoff_take(handoff)); i++) {
            assert_ptr_equal(item, &numbers[i]);
            assert_int_equal(item->number, i * i + 1);
        }
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_null(handoff_take(handoff));
    handoff_destroy(&handoff);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ring),
        cmocka_unit_test(test_two_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
