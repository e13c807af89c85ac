# memcpy, memmove and memset for MIPS32r2 of either endianness (calling convention o32; {BIG} is 1 on big endian).
#
# A word at any address is read by two instructions and a word at a multiple of four written by one, in loops without a
# branch for 16 or 32 bytes. Only bytes of the source and the destination are touched, and every loop ends at its count.

    .set push
    .set noreorder
    .set noat
    .set nomacro

# A word at any address.
.macro hop_load register, at, pointer
.if {BIG}
    lwl \register, \at(\pointer)
    lwr \register, \at+3(\pointer)
.else
    lwr \register, \at(\pointer)
    lwl \register, \at+3(\pointer)
.endif
.endm

# The bytes of a register, the first of them in memory first, from an address up to the next multiple of four.
.macro hop_store_first register, pointer
.if {BIG}
    swl \register, 0(\pointer)
.else
    swr \register, 0(\pointer)
.endif
.endm

    .section .text.hop_memory, "ax", @progbits
    .balign 16
    .globl memmove
    .type memmove, @function
    .ent memmove
memmove:
    subu $t0, $a0, $a1
    sltu $t0, $t0, $a2
    bnez $t0, .Lhop_backward        # the destination begins inside of the source
    nop
    .end memmove
    .size memmove, .-memmove

    .globl memcpy
    .type memcpy, @function
    .ent memcpy
memcpy:
    sltiu $t0, $a2, 8
    bnez $t0, .Lhop_bytes
    move $v0, $a0

    andi $t0, $a0, 3
    beqz $t0, .Lhop_at_word
    andi $t1, $a1, 3

    hop_load $t2, 0, $a1            # there are 8 bytes at least
    hop_store_first $t2, $a0
    li $t1, 4
    subu $t1, $t1, $t0
    addu $a0, $a0, $t1
    addu $a1, $a1, $t1
    subu $a2, $a2, $t1
    andi $t1, $a1, 3

.Lhop_at_word:                      # the destination is at a multiple of four
    bnez $t1, .Lhop_unaligned
    srl $t9, $a2, 5
    beqz $t9, .Lhop_words
    andi $a2, $a2, 31
1:
    lw $t0, 0($a1)
    lw $t1, 4($a1)
    lw $t2, 8($a1)
    lw $t3, 12($a1)
    lw $t4, 16($a1)
    lw $t5, 20($a1)
    lw $t6, 24($a1)
    lw $t7, 28($a1)
    addiu $a1, $a1, 32
    addiu $t9, $t9, -1
    sw $t0, 0($a0)
    sw $t1, 4($a0)
    sw $t2, 8($a0)
    sw $t3, 12($a0)
    sw $t4, 16($a0)
    sw $t5, 20($a0)
    sw $t6, 24($a0)
    sw $t7, 28($a0)
    bnez $t9, 1b
    addiu $a0, $a0, 32

.Lhop_words:
    srl $t9, $a2, 2
    beqz $t9, .Lhop_bytes
    andi $a2, $a2, 3
2:
    lw $t0, 0($a1)
    addiu $t9, $t9, -1
    addiu $a1, $a1, 4
    sw $t0, 0($a0)
    bnez $t9, 2b
    addiu $a0, $a0, 4

.Lhop_bytes:
    beqz $a2, 4f
    nop
3:
    lbu $t0, 0($a1)
    addiu $a2, $a2, -1
    addiu $a1, $a1, 1
    sb $t0, 0($a0)
    bnez $a2, 3b
    addiu $a0, $a0, 1
4:
    jr $ra
    nop

.Lhop_unaligned:
    srl $t9, $a2, 4
    beqz $t9, 6f
    andi $a2, $a2, 15
5:
    hop_load $t0, 0, $a1
    hop_load $t1, 4, $a1
    hop_load $t2, 8, $a1
    hop_load $t3, 12, $a1
    addiu $a1, $a1, 16
    addiu $t9, $t9, -1
    sw $t0, 0($a0)
    sw $t1, 4($a0)
    sw $t2, 8($a0)
    sw $t3, 12($a0)
    bnez $t9, 5b
    addiu $a0, $a0, 16
6:
    srl $t9, $a2, 2
    beqz $t9, .Lhop_bytes
    andi $a2, $a2, 3
7:
    hop_load $t0, 0, $a1
    addiu $t9, $t9, -1
    addiu $a1, $a1, 4
    sw $t0, 0($a0)
    bnez $t9, 7b
    addiu $a0, $a0, 4
    b .Lhop_bytes
    nop

.Lhop_backward:                     # from the end: bytes until the destination is at a multiple of four, words, bytes
    move $v0, $a0
    addu $a0, $a0, $a2
    addu $a1, $a1, $a2
8:
    beqz $a2, 4b
    andi $t0, $a0, 3
    beqz $t0, 9f
    srl $t9, $a2, 4
    lbu $t0, -1($a1)
    addiu $a1, $a1, -1
    addiu $a2, $a2, -1
    sb $t0, -1($a0)
    b 8b
    addiu $a0, $a0, -1
9:
    beqz $t9, 11f
    andi $a2, $a2, 15
10:
    hop_load $t0, -4, $a1
    hop_load $t1, -8, $a1
    hop_load $t2, -12, $a1
    hop_load $t3, -16, $a1
    addiu $a1, $a1, -16
    addiu $t9, $t9, -1
    sw $t0, -4($a0)
    sw $t1, -8($a0)
    sw $t2, -12($a0)
    sw $t3, -16($a0)
    bnez $t9, 10b
    addiu $a0, $a0, -16
11:
    beqz $a2, 4b
    nop
12:
    lbu $t0, -1($a1)
    addiu $a1, $a1, -1
    addiu $a2, $a2, -1
    sb $t0, -1($a0)
    bnez $a2, 12b
    addiu $a0, $a0, -1
    jr $ra
    nop
    .end memcpy
    .size memcpy, .-memcpy

    .globl memset
    .type memset, @function
    .ent memset
memset:
    sltiu $t0, $a2, 8
    bnez $t0, 16f
    move $v0, $a0

    andi $a1, $a1, 255              # the byte four times
    sll $t0, $a1, 8
    or $a1, $a1, $t0
    sll $t0, $a1, 16
    or $a1, $a1, $t0

    andi $t0, $a0, 3
    beqz $t0, 13f
    li $t1, 4
    hop_store_first $a1, $a0
    subu $t1, $t1, $t0
    addu $a0, $a0, $t1
    subu $a2, $a2, $t1
13:
    srl $t9, $a2, 5
    beqz $t9, 15f
    andi $a2, $a2, 31
14:
    sw $a1, 0($a0)
    sw $a1, 4($a0)
    sw $a1, 8($a0)
    sw $a1, 12($a0)
    sw $a1, 16($a0)
    sw $a1, 20($a0)
    sw $a1, 24($a0)
    sw $a1, 28($a0)
    addiu $t9, $t9, -1
    bnez $t9, 14b
    addiu $a0, $a0, 32
15:
    srl $t9, $a2, 2
    beqz $t9, 16f
    andi $a2, $a2, 3
17:
    sw $a1, 0($a0)
    addiu $t9, $t9, -1
    bnez $t9, 17b
    addiu $a0, $a0, 4
16:
    beqz $a2, 19f
    nop
18:
    sb $a1, 0($a0)
    addiu $a2, $a2, -1
    bnez $a2, 18b
    addiu $a0, $a0, 1
19:
    jr $ra
    nop
    .end memset
    .size memset, .-memset
    .set pop
