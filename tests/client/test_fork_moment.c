/* fork_moment against a model: several threads unmap and move memory, one forks, and what is told
 * comes in another order than what happened. */
#include "../../client/fork_moment.h"
#include "test.h"

#include <string.h>

enum {
    THREADS = 3,
    SLOTS = 12, /* of each thread; places that memory may be in */
    SLOT_PAGES = 4,
    STEPS = 6, /* of each thread */
    ALL_SLOTS = THREADS * SLOTS,
    ALL_STEPS = THREADS * STEPS,
    ROUNDS = 20000,
};

static uint64_t random_state = 88172645463325252ull;

static uint64_t draw(uint64_t below)
{
    return test_random(&random_state) % below;
}

struct step {
    int from, to; /* slots; to < 0: it is unmapped */
};

struct model {
    int content[ALL_SLOTS];    /* 0: nothing is there */
    bool kept_back[ALL_SLOTS]; /* MADV_DONTFORK: no child gets it */
    bool sealed[ALL_SLOTS];    /* what is there is outside */
};

static void take(struct model *model, struct step step)
{
    if (step.to >= 0) {
        model->content[step.to] = model->content[step.from];
        model->sealed[step.to] = model->sealed[step.from];
    }
    model->content[step.from] = 0;
    model->sealed[step.from] = false;
}

static uint64_t address(int slot)
{
    return (uint64_t)(slot + 1) * 2 * SLOT_PAGES * AGENT_PAGE_BYTES;
}

static struct change told(struct step step)
{
    struct change change = {0};
    uint64_t bytes = SLOT_PAGES * AGENT_PAGE_BYTES;
    if (step.to >= 0) {
        change.message.event = UFFD_EVENT_REMAP;
        change.message.arg.remap.from = address(step.from);
        change.message.arg.remap.to = address(step.to);
        change.message.arg.remap.len = bytes;
    } else {
        change.message.event = UFFD_EVENT_UNMAP;
        change.message.arg.remove.start = address(step.from);
        change.message.arg.remove.end = address(step.from) + bytes;
    }
    return change;
}

static int draw_slot(const struct model *model, int thread, bool full)
{
    int slot = thread * SLOTS + (int)draw(SLOTS);
    for (int i = 0; i < SLOTS; i++, slot++) {
        if (slot == (thread + 1) * SLOTS)
            slot = thread * SLOTS;
        if ((model->content[slot] != 0) == full)
            return slot;
    }
    return -1;
}

/* What a thread does: unmaps, or moves to a place from which nothing was moved: with such moves
 * memory could change places, and the mappings would be the same afterwards. What is kept back is
 * only unmapped. */
static void draw_steps(struct model model, int thread, struct step *steps)
{
    bool left[ALL_SLOTS] = {false};
    for (int i = 0; i < STEPS; i++) {
        int from = draw_slot(&model, thread, true), to = draw_slot(&model, thread, false);
        assert_true(from >= 0);
        bool moves = to >= 0 && !left[to] && !model.kept_back[from] && !model.kept_back[to];
        steps[i] = (struct step){from, moves && draw(2) ? to : -1};
        left[from] = left[from] || steps[i].to >= 0;
        take(&model, steps[i]);
    }
}

/* In which order the steps of all threads come: whose is the next. */
static void draw_order(int *order)
{
    int todo[THREADS];
    for (int i = 0; i < THREADS; i++)
        todo[i] = STEPS;
    for (int i = 0; i < ALL_STEPS; i++) {
        do
            order[i] = (int)draw(THREADS);
        while (todo[order[i]] == 0);
        todo[order[i]]--;
    }
}

static struct fork_maps maps_of(const struct model *model, bool of_child)
{
    struct fork_maps maps;
    assert_int_equal(area_map_new(&maps.areas), 0);
    assert_int_equal(area_map_new(&maps.seals), 0);
    for (int i = 0; i < ALL_SLOTS; i++) {
        uint64_t start = address(i) / AGENT_PAGE_BYTES, end = start + SLOT_PAGES;
        if (!model->content[i] || (of_child && model->kept_back[i]))
            continue;
        assert_int_equal(area_map_add(maps.areas, start, end), 0);
        if (model->sealed[i])
            assert_int_equal(area_map_add(maps.seals, start, end), 0);
    }
    return maps;
}

static void destroy(struct fork_maps *maps)
{
    area_map_destroy(&maps->areas);
    area_map_destroy(&maps->seals);
}

static void draw_model(struct model *model)
{
    memset(model, 0, sizeof *model);
    for (int i = 0; i < ALL_SLOTS; i++)
        if (i % SLOTS < STEPS + 2) {
            model->content[i] = i + 1;
            model->kept_back[i] = draw(6) == 0;
            model->sealed[i] = draw(2);
        }
}

static void one_round(void)
{
    struct model before, at_fork, child;
    struct step steps[THREADS][STEPS];
    int happened[ALL_STEPS], was_told[ALL_STEPS], done[THREADS] = {0}, ntold[THREADS] = {0};
    draw_model(&before);
    for (int i = 0; i < THREADS; i++)
        draw_steps(before, i, steps[i]);
    draw_order(happened);
    draw_order(was_told);
    at_fork = before;
    for (uint64_t fork = draw(ALL_STEPS + 1), i = 0; i < fork; i++) {
        int thread = happened[i];
        take(&at_fork, steps[thread][done[thread]++]);
    }
    struct change changes[ALL_STEPS];
    struct step in_order[ALL_STEPS];
    uint32_t certain = 0;
    for (uint32_t i = 0; i < ALL_STEPS; i++) {
        int thread = was_told[i];
        in_order[i] = steps[thread][ntold[thread]++];
        changes[i] = told(in_order[i]);
        if (certain == i && ntold[thread] <= done[thread])
            certain++;
    }
    struct fork_maps parent = maps_of(&before, false), found = maps_of(&at_fork, true);
    assert_int_equal(fork_moment_find(changes, ALL_STEPS, (uint32_t)draw(certain + 1),
                                      (uint32_t)draw(ALL_STEPS + 1), &parent, &found),
                     0);
    child = before;
    for (int i = 0; i < ALL_STEPS; i++)
        if (changes[i].has_come)
            take(&child, in_order[i]);
    for (int i = 0; i < ALL_SLOTS; i++)
        if (at_fork.content[i] && !at_fork.kept_back[i])
            assert_int_equal(child.content[i], at_fork.content[i]);
    destroy(&parent);
    destroy(&found);
}

static void test_orders(void **state)
{
    (void)state;
    for (int i = 0; i < ROUNDS; i++)
        one_round();
}

/* What is given up before it is moved is given up where it has been moved to. */
static void test_emptied_then_moved(void **state)
{
    (void)state;
    struct change changes[2] = {told((struct step){0, -1}), told((struct step){0, 1})};
    changes[0].message.event = UFFD_EVENT_REMOVE;
    struct model model = {.content = {7}};
    struct fork_maps parent = maps_of(&model, false);
    take(&model, (struct step){0, 1});
    struct fork_maps found = maps_of(&model, true);
    assert_int_equal(fork_moment_find(changes, 2, 0, 0, &parent, &found), 0);
    assert_true(changes[0].has_come && changes[1].has_come);
    destroy(&parent);
    destroy(&found);
}

/* Memory that grows as it is moved takes the place of what was unmapped just then: of what it has
 * grown by no event tells. */
static void test_grown_into_hole(void **state)
{
    (void)state;
    uint64_t bytes = SLOT_PAGES * AGENT_PAGE_BYTES;
    /* Slot 2 is unmapped, and slot 0 goes right below it, and grows over all of it. */
    struct change changes[2] = {told((struct step){2, -1}), told((struct step){0, 1})};
    changes[1].message.arg.remap.to = address(2) - bytes;
    struct model model = {.content = {[0] = 1, [2] = 3}, .sealed = {[0] = true, [2] = true}};
    struct fork_maps parent = maps_of(&model, false);
    model = (struct model){.content = {0}};
    struct fork_maps found = maps_of(&model, true);
    uint64_t start = (address(2) - bytes) / AGENT_PAGE_BYTES;
    assert_int_equal(area_map_add(found.areas, start, start + 2 * SLOT_PAGES), 0);
    assert_int_equal(area_map_add(found.seals, start, start + SLOT_PAGES), 0);
    assert_int_equal(fork_moment_find(changes, 2, 0, 0, &parent, &found), 0);
    assert_true(changes[0].has_come && changes[1].has_come);
    destroy(&parent);
    destroy(&found);
}

/* Memory that has grown in place over what was unmapped has no seals of it. */
static void test_grown_in_place(void **state)
{
    (void)state;
    struct change change = told((struct step){0, -1});
    struct model model = {.content = {1}, .sealed = {true}};
    struct fork_maps parent = maps_of(&model, false);
    model.sealed[0] = false;
    struct fork_maps found = maps_of(&model, true);
    assert_int_equal(fork_moment_find(&change, 1, 0, 0, &parent, &found), 0);
    assert_true(change.has_come);
    destroy(&parent);
    destroy(&found);
}

/* A move onto other memory that leaves a mapping behind (MREMAP_DONTUNMAP) changes seals only. */
static void test_onto(void **state)
{
    (void)state;
    for (int come = 0; come < 2; come++) {
        struct change change = told((struct step){0, 1});
        struct model model = {.content = {1, 2}, .sealed = {true, true}};
        struct fork_maps parent = maps_of(&model, false);
        model.sealed[0] = !come;
        struct fork_maps found = maps_of(&model, true);
        assert_int_equal(fork_moment_find(&change, 1, 0, come ? 0 : 1, &parent, &found), 0);
        assert_int_equal(change.has_come, come);
        destroy(&parent);
        destroy(&found);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_orders),
        cmocka_unit_test(test_emptied_then_moved),
        cmocka_unit_test(test_grown_into_hole),
        cmocka_unit_test(test_grown_in_place),
        cmocka_unit_test(test_onto),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
