//! What arrives in tunnels at ulvs decap.
#![no_main]

#[allow(dead_code, reason = "other targets and the tests use the rest")]
#[path = "../../hostile/shared/mod.rs"]
mod shared;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shared::play_bytes(shared::script::Target::Tunnel, bytes));
