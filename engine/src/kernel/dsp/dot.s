@ extern "C" fn(a: *const i8, b: *const i8, fours: usize) -> i32
    .section .text.paradise_dsp_dot, "ax", %progbits
    .global paradise_dsp_dot
    .type paradise_dsp_dot, %function
    .thumb_func
    .p2align 2
paradise_dsp_dot:
    push {r4-r6, lr}
    movs r12, #0
1:  ldr r3, [r0], #4
    ldr r4, [r1], #4
    sxtb16 r5, r3
    sxtb16 r6, r4
    smlad r12, r5, r6, r12
    sxtb16 r3, r3, ror #8
    sxtb16 r4, r4, ror #8
    smlad r12, r3, r4, r12
    subs r2, #1
    bne 1b
    mov r0, r12
    pop {r4-r6, pc}
    .size paradise_dsp_dot, . - paradise_dsp_dot

@ extern "C" fn(x: *const i8, sums: *mut [i32; 4], window: *const Pixels)
    .section .text.paradise_dsp_sums, "ax", %progbits
    .global paradise_dsp_sums
    .type paradise_dsp_sums, %function
    .thumb_func
    .p2align 2
paradise_dsp_sums:
    push {r4-r11, lr}
    ldmia r2, {r2-r5}
@   r2 rows   r3 columns   r4 bytes to the next pixel   r5 bytes to the next row   r8..r11 sums
    movs r6, #0
    mov r8, r6
    mov r9, r6
    mov r10, r6
    mov r11, r6
1:  mov r6, r0
    mov r12, r3
2:  ldr r7, [r6]
    add r6, r4
    sxtab r8, r8, r7
    sxtab r9, r9, r7, ror #8
    sxtab r10, r10, r7, ror #16
    sxtab r11, r11, r7, ror #24
    subs r12, #1
    bne 2b
    add r0, r5
    subs r2, #1
    bne 1b
    stmia r1, {r8-r11}
    pop {r4-r11, pc}
    .size paradise_dsp_sums, . - paradise_dsp_sums
