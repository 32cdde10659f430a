@ What happens to an input row before a convolution reads it.

@ extern "C" fn(from: *const u8, to: *mut u32, widen: *const Widen)
@ Every group's quads, column by column: four int8 become a word in each of two planes.
    .section .text.paradise_dsp_widen, "ax", %progbits
    .global paradise_dsp_widen
    .type paradise_dsp_widen, %function
    .thumb_func
    .p2align 2
paradise_dsp_widen:
    push {r4-r11, lr}
    ldmia r2, {r2, r3, r8, r10, r11}
    lsl r9, r3, #2
@   r2 bytes to the next column   r3 columns   r8 quads   r9 bytes of a plane   r10 groups   r11 bytes to the next group
1:  mov r4, r8
    mov r6, r0
2:  mov r5, r6
    mov r12, r3
    tst r3, #1
    beq 3f
    ldr r7, [r5]
    add r5, r2
    sxtb16 lr, r7
    sxtb16 r7, r7, ror #8
    str r7, [r1, r9]
    str lr, [r1], #4
    subs r12, #1
3:  ldr r7, [r5]
    add r5, r2
    sxtb16 lr, r7
    sxtb16 r7, r7, ror #8
    str r7, [r1, r9]
    ldr r7, [r5]
    str lr, [r1], #4
    add r5, r2
    sxtb16 lr, r7
    sxtb16 r7, r7, ror #8
    str r7, [r1, r9]
    str lr, [r1], #4
    subs r12, #2
    bne 3b
    add r1, r9
    adds r6, #4
    subs r4, #1
    bne 2b
    add r0, r11
    subs r10, #1
    bne 1b
    pop {r4-r11, pc}
    .size paradise_dsp_widen, . - paradise_dsp_widen

@ extern "C" fn(from: *const i8, to: *mut i8, affine: *const Rounding, eights: usize)
@ One channel of eights of pixels: f32(x - zero) * mul + add, rounded.
.macro affine name, relu:vararg
    .section .text.\name, "ax", %progbits
    .global \name
    .type \name, %function
    .thumb_func
    .p2align 2
\name:
    push {r4-r11, lr}
    vpush {s16-s19}
    vldmia r2, {s16-s19}
    ldr r2, [r2, #16]
    vmov s15, r3
    vmov s14, r1
@   s14 to   s15 eights left   s16 zero   s17 zero of the output   s18 mul   s19 add   r2 bytes between pixels
1:  vmov r11, s16
    each_pixel ldrsb
    add r0, r0, r2, lsl #3
    vmov s13, r0
    .irp r, r3, r4, r5, r6, r7, r8, r9, r10
    sub \r, \r, r11
    .endr
    to_float
    scaled s18
    .irp s, s0, s1, s2, s3, s4, s5, s6, s7
    vadd.f32 \s, \s, s19
    .endr
    to_integer
    \relu
    vmov r11, s17
    saturated
    vmov r0, s14
    each_pixel strb
    add r0, r0, r2, lsl #3
    vmov s14, r0
    vmov r0, s15
    subs r0, #1
    vmov s15, r0
    vmov r0, s13
    bne 1b
    vpop {s16-s19}
    pop {r4-r11, pc}
    .size \name, . - \name
.endm

    affine paradise_dsp_affine
    affine paradise_dsp_affine_relu, relu
