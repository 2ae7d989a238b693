#include "page_tree.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { FAN_BITS = 9, FAN = 1 << FAN_BITS, MAX_HEIGHT = 7 };

union link {
    struct node *child; /* above the leaves */
    uint64_t entry;     /* in a leaf */
};

struct node {
    uint32_t refs; /* trees and nodes that point here */
    uint32_t used; /* links that are not empty */
    union link at[FAN];
};

struct page_tree {
    struct node *root; /* NULL: empty */
    unsigned height;   /* levels of nodes; 1: the root is a leaf */
    uint64_t count;
    const struct page_tree_ops *ops;
    void *owner;
};

/* Pages below a node of this HEIGHT. */
static uint64_t span(unsigned height)
{
    return (uint64_t)1 << (FAN_BITS * height);
}

static unsigned index_at(uint64_t page, unsigned height)
{
    return (unsigned)(page >> (FAN_BITS * (height - 1))) & (FAN - 1);
}

int page_tree_new(struct page_tree **out, const struct page_tree_ops *ops, void *owner)
{
    struct page_tree *tree = calloc(1, sizeof(*tree));

    if (tree == NULL)
        return -ENOMEM;
    tree->height = 1;
    tree->ops = ops;
    tree->owner = owner;
    *out = tree;
    return 0;
}

int page_tree_clone(struct page_tree **out, const struct page_tree *tree)
{
    struct page_tree *clone = malloc(sizeof(*clone));

    if (clone == NULL)
        return -ENOMEM;
    *clone = *tree;
    if (clone->root != NULL)
        clone->root->refs++;
    *out = clone;
    return 0;
}

/* Empties NODE from its end, which nobody else may share. Returns true when nothing is left. */
static bool shrink_node(struct page_tree *tree, struct node *node, unsigned height,
                        unsigned *budget)
{
    for (unsigned i = FAN; i-- > 0 && node->used > 0;) {
        union link *link = &node->at[i];
        if (height == 1 ? link->entry == 0 : link->child == NULL)
            continue;
        if (*budget == 0)
            return false;
        if (height == 1) {
            tree->ops->release(tree->owner, link->entry);
            link->entry = 0;
        } else if (link->child->refs > 1) {
            link->child->refs--;
            link->child = NULL;
        } else {
            if (!shrink_node(tree, link->child, height - 1, budget))
                return false;
            free(link->child);
            link->child = NULL;
        }
        node->used--;
        if (*budget > 0)
            (*budget)--;
    }
    return true;
}

bool page_tree_shrink(struct page_tree *tree, unsigned budget)
{
    if (tree->root == NULL)
        return true;
    if (tree->root->refs > 1)
        tree->root->refs--;
    else if (shrink_node(tree, tree->root, tree->height, &budget))
        free(tree->root);
    else
        return false;
    tree->root = NULL;
    tree->count = 0;
    return true;
}

void page_tree_destroy(struct page_tree **tree)
{
    if (*tree == NULL)
        return;
    while (!page_tree_shrink(*tree, UINT32_MAX))
        ;
    free(*tree);
    *tree = NULL;
}

/* NULL: nothing near PAGE has an entry. */
static struct node *find_leaf(const struct page_tree *tree, uint64_t page)
{
    struct node *node = tree->root;

    if (page >= span(tree->height))
        return NULL;
    for (unsigned height = tree->height; node != NULL && height > 1; height--)
        node = node->at[index_at(page, height)].child;
    return node;
}

uint64_t page_tree_get(const struct page_tree *tree, uint64_t page)
{
    const struct node *leaf = find_leaf(tree, page);

    return leaf == NULL ? 0 : leaf->at[index_at(page, 1)].entry;
}

bool page_tree_replace(struct page_tree *tree, uint64_t page, uint64_t old, uint64_t entry)
{
    struct node *leaf = find_leaf(tree, page);

    assert(old != 0 && entry != 0);
    if (leaf == NULL || leaf->at[index_at(page, 1)].entry != old)
        return false;
    leaf->at[index_at(page, 1)].entry = entry;
    return true;
}

/* Makes *SLOT a node that this tree may change: a new one where there is none, a copy where it is
 * shared. */
static int own_node(struct page_tree *tree, struct node **slot, unsigned height, bool *created)
{
    struct node *old = *slot;

    *created = old == NULL;
    if (old != NULL && old->refs == 1)
        return 0;
    struct node *node = old == NULL ? calloc(1, sizeof(*node)) : malloc(sizeof(*node));
    if (node == NULL)
        return -ENOMEM;
    if (old != NULL) {
        memcpy(node, old, sizeof(*node));
        old->refs--;
        for (unsigned i = 0; i < FAN; i++) {
            if (height > 1 && node->at[i].child != NULL)
                node->at[i].child->refs++;
            else if (height == 1 && node->at[i].entry != 0)
                tree->ops->retain(tree->owner, node->at[i].entry);
        }
    }
    node->refs = 1;
    *slot = node;
    return 0;
}

/* Adds levels above the root until PAGE has a place. */
static int grow(struct page_tree *tree, uint64_t page)
{
    while (page >= span(tree->height)) {
        assert(tree->height < MAX_HEIGHT);
        if (tree->root != NULL) {
            struct node *node = calloc(1, sizeof(*node));
            if (node == NULL)
                return -ENOMEM;
            node->refs = 1;
            node->used = 1;
            node->at[0].child = tree->root;
            tree->root = node;
        }
        tree->height++;
    }
    return 0;
}

/* The leaf that holds PAGE, with the whole way to it owned by this tree. */
static int own_leaf(struct page_tree *tree, uint64_t page, struct node **leaf)
{
    bool created;
    int err = grow(tree, page);

    if (err == 0)
        err = own_node(tree, &tree->root, tree->height, &created);
    struct node *node = tree->root;
    for (unsigned height = tree->height; err == 0 && height > 1; height--) {
        struct node **child = &node->at[index_at(page, height)].child;
        err = own_node(tree, child, height - 1, &created);
        if (err == 0 && created)
            node->used++;
        node = *child;
    }
    *leaf = node;
    return err;
}

int page_tree_prepare(struct page_tree *tree, uint64_t page)
{
    struct node *leaf;

    return own_leaf(tree, page, &leaf);
}

int page_tree_set(struct page_tree *tree, uint64_t page, uint64_t entry)
{
    struct node *leaf;

    assert(entry != 0);
    int err = own_leaf(tree, page, &leaf);
    if (err != 0)
        return err;
    uint64_t *at = &leaf->at[index_at(page, 1)].entry;
    uint64_t old = *at;
    *at = entry;
    if (old != 0) {
        tree->ops->release(tree->owner, old);
    } else {
        leaf->used++;
        tree->count++;
    }
    return 0;
}

/* Frees the nodes on the way to PAGE that have become empty. All of them are this tree's own. */
static void prune(struct page_tree *tree, uint64_t page)
{
    for (unsigned lowest = 1; lowest <= tree->height; lowest++) {
        struct node **slot = &tree->root;
        struct node *parent = NULL;
        for (unsigned height = tree->height; height > lowest; height--) {
            parent = *slot;
            slot = &parent->at[index_at(page, height)].child;
        }
        if ((*slot)->used > 0)
            return;
        free(*slot);
        *slot = NULL;
        if (parent != NULL)
            parent->used--;
    }
}

void page_tree_unprepare(struct page_tree *tree, uint64_t page)
{
    const struct node *leaf = find_leaf(tree, page);

    if (leaf != NULL && leaf->used == 0)
        prune(tree, page);
}

int page_tree_clear(struct page_tree *tree, uint64_t page)
{
    struct node *leaf;

    if (page_tree_get(tree, page) == 0)
        return 0;
    int err = own_leaf(tree, page, &leaf);
    if (err != 0)
        return err;
    uint64_t *at = &leaf->at[index_at(page, 1)].entry;
    uint64_t old = *at;
    *at = 0;
    leaf->used--;
    tree->count--;
    if (leaf->used == 0)
        prune(tree, page);
    tree->ops->release(tree->owner, old);
    return 0;
}

static uint64_t next_in(const struct node *node, unsigned height, uint64_t from, uint64_t *page)
{
    for (unsigned i = index_at(from, height); i < FAN; i++) {
        uint64_t base = from & ~(span(height) - 1);
        uint64_t start = base + i * span(height - 1);
        if (start < from)
            start = from;
        if (height == 1) {
            if (node->at[i].entry != 0) {
                *page = base + i;
                return node->at[i].entry;
            }
        } else if (node->at[i].child != NULL) {
            uint64_t entry = next_in(node->at[i].child, height - 1, start, page);
            if (entry != 0)
                return entry;
        }
    }
    return 0;
}

uint64_t page_tree_next(const struct page_tree *tree, uint64_t from, uint64_t *page)
{
    if (tree->root == NULL || from >= span(tree->height))
        return 0;
    return next_in(tree->root, tree->height, from, page);
}

uint64_t page_tree_count(const struct page_tree *tree)
{
    return tree->count;
}
