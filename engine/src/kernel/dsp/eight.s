@ Eight pixels of one channel in r3..r10: what maps and rows share.

    .syntax unified
    .cpu cortex-m4
    .thumb

@ r3..r10 to s0..s7 as f32, and back to the nearest integer, halves to even: FPSCR's default, which VCVTR follows.
.macro to_float
    vmov s0, s1, r3, r4
    vmov s2, s3, r5, r6
    vmov s4, s5, r7, r8
    vmov s6, s7, r9, r10
    .irp s, s0, s1, s2, s3, s4, s5, s6, s7
    vcvt.f32.s32 \s, \s
    .endr
.endm

.macro to_integer
    .irp s, s0, s1, s2, s3, s4, s5, s6, s7
    vcvtr.s32.f32 \s, \s
    .endr
    vmov r3, r4, s0, s1
    vmov r5, r6, s2, s3
    vmov r7, r8, s4, s5
    vmov r9, r10, s6, s7
.endm

.macro scaled by
    .irp s, s0, s1, s2, s3, s4, s5, s6, s7
    vmul.f32 \s, \s, \by
    .endr
.endm

@ Clamps to int8 about the zero point in r11; QADD, since a value may be saturated already.
.macro saturated
    .irp r, r3, r4, r5, r6, r7, r8, r9, r10
    qadd \r, \r, r11
    .endr
    .irp r, r3, r4, r5, r6, r7, r8, r9, r10
    ssat \r, #8, \r
    .endr
.endm

.macro relu
    .irp r, r3, r4, r5, r6, r7, r8, r9, r10
    bic \r, \r, \r, asr #31
    .endr
.endm

@ Eight bytes, one a pixel, from r0 on, r2 apart; r12 and lr are used.
.macro each_pixel op
    add r12, r2, r2, lsl #1
    add r12, r12, r0
    add lr, r12, r2
    \op r3, [r0]
    \op r4, [r0, r2]
    \op r5, [r0, r2, lsl #1]
    \op r6, [r12]
    \op r7, [r0, r2, lsl #2]
    \op r8, [r12, r2, lsl #1]
    \op r9, [lr, r2, lsl #1]
    \op r10, [r12, r2, lsl #2]
.endm

