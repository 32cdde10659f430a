@ Convolutions, affine maps, dot products and sums of pixels for cores with the vector extension (MVE with floating point).

    .syntax unified
    .thumb
    .cpu cortex-m55

    .equ JOB_WEIGHT, 0
    .equ JOB_END, 4
    .equ JOB_PAIRS, 8
    .equ JOB_Y, 12
    .equ JOB_OTHER, 16
    .equ JOB_ROWS, 20
    .equ JOB_FIRST, 24
    .equ JOB_LOCALS, 28
    .equ JOB_LOW, 56
    .equ JOB_HIGH, 60

@ Copied from the job: seven words.
    .equ AFTER, 0
    .equ VECTORS, 4
    .equ PITCH, 8
    .equ ZERO, 12
    .equ OTHER_ZERO, 16
    .equ RATIO, 20
    .equ OTHER_RATIO, 24
@ And what changes.
    .equ STEP, 28
    .equ JOB, 32
    .equ END, 36
    .equ PAIRS, 40
    .equ OTHER, 44
    .equ FIRST, 48
    .equ SUM_ZERO, 52
@ Both pixels' addresses under each kernel row, ended by 0.
    .equ UNDER, 56
    .equ FRAME, 120

@ Sixteen inputs of two pixels by four channels.
.macro lanes
    vldrb.u8 q0, [r1], #16
    vldrb.u8 q2, [r5], #16
    vmladava.s8 r0, q0, q2
    vldrb.u8 q1, [r3], #16
    vmladava.s8 r2, q1, q2
    vldrb.u8 q3, [r5], #16
    vmladava.s8 r4, q0, q3
    vmladava.s8 r6, q1, q3
    vldrb.u8 q2, [r5], #16
    vmladava.s8 r8, q0, q2
    vmladava.s8 r10, q1, q2
    vldrb.u8 q3, [r5], #16
    vmladava.s8 r12, q0, q3
    vmladava.s8 lr, q1, q3
.endm

@ extern "C" fn(job: *const Job)
@
@   r0 r2, r4 r6, r8 r10, r12 lr the sums of four channels of both pixels (VMLADAVA takes even registers)
@   r1 r3 what the pixels read   r5 the block's record   r7 vectors left   r9 next kernel row   r11 y
@   q0 q1 pixels   q2 q3 weights   q4 q5 ends of the convolution's int8 range about its zero point   q6 scales   q7 zeros
.macro convolution name, unrolled
    .section .text.\name, "ax", %progbits
    .global \name
    .type \name, %function
    .thumb_func
    .p2align 2
\name:
    push {r4-r11, lr}
    vpush {d8-d15}
    sub sp, #FRAME
    str r0, [sp, #JOB]
    add r1, r0, #JOB_LOCALS
    ldmia r1!, {r2-r8}
    stmia sp, {r2-r8}
    ldr r2, [r0, #JOB_LOW]
    ldr r3, [r0, #JOB_HIGH]
    vdup.32 q4, r2
    vdup.32 q5, r3
    vmov.i32 q7, #0
    ldr r2, [r0, #JOB_SUM_ZERO]
    str r2, [sp, #SUM_ZERO]
    ldr r2, [r0, #JOB_STEP]
    str r2, [sp, #STEP]
    ldr r2, [r0, #JOB_END]
    str r2, [sp, #END]
    ldr r2, [r0, #JOB_PAIRS]
    str r2, [sp, #PAIRS]
    ldr r2, [r0, #JOB_OTHER]
    str r2, [sp, #OTHER]
    ldr r2, [r0, #JOB_FIRST]
    str r2, [sp, #FIRST]
    ldr r11, [r0, #JOB_Y]
@ A pair: where it reads.
1:  ldr r0, [sp, #JOB]
    ldr r5, [r0, #JOB_WEIGHT]
    ldr r2, [sp, #FIRST]
    ldr r3, [sp, #STEP]
    add r9, sp, #UNDER
    ldr r0, [r0, #JOB_ROWS]
2:  ldr r1, [r0], #4
    cbz r1, 3f
    add r1, r2
    add r4, r1, r3
    strd r1, r4, [r9], #8
    b 2b
3:  str r1, [r9]
    add r2, r2, r3, lsl #1
    str r2, [sp, #FIRST]
@ A block of four channels.
4:  ldrd r0, r4, [r5]
    ldrd r8, r12, [r5, #8]
    vldrw.u32 q6, [r5, #16]
    adds r5, #32
    add r9, sp, #UNDER
    mov r2, r0
    mov r6, r4
    mov r10, r8
    mov lr, r12
    ldrd r1, r3, [r9], #8
@ A kernel row.
5:  ldr r7, [sp, #VECTORS]
6:
    .rept \unrolled
    lanes
    .endr
    subs r7, #\unrolled
    bne 6b
    ldrd r1, r3, [r9], #8
    cmp r1, #0
    bne 5b
    vmov d0, r0, r4
    vmov d1, r8, r12
    vmov d2, r2, r6
    vmov d3, r10, lr
    ldr r1, [sp, #AFTER]
    vcvt.f32.s32 q0, q0
    vcvt.f32.s32 q1, q1
    vmul.f32 q0, q0, q6
    vmul.f32 q1, q1, q6
    vcvtn.s32.f32 q0, q0
    vcvtn.s32.f32 q1, q1
    cmp r1, #1
    bhi 7f
    bne 8f
    vmax.s32 q0, q0, q7
    vmax.s32 q1, q1, q7
8:  ldr r1, [sp, #ZERO]
    ldr r7, [sp, #PITCH]
9:  vqadd.s32 q0, q0, r1
    vqadd.s32 q1, q1, r1
    vqmovnb.s32 q0, q0
    vqmovnb.s32 q1, q1
    vqmovnb.s16 q0, q0
    vqmovnb.s16 q1, q1
    ldr r1, [sp, #END]
    mov r3, r11
    add r7, r11
    add r11, #4
    vstrb.32 q0, [r3]
    vstrb.32 q1, [r7]
    cmp r5, r1
    bne 4b
@ The next pair is a pixel further: the first pixel's channels were walked through.
    ldr r7, [sp, #PITCH]
    add r11, r7
    ldr r1, [sp, #OTHER]
    add r1, r7
    str r1, [sp, #OTHER]
    ldr r1, [sp, #PAIRS]
    subs r1, #1
    str r1, [sp, #PAIRS]
    bne 1b
    add sp, #FRAME
    vpop {d8-d15}
    pop {r4-r11, pc}
@ A residual sum: 2 without a ReLU, 3 with one.
7:  vmax.s32 q0, q0, q4
    vmax.s32 q1, q1, q4
    vmin.s32 q0, q0, q5
    vmin.s32 q1, q1, q5
    ldrd r2, r4, [sp, #RATIO]
    vcvt.f32.s32 q0, q0
    vcvt.f32.s32 q1, q1
    ldr r3, [sp, #OTHER]
    ldr r7, [sp, #PITCH]
    vmul.f32 q0, q0, r2
    vmul.f32 q1, q1, r2
    add r6, r3, r7
    vldrb.s32 q2, [r3], #4
    vldrb.s32 q3, [r6]
    str r3, [sp, #OTHER]
    ldr r0, [sp, #OTHER_ZERO]
    vsub.i32 q2, q2, r0
    vsub.i32 q3, q3, r0
    vcvt.f32.s32 q2, q2
    vcvt.f32.s32 q3, q3
    vmul.f32 q2, q2, r4
    vmul.f32 q3, q3, r4
    vadd.f32 q0, q0, q2
    vadd.f32 q1, q1, q3
    vcvtn.s32.f32 q0, q0
    vcvtn.s32.f32 q1, q1
    cmp r1, #3
    ldr r1, [sp, #SUM_ZERO]
    bne 9b
    vmax.s32 q0, q0, q7
    vmax.s32 q1, q1, q7
    b 9b
    .size \name, . - \name
.endm

    .equ JOB_SUM_ZERO, 64
    .equ JOB_STEP, 68

    convolution paradise_mve_pairs_by_three, 3
    convolution paradise_mve_pairs, 1

@ extern "C" fn(from: *const i8, to: *mut i8, affine: *const Rounding, relu: bool)
@ Four channels of every pixel after four: f32(x - zero) * mul + add, rounded.
    .section .text.paradise_mve_affine, "ax", %progbits
    .global paradise_mve_affine
    .type paradise_mve_affine, %function
    .thumb_func
    .p2align 2
paradise_mve_affine:
    push {r4-r11, lr}
    vpush {d8-d13}
    ldmia r2, {r4-r10}
@   r4 zero   r5 zero of the output   r6 mul   r7 add   r8 channels   r9 pixels   r10 blocks   q6 the lower end before the zero point
    movs r2, #0
    cmp r3, #0
    it eq
    mvneq r2, #0x7fffffff
    vdup.32 q6, r2
1:  vldrw.u32 q4, [r6], #16
    vldrw.u32 q5, [r7], #16
    mov r2, r0
    mov r3, r1
    dls lr, r9
2:  vldrb.s32 q0, [r2]
    add r2, r8
    vsub.i32 q0, q0, r4
    vcvt.f32.s32 q0, q0
    vmul.f32 q0, q0, q4
    vadd.f32 q0, q0, q5
    vcvtn.s32.f32 q0, q0
    vmax.s32 q0, q0, q6
    vqadd.s32 q0, q0, r5
    vqmovnb.s32 q0, q0
    vqmovnb.s16 q0, q0
    vstrb.32 q0, [r3]
    add r3, r8
    le lr, 2b
    adds r0, #4
    adds r1, #4
    subs r10, #1
    bne 1b
    vpop {d8-d13}
    pop {r4-r11, pc}
    .size paradise_mve_affine, . - paradise_mve_affine

@ extern "C" fn(a: *const i8, b: *const i8, vectors: usize) -> i32
    .section .text.paradise_mve_dot, "ax", %progbits
    .global paradise_mve_dot
    .type paradise_mve_dot, %function
    .thumb_func
    .p2align 2
paradise_mve_dot:
    push {r4, lr}
    movs r12, #0
    dls lr, r2
1:  vldrb.u8 q0, [r0], #16
    vldrb.u8 q1, [r1], #16
    vmladava.s8 r12, q0, q1
    le lr, 1b
    mov r0, r12
    pop {r4, pc}
    .size paradise_mve_dot, . - paradise_mve_dot

@ extern "C" fn(x: *const i8, y: *mut i8, window: *const Pixels)
@ Means of sixteen channels over rows of pixels: (sum - zeros) * scale, rounded.
    .section .text.paradise_mve_means, "ax", %progbits
    .global paradise_mve_means
    .type paradise_mve_means, %function
    .thumb_func
    .p2align 2
paradise_mve_means:
    push {r4-r8, lr}
    ldmia r2, {r2-r8}
@   r2 rows   r3 columns   r4 bytes to the next pixel   r5 bytes to the next row   r6 what the zero points sum up to
@   r7 scale   r8 zero point of the output
    vpush {d8-d9}
    vmov.i32 q0, #0
    vmov.i32 q1, #0
    vmov.i32 q2, #0
    vmov.i32 q3, #0
    mov r12, r0
1:  mov r0, r12
    dls lr, r3
2:  vldrb.s32 q4, [r0]
    vadd.i32 q0, q0, q4
    vldrb.s32 q4, [r0, #4]
    vadd.i32 q1, q1, q4
    vldrb.s32 q4, [r0, #8]
    vadd.i32 q2, q2, q4
    vldrb.s32 q4, [r0, #12]
    add r0, r4
    vadd.i32 q3, q3, q4
    le lr, 2b
    add r12, r5
    subs r2, #1
    bne 1b
    .irp q, q0, q1, q2, q3
    vsub.i32 \q, \q, r6
    vcvt.f32.s32 \q, \q
    vmul.f32 \q, \q, r7
    vcvtn.s32.f32 \q, \q
    vqadd.s32 \q, \q, r8
    vqmovnb.s32 \q, \q
    vqmovnb.s16 \q, \q
    vstrb.32 \q, [r1], #4
    .endr
    vpop {d8-d9}
    pop {r4-r8, pc}
    .size paradise_mve_means, . - paradise_mve_means

@ extern "C" fn(from: *const i8, to: *mut i8, vectors: usize)
    .section .text.paradise_mve_copy, "ax", %progbits
    .global paradise_mve_copy
    .type paradise_mve_copy, %function
    .thumb_func
    .p2align 2
paradise_mve_copy:
    push {r4, lr}
    dls lr, r2
1:  vldrb.u8 q0, [r0], #16
    vstrb.8 q0, [r1], #16
    le lr, 1b
    pop {r4, pc}
    .size paradise_mve_copy, . - paradise_mve_copy
