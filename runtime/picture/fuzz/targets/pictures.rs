//! [`judge`](paradise_picture_fuzz::judge) under libFuzzer; `engine/fuzz/run.sh pictures` builds and runs it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    paradise_picture_fuzz::judge(data);
});
