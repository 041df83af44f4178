#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bricklayer_frontend::fuzz::words(data));
