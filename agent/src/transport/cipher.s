# Poly1305's loop for MIPS32r2 of either endianness (calling convention o32; {BIG} is 1 on big endian).
#
# hop_poly1305(a0: [u32; 6], a1: [u32; 7], a2: [[u8; 16]], a3: how many, 1 at least)
#
# The number is h in five words, least first, and what is still to be added to the first of them; r is r0 to r3 and 5/4 of r1
# to r3. A compiler moves the sums of products out of the multiplier and back with every product. The bounds: r and so the
# first four words are below 2^28 and 5/4 of that (RFC 8439, section 2.5: r is clamped), h4 is below 7 when it is multiplied,
# and below 2^32 * 4/5 when it is reduced. No branch and no address depends on what is secret.

    .set push
    .set mips32r2
    .set noreorder
    .set noat
    .set nomacro

# A word, least byte first, at any address.
.macro hop_load_little register, at, pointer
.if {BIG}
    lwl \register, \at(\pointer)
    lwr \register, \at+3(\pointer)
    wsbh \register, \register
    rotr \register, \register, 16
.else
    lwr \register, \at(\pointer)
    lwl \register, \at+3(\pointer)
.endif
.endm

# What the rows before have left above their word comes into the next.
.macro hop_next_row
    mfhi $t6
    mtlo $t6
    mthi $zero
.endm

    .section .text.hop_poly1305, "ax", @progbits
    .balign 16
    .globl hop_poly1305
    .type hop_poly1305, @function
    .ent hop_poly1305
hop_poly1305:
    addiu $sp, $sp, -32
    sw $s0, 0($sp)
    sw $s1, 4($sp)
    sw $s2, 8($sp)
    sw $s3, 12($sp)
    sw $s4, 16($sp)
    sw $s5, 20($sp)
    sw $s6, 24($sp)
    lw $s0, 0($a1)                  # r
    lw $s1, 4($a1)
    lw $s2, 8($a1)
    lw $s3, 12($a1)
    lw $s4, 16($a1)                 # 5/4 of it
    lw $s5, 20($a1)
    lw $s6, 24($a1)
    li $a1, -4
    sll $a3, $a3, 4
    addu $a3, $a3, $a2              # the end
    lw $t0, 0($a0)                  # h0 to h3
    lw $t1, 4($a0)
    lw $t2, 8($a0)
    lw $t3, 12($a0)
    lw $t4, 16($a0)                 # h4
    lw $t5, 20($a0)                 # to be added to h0

1:
    hop_load_little $t8, 0, $a2
    hop_load_little $t9, 4, $a2
    hop_load_little $v0, 8, $a2
    hop_load_little $v1, 12, $a2
    addiu $a2, $a2, 16

    addu $t0, $t0, $t5              # h + block + 2^128, in t8, t9, v0, v1, t4
    sltu $t6, $t0, $t5
    addu $t8, $t8, $t0
    sltu $t7, $t8, $t0
    addu $t6, $t6, $t7
    addu $t1, $t1, $t6
    sltu $t6, $t1, $t6
    addu $t9, $t9, $t1
    sltu $t7, $t9, $t1
    addu $t6, $t6, $t7
    addu $t2, $t2, $t6
    sltu $t6, $t2, $t6
    addu $v0, $v0, $t2
    sltu $t7, $v0, $t2
    addu $t6, $t6, $t7
    addu $t3, $t3, $t6
    sltu $t6, $t3, $t6
    addu $v1, $v1, $t3
    sltu $t7, $v1, $t3
    addu $t6, $t6, $t7
    addu $t4, $t4, $t6
    addiu $t4, $t4, 1

    multu $t8, $s0                  # times r, modulo 2^130 - 5
    maddu $t9, $s6
    maddu $v0, $s5
    maddu $v1, $s4
    mflo $t0
    hop_next_row
    maddu $t8, $s1
    maddu $t9, $s0
    maddu $v0, $s6
    maddu $v1, $s5
    maddu $t4, $s4
    mflo $t1
    hop_next_row
    maddu $t8, $s2
    maddu $t9, $s1
    maddu $v0, $s0
    maddu $v1, $s6
    maddu $t4, $s5
    mflo $t2
    hop_next_row
    maddu $t8, $s3
    maddu $t9, $s2
    maddu $v0, $s1
    maddu $v1, $s0
    maddu $t4, $s6
    mflo $t3
    mfhi $t6
    mul $t4, $t4, $s0
    addu $t4, $t4, $t6

    srl $t5, $t4, 2                 # what is above 2^130 comes back five times, of which 4 are in the bits that are left
    and $t6, $t4, $a1
    addu $t5, $t5, $t6
    bne $a2, $a3, 1b
    andi $t4, $t4, 3

    sw $t0, 0($a0)
    sw $t1, 4($a0)
    sw $t2, 8($a0)
    sw $t3, 12($a0)
    sw $t4, 16($a0)
    sw $t5, 20($a0)
    lw $s0, 0($sp)
    lw $s1, 4($sp)
    lw $s2, 8($sp)
    lw $s3, 12($sp)
    lw $s4, 16($sp)
    lw $s5, 20($sp)
    lw $s6, 24($sp)
    jr $ra
    addiu $sp, $sp, 32
    .end hop_poly1305
    .size hop_poly1305, .-hop_poly1305
    .set pop
