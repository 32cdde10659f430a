// A QEMU plugin that counts the instructions an aarch64 program executes and writes to the plugin log at its end: how many in
// all, how many dot products (sdot, udot), how many matrix multiplications (smmla, ummla, usmmla); then, a line each, how often the
// blocks ran that make up a ten thousandth or more, and their instructions:
//   gcc -O2 -fPIC -shared -o count.so count.c
//   qemu-aarch64 -plugin ./count.so -d plugin -D LOG PROGRAM
// The declarations are those of QEMU's plugin interface, version 1, that it needs; QEMU's headers need not be there.
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*callback)(uint64_t id, struct qemu_plugin_tb *tb));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *tb, int operation, void *counter, uint64_t add);
void qemu_plugin_register_atexit_cb(uint64_t id, void (*callback)(uint64_t id, void *data), void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t at);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
void qemu_plugin_outs(const char *text);

int qemu_plugin_version = 1;

static uint64_t executed, dots, matrices;

// Instructions that always run one after the other.
struct block {
    struct block *next;
    uint64_t runs;
    size_t n;
    uint32_t codes[];
};

static struct block *blocks;

static int is_dot(uint32_t code)
{
    // By vector and by element, signed and unsigned.
    return (code & 0x9fe0fc00) == 0x0e809400 || (code & 0x9fc0f400) == 0x0f80e000;
}

static int is_matrix(uint32_t code)
{
    return (code & 0xdfe0f400) == 0x4e80a400;
}

static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
    size_t n = qemu_plugin_tb_n_insns(tb), of_dots = 0, of_matrices = 0;
    struct block *block = calloc(1, sizeof *block + n * sizeof *block->codes);
    (void)id;
    if (!block)
        abort();
    block->n = n;
    block->next = blocks;
    blocks = block;
    for (size_t i = 0; i < n; i++) {
        uint32_t code;
        memcpy(&code, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)), sizeof code);
        block->codes[i] = code;
        of_dots += is_dot(code);
        of_matrices += is_matrix(code);
    }
    // Operation 0 adds.
    qemu_plugin_register_vcpu_tb_exec_inline(tb, 0, &executed, n);
    qemu_plugin_register_vcpu_tb_exec_inline(tb, 0, &block->runs, 1);
    if (of_dots)
        qemu_plugin_register_vcpu_tb_exec_inline(tb, 0, &dots, of_dots);
    if (of_matrices)
        qemu_plugin_register_vcpu_tb_exec_inline(tb, 0, &matrices, of_matrices);
}

static void ended(uint64_t id, void *data)
{
    char text[80];
    (void)id, (void)data;
    snprintf(text, sizeof text, "%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", executed, dots, matrices);
    qemu_plugin_outs(text);
    for (const struct block *block = blocks; block; block = block->next) {
        if (block->runs * block->n < executed / 10000)
            continue;
        snprintf(text, sizeof text, "%" PRIu64, block->runs);
        qemu_plugin_outs(text);
        for (size_t i = 0; i < block->n; i++) {
            snprintf(text, sizeof text, " %08" PRIx32, block->codes[i]);
            qemu_plugin_outs(text);
        }
        qemu_plugin_outs("\n");
    }
}

int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
