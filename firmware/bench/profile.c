// A QEMU plugin for Cortex-M programs: what was executed between two markers, instruction by instruction, for the cycle model.
//   gcc -O2 -fPIC -shared -o profile.so profile.c
//   qemu-system-arm ... -plugin ./profile.so -d plugin -D LOG
// `mov r10, r10` begins a region, `mov r11, r11` ends it. Each region is a line "region", then for every instruction that ran
//   ADDRESS EXECUTED TAKEN SYMBOL|DISASSEMBLY
// where TAKEN says how often the next instruction to run was not the one behind it.
// The declarations are those of QEMU's plugin interface, version 1, that it needs; QEMU's headers need not be there.
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*callback)(uint64_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *), int flags, void *);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int flags, void *);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, int operation, void *counter, uint64_t add);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
char *qemu_plugin_insn_disas(const struct qemu_plugin_insn *);
const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *);
void qemu_plugin_outs(const char *text);

int qemu_plugin_version = 1;

// Every instruction of the program, by half words of its address: flash of at most 4 MiB.
#define HALVES (1u << 21)
struct record {
    uint64_t executed, taken;
    char *text;
};
static struct record *records;
static uint64_t base;
// The last instruction of the block that ran before, and the address behind it.
static struct record *last;
static uint64_t behind;

struct block {
    struct record *last;
    uint64_t start, behind;
};

static struct record *record_of(uint64_t address)
{
    uint64_t half = (address - base) / 2;
    return half < HALVES ? &records[half] : NULL;
}

static void entered(unsigned cpu, void *data)
{
    const struct block *block = data;
    (void)cpu;
    if (last && behind != block->start)
        last->taken++;
    last = block->last;
    behind = block->behind;
}

static void begins(unsigned cpu, void *data)
{
    (void)cpu, (void)data;
    for (size_t i = 0; i < HALVES; i++)
        records[i].executed = records[i].taken = 0;
}

static void ends(unsigned cpu, void *data)
{
    char line[256];
    (void)cpu, (void)data;
    qemu_plugin_outs("region\n");
    for (size_t i = 0; i < HALVES; i++) {
        const struct record *r = &records[i];
        if (!r->executed || !r->text)
            continue;
        snprintf(line, sizeof line, "%" PRIx64 " %" PRIu64 " %" PRIu64 " %s\n", base + 2 * i, r->executed, r->taken, r->text);
        qemu_plugin_outs(line);
    }
}

static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
    size_t n = qemu_plugin_tb_n_insns(tb);
    struct block *block = calloc(1, sizeof *block);
    (void)id;
    for (size_t i = 0; i < n; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        uint64_t address = qemu_plugin_insn_vaddr(insn);
        size_t size = qemu_plugin_insn_size(insn);
        uint16_t half;
        if (!records) {
            // The program lies in the 16 MiB around its first instruction.
            base = address & ~(uint64_t)0xffffff;
            records = calloc(HALVES, sizeof *records);
        }
        struct record *record = record_of(address);
        if (i == 0)
            block->start = address;
        block->last = record;
        block->behind = address + size;
        if (!record)
            continue;
        if (!record->text) {
            const char *symbol = qemu_plugin_insn_symbol(insn);
            char *disassembly = qemu_plugin_insn_disas(insn);
            size_t len = strlen(symbol ? symbol : "?") + strlen(disassembly) + 2;
            record->text = malloc(len);
            snprintf(record->text, len, "%s|%s", symbol ? symbol : "?", disassembly);
            free(disassembly);
        }
        qemu_plugin_register_vcpu_insn_exec_inline(insn, 0, &record->executed, 1);
        memcpy(&half, qemu_plugin_insn_data(insn), 2);
        if (size == 2 && half == 0x46d2)
            qemu_plugin_register_vcpu_insn_exec_cb(insn, begins, 0, NULL);
        if (size == 2 && half == 0x46db)
            qemu_plugin_register_vcpu_insn_exec_cb(insn, ends, 0, NULL);
    }
    qemu_plugin_register_vcpu_tb_exec_cb(tb, entered, 0, block);
}

int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return 0;
}
