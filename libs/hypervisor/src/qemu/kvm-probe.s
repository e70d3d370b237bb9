# A guest that shows that KVM runs a modern kernel's code at the speed of hardware. The bytes of kvm-probe.ts are this
# file's: `as kvm-probe.s -o p.o && objcopy -O binary p.o rom.bin`, up to the first long run of zeroes.
# A 64 KiB ROM at the end of the first MiB: real mode, protected mode, long mode with paging, ten million turns of a loop
# that touches the stack (some 20 ms of a real CPU; minutes where KVM interprets it), then 0x2a to the exit device.
.code16
.org 0
start:
  cli
  lgdtl %cs:(gdtr - start)
  mov %cr0, %eax
  or $1, %eax
  mov %eax, %cr0
  ljmpl $0x08, $0xf0000 + (protected - start)
.code32
protected:
  mov $0x10, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  mov $0x8000, %esp
  # One page of 2 MiB, mapped where it is: PML4 at 0x1000, PDPT at 0x2000, PD at 0x3000.
  movl $0x2003, 0x1000
  movl $0, 0x1004
  movl $0x3003, 0x2000
  movl $0, 0x2004
  movl $0x83, 0x3000
  movl $0, 0x3004
  mov $0x1000, %eax
  mov %eax, %cr3
  mov %cr4, %eax
  or $0x20, %eax
  mov %eax, %cr4
  mov $0xc0000080, %ecx
  rdmsr
  or $0x100, %eax
  wrmsr
  mov %cr0, %eax
  or $0x80000000, %eax
  mov %eax, %cr0
  ljmpl $0x18, $0xf0000 + (long - start)
.code64
long:
  mov $0x8000, %rsp
  mov $10000000, %ecx
1: push %rcx
  pop %rcx
  dec %ecx
  jnz 1b
  mov $0x2a, %al
  out %al, $0xf4
  hlt
  jmp .
.balign 8
gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff
gdtr: .word 31
 .long 0xf0000 + (gdt - start)
.code16
.org 0xfff0
  ljmp $0xf000, $0
.org 0x10000
