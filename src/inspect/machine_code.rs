//! The few x86-64 instructions that tell where a frame pointer must be:
//! calls, jumps through linkage tables, the beginnings of functions.

use super::modules::Modules;
use crate::sys::sampler;

/// The frame pointer of a function stopped at `here`, behind its prologue,
/// with its stack pointer at `sp`.
pub fn frame_pointer_by_prologue(start: u64, here: u64, sp: u64) -> Option<u64> {
    let mut code = [0; 48];
    let len = sampler::read_memory(&mut code, start);
    let (length, below) = decode_prologue(&code[..len])?;
    (here >= start + length).then(|| sp.checked_add(below)).flatten()
}

/// Length of a standard prologue and how far it leaves the stack pointer
/// below the frame pointer. `None` for any other, such as those that align
/// the stack or touch it page by page.
fn decode_prologue(code: &[u8]) -> Option<(u64, u64)> {
    const ENDBR64: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];
    const PUSH_RBP_MOV_RBP_RSP: &[u8] = &[0x55, 0x48, 0x89, 0xe5];
    let mut rest = code.strip_prefix(ENDBR64).unwrap_or(code);
    rest = rest.strip_prefix(PUSH_RBP_MOV_RBP_RSP)?;
    let mut below = 0;
    loop {
        rest = match rest {
            [0x41, 0x50..=0x57, rest @ ..] | [0x50..=0x57, rest @ ..] => rest,
            _ => break,
        };
        below += 8;
    }
    match rest {
        [0x48, 0x83, 0xec, size, after @ ..] => {
            below += u64::try_from(size.cast_signed()).ok()?;
            rest = after;
        }
        [0x48, 0x81, 0xec, a, b, c, d, after @ ..] => {
            below += u64::try_from(i32::from_le_bytes([*a, *b, *c, *d])).ok()?;
            rest = after;
        }
        _ => {}
    }
    // and rsp, N
    if matches!(rest, [0x48, 0x81 | 0x83, 0xe4, ..]) {
        return None;
    }
    Some(((code.len() - rest.len()) as u64, below))
}

/// Whether `returns_to` follows a call instruction, and if so what it calls as
/// far as the instruction alone tells.
// "No call" and "a call of something unknown" are different answers.
pub fn call_before(modules: &Modules, returns_to: u64) -> Option<Option<u64>> {
    modules.find(returns_to.checked_sub(1)?)?;
    let mut code = [0; 7];
    if sampler::read_memory(&mut code, returns_to.checked_sub(7)?) != code.len() {
        return None;
    }
    let displacement = || {
        let bytes: [u8; 4] = [code[3], code[4], code[5], code[6]];
        returns_to.wrapping_add_signed(i64::from(i32::from_le_bytes(bytes)))
    };
    // call rel32
    if code[2] == 0xe8 {
        let target = displacement();
        if modules.find(target).is_some() {
            return Some(Some(through_stub(target)));
        }
    }
    // call [rip + disp32]
    if code[1..3] == [0xff, 0x15] {
        return Some(read_word(displacement()));
    }
    // call r/m64: opcode FF /2 with 0, 1 or 4 bytes of displacement, with and
    // without a SIB byte.
    let length_fits = |modrm: u8, len: usize| {
        let sib = usize::from(modrm & 7 == 4 && modrm >> 6 != 3);
        let displacement = match modrm >> 6 {
            0 if modrm & 7 == 5 => 4,
            0 | 3 => 0,
            1 => 1,
            _ => 4,
        };
        len == 2 + sib + displacement
    };
    let indirect = (2..=7).any(|len| {
        let at = code.len() - len;
        let modrm = code[at + 1];
        code[at] == 0xff && modrm >> 3 & 7 == 2 && length_fits(modrm, len)
    });
    indirect.then_some(None)
}

/// Where a procedure linkage table's entry jumps to; other code is left alone.
fn through_stub(target: u64) -> u64 {
    let mut code = [0; 12];
    if sampler::read_memory(&mut code, target) != code.len() {
        return target;
    }
    // endbr64, then jmp [rip + disp32], perhaps with a bnd prefix.
    let mut at = if code.starts_with(&[0xf3, 0x0f, 0x1e, 0xfa]) { 4 } else { 0 };
    at += usize::from(code[at] == 0xf2);
    let jump = match code.get(at..at + 6) {
        Some(&[0xff, 0x25, a, b, c, d]) => i32::from_le_bytes([a, b, c, d]),
        _ => return target,
    };
    let next = target.wrapping_add(at as u64 + 6);
    read_word(next.wrapping_add_signed(i64::from(jump))).unwrap_or(target)
}

fn read_word(address: u64) -> Option<u64> {
    let mut word = [0; 8];
    (sampler::read_memory(&mut word, address) == word.len()).then(|| u64::from_le_bytes(word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_usual_prologues_are_understood() {
        for (code, expect) in [
            (&[0x55, 0x48, 0x89, 0xe5, 0x90][..], Some((4, 0))),
            // push r15; push r14; push rbx; sub rsp, 0x38
            (
                &[0x55, 0x48, 0x89, 0xe5, 0x41, 0x57, 0x41, 0x56, 0x53, 0x48, 0x83, 0xec, 0x38],
                Some((13, 0x38 + 24)),
            ),
            // endbr64 first; sub rsp, 0x1b8
            (
                &[
                    0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5, 0x48, 0x81, 0xec, 0xb8, 0x01,
                    0, 0,
                ],
                Some((15, 0x1b8)),
            ),
            // and rsp, -32
            (&[0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xe4, 0xe0], None),
            // sub rsp, 0x18: no frame pointer at all
            (&[0x48, 0x83, 0xec, 0x18], None),
            (&[], None),
        ] {
            assert_eq!(decode_prologue(code), expect, "{code:x?}");
        }
    }

    proptest! {
        #[test]
        fn any_code_is_harmless(code in proptest::collection::vec(any::<u8>(), 0..48)) {
            if let Some((length, _)) = decode_prologue(&code) {
                prop_assert!(length <= code.len() as u64);
            }
        }
    }
}
