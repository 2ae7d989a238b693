#include "agent_load.h"

#include "agent_image.h"
#include "agent/agent_proto.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

static const Elf64_Ehdr *header(void)
{
    return (const Elf64_Ehdr *)agent_image;
}

static const Elf64_Phdr *part(int index)
{
    return (const Elf64_Phdr *)(agent_image + header()->e_phoff) + index;
}

static size_t page_down(uint64_t at)
{
    return at & ~(uint64_t)(AGENT_PAGE_BYTES - 1);
}

int agent_load_size(struct agent_load *out)
{
    *out = (struct agent_load){.entry = header()->e_entry};
    for (int i = 0; i < header()->e_phnum; i++) {
        const Elf64_Phdr *p = part(i);
        if (p->p_type != PT_LOAD)
            continue;
        size_t end = page_down(p->p_vaddr + p->p_memsz + AGENT_PAGE_BYTES - 1);
        if (end > out->bytes)
            out->bytes = end;
        if ((p->p_flags & PF_W) && !out->code_bytes)
            out->code_bytes = page_down(p->p_vaddr);
    }
    return out->entry && out->code_bytes && out->entry < out->code_bytes ? 0 : -ENOEXEC;
}

static int relocate(char *to, uint64_t base, const Elf64_Rela *relocation)
{
    uint64_t value;
    switch (ELF64_R_TYPE(relocation->r_info)) {
    case R_X86_64_RELATIVE:
        value = base + (uint64_t)relocation->r_addend;
        break;
    case R_X86_64_GLOB_DAT:
    case R_X86_64_JUMP_SLOT:
        value = 0;
        break;
    default:
        return -ENOEXEC;
    }
    memcpy(to + relocation->r_offset, &value, sizeof value);
    return 0;
}

int agent_load_at(char *to, uint64_t base)
{
    const Elf64_Dyn *dynamic = NULL;
    for (int i = 0; i < header()->e_phnum; i++) {
        const Elf64_Phdr *p = part(i);
        if (p->p_type == PT_LOAD)
            memcpy(to + p->p_vaddr, agent_image + p->p_offset, p->p_filesz);
        else if (p->p_type == PT_DYNAMIC)
            dynamic = (const Elf64_Dyn *)(agent_image + p->p_offset);
    }
    uint64_t table = 0, bytes = 0;
    for (; dynamic && dynamic->d_tag != DT_NULL; dynamic++) {
        if (dynamic->d_tag == DT_RELA)
            table = dynamic->d_un.d_val;
        else if (dynamic->d_tag == DT_RELASZ)
            bytes = dynamic->d_un.d_val;
        else if (dynamic->d_tag == DT_JMPREL || dynamic->d_tag == DT_RELR)
            return -ENOEXEC;
    }
    for (uint64_t at = 0; at < bytes; at += sizeof(Elf64_Rela)) {
        Elf64_Rela relocation;
        memcpy(&relocation, to + table + at, sizeof relocation);
        int err = relocate(to, base, &relocation);
        if (err)
            return err;
    }
    return 0;
}
