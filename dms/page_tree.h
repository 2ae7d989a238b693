/*
 * page_tree: page number -> 64-bit entry, a radix tree of 512-entry nodes that trees can share.
 *
 * A clone takes a reference to the root and costs the same whatever the size; a shared node is
 * copied when one of the trees first changes something below it. What an entry is worth is the
 * owner's business: the tree says when it holds one more reference to an entry (a leaf was copied)
 * and when it holds one less.
 *
 * Thread: one owner for a tree and all its clones.
 */
#ifndef EDM_DMS_PAGE_TREE_H
#define EDM_DMS_PAGE_TREE_H

#include <stdbool.h>
#include <stdint.h>

struct page_tree;

struct page_tree_ops {
    void (*retain)(void *owner, uint64_t entry);
    void (*release)(void *owner, uint64_t entry);
};

/* An empty tree. OPS and OWNER must outlive it and its clones. Returns 0 or -ENOMEM. */
int page_tree_new(struct page_tree **out, const struct page_tree_ops *ops, void *owner)
    __attribute__((warn_unused_result));

/* A tree with the same entries as TREE, in constant time. Returns 0 or -ENOMEM. */
int page_tree_clone(struct page_tree **out, const struct page_tree *tree)
    __attribute__((warn_unused_result));

/* Releases every entry that no other tree shares. */
void page_tree_destroy(struct page_tree **tree);

/* Lets go of at most BUDGET entries and nodes. Returns true once the tree is empty; until then it
 * may only be given to this function and to page_tree_destroy(). */
bool page_tree_shrink(struct page_tree *tree, unsigned budget);

/* The entry of PAGE, 0 when there is none. */
uint64_t page_tree_get(const struct page_tree *tree, uint64_t page);

/* Makes sure that the next page_tree_set() of PAGE cannot fail. Returns 0 or -ENOMEM. */
int page_tree_prepare(struct page_tree *tree, uint64_t page) __attribute__((warn_unused_result));

/* Gives back what page_tree_prepare() made for PAGE alone and is not used. */
void page_tree_unprepare(struct page_tree *tree, uint64_t page);

/* Points PAGE at ENTRY (not 0), whose reference passes to the tree; the entry that was there is
 * released afterwards. Returns 0 or -ENOMEM (nothing changed). */
int page_tree_set(struct page_tree *tree, uint64_t page, uint64_t entry)
    __attribute__((warn_unused_result));

/* Points PAGE at ENTRY where it is at OLD, in this tree and all that share the leaf it is in.
 * Neither is retained or released. Returns false when it is not at OLD. Cannot fail otherwise. */
bool page_tree_replace(struct page_tree *tree, uint64_t page, uint64_t old, uint64_t entry);

/* Takes PAGE out, releasing its entry. Returns 0 (also when there is none) or -ENOMEM. */
int page_tree_clear(struct page_tree *tree, uint64_t page) __attribute__((warn_unused_result));

/* The entry with the lowest page number at or above FROM, which is stored in *PAGE; 0 if none. */
uint64_t page_tree_next(const struct page_tree *tree, uint64_t from, uint64_t *page);

/* Pages that have an entry. */
uint64_t page_tree_count(const struct page_tree *tree);

#endif
