//! What an instruction costs on a Cortex-M4F whose memory never makes it wait, by Arm's Cortex-M4 Technical Reference Manual r0p1,
//! tables 3-1 and 7-1, and the notes below them. Arm publishes no such table for the M33, whose pipeline is about as long: the same
//! numbers are used for it.
//!
//! | instructions | cycles |
//! |---|---|
//! | arithmetic, `SMLAD`, `SXTB16`, `SSAT`, moves | 1 (`MLS` 2, division 2 to 12: 7 is taken) |
//! | `LDR` | 2; 1 behind another load or store whose result it does not need |
//! | `STR` | 1: the write buffer takes it |
//! | `LDRD`, `STRD`, `LDM`, `STM`, `PUSH`, `POP`, `VLDM`, `VSTM` | 1 + registers |
//! | branches | 1, and 2 more where taken: the pipeline is filled again |
//! | `VADD`, `VMUL`, `VCVT`, `VMOV` of one register | 1; one more where the next instruction computes with the result |
//! | `VMOV` of two, `VLDR` | 2 |
//! | `VMLA` and its like, `VDIV`, `VSQRT` | 3, 14, 14 |

/// Cycles of ResNet-8 by X-CUBE-AI 10.2 on an STM32L4R5 and an STM32U575 (MLPerf Tiny v1.3): 1.590 and 1.401 for each of 12.50 million
/// multiply-accumulates.
pub const ST_M4: f64 = 19.9e6;
/// As [`ST_M4`].
pub const ST_M33: f64 = 17.5e6;

/// Wait states of an STM32L4R5's flash at 120 MHz (RM0432, table 12), and bytes of a line that is read at once.
const WAIT: u64 = 5;
const LINE: u64 = 32;

/// Mnemonic without width, condition or type, and operands.
fn parts(text: &str) -> (&str, &str) {
    let code = text.split_once('|').map_or(text, |(_, code)| code).trim();
    let (mnemonic, operands) = code.split_once(char::is_whitespace).unwrap_or((code, ""));
    (mnemonic.split('.').next().unwrap_or(mnemonic), operands.trim())
}

/// Registers in braces: of single names and ranges.
fn listed(operands: &str) -> u64 {
    let Some((_, list)) = operands.split_once('{') else { return 1 };
    let list = list.split('}').next().unwrap_or("");
    let number =
        |name: &str| name.trim().trim_start_matches(|c: char| c.is_ascii_alphabetic()).parse::<u64>().unwrap_or(0);
    list.split(',')
        .map(|part| part.split_once('-').map_or(1, |(from, to)| number(to).saturating_sub(number(from)) + 1))
        .sum()
}

fn is_single_access(mnemonic: &str) -> bool {
    (mnemonic.starts_with("ldr") || mnemonic.starts_with("str")) && mnemonic != "ldrd" && mnemonic != "strd"
}

fn is_branch(mnemonic: &str) -> bool {
    let condition = |m: &str| {
        ["eq", "ne", "hs", "lo", "cs", "cc", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le"].contains(&m)
    };
    matches!(mnemonic, "b" | "bl" | "bx" | "blx" | "cbz" | "cbnz" | "tbb" | "tbh" | "le")
        || mnemonic.strip_prefix('b').is_some_and(condition)
}

fn first_operand(operands: &str) -> &str {
    operands.split(',').next().unwrap_or("").trim()
}

/// Whether operands name a register, as a whole word.
fn names(operands: &str, register: &str) -> bool {
    operands.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == register)
}

/// Cycles of an instruction that ran so often, between its neighbours in memory.
pub fn cycles(executed: u64, taken: u64, text: &str, before: Option<&str>, after: Option<&str>) -> u64 {
    let (mnemonic, operands) = parts(text);
    if is_branch(mnemonic) {
        return executed + 2 * taken;
    }
    let refill = if operands.contains("pc") && taken > 0 { 2 * taken } else { 0 };
    let each = match mnemonic {
        "ldrd" | "strd" => 3,
        m if m.starts_with("ldm") || m.starts_with("stm") || m.starts_with("vldm") || m.starts_with("vstm") => {
            1 + listed(operands)
        }
        "push" | "pop" | "vpush" | "vpop" => 1 + listed(operands),
        m if m.starts_with("ldr") => {
            let pipelined = before.map(parts).is_some_and(|(other, its)| {
                let result = first_operand(its);
                let address = operands.split_once('[').map_or("", |(_, address)| address);
                is_single_access(other) && !(other.starts_with("ldr") && names(address, result))
            });
            if pipelined { 1 } else { 2 }
        }
        m if m.starts_with("str") => 1,
        "vldr" | "vstr" => 2,
        "vmov" if operands.matches(',').count() >= 3 => 2,
        "vmla" | "vmls" | "vfma" | "vfms" | "vnmla" | "vnmls" => 3,
        "vdiv" | "vsqrt" => 14,
        "udiv" | "sdiv" => 7,
        "mls" => 2,
        m if m.starts_with('v') && m != "vmrs" && m != "vmov" => {
            let result = first_operand(operands);
            let used = after.map(parts).is_some_and(|(next, its)| {
                let sources = its.split_once(',').map_or("", |(_, sources)| sources);
                next.starts_with('v') && names(sources, result)
            });
            1 + u64::from(used)
        }
        _ => 1,
    };
    executed * each + refill
}

/// Cycles that flash makes a NUCLEO-L4R5ZI wait, at most: a line for each [`LINE`] bytes of weights, which stream past its data
/// cache; and one for each branch that is taken, as if none were in the instruction cache. What runs on is prefetched.
pub fn stalls(executed: u64, taken: u64, text: &str) -> u64 {
    let (mnemonic, operands) = parts(text);
    let weights = if mnemonic.starts_with("vldm") { executed * 4 * listed(operands) * WAIT / LINE } else { 0 };
    weights + WAIT * taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_cost_what_the_manual_says() {
        let each = |text: &str, before: Option<&str>, after: Option<&str>| cycles(1, 0, text, before, after);
        assert_eq!(each("f|smlad r3, r1, r11, r3", None, None), 1);
        assert_eq!(each("f|ldm r0!, {r1, r2}", None, None), 3);
        assert_eq!(each("f|vldmia r1!, {s0, s1, s2}", None, None), 4);
        assert_eq!(each("f|vpush {s16-s31}", None, None), 17);
        assert_eq!(each("f|ldr.w r0, [r1], #4", None, None), 2);
        assert_eq!(each("f|ldr r2, [r3]", Some("f|ldr r0, [r1]"), None), 1);
        assert_eq!(each("f|ldr r2, [r0]", Some("f|ldr r0, [r1]"), None), 2);
        assert_eq!(each("f|vmul.f32 s0, s0, s19", None, Some("f|vcvtr.s32.f32 s0, s0")), 2);
        assert_eq!(each("f|vmul.f32 s0, s0, s19", None, Some("f|vmul.f32 s1, s1, s19")), 1);
        assert_eq!(each("f|vmov s0, s1, r3, r4", None, None), 2);
        assert_eq!(cycles(10, 9, "f|bne.w #0x40", None, None), 28);
        assert_eq!(cycles(10, 0, "f|bic.w r3, r3, r3", None, None), 10);
    }
}
