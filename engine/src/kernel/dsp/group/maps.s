@ Eight output pixels of a convolution, channel after channel, for cores with the DSP extension and an FPU.
@
@ extern "C" fn(job: *const Job); the three entries differ in how taps find their words (dsp/geometry.rs).
@
@ While sums are added up:
@   r0 words under the kernel row   r1 r2 a pair of them   r3..r10 the sums of pixels 0 to 7   r11 r12 lr unpacked weights
@   s0..s11 packed weights
@ Kept in the FPU, since a move takes one cycle and a load two:
@   s16 the channel's record   s17 the job      s18 end of the row's whole quads of quads   s19 scale    s20 next row's pointer
@   s21 channels left          s22 y            s23 the other operand   s24 next channel's code   s25 what follows the sums
@   s26 s27 ratios of a residual sum            s28 end of the row

    .equ JOB_WEIGHT, 0
    .equ JOB_CHANNELS, 4
    .equ JOB_Y, 8
    .equ JOB_PITCH, 12
    .equ JOB_OTHER, 16
    .equ JOB_AFTER, 20
    .equ JOB_MAIN, 24
    .equ JOB_FULL, 28
    .equ JOB_ZERO, 32
    .equ JOB_OTHER_ZERO, 36
    .equ JOB_SUM_ZERO, 40
    .equ JOB_RATIO, 44
    .equ JOB_OTHER_RATIO, 48
    .equ JOB_ROWS, 52

@ Three taps of one plane: weights a (taps 0 and 1) and half of b (tap 2).
.macro unpack_three a, b, half
    vmov r12, \a
    sxtb16 r11, r12
    sxtb16 r12, r12, ror #8
    vmov lr, \b
    sxtb16 lr, lr, ror #\half
.endm

@ Ten words serve eight pixels at stride 1.
.macro plane_stride1
    ldmia r0!, {r1, r2}
    smlad r3, r1, r11, r3
    smlad r3, r2, r12, r3
    smlad r4, r2, r11, r4
    ldmia r0!, {r1, r2}
    smlad r3, r1, lr, r3
    smlad r4, r1, r12, r4
    smlad r5, r1, r11, r5
    smlad r4, r2, lr, r4
    smlad r5, r2, r12, r5
    smlad r6, r2, r11, r6
    ldmia r0!, {r1, r2}
    smlad r5, r1, lr, r5
    smlad r6, r1, r12, r6
    smlad r7, r1, r11, r7
    smlad r6, r2, lr, r6
    smlad r7, r2, r12, r7
    smlad r8, r2, r11, r8
    ldmia r0!, {r1, r2}
    smlad r7, r1, lr, r7
    smlad r8, r1, r12, r8
    smlad r9, r1, r11, r9
    smlad r8, r2, lr, r8
    smlad r9, r2, r12, r9
    smlad r10, r2, r11, r10
    ldmia r0!, {r1, r2}
    smlad r9, r1, lr, r9
    smlad r10, r1, r12, r10
    smlad r10, r2, lr, r10
.endm

@ Two words of one pixel; the first is the last tap of the pixel before it.
.macro pixel_stride2 before, sum
    ldmia r0!, {r1, r2}
    smlad \before, r1, lr, \before
    smlad \sum, r1, r11, \sum
    smlad \sum, r2, r12, \sum
.endm

@ Seventeen words at stride 2.
.macro plane_stride2
    ldmia r0!, {r1, r2}
    smlad r3, r1, r11, r3
    smlad r3, r2, r12, r3
    pixel_stride2 r3, r4
    pixel_stride2 r4, r5
    pixel_stride2 r5, r6
    pixel_stride2 r6, r7
    pixel_stride2 r7, r8
    pixel_stride2 r8, r9
    pixel_stride2 r9, r10
    ldr r1, [r0], #4
    smlad r10, r1, lr, r10
.endm

.macro quad_stride1 a, b, c
    unpack_three \a, \b, 0
    plane_stride1
    unpack_three \c, \b, 8
    plane_stride1
.endm

.macro quad_stride2 a, b, c
    unpack_three \a, \b, 0
    plane_stride2
    unpack_three \c, \b, 8
    plane_stride2
.endm

@ One word a pixel.
.macro plane_runs a, half
    vmov r12, \a
    sxtb16 r11, r12, ror #\half
    ldmia r0!, {r1, r2, r12, lr}
    smlad r3, r1, r11, r3
    smlad r4, r2, r11, r4
    smlad r5, r12, r11, r5
    smlad r6, lr, r11, r6
    ldmia r0!, {r1, r2, r12, lr}
    smlad r7, r1, r11, r7
    smlad r8, r2, r11, r8
    smlad r9, r12, r11, r9
    smlad r10, lr, r11, r10
.endm

.macro quad_runs a
    plane_runs \a, 0
    plane_runs \a, 8
.endm

.macro main_stride1
    vldmia r1!, {s0-s11}
    vmov s16, r1
    quad_stride1 s0, s1, s2
    quad_stride1 s3, s4, s5
    quad_stride1 s6, s7, s8
    quad_stride1 s9, s10, s11
.endm

.macro one_stride1
    vldmia r1!, {s0-s2}
    vmov s16, r1
    quad_stride1 s0, s1, s2
.endm

.macro main_stride2
    vldmia r1!, {s0-s11}
    vmov s16, r1
    quad_stride2 s0, s1, s2
    quad_stride2 s3, s4, s5
    quad_stride2 s6, s7, s8
    quad_stride2 s9, s10, s11
.endm

.macro one_stride2
    vldmia r1!, {s0-s2}
    vmov s16, r1
    quad_stride2 s0, s1, s2
.endm

.macro main_runs
    vldmia r1!, {s0-s3}
    vmov s16, r1
    quad_runs s0
    quad_runs s1
    quad_runs s2
    quad_runs s3
.endm

.macro one_runs
    vldmia r1!, {s0}
    vmov s16, r1
    quad_runs s0
.endm

@ The sums of every channel; after each, what the job says.
.macro convolution name, main, one
    .section .text.\name, "ax", %progbits
    .global \name
    .type \name, %function
    .thumb_func
    .p2align 2
\name:
    push {r4-r11, lr}
    vpush {s16-s31}
    vmov s17, r0
    ldr r1, [r0, #JOB_WEIGHT]
    ldr r2, [r0, #JOB_CHANNELS]
    vmov s16, r1
    vmov s21, r2
    ldr r1, [r0, #JOB_Y]
    ldr r2, [r0, #JOB_OTHER]
    vmov s22, r1
    vmov s23, r2
    ldr r1, [r0, #JOB_AFTER]
    vmov s25, r1
    vldr s26, [r0, #JOB_RATIO]
    vldr s27, [r0, #JOB_OTHER_RATIO]
    adr.w r1, 1f
    orr r1, r1, #1
    vmov s24, r1
    .p2align 2
1:  vmov r0, s16
    vmov r1, s17
    ldmia r0!, {r3, r4}
    adds r1, #JOB_ROWS
    vmov s16, r0
    vmov s19, r4
    mov r4, r3
    mov r5, r3
    mov r6, r3
    mov r7, r3
    mov r8, r3
    mov r9, r3
    mov r10, r3
2:  ldr r0, [r1], #4
    vmov s20, r1
    vmov r1, s17
    cmp r0, #0
    beq.w 6f
    ldrd r11, r12, [r1, #JOB_MAIN]
    add r11, r0
    add r12, r0
    vmov s18, r11
    vmov s28, r12
    cmp r0, r11
    beq 4f
3:  vmov r1, s16
    \main
    vmov r1, s18
    cmp r0, r1
    bne.w 3b
4:  vmov r1, s28
    cmp r0, r1
    beq 5f
    vmov r1, s16
    \one
    b 4b
5:  vmov r1, s20
    b 2b
6:  vmov r0, s25
    bx r0
    .size \name, . - \name
.endm

    convolution paradise_dsp_three_stride1, main_stride1, one_stride1
    convolution paradise_dsp_three_stride2, main_stride2, one_stride2
    convolution paradise_dsp_runs, main_runs, one_runs

.macro store
    vmov r0, s22
    each_pixel strb
    vmov r1, s21
    adds r0, #1
    vmov s22, r0
    subs r1, #1
    vmov s21, r1
    beq paradise_dsp_done
    vmov r1, s24
    bx r1
.endm

.macro after name, relu:vararg
    .section .text.\name, "ax", %progbits
    .global \name
    .type \name, %function
    .thumb_func
    .p2align 2
\name:
    ldr r2, [r1, #JOB_PITCH]
    ldr r11, [r1, #JOB_ZERO]
    to_float
    scaled s19
    to_integer
    \relu
    saturated
    store
    .size \name, . - \name
.endm

    after paradise_dsp_store
    after paradise_dsp_store_relu, relu

.macro after_sum name, relu:vararg
    .section .text.\name, "ax", %progbits
    .global \name
    .type \name, %function
    .thumb_func
    .p2align 2
\name:
    ldr r2, [r1, #JOB_PITCH]
    ldr r11, [r1, #JOB_ZERO]
    to_float
    scaled s19
    to_integer
    saturated
    .irp r, r3, r4, r5, r6, r7, r8, r9, r10
    sub \r, \r, r11
    .endr
    to_float
    scaled s26
    vmov r0, s23
    ldr r11, [r1, #JOB_OTHER_ZERO]
    each_pixel ldrsb
    adds r0, #1
    vmov s23, r0
    .irp r, r3, r4, r5, r6, r7, r8, r9, r10
    sub \r, \r, r11
    .endr
    vmov s8, s9, r3, r4
    vmov s10, s11, r5, r6
    vmov s12, s13, r7, r8
    vmov s14, s15, r9, r10
    .irp s, s8, s9, s10, s11, s12, s13, s14, s15
    vcvt.f32.s32 \s, \s
    .endr
    .irp s, s8, s9, s10, s11, s12, s13, s14, s15
    vmul.f32 \s, \s, s27
    .endr
    vadd.f32 s0, s0, s8
    vadd.f32 s1, s1, s9
    vadd.f32 s2, s2, s10
    vadd.f32 s3, s3, s11
    vadd.f32 s4, s4, s12
    vadd.f32 s5, s5, s13
    vadd.f32 s6, s6, s14
    vadd.f32 s7, s7, s15
    to_integer
    ldr r11, [r1, #JOB_SUM_ZERO]
    \relu
    saturated
    store
    .size \name, . - \name
.endm

    after_sum paradise_dsp_sum
    after_sum paradise_dsp_sum_relu, relu

    .section .text.paradise_dsp_done, "ax", %progbits
    .type paradise_dsp_done, %function
    .thumb_func
paradise_dsp_done:
    vpop {s16-s31}
    pop {r4-r11, pc}
    .size paradise_dsp_done, . - paradise_dsp_done
