//! [`judge`](paradise_engine_fuzz::judge) under libFuzzer; `run.sh` builds and runs it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    paradise_engine_fuzz::judge(data);
});
