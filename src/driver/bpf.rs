//! Instructions of the kernel's classic BPF, in the names of what they do: A is the accumulator, X the
//! index register.

use socket2::SockFilter;

/// An instruction with its constant, and how many that follow it skips if its condition holds (`jt`)
/// and if it does not (`jf`).
pub fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> SockFilter {
    // No code has more than 16 bits.
    SockFilter::new(code as u16, jt, jf, k)
}

/// Load A from a place in the packet, in the network's byte order.
pub const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
pub const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
pub const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
/// The same from X bytes behind it.
pub const LOAD_WORD_INDEXED: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_IND;
pub const LOAD_HALF_INDEXED: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
pub const LOAD_BYTE_INDEXED: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_IND;
/// Loads the packet's length.
pub const LOAD_LENGTH: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_LEN;
/// Loads X with the length of the IPv4 header at a place.
pub const LOAD_HEADER_LEN_X: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
/// Load a constant.
pub const LOAD_CONSTANT: u32 = libc::BPF_LD | libc::BPF_IMM;
pub const LOAD_CONSTANT_X: u32 = libc::BPF_LDX | libc::BPF_IMM;
/// Load one of sixteen words of memory.
pub const LOAD_MEMORY: u32 = libc::BPF_LD | libc::BPF_MEM;
pub const LOAD_MEMORY_X: u32 = libc::BPF_LDX | libc::BPF_MEM;
/// Stores A in one of them.
pub const STORE: u32 = libc::BPF_ST;
/// Move one register to the other.
pub const A_TO_X: u32 = libc::BPF_MISC | libc::BPF_TAX;
pub const X_TO_A: u32 = libc::BPF_MISC | libc::BPF_TXA;
/// Compute A from itself and a constant.
pub const ADD: u32 = libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K;
pub const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
pub const MULTIPLY: u32 = libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K;
pub const MODULO: u32 = libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K;
pub const SHIFT_RIGHT: u32 = libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K;
/// Computes A from itself and X.
pub const XOR_X: u32 = libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X;
/// Compare A with a constant, and skip instructions.
pub const JUMP_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
pub const JUMP_GREATER: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
pub const JUMP_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
pub const JUMP_BITS: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
/// Skips as many instructions as its constant says.
pub const JUMP_ALWAYS: u32 = libc::BPF_JMP | libc::BPF_JA;
/// End the program with a constant, or with A.
pub const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
pub const RETURN_A: u32 = libc::BPF_RET | libc::BPF_A;
