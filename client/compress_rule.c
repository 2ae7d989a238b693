#include "compress_rule.h"

enum {
    TRUSTED = 32,        /* pages to be tried before they tell anything */
    SAMPLE = 2,          /* pages tried of those that are sent at once */
    REMEMBERED = 256,    /* pages: what is known is mostly of the last so many */
    WHOLE_SAVED = 4096,  /* bytes: no page can get shorter by more */
    LEAST_COST_NS = 500, /* no processor tries a page in less */
};

/* What a connection takes for so many bytes. */
static double sending_us(double nbytes, uint64_t rate)
{
    return nbytes * 1e6 / (double)rate;
}

uint32_t compress_rule_how_many(const struct compress_rule *rule, uint32_t npages, uint64_t rate)
{
    if (rule->how != CONFIG_COMPRESS_AUTO)
        return rule->how == CONFIG_COMPRESS_YES ? npages : 0;
    if (rate == 0 || sending_us(WHOLE_SAVED, rate) * 1000 < LEAST_COST_NS)
        return 0;
    if (rule->tried >= TRUSTED && sending_us(rule->saved_bytes, rate) > rule->cost_us)
        return npages;
    return npages < SAMPLE ? npages : SAMPLE;
}

void compress_rule_learn(struct compress_rule *rule, uint32_t npages, uint64_t saved_bytes,
                         double cost_us)
{
    if (npages == 0)
        return;
    uint32_t known = rule->tried + npages;
    double share = npages / (double)(known < REMEMBERED ? known : REMEMBERED);
    rule->saved_bytes += share * ((double)saved_bytes / npages - rule->saved_bytes);
    rule->cost_us += share * (cost_us / npages - rule->cost_us);
    rule->tried = known < REMEMBERED ? known : REMEMBERED;
}
