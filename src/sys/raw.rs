//! System calls without libc: for code that runs where libc must not be
//! entered, such as the forked copy of a process with many threads.

use std::arch::asm;

/// A system call with up to six arguments; a negative answer is an error number.
///
/// # Safety
/// That of the call itself.
#[inline(always)]
pub unsafe fn call(number: i64, arguments: [usize; 6]) -> isize {
    let answer;
    // SAFETY: the kernel changes rax, rcx and r11 only, besides what the call
    // does by the caller's word.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => answer,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            in("r9") arguments[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    answer
}
